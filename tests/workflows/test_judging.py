"""`laser eval --judge` against a real server: whose verdicts win, what length does to them, and what goes wrong."""

import json
import math
import os
import random
import re
import threading
from pathlib import Path

import pytest

import laser
from laser.commands.judge import win_rates
from laser.config.judge import JudgeConfig, load_judge
from laser.core.errors import ConfigError, DataError, LaserError, RunDirectoryError, ServerError
from runs import make_table
from servers import serving


def write_responses(path, texts, *, ids=True, category=lambda row: "xy"[row % 2]):
    rows = [
        {**({"id": f"p{row}"} if ids else {}), "prompt": f"what is {row}?", "response": text, "category": category(row)}
        for row, text in enumerate(texts)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def shown(payload):
    """The two responses in the order in which the judge sees them."""
    content = payload["messages"][0]["content"]
    first = content.split("[Response A]\n")[1].split("\n\n[Response B]")[0]
    return first, content.split("[Response B]\n")[1].split("\n\n[End]")[0]


def says(text, **usage):
    return {"choices": [{"message": {"content": text}}], "usage": usage or {"prompt_tokens": 9, "completion_tokens": 1}}


def prefers(better):
    """A judge that answers A where `better(first, second)`, C where neither is, else B."""

    def answer(path, payload, number):
        first, second = shown(payload)
        return says("A" if better(first, second) else "B" if better(second, first) else "C")

    return answer


def judge(server, **settings):
    return JudgeConfig(url=server.url, model="j", **{"retries": 0, **settings})


@pytest.fixture
def two(tmp_path):
    """Ours is good on two prompts of three, of the baseline's length, the same on one."""
    ours = ["good answer!" if row % 3 else "poor answer!" for row in range(30)]
    ours[0] = "fair answer!"
    baseline = write_responses(tmp_path / "baseline.jsonl", ["fair answer!"] * 30)
    return baseline, write_responses(tmp_path / "ours.jsonl", ours)


RANK = {"good": 2, "fair": 1, "poor": 0}


def quality(first, second):
    return RANK[first[:4]] > RANK[second[:4]]


@pytest.mark.slow
def test_win_rates_and_costs(two, tmp_path):
    with serving(prefers(quality)) as server:
        result = win_rates(two, judge(server), out=tmp_path / "r.json")
        assert len(server.asked) == 58
        again = win_rates(two, judge(server), out=tmp_path / "r.json")
        assert len(server.asked) == 58
    judged = result.judged["ours"]
    one = judged.compared
    assert (result.baseline, one.wins, one.ties, one.losses) == ("baseline", 20, 1, 9)
    assert one.win_rate.value == pytest.approx((20 + 0.5) / 30)
    assert one.win_rate.low < one.win_rate.value < one.win_rate.high
    assert one.length_controlled.win_rate.value == pytest.approx(one.win_rate.value, abs=1e-3)
    assert (one.first_shown, one.num_inconsistent, one.num_identical) == (0.5, 0, 1)
    assert set(one.by_category) == {"x", "y"}
    assert (result.bill.requests, result.bill.cached, result.bill.prompt_tokens) == (58, 0, 58 * 9)
    assert (again.bill.cached, again.bill.prompt_tokens, again.judged) == (58, 0, result.judged)
    assert json.loads((tmp_path / "r.json").read_text())["judged"]["ours"]["compared"]["wins"] == 20
    verdicts = [json.loads(line) for line in (tmp_path / "r.ours.verdicts.jsonl").read_text().splitlines()]
    assert verdicts[1]["preference_for_first"] == [1.0, 0.0]
    assert verdicts[0]["preference_for_first"] == [None, None]


@pytest.mark.slow
def test_swapping_the_policies_mirrors_the_rates(two):
    with serving(prefers(quality)) as server:
        one = win_rates(two, judge(server)).judged["ours"].compared
        other = win_rates(two[::-1], judge(server)).judged["baseline"].compared
    assert one.win_rate.value == pytest.approx(1 - other.win_rate.value)
    assert (one.wins, one.ties, one.losses) == (other.losses, other.ties, other.wins)


@pytest.mark.slow
def test_a_judge_that_likes_length_is_seen_through(tmp_path):
    """Ours is usually longer; the judge takes the longer one four times in five, whatever it says."""
    rng = random.Random(0)
    ours, baseline = [], []
    for _ in range(150):
        ours.append("o" * rng.randint(20, 220))
        baseline.append("b" * rng.randint(20, 140))
    coins = random.Random(1)
    longer = {}

    def fickle(path, payload, number):
        first, second = shown(payload)
        key = frozenset((first, second))
        if key not in longer:
            longer[key] = coins.random() < 0.8
        return says("A" if (len(first) > len(second)) == longer[key] else "B")

    files = [write_responses(tmp_path / f"{n}.jsonl", texts) for n, texts in (("b", baseline), ("o", ours))]
    with serving(fickle) as server:
        one = win_rates(files, judge(server, concurrency=1)).judged["o"].compared
    assert one.mean_length > one.baseline_length
    assert one.win_rate.value > 0.6
    controlled = one.length_controlled
    assert controlled.win_rate.low < 0.5 < controlled.win_rate.high
    assert abs(controlled.win_rate.value - 0.5) < abs(one.win_rate.value - 0.5)


@pytest.mark.slow
def test_a_judge_that_looks_at_the_place(two):
    with serving(lambda *_: says("A")) as server:
        one = win_rates(two, judge(server)).judged["ours"].compared
    assert one.win_rate.value == 0.5
    assert (one.first_shown, one.num_inconsistent) == (1.0, 29)


@pytest.mark.slow
def test_probabilities_are_used_where_there_are_some(two):
    def answer(path, payload, number):
        assert payload["top_logprobs"] == 20
        first, second = shown(payload)
        share = 0.9 if quality(first, second) else 0.3
        tops = [{"token": "A", "logprob": math.log(share)}, {"token": "B", "logprob": math.log(1 - share)}]
        reply = says("A" if share > 0.5 else "B")
        reply["choices"][0]["logprobs"] = {"content": [{"token": "A" if share > 0.5 else "B", "top_logprobs": tops}]}
        return reply

    with serving(answer) as server:
        one = win_rates(two, judge(server)).judged["ours"].compared
        assert one.win_rate.value == pytest.approx((20 * (0.9 + 0.7) / 2 + 0.5 + 9 * (0.3 + 0.1) / 2) / 30)
        plain = win_rates(two, judge(server, use_logprobs=True, template="{prompt}" + TEMPLATE_END)).judged["ours"]
    assert plain.nonsense == 0


TEMPLATE_END = "[Response A]\n{first}\n\n[Response B]\n{second}\n\n[End]"


@pytest.mark.slow
def test_nonsense_and_failures_are_counted_and_never_scored(two):
    """Where it gives no verdict in one order, the prompt is left out; the rest is judged."""

    def patchy(path, payload, number):
        first, _ = shown(payload)
        question = payload["messages"][0]["content"]
        if "what is 4?" in question:
            return says("Hm.")
        if "what is 5?" in question and first.startswith("good"):
            return 500
        return prefers(quality)(path, payload, number)

    with serving(patchy) as server:
        judged = win_rates(two, judge(server)).judged["ours"]
    assert (judged.nonsense, judged.failed, judged.skipped) == (2, 1, 0)
    assert "status 500" in judged.reason
    assert (judged.compared.num_judged, judged.compared.num_one_sided, judged.compared.wins) == (28, 1, 18)


@pytest.mark.slow
def test_a_spent_quota_leaves_what_is_judged_and_a_rerun_ends_it(two, tmp_path):
    spent = {"after": 20}

    def quota(path, payload, number):
        return 402 if number >= spent["after"] else prefers(quality)(path, payload, number)

    with serving(quota) as server:
        first = win_rates(two, judge(server, concurrency=1), out=tmp_path / "r.json").judged["ours"]
        assert first.compared.num_judged == 11
        assert first.failed in (16, 17)  # another one is under way when the sixteenth fails
        assert first.skipped == 58 - 20 - first.failed
        spent["after"] = 10**9
        ended = win_rates(two, judge(server, concurrency=1), out=tmp_path / "r.json")
        assert (ended.bill.cached, ended.bill.requests) == (20, 58)
    assert ended.judged["ours"].compared.wins == 20
    assert ended.judged["ours"].failed == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("answer", "words"),
    [(402, "no verdict on any of 29 prompts.*status 402"), (says("Hm."), "58 replies name neither response")],
    ids=["quota", "nonsense"],
)
def test_a_judge_that_judges_nothing_is_an_error(tmp_path, answer, words):
    files = [write_responses(tmp_path / f"{name}.jsonl", [name * 3] * 29) for name in ("a", "b")]
    with serving(lambda *_: answer) as server, pytest.raises(ServerError, match=words):
        win_rates(files, judge(server))


@pytest.mark.slow
def test_a_slow_judge(two):
    """The one prompt with identical responses is a tie without it, and no result on its own."""
    done = threading.Event()
    with serving(lambda *_: done.wait(5)) as server:
        with pytest.raises(ServerError, match="did not answer within"):
            win_rates(two, judge(server, timeout=0.1, concurrency=4))
        assert len(server.asked) < 40
        done.set()


@pytest.mark.slow
def test_prompts_are_matched_by_what_they_say(tmp_path):
    baseline = write_responses(tmp_path / "baseline.jsonl", ["fair answer!"] * 6, ids=False)
    ours = write_responses(tmp_path / "ours.jsonl", ["good answer!"] * 8)
    lines = ours.read_text().splitlines(keepends=True)
    ours.write_text("".join(reversed(lines)))
    with serving(prefers(quality)) as server:
        judged = win_rates([baseline, ours], judge(server)).judged["ours"]
    assert (judged.unmatched, judged.compared.num_prompts, judged.compared.wins) == (2, 6, 6)
    other = write_responses(tmp_path / "other.jsonl", ["x"])
    other.write_text(other.read_text().replace("what", "who"))
    with serving(prefers(quality)) as server, pytest.raises(DataError, match="share no prompt"):
        win_rates([baseline, other], judge(server))


@pytest.mark.slow
def test_difficulty_is_used_and_must_be_complete(two, tmp_path):
    path = tmp_path / "difficulty.jsonl"
    rows = [{"id": f"p{row}", "difficulty": row % 3} for row in range(30)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with serving(prefers(quality)) as server:
        one = win_rates(two, judge(server), difficulty=path).judged["ours"].compared
        assert one.length_controlled.psi > 1
        path.write_text("".join(json.dumps(row) + "\n" for row in rows[:-1]))
        with pytest.raises(DataError, match="prompt 'p29' has no difficulty"):
            win_rates(two, judge(server), difficulty=path)
        path.write_text('{"id": "p0"}\n')
        with pytest.raises(DataError, match="line 1 needs an id and a number"):
            win_rates(two, judge(server), difficulty=path)


@pytest.mark.slow
def test_runs_and_files_together(tmp_path):
    """A run against its untrained model needs no gold answers; its kept responses can be judged again as files."""
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": f"say {row}"}) + "\n" for row in range(20)))
    table = make_table(
        tmp_path,
        "vowels",
        training={"learning_rate": 0.05, "iterations": 1, "convergence_threshold": 0},
        data={"type": "file", "train": str(prompts)},
        split={"train": 12, "dev": 8},
    )
    laser.train(table, tmp_path / "run")
    with serving(prefers(lambda a, b: a > b)) as server:
        settings = judge(server)
        result = win_rates([tmp_path / "run"], settings, base=True, out=tmp_path / "r.json")
        files = win_rates([tmp_path / "r.base.jsonl", tmp_path / "r.run.jsonl"], settings, out=tmp_path / "f.json")
        assert files.judged["r.run"].compared.win_rate.value == result.judged["run"].compared.win_rate.value
        mixed = win_rates([tmp_path / "r.base.jsonl", tmp_path / "run"], settings)
        assert mixed.judged["run"].compared.wins == result.judged["run"].compared.wins
        with pytest.raises(ConfigError, match="compares two policies"):
            win_rates([tmp_path / "run"], settings)
        for name in ("base.jsonl", "run.jsonl"):  # what labels would be, had the files not taken them
            rows = [json.loads(line) for line in (tmp_path / "r.run.jsonl").read_text().splitlines()]
            (tmp_path / name).write_text("".join(json.dumps({**row, "response": "~"}) + "\n" for row in rows))
        taken = win_rates([tmp_path / "run", tmp_path / "base.jsonl"], settings, base=True)
        assert (taken.baseline, set(taken.judged)) == ("base of run", {"run", "base"})
        assert taken.judged["base"].compared.win_rate.value == 1  # the file's "~" is above whatever the base model says
        alike = win_rates([tmp_path / "run", tmp_path / "run.jsonl"], settings)
        (other,) = alike.judged.values()
        assert other.compared.win_rate.value == 1
        with pytest.raises(ConfigError, match="--base needs a run"):
            win_rates([tmp_path / "r.base.jsonl", tmp_path / "r.run.jsonl"], settings, base=True)


UNTRAINED = """data = {type = "embedded"}
policy = {model = "m"}
[[rewards.models]]
type = "function"
name = "first"
function = "rewards.py:first"
"""


@pytest.mark.parametrize(
    ("targets", "settings", "options", "words"),
    [
        (["a.toml"], {}, {}, "compares two policies"),
        (["a.toml", "r.jsonl"], {"api_key_env": "NO_SUCH_KEY"}, {}, "NO_SUCH_KEY is not set"),
        (["a.toml", "r.jsonl"], {"template": "{prompt} {second}"}, {}, "template has no {first}"),
        (["a.toml", "r.jsonl"], {}, {"difficulty": "none.jsonl"}, "none.jsonl does not exist"),
        (["a.toml", "none.jsonl"], {}, {}, "none.jsonl"),
    ],
)
def test_mistakes_are_found_before_anything_is_sampled(tmp_path, monkeypatch, targets, settings, options, words):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("laser.commands.judge.answer_targets", lambda *_, **__: pytest.fail("it was sampled"))
    Path("a.toml").write_text(UNTRAINED)
    write_responses(Path("r.jsonl"), ["x"])
    with pytest.raises(LaserError, match=re.escape(words)):
        win_rates(targets, JudgeConfig(url="http://127.0.0.1:1", model="j", **settings), **options)


def test_files_without_responses(tmp_path):
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"prompt": "a"}\n')
    good = write_responses(tmp_path / "good.jsonl", ["x"])
    settings = JudgeConfig(url="http://127.0.0.1:1", model="j")
    with pytest.raises(DataError, match="row 1 has no text in the field 'response'"):
        win_rates([good, bad], settings)
    with pytest.raises(DataError, match="does not exist"):
        win_rates([good, tmp_path / "none.jsonl"], settings)


@pytest.mark.parametrize("name", ["r.replies.sqlite", "r.replies.sqlite-journal", "r.replies.sqlite-wal"])
@pytest.mark.parametrize("kind", ["link", "dangling", "hard", "fifo"])
def test_planted_files_of_replies_are_refused_and_not_touched(tmp_path, two, name, kind):
    (tmp_path / "out").mkdir()
    victim, planted = tmp_path / "victim", tmp_path / "out" / name
    victim.write_bytes(b"")  # SQLite takes an empty file for a new database
    match kind:
        case "link":
            planted.symlink_to(victim)
        case "dangling":
            planted.symlink_to(tmp_path / "new")
        case "hard":
            planted.hardlink_to(victim)
        case _:
            os.mkfifo(planted)
    with pytest.raises(RunDirectoryError, match=f"cannot use .*{name} .*link|not a regular file"):
        win_rates(two, JudgeConfig(url="http://127.0.0.1:1", model="j"), out=tmp_path / "out" / "r.json")
    assert victim.read_bytes() == b""
    assert not (tmp_path / "new").exists()


def test_the_judges_settings(tmp_path):
    (tmp_path / "judge.toml").write_text('url = "http://h:1"\nmodel = "m"\ncache = "c.sqlite"\nconcurrency = 3\n')
    config = load_judge(tmp_path / "judge.toml", ["timeout=5", "model=n"])
    assert (config.model, config.timeout, config.concurrency) == ("n", 5, 3)
    assert config.cache == str(tmp_path / "c.sqlite")
    assert load_judge("http://h:1", ["model=m"]).url == "http://h:1"
    for overrides, words in (
        ([], "'model' is missing; add it; --judge-set KEY=VALUE sets a field"),
        (["model=m", "modell=n"], "unknown key 'modell'; did you mean 'model'"),
        (["model=m", "timeout=0"], "timeout: input should be greater than 0"),
    ):
        with pytest.raises(ConfigError, match=words):
            load_judge("http://h:1", overrides)
    with pytest.raises(ConfigError, match="put the key into an environment variable"):
        load_judge("http://user:secret@h:1", ["model=m"])


def test_the_page_has_every_field():
    page = (Path(__file__).parents[2] / "docs/evaluation.md").read_text()
    for name, field in JudgeConfig.model_fields.items():
        (row,) = [line for line in page.splitlines() if line.startswith(f"| `{name}` |")]
        default = row.split("|")[2].strip()
        if field.default is not None:
            assert default == ("required" if field.is_required() else json.dumps(field.default).removesuffix(".0"))


KNOBS = {
    "urls": ["http://h:1", "http://h:2"],
    "timeout": 3.0,
    "retries": 2,
    "concurrency": 5,
    "template": "{prompt}{first}{second}",
    "use_logprobs": False,
    "max_tokens": 77,
    "max_completion_tokens": 78,
    "temperature": 0.5,
    "reasoning_effort": "low",
    "extra_body": {"seed": 7},
    "requests_per_minute": 30,
    "tokens_per_minute": 600,
    "api_key_env": "LASER_TEST_KEY",
}


@pytest.mark.parametrize("name", sorted(JudgeConfig.model_fields.keys() - {"url", "model", "cache"}))
def test_every_field_reaches_the_judge(name, monkeypatch, tmp_path):
    from laser.wiring.judge import build_pairwise_judge

    monkeypatch.setenv("LASER_TEST_KEY", "k")
    built = {}
    for value in ({}, {name: KNOBS[name]}):
        address = {} if "urls" in value else {"url": "http://h:1"}
        pairwise = build_pairwise_judge(JudgeConfig(**address, model="m", **value), None)
        endpoint, fields = pairwise._chat._endpoint._endpoint, pairwise._chat.fields
        pace = endpoint._fleet.replicas[0].pace
        built[bool(value)] = {
            "urls": [replica.url for replica in endpoint._fleet.replicas],
            "timeout": endpoint._timeout,
            "retries": endpoint._retries,
            "concurrency": endpoint.concurrency,
            "template": pairwise._template,
            "use_logprobs": pairwise._chat.use_logprobs,
            "max_tokens": fields.get("max_tokens"),
            "max_completion_tokens": fields.get("max_completion_tokens"),
            "temperature": fields.get("temperature"),
            "reasoning_effort": fields.get("reasoning_effort"),
            "extra_body": {name: value for name, value in fields.items() if name == "seed"},
            "requests_per_minute": pace._per_request and 60 / pace._per_request,
            "tokens_per_minute": pace._per_token and 60 / pace._per_token,
            "api_key_env": endpoint._key,
        }[name]
    assert built[True] == ("k" if name == "api_key_env" else KNOBS[name]) != built[False]
