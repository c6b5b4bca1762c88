"""The cache of replies: nothing is paid for twice, and damage costs no more than what is damaged."""

import os
import sqlite3

import pytest

from laser.core.errors import ServerError
from laser.serving.cache import CachedEndpoint
from laser.serving.endpoint import Endpoint
from servers import serving


def replies(cached, payloads, **options):
    return [outcome.reply for outcome in cached.post_each("/x", payloads, max_failures=1, **options)]


@pytest.mark.slow
def test_no_request_is_sent_twice_also_by_another_process(tmp_path):
    with serving(lambda path, payload, number: {"number": number}) as server:
        payloads = [{"q": "a"}, {"q": "b"}, {"q": "a"}]
        file = tmp_path / "c" / "replies.sqlite"
        first, again = (replies(CachedEndpoint(Endpoint(server.url), file), payloads) for _ in range(2))
        assert first == again
        assert first[0] == first[2] != first[1]
        assert len(server.asked) == 2
        replies(CachedEndpoint(Endpoint(server.url), None), payloads)
        assert len(server.asked) == 4


@pytest.mark.slow
def test_address_path_and_the_whole_payload_identify_a_reply(tmp_path):
    with serving(lambda path, payload, number: {"number": number}) as server:
        file, base = tmp_path / "replies.sqlite", {"model": "m", "messages": [{"role": "user", "content": "q"}]}
        other = server.url.replace("127.0.0.1", "localhost")
        asked = [(server.url, "/x", base), (server.url, "/y", base), (other, "/x", base)]
        asked += [(server.url, "/x", {**base, **more}) for more in ({"model": "n"}, {"a": {"b": 1}}, {"a": {"b": 2}})]
        for _ in range(2):
            given = []
            for url, path, payload in asked:
                cached = CachedEndpoint(Endpoint(url), file)
                given += [outcome.reply["number"] for outcome in cached.post_each(path, [payload], max_failures=1)]
            assert given == [0, 1, 2, 3, 4, 5]


@pytest.mark.slow
def test_a_full_disk_costs_the_cache_and_not_the_requests(tmp_path):
    with serving(lambda path, payload, number: {"long": "x" * 5000}) as server:
        cached = CachedEndpoint(Endpoint(server.url), tmp_path / "replies.sqlite")
        cached._database.execute("PRAGMA max_page_count = 4")
        with pytest.warns(RuntimeWarning, match=r"replies\.sqlite fails \(database or disk is full\).*without it"):
            found = replies(cached, [{"q": number} for number in range(9)])
        assert found == [{"long": "x" * 5000}] * 9
        assert replies(cached, [{"q": 0}]) == found[:1]


@pytest.mark.slow
@pytest.mark.parametrize(
    "reply",
    ["{bad", "", b"\xff\xfe", b'"\x00', 7, 1.5, "[" * 100_000, "7", "null", '"text"', '{"other": 1}'],
    ids=lambda reply: repr(reply)[:10],
)
def test_a_damaged_reply_is_one_request_and_heals(tmp_path, reply):
    """Replies that are not JSON, and JSON that is not what was asked for."""

    def is_wanted(reply):
        return isinstance(reply, dict) and "number" in reply

    file, payloads = tmp_path / "replies.sqlite", [{"q": number} for number in range(5)]
    with serving(lambda path, payload, number: {"number": payload["q"]}) as server:
        first = replies(CachedEndpoint(Endpoint(server.url), file), payloads, keep=is_wanted)
        with sqlite3.connect(file) as database:
            database.execute("UPDATE replies SET reply = CAST(? AS TEXT) WHERE rowid = 2", (reply,))
        for _ in range(2):
            cached = CachedEndpoint(Endpoint(server.url), file)
            assert replies(cached, payloads, keep=is_wanted) == first
            cached.close()
        assert len(server.asked) == 6


@pytest.mark.slow
def test_a_damaged_page_costs_its_replies_alone(tmp_path):
    file, payloads = tmp_path / "replies.sqlite", [{"q": number} for number in range(200)]
    with serving(lambda path, payload, number: {"long": f"{payload['q']}" * 300}) as server:
        first = CachedEndpoint(Endpoint(server.url), file)
        expected = replies(first, payloads)
        first.close()
        content = bytearray(file.read_bytes())
        page = len(content) // 4096 // 2
        content[page * 4096 : (page + 1) * 4096] = b"\xee" * 4096
        file.write_bytes(content)
        with pytest.warns(RuntimeWarning, match="is damaged .*delete it"):
            assert replies(CachedEndpoint(Endpoint(server.url), file), payloads) == expected
        assert 200 < len(server.asked) < 300


@pytest.mark.slow
def test_a_table_that_vanishes_costs_no_reply(tmp_path):
    with serving(lambda path, payload, number: {"number": payload["q"]}) as server:
        cached = CachedEndpoint(Endpoint(server.url), tmp_path / "replies.sqlite")
        replies(cached, [{"q": 1}])
        with sqlite3.connect(tmp_path / "replies.sqlite") as database:
            database.execute("DROP TABLE replies")
        with pytest.warns(RuntimeWarning, match="no such table"):
            assert replies(cached, [{"q": 1}, {"q": 2}]) == [{"number": 1}, {"number": 2}]
        again = CachedEndpoint(Endpoint(server.url), tmp_path / "replies.sqlite")  # made anew
        assert replies(again, [{"q": 1}]) == replies(again, [{"q": 1}])
        assert len(server.asked) == 4


def other_columns(path):
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE replies (id INTEGER, answer TEXT)")


def other_database(path):
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE experiments (id INTEGER)")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (other_columns, "has other columns"),
        (other_database, "the database of another program"),
        (lambda path: path.write_text('{"prompt": "x"}\n' * 100), "cannot be used .*not a database.*name another"),
        (lambda path: path.mkdir(), "not a regular file"),
    ],
    ids=["columns", "database", "text", "folder"],
)
def test_a_file_of_something_else_is_refused_and_left_as_it_is(tmp_path, make, words):
    file = tmp_path / "replies.sqlite"
    make(file)
    before = file.read_bytes() if file.is_file() else None
    with pytest.raises(ServerError, match=words):
        CachedEndpoint(Endpoint("http://127.0.0.1:1"), file)
    assert before is None or file.read_bytes() == before


@pytest.mark.parametrize("end", ["-journal", "-wal", "-shm"])
@pytest.mark.parametrize("plant", ["link", "hard link", "FIFO", "folder"])
@pytest.mark.parametrize("is_new", [True, False])
def test_nothing_is_written_or_read_through_what_is_planted_next_to_it(tmp_path, end, plant, is_new):
    file, victim = tmp_path / "replies.sqlite", tmp_path / "victim"
    victim.write_bytes(b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7" + b"x" * 600)  # begins as a journal does
    if not is_new:
        CachedEndpoint(Endpoint("http://127.0.0.1:1"), file).close()
    sibling = tmp_path / f"replies.sqlite{end}"
    {
        "link": lambda: sibling.symlink_to(victim),
        "hard link": lambda: os.link(victim, sibling),
        "FIFO": lambda: os.mkfifo(sibling),
        "folder": sibling.mkdir,
    }[plant]()
    before = victim.read_bytes()
    with pytest.raises(ServerError, match=r"replies\.sqlite cannot be used .*; delete it or name another file"):
        CachedEndpoint(Endpoint("http://127.0.0.1:1"), file)
    assert victim.read_bytes() == before


def test_the_journal_of_a_killed_process_is_used(tmp_path):
    file = tmp_path / "replies.sqlite"
    CachedEndpoint(Endpoint("http://127.0.0.1:1"), file).close()
    (tmp_path / "replies.sqlite-journal").write_bytes(b"\0" * 512)
    CachedEndpoint(Endpoint("http://127.0.0.1:1"), file).close()
