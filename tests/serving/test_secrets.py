"""A key in every form in which a server could repeat it: none of eight characters or more comes through."""

import base64
import html
import json
import random
import time
import urllib.parse

import pytest

from laser.core.errors import ServerError
from laser.serving.cache import CachedEndpoint
from laser.serving.endpoint import Endpoint
from laser.serving.secrets import Secret
from servers import serving

KEY = "sk-live/Zq8+Vb72mNpQrStUvWxYz0123456789abcdefghijKLMNOPQRSTUVWXYZ0987654321=-end"


def leaks(text):
    """Whether eight characters of the key are in a text, plain or in one of its encodings."""
    forms = [KEY, KEY.encode().hex(), KEY.encode().hex().upper()]
    for offset in range(3):
        encoded = base64.b64encode(b"x" * offset + KEY.encode()).decode()[4:-4]
        forms += [encoded, encoded.replace("+", "-").replace("/", "_")]
    plain = urllib.parse.unquote(html.unescape(text))
    return any(form[at : at + 8] in one for form in forms for at in range(len(form) - 7) for one in (text, plain))


FORMS = {
    "plain": KEY,
    "beginning": KEY[:20],
    "middle": KEY[10:18],
    "php": KEY.replace("/", "\\/"),
    "dotnet": KEY.replace("+", "\\u002B"),
    "all escaped": "".join(f"\\u{ord(c):04x}" for c in KEY),
    "escaped twice": json.dumps(json.dumps("".join(f"\\u{ord(c):04x}" for c in KEY))),
    "python repr": "".join(f"\\x{ord(c):02x}" for c in KEY),
    "address": urllib.parse.quote(KEY, safe=""),
    "address twice": urllib.parse.quote(urllib.parse.quote(KEY, safe=""), safe=""),
    "html": html.escape(KEY.replace("/", "&#x2F;").replace("+", "&plus;")),
    "base64": base64.b64encode(KEY.encode()).decode(),
    "basic": base64.b64encode(f"Bearer {KEY}".encode()).decode(),
    "basic, user": base64.b64encode(f":{KEY}".encode()).decode(),
    "base64 for addresses": base64.urlsafe_b64encode(f"ab{KEY}".encode()).decode(),
    "base64 of a part": base64.b64encode(KEY[5:25].encode()).decode(),
    "hexadecimal": KEY.encode().hex(),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_key_is_removed_in_every_form(form):
    text = f"before {FORMS[form]} after"
    removed = Secret(KEY).removed(text)
    assert "***" in removed
    assert not leaks(removed)
    assert removed.startswith("before ")
    assert removed.endswith(" after")
    assert Secret("another-key-of-some-length").removed(text) == text


def test_a_key_is_removed_from_any_mixture_of_escapes():
    rng = random.Random(0)
    spell = [str, "\\u{:04x}", "\\u{:04X}", "%{:02x}", "%{:02X}", "&#{};", "&#x{:x};", "\\x{:02x}"]
    for _ in range(300):
        chosen = [rng.choice(spell) for _ in KEY]
        text = "".join(c if one is str else one.format(ord(c)) for c, one in zip(KEY, chosen, strict=True))
        assert not leaks(Secret(KEY).removed(f"you said {text} twice"))


def test_other_texts_and_numbers_stay_as_they_are():
    value = {"a": ["C:\\new\\u00e9", "100%25 &amp; é ü 你好", 12, 1.5, None, True, "sk-live"], "sk-live": "x"}
    assert Secret(KEY).removed_from(value) == value
    assert Secret("k").removed("ask for tokens, k") == "ask for tokens, ***"  # a placeholder is removed as a word only


@pytest.mark.slow
def test_hostile_replies_do_not_take_long():
    """Two mebibytes of escapes, of beginnings of the key, of keys."""
    for text in ("%41" * 700_000, "sk-l" * 500_000, KEY * 25_000):
        begun = time.process_time()
        Secret(KEY).removed(text)
        assert time.process_time() - begun < 10


REPLIES = {
    "fastapi": (422, {"detail": [{"loc": ["header"], "msg": "bad", "input": f"Bearer {KEY}"}]}, {}),
    "openai": (401, {"error": {"message": f"Incorrect API key provided: {KEY}"}}, {}),
    "escaped": (400, FORMS["php"].join(['{"error": "', '"}']).encode(), {}),
    "escaped, not JSON": (400, f"bad key {FORMS['php']}".encode(), {}),
    "long, not JSON": (200, (b"x" * 290 + KEY.encode()), {}),
    "status 500": (500, f"{'x' * 270} {KEY}".encode(), {}),
    "nested": (400, b"[" * 700 + json.dumps(KEY).encode() + b"]" * 700, {}),
    "redirect": (302, {}, {"Location": f"http://127.0.0.1:1/{KEY}"}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", REPLIES)
def test_no_message_has_the_key_however_it_is_shortened(monkeypatch, name):
    monkeypatch.setenv("A_KEY", KEY)
    with serving(lambda *_: REPLIES[name]) as server, pytest.raises(ServerError) as caught:
        Endpoint(server.url, api_key_env="A_KEY", retries=0).post("/x", {})
    assert not leaks(str(caught.value))
    assert caught.value.__cause__ is None  # whose text could have it


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_no_reply_and_no_cache_has_the_key(monkeypatch, tmp_path, form):
    monkeypatch.setenv("A_KEY", KEY)
    body = f'{{"choices": [{{"message": {{"content": "4 {FORMS[form]}"}}}}]}}'
    body = body if form not in ("escaped twice", "python repr") else json.dumps({"said": FORMS[form]})
    with serving(lambda *_: body.encode()) as server:
        cached = CachedEndpoint(Endpoint(server.url, api_key_env="A_KEY"), tmp_path / "replies.sqlite")
        (outcome,) = cached.post_each("/x", [{}], max_failures=1)
        cached.close()
    assert "***" in json.dumps(outcome.reply)
    assert not leaks(json.dumps(outcome.reply))
    assert not leaks((tmp_path / "replies.sqlite").read_bytes().decode("latin-1"))


@pytest.mark.parametrize(
    "key", ["sk-live-ABCDEFGH\nsk-other", "sk-live ABCDEFGH", "sk-live\rABCDEFGH", "sk-livé-ABCDEFGH"]
)
def test_a_key_that_no_header_can_carry_is_refused_without_being_shown(monkeypatch, key):
    monkeypatch.setenv("A_KEY", key)
    with pytest.raises(ServerError, match="A_KEY has a line break, a blank") as caught:
        Endpoint("http://127.0.0.1:1", api_key_env="A_KEY")
    assert "live" not in str(caught.value)


@pytest.mark.slow
def test_blanks_around_a_key_are_dropped(monkeypatch):
    monkeypatch.setenv("A_KEY", " sk-live-ABCDEFGH\n")
    with serving(lambda *_: {}) as server:
        Endpoint(server.url, api_key_env="A_KEY").post("/x", {})
        assert server.headers[0]["Authorization"] == "Bearer sk-live-ABCDEFGH"
