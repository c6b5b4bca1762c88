"""One server or several: exactly one of `url` and `urls`, and a resolved configuration that reads back as itself."""

import pytest

from laser.config import parse_config
from laser.core.errors import ConfigError

ONE, TWO = "http://127.0.0.1:8000", "http://127.0.0.1:8001"
TABLE = {"policy": {"model": "m"}, "data": {"type": "embedded"}}


def parse(server=None, **rm):
    models = [{"name": "rm", "type": "http", **rm}]
    return parse_config({**TABLE, "generation": {"server": server or {}}, "rewards": {"models": models}})


def test_urls_replace_url_and_survive_the_resolved_configuration():
    for config in (parse(url=ONE), parse({"urls": [ONE, TWO]}, urls=[TWO])):
        again = parse_config(config.model_dump(mode="json"))
        assert again == config
    assert (config.generation.server.url, config.generation.server.urls) == (None, (ONE, TWO))
    assert (config.rewards.models[0].url, config.rewards.models[0].urls) == (None, (TWO,))
    assert parse(url=ONE).generation.server.url == ONE


@pytest.mark.parametrize(
    ("server", "rm", "words"),
    [
        ({}, {}, "rewards.models.0: 'url' is missing; add it, or urls for several servers"),
        ({}, {"urls": []}, "rewards.models.0: 'url' is missing"),
        ({}, {"url": ONE, "urls": [TWO]}, "rewards.models.0: url and urls are both set; remove one of them"),
        ({}, {"urls": [ONE, f"{ONE}/v1/"]}, "rewards.models.0: urls names a server twice; name each once"),
        ({}, {"urls": ["http://node", "http://NODE:80/"]}, "urls names a server twice"),
        ({"url": ONE, "urls": [TWO]}, {"url": ONE}, "generation.server: url and urls are both set"),
        ({"url": None}, {"url": ONE}, "generation.server: 'url' is missing"),
        ({}, {"urls": [ONE, "localhost:8000"]}, "'localhost:8000' is not the address of a server; write http://"),
        ({}, {"urls": ONE}, "rewards.models.0.urls: input should be a valid tuple"),
    ],
)
def test_what_cannot_be_meant_is_a_sentence_with_its_place(server, rm, words):
    with pytest.raises(ConfigError) as caught:
        parse(server, **rm)
    assert words in str(caught.value)


def test_no_address_of_several_may_carry_a_secret():
    with pytest.raises(ConfigError) as caught:
        parse(urls=[ONE, "http://me:secret@host"])
    assert "secret" not in str(caught.value)
