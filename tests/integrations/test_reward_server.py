"""The reward server over HTTP: scores, groups, learning, restarts, and what it refuses."""

import base64
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from disks import can_mount, small_disk
from laser import Router
from laser.core.errors import ConfigError, RunDirectoryError
from laser.core.state import unpack_state
from laser.integrations.server.access import read_token
from laser.integrations.server.command import Limits, make_worker
from reward_servers import DIRECT, FUNCTIONS, make_config, running

RECORDED = [json.loads(line) for line in Path(__file__).with_name("openrlhf_requests.jsonl").read_text().splitlines()]
SUM = {"prompt": "2 + 2 = ?", "response": "4", "label": "4"}


def same(first, second):
    """Equal state dicts, arrays bit by bit."""
    assert first.keys() == second.keys()
    for name, value in first.items():
        if isinstance(value, np.ndarray):
            assert np.array_equal(value, second[name], equal_nan=True), name
        else:
            assert json.dumps(value, sort_keys=True) == json.dumps(second[name], sort_keys=True), name


@pytest.fixture
def config(tmp_path):
    return make_config(tmp_path, "length", "digits")


def test_each_format_gets_the_score_of_a_direct_call(config, tmp_path):
    for number, recorded in enumerate(RECORDED):
        with running(config, tmp_path / f"state-{number}") as server:
            status, reply = server.post(recorded["body"].encode(), "/get_reward", **recorded["headers"])
            assert status == 200
            name = ["length", "digits"][reply["extra_logs"]["laser_arm"][0]]
            assert reply["rewards"] == reply["scores"] == [DIRECT[name](recorded["read"][1])]
    with running(config, tmp_path / "state") as server:
        status, reply = server.post({"prompt": "a long question", "response": "it is 12"}, "/slime")
        assert (status, reply in (8.0, 2.0)) == (200, True)
        reply = server.score([{"role": "user", "content": "hi"}], "it is 12")
        assert reply["scores"] == reply["filled"] == DIRECT[reply["arms"]]("it is 12")


def test_another_laser_uses_it_as_a_reward_model(config, tmp_path):
    from laser.rewards.http import HttpRM
    from laser.serving.endpoint import Endpoint
    from tiny import make_prompt

    with running(config, tmp_path / "state") as server:
        (scores,) = HttpRM(Endpoint(server.url)).score([make_prompt("2 + 2 = ?")], [["4", "44", "x"]])
    assert scores.tolist() in ([1.0, 2.0, 1.0], [1.0, 2.0, 0.0])


def test_samples_that_come_one_by_one_are_chosen_for_and_learned_from_as_a_group(config, tmp_path):
    """The same as a router that gets whole groups."""
    prompts = [f"{number} + 1 = ?" for number in range(6)]
    answers = [[str(number + 1), "10", "no", "a longer answer"] for number in range(6)]
    router = Router(config)
    for number, prompt in enumerate(prompts):
        router.score([prompt] * 4, answers[number], 0, gold=[str(number + 1)] * 4)
        router.learn(0, prompts=[prompt])
    with running(config, tmp_path / "state", samples=4) as server:
        for number, prompt in enumerate(prompts):
            names = {server.score(prompt, text, labels=str(number + 1))["arms"] for text in answers[number]}
            assert names == {router.choose([prompt], 0)[0].name}
        assert server.num_learned == 6
        learned = server.state()
    for name, value in router.state_dict().items():
        if name.startswith("selector."):
            assert np.array_equal(value, learned[name]), name


def test_many_clients_lose_nothing_and_a_group_has_one_reward_model(config, tmp_path):
    samples = [(f"question {number // 4}", "9" * (number % 7) + "x" * (number % 5)) for number in range(400)]
    with running(config, tmp_path / "state", samples=4) as server, ThreadPoolExecutor(40) as threads:
        replies = list(threads.map(lambda sample: server.score(*sample, labels="9"), samples))
        counts = server.ledger.counts
    by_prompt = {}
    for (prompt, text), reply in zip(samples, replies, strict=True):
        assert reply["scores"] == DIRECT[reply["arms"]](text)
        by_prompt.setdefault(prompt, set()).add(reply["arms"])
    assert all(len(names) == 1 for names in by_prompt.values())
    assert sum(count for (name, _), count in counts.items() if name == "samples") == 400


def test_after_a_kill_everything_is_as_it_was_without_a_call_of_a_reward_model(config, tmp_path):
    with running(config, tmp_path / "state", samples=3) as server:
        for number in range(5):
            for text in ("1", "22", "no"):
                server.score(f"prompt {number}", text, labels="22")
        half = server.score("open", "12", labels="12")
        before = server.state()
    (tmp_path / "scores.py").write_text(FUNCTIONS.replace("return", "raise AssertionError('called')\n    return"))
    with pytest.raises(RunDirectoryError, match="has other weights or code"):
        make_worker(config, tmp_path / "state", Limits(samples=3))
    worker = make_worker(config, tmp_path / "state", Limits(samples=3), changed_rewards=True)
    after = worker.ledger.state_dict()
    worker.ledger.release()
    before.pop("identity"), after.pop("identity")
    same(before, after)
    make_config(tmp_path, "length", "digits")
    with running(config, tmp_path / "state", samples=3, changed_rewards=True) as server:
        assert server.score("open", "1234", labels="12")["arms"] == half["arms"]


def test_a_snapshot_replaces_the_journal_and_means_the_same(config, tmp_path):
    with running(config, tmp_path / "state", samples=2) as server:
        for text in ("1", "22", "333"):
            server.score("a", text, labels="22")
        before = server.state()
        server.ledger.compact()
    names = sorted(path.name for path in (tmp_path / "state").iterdir())
    assert names == [".lock", "journal-000001.jsonl", "server.json", "snapshot-000001"]
    with running(config, tmp_path / "state", samples=2) as server:
        same(before, server.state())


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda journal: journal.write_bytes(journal.read_bytes() + b'{"type":"op'), None),  # a write that was cut off
        (lambda journal: journal.write_bytes(b"x\n" + journal.read_bytes()), "line 1 is damaged"),
        (
            lambda journal: journal.write_bytes(b"[]\n" + journal.read_bytes()),
            "line 1 is damaged .it is not a JSON object",
        ),
        (lambda journal: journal.write_bytes(b'{"type":"rows","groups":[9]}\n'), "cannot be repeated"),
        (
            lambda journal: journal.write_bytes(journal.read_bytes().replace(b'"arm":', b'"arm":7')),
            "cannot be repeated",
        ),
        (lambda journal: (journal.rename(f"{journal}.x"), journal.symlink_to(f"{journal}.x")), "it is a link"),
    ],
)
def test_a_damaged_journal_is_a_sentence(config, tmp_path, damage, said):
    with running(config, tmp_path / "state") as server:
        server.score("a", "1")
    damage(tmp_path / "state" / "journal-000000.jsonl")
    if said is None:
        with running(config, tmp_path / "state") as server:
            assert server.score("a", "22")["scores"] == 2.0
        return
    with pytest.raises(RunDirectoryError, match=said):
        make_worker(config, tmp_path / "state", Limits())


def test_a_folder_of_something_else_of_another_pool_or_in_use_is_refused(config, tmp_path):
    with running(config, tmp_path / "state"), pytest.raises(RunDirectoryError, match="another server uses"):
        make_worker(config, tmp_path / "state", Limits())
    other = make_config(tmp_path, "length", "right")
    with pytest.raises(RunDirectoryError, match="is of the reward models length, digits"):
        make_worker(other, tmp_path / "state", Limits())
    with pytest.raises(RunDirectoryError, match="holds other files"):
        make_worker(config, tmp_path, Limits())


def test_a_reward_model_that_fails_is_never_an_error_of_the_request(tmp_path):
    config = make_config(tmp_path, "broken", "length")
    with running(config, tmp_path / "state", samples=2) as server:
        for number in range(8):
            assert server.score(f"prompt {number}", "1234", labels="1")["scores"] == 4.0
        status, text = server.post(None, "/metrics", method="GET")
        assert (status, b'laser_quarantined{reward_model="broken"} 1.0' in text) == (200, True)
        before = server.state()
    with running(config, tmp_path / "state", samples=2) as server:
        same(before, server.state())


def test_without_any_reward_model_left_it_says_so_and_tries_again(tmp_path):
    config = make_config(tmp_path, "broken")
    with running(config, tmp_path / "state") as server:
        for _ in range(2):
            status, reply = server.post(SUM)
            assert (status, "no reward model is left" in reply["error"]) == (503, True)
    (tmp_path / "scores.py").write_text("def broken(prompts, responses):\n    return [7.0] * len(responses)\n")
    with running(config, tmp_path / "state", changed_rewards=True) as server:
        assert server.post(SUM) == (200, 7.0)


def test_no_opinion_is_null_or_the_mean_of_the_group(tmp_path):
    config = make_config(tmp_path, "right")
    with running(config, tmp_path / "state") as server:
        assert server.score("a", "4")["scores"] is None
        assert server.post({"prompt": "a", "response": "5"}) == (200, 0.0)
        assert server.score("b", "4", labels="4")["filled"] == 1.0
        assert server.score("b", "5", labels="4")["filled"] == 0.0


def test_a_probe_learns_from_complete_groups_without_gold_answers(tmp_path):
    """All reward models score a complete group, and what they said is repeated after a restart."""
    signal = {"type": "probe", "labels": "consensus", "prompts_per_category": 2}
    config = make_config(tmp_path, "length", "digits", signal=signal)
    with running(config, tmp_path / "state", samples=4) as server:
        for text in ("1", "22", "333", "22"):
            server.score("how many?", text)
        assert server.num_learned == 1
        usage = server.ledger.book.router.usage()
        assert min(usage[name]["responses"] for name in ("length", "digits")) == 3  # the distinct ones
        before = server.state()
    worker = make_worker(config, tmp_path / "state", Limits(samples=4))
    same(before, worker.ledger.state_dict())
    assert worker.ledger.book.router.usage()["length"]["responses"] == 0
    worker.ledger.release()


def test_labeled_pairs_are_scored_once_before_the_first_choice(tmp_path):
    """What reward models said of them is on the disk before an answer: a restart does not ask again."""
    (tmp_path / "pairs.jsonl").write_text('{"prompt": "p", "chosen": "1", "rejected": "aaa"}\n')
    signal = {"type": "probe", "labels": "pairs", "pairs": str(tmp_path / "pairs.jsonl")}
    config = make_config(tmp_path, "length", "digits", signal=signal)
    with running(config, tmp_path / "state", samples=2) as server:
        assert server.score("a", "1")["arms"] == "digits"
        before = server.state()
    with running(config, tmp_path / "state", samples=2) as server:
        same(before, server.state())
        assert server.score("a", "22")["scores"] == 2.0
        assert {name: counts["calls"] for name, counts in server.ledger.book.router.usage().items()} == {
            "length": 0,
            "digits": 1,
        }


def test_an_evaluation_is_scored_and_not_learned_from(config, tmp_path):
    with running(config, tmp_path / "state", samples=2) as server:
        for text in ("1", "22"):
            server.score("a", text, labels="1", learn="never")
        assert server.num_learned == 0
        for text in ("1", "22"):
            server.score("a", text, labels="1")
        assert server.num_learned == 1


def test_learning_can_wait_until_the_trainer_names_the_groups(config, tmp_path):
    with running(config, tmp_path / "state", samples=2) as server:
        for group in ("u1", "u2"):
            for text in ("1", "22"):
                server.score(f"prompt {group}", text, labels="22", groups=group, step=3, learn="later")
        status, reply = server.post({"step": 3, "groups": ["u1", "unknown"]}, "/learn")
        assert (status, reply["metrics"]["bandit/learned"]) == (200, 1.0)
        assert server.post({"step": 3, "groups": ["u1"]}, "/learn") == (200, {"metrics": {}})
        before = server.state()
    with running(config, tmp_path / "state", samples=2) as server:
        same(before, server.state())
        assert server.post({}, "/learn")[1]["metrics"]["bandit/learned"] == 1.0


def test_feedback_from_outside_is_what_a_group_earns(config, tmp_path):
    with running(config, tmp_path / "state", samples=1, feedback=True) as server:
        server.score("a", "1")
        assert server.num_learned == 0
        assert server.post({"prompt": "a", "value": 0.25}, "/feedback") == (200, {"groups": 1})
        server.score("b", "1")  # the worker looks at complete groups after each batch
        assert server.num_learned == 1
        assert server.ledger.book.metrics["bandit/reward"] == 0.25
        status, reply = server.post({"prompt": "a", "value": 0.25}, "/feedback")
        assert (status, "no open group" in reply["error"]) == (409, True)


def test_a_group_without_a_known_size_ends_when_no_sample_comes(config, tmp_path):
    with running(config, tmp_path / "state", ttl=0.2) as server:
        for text in ("1", "22"):
            server.score("a", text, labels="22")
        ended = threading.Event()
        for _ in range(100):
            if server.num_learned or ended.wait(0.05):
                break
        assert server.num_learned == 1


def test_where_nothing_can_be_learned_it_says_so(config, tmp_path):
    with running(config, tmp_path / "state", samples=1) as server:
        replies = [server.post({"prompt": f"prompt {number}", "response": "1"}) for number in range(65)]
        assert [status for status, _ in replies] == [200] * 64 + [422]
        assert "consensus" in replies[-1][1]["error"]
        assert server.post({**SUM, "prompt": "another"})[0] == 200  # one with a gold answer


def test_a_repeated_request_counts_once(config, tmp_path):
    with running(config, tmp_path / "state", samples=3) as server:
        first = server.score("a", "12", labels="12", ids="s1")
        assert server.score("a", "12", labels="12", ids="s1") == first
        server.score("a", "12", labels="12", ids="s2")  # the same text, but another sample
        assert server.num_learned == 0
    with running(config, tmp_path / "state", samples=3) as server:
        assert server.score("a", "12", labels="12", ids="s1") == first
        server.score("a", "7", labels="12", ids="s3")
        assert server.num_learned == 1
        assert server.score("a", "7", labels="12", ids="s3")["arms"] == first["arms"]
        assert server.ledger.counts["retries", ""] == 2


def test_without_names_what_may_not_have_been_delivered_before_a_kill_is_a_retry(config, tmp_path):
    with running(config, tmp_path / "state", samples=3) as server:
        for _ in range(2):
            server.score("a", "12", labels="12")  # two samples with the same text
    with running(config, tmp_path / "state", samples=3) as server:
        for _ in range(2):
            server.score("a", "12", labels="12")  # sent again by clients that got no answer
        assert server.ledger.counts["retries", ""] == 2
        assert server.num_learned == 0
        server.score("a", "7", labels="12")  # the third sample
        assert server.num_learned == 1


def test_a_state_moves_to_another_server_of_the_same_pool(config, tmp_path):
    with running(config, tmp_path / "first", samples=2) as server:
        for text in ("1", "22", "333"):
            server.score("a", text, labels="22")
        status, state = server.post(None, "/state", method="GET")
        before = server.state()
        assert status == 200
        same(before, unpack_state(state))
    with running(config, tmp_path / "second", samples=2) as server:
        server.score("b", "1", labels="1")
        assert server.post(state, "/state", method="PUT") == (200, {"restored": True})
        same(before, server.state())
    with running(config, tmp_path / "second", samples=2) as server:  # it is on the disk
        same(before, server.state())
    with running(make_config(tmp_path, "length", "right"), tmp_path / "third") as server:
        server.score("b", "1", labels="1")
        before = server.state()
        status, reply = server.post(state, "/state", method="PUT")
        assert (status, "is of the reward models length, digits" in reply["error"]) == (409, True)
        assert server.post(b"nonsense", "/state", method="PUT")[0] == 409
        same(before, server.state())


CONTRADICTIONS = [
    ({"labels": ["5"]}, "came with gold answer '4' and now with '5'"),
    ({"labels": [None]}, "came with gold answer '4' and now with None"),
    ({"prompts": ["3 + 3 = ?"]}, "group 'u1' came with prompt"),
    ({"learn": "later"}, "came with learn"),
    ({"step": 4}, "requests with a step and requests without one"),
]


@pytest.mark.parametrize(("change", "said"), CONTRADICTIONS)
def test_samples_that_contradict_their_group_are_refused(config, tmp_path, change, said):
    body = {"prompts": ["2 + 2 = ?"], "responses": ["4"], "labels": ["4"], "groups": ["u1"]}
    with running(config, tmp_path / "state") as server:
        assert server.post(body)[0] == 200
        before = server.state()
        status, reply = server.post({**body, **change})
        assert (status, said in reply["error"]) == (409, True), reply
        same(before, server.state())
        assert server.post({**body, "responses": ["5"]})[0] == 200


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/", b"{", 400, "the request is not JSON"),
        ("/", b"[" * 100_000, 400, "nested too deeply"),
        ("/", b'{"responses": [NaN]}', 400, "NaN is not JSON"),
        ("/", b"\xff", 400, "the request is not JSON"),
        ("/", b"x" * 2**20 + b"y", 413, "longer than 1048576 bytes"),
        ("/feedback", {"value": 2, "prompt": "a"}, 400, "value is 2"),
        ("/feedback", {"value": True, "prompt": "a"}, 400, "value is True"),
        ("/feedback", {"value": 0.5}, 400, "neither a prompt nor a step"),
        ("/learn", {"groups": "u1"}, 400, "groups is text"),
        ("/learn", {"step": -1}, 400, "step is -1"),
        ("/learn", [], 400, "the request is a list"),
        ("/nowhere", {}, 404, "POST /nowhere is not known"),
        ("/metrics", {}, 405, "POST /metrics is not known"),
    ],
)
def test_bad_requests_are_sentences(config, tmp_path, path, body, status, said):
    with running(config, tmp_path / "state") as server:
        given, reply = server.post(body, path)
        assert (given, said in reply["error"]) == (status, True), reply
        assert server.post(SUM)[0] == 200


def test_only_json_from_this_machine_is_taken(config, tmp_path):
    with running(config, tmp_path / "state") as server:
        assert server.post(SUM, Host="localhost:8100")[0] == 200
        assert server.post(SUM, Host="rebound.example")[0] == 403
        assert server.post(SUM, Origin="http://127.0.0.1")[0] == 403
        assert server.post(SUM, Sec_Fetch_Site="cross-site")[0] == 403
        assert server.post(SUM, Content_Type="text/plain")[0] == 415


def test_a_token_is_required_everywhere_but_for_the_health(config, tmp_path, capfd):
    token = "a-token-of-24-characters"
    with running(config, tmp_path / "state", token=token) as server:
        basic = base64.b64encode(f"any:{token}".encode()).decode()
        assert server.post(SUM, Authorization=f"Bearer {token}", Host="cluster.example")[0] == 200
        assert server.post(SUM, Authorization=f"Basic {basic}")[0] == 200
        for header in ("", "Bearer", f"Bearer {token}x", f"Bearer {token[:-1]}", "Basic !", f"Token {token}"):
            assert server.post(SUM, Authorization=header)[0] == 401
        assert server.post(None, "/state", method="GET")[0] == 401
        assert server.post(None, "/metrics", method="GET")[0] == 401
        assert server.post(None, "/healthz", method="GET")[0] == 200
    written = b"".join(path.read_bytes() for path in (tmp_path / "state").rglob("*") if path.is_file())
    assert token.encode() not in written
    assert token not in "".join(capfd.readouterr())


@pytest.mark.parametrize(
    ("host", "value", "said"),
    [
        ("127.0.0.1", None, None),
        ("::1", None, None),
        ("0.0.0.0", None, "other machines reach 0.0.0.0"),
        ("node-7", None, "other machines reach node-7"),
        ("0.0.0.0", "a-token-of-24-characters", "a-token-of-24-characters"),
        ("0.0.0.0", "", "holds no token"),
        ("0.0.0.0", "short", "holds no token"),
        ("0.0.0.0", "with a blank in the middle", "holds no token"),
    ],
)
def test_any_address_but_this_machine_needs_a_token(monkeypatch, host, value, said):
    if value is not None:
        monkeypatch.setenv("REWARDS_TOKEN", value)
    variable = None if value is None else "REWARDS_TOKEN"
    if said is None or said == value:
        assert read_token(host, variable, None) == said
        return
    with pytest.raises(ConfigError, match=said) as refused:
        read_token(host, variable, None)
    assert not value or value not in str(refused.value)


def test_a_token_can_be_in_a_file(tmp_path):
    (tmp_path / "token").write_text("a-token-of-24-characters\n")
    assert read_token("0.0.0.0", None, tmp_path / "token") == "a-token-of-24-characters"
    with pytest.raises(ConfigError, match="cannot read a token"):
        read_token("0.0.0.0", None, tmp_path / "missing")
    with pytest.raises(ConfigError, match="give one of them"):
        read_token("0.0.0.0", "REWARDS_TOKEN", tmp_path / "token")


def test_what_waits_and_what_is_open_is_bounded(config, tmp_path):
    with running(config, tmp_path / "state", max_groups=1, max_waiting=2) as server:
        assert server.score("a", "1")["scores"] is not None
        status, reply = server.post({"prompts": ["b"], "responses": ["1"]})
        assert (status, "--max-groups" in reply["error"]) == (503, True)
        status, reply = server.post({"prompts": ["a"] * 3, "responses": ["1"] * 3})
        assert (status, "--max-waiting" in reply["error"]) == (503, True)
        assert server.score("a", "2")["scores"] is not None


def test_a_server_needs_a_quarantine(tmp_path):
    config = make_config(tmp_path, "length", "digits")
    strict = config.model_copy(update={"rewards": config.rewards.model_copy(update={"max_failures": 0})})
    with pytest.raises(ConfigError, match=r"rewards\.max_failures = 0"):
        make_worker(strict, tmp_path / "state", Limits())


def test_a_full_disk_is_a_sentence_and_nothing_is_lost_once_there_is_room(config, tmp_path):
    (tmp_path / "disk").mkdir()
    if not can_mount(tmp_path / "disk"):
        pytest.skip("no file system may be mounted here")
    with small_disk(tmp_path / "disk", 65536) as grow:
        with running(config, tmp_path / "disk" / "state") as server:
            replies = [server.post({"prompt": "a", "response": "9" * 4000 + str(number)}) for number in range(20)]
            assert {status for status, _ in replies} == {200, 503}
            assert "free space" in replies[-1][1]["error"]
            assert grow(2**22)
            again = [server.post({"prompt": "a", "response": "9" * 4000 + str(number)}) for number in range(20)]
            assert {status for status, _ in again} == {200}
            before = server.state()
        with running(config, tmp_path / "disk" / "state") as server:
            same(before, server.state())
