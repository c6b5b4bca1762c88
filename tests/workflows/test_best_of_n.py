"""Reranking without training, on tiny real models."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from laser.bandits.classifier import QueryClassifier
from laser.cli import best_of_n as cli
from laser.commands import scored_samples as bench_module
from laser.commands.best_of_n import _charges, _pick, best_of_n, standard_methods
from laser.commands.scored_samples import ScoredSamples
from laser.commands.train_classifier import train_classifier
from laser.config import parse_config
from laser.core.errors import ConfigError, DataError, RewardModelError, RunDirectoryError
from laser.core.statistics import wilson_interval
from laser.evaluation.metrics import ONE_SAMPLE, ORACLE, gold_answers, make_metric, rouge_l, token_f1
from runs import make_table
from suites import write_toml
from tiny import make_prompt, save_model

KNOWING = """
def knowing(prompts, responses):
    return [float("e" in text) for text in responses]

def ignorant(prompts, responses):
    return [-float("e" in text) for text in responses]

def down(prompts, responses):
    raise RuntimeError("out of service")

def silent(prompts, responses):
    return [None] * len(responses)

def counting(prompts, responses):
    with open(__file__ + ".calls", "a") as calls:
        calls.write("x")
    return [len(text) for text in responses]
"""


def write_prompts(path, count=24):
    """Gold answers that a response has some words of by chance: single letters, which F1 counts as words."""
    rows = [{"id": str(i), "prompt": f"say {i}", "answer": "e", "category": "ab"[i % 2]} for i in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def model(folder, name):
    return {"type": "function", "name": name, "function": f"{folder}/judges.py:{name}"}


def some(config, *names):
    methods = standard_methods(config)
    return {name: methods[name] for name in names}


@pytest.fixture
def table(tmp_path):
    table = make_table(tmp_path, generation={"num_responses": 6, "max_new_tokens": 12})
    (tmp_path / "judges.py").write_text(KNOWING)
    table["rewards"] = {"models": [model(tmp_path, name) for name in ("knowing", "ignorant")]}
    table["data"] = {"type": "file", "train": str(write_prompts(tmp_path / "prompts.jsonl"))}
    table["split"] = {"train": 12, "dev": 0, "test": 12}
    table["evaluation"] = {"metric": "f1", "answer": "whole"}
    table["best_of_n"] = {"epochs": 3, "reward": "metric"}
    return table


def test_every_method_of_table_2(table, tmp_path):
    config = parse_config(table)
    results = best_of_n(config, tmp_path / "out", standard_methods(config))
    assert results[ORACLE].value >= max(result.value for result in results.values())
    assert results["fixed: knowing"].value >= results["fixed: ignorant"].value
    assert results["random"].scored == 36 * 6 + 12 * 6
    assert results["score ensemble"].scored == 2 * results["random"].scored
    for name, result in results.items():
        if name not in (ORACLE, ONE_SAMPLE):
            assert np.isclose(sum(result.chosen.values()), 1)
        assert result.interval[0] <= result.value <= result.interval[1]
    assert json.loads((tmp_path / "out" / "results.json").read_text()).keys() == results.keys()


def test_responses_and_scores_are_shared_and_kept(table, tmp_path):
    config = parse_config(table)
    first = best_of_n(config, tmp_path / "out", {"random": standard_methods(config)["random"]})
    stamps = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("responses*")}
    again = best_of_n(config, tmp_path / "out", {"random": standard_methods(config)["random"]})
    assert first == again
    assert stamps == {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("responses*")}
    with pytest.raises(ConfigError, match=r"another configuration"):
        best_of_n(config.model_copy(update={"seed": 5}), tmp_path / "out", {})


@pytest.mark.slow
@pytest.mark.parametrize("reward", ["auto", "nll", "gold_nll", "metric"])
@pytest.mark.parametrize("granularity", ["per_batch", "per_prompt"])
def test_every_reward_and_granularity(table, tmp_path, reward, granularity):
    table["best_of_n"]["reward"] = reward
    table["training"]["granularity"] = granularity
    config = parse_config(table)
    name, method = next(iter(standard_methods(config).items()))
    results = best_of_n(config, tmp_path / "out", {name: method})
    assert 0 <= results[name].value <= 1


@pytest.mark.slow
def test_a_scaled_ensemble_does_not_depend_on_the_units(table, tmp_path):
    """The one that is multiplied by 1000 decides alone where scores are added as they are; scaled, it has one voice."""
    other = "\ndef other(prompts, responses):\n    return [-{} * (text.count('e') + 0.1) for text in responses]\n"
    picked = {}
    for factor in (0.001, 1000):
        (tmp_path / "judges.py").write_text(KNOWING + other.format(factor))
        table["rewards"]["models"] = [model(tmp_path, "knowing"), model(tmp_path, "other")]
        for combine in ("raw", "scaled"):
            table["selector"], table["rewards"]["combine"] = {"type": "ensemble"}, combine
            config = parse_config(table)
            out = tmp_path / f"{combine}-{factor}"
            picked[combine, factor] = best_of_n(config, out, {"ensemble": config})["ensemble"].value
    assert picked["scaled", 1000] == picked["scaled", 0.001]
    assert picked["raw", 1000] != picked["raw", 0.001]


def test_the_methods_are_those_of_the_paper(table, tmp_path):
    """Table 2 of the paper: Best RM, random, classifier, score, agreement and online ensemble, LASeR."""
    names = [
        "configured: linucb", "fixed: knowing", "fixed: ignorant", "random", "sequential", "classifier",
        "score ensemble", "score ensemble, ranks", "agreement ensemble", "online ensemble",
    ]  # fmt: skip
    config = parse_config(table)
    assert list(standard_methods(config, router="router")) == names
    assert standard_methods(config, router="router")["classifier"].selector.path == str(Path("router").resolve())
    assert [*standard_methods(config)] == [name for name in names if name != "classifier"]
    combined = {name: method.rewards.combine for name, method in standard_methods(config).items()}
    assert combined["agreement ensemble"] == "agreement"
    assert combined["score ensemble"] == "raw"
    for selector in ({"type": "classifier", "path": "mine"}, {"type": "bayesian_router", "prior": "mine"}):
        methods = standard_methods(parse_config({**table, "selector": selector}))
        assert methods["classifier"].selector.path == str(Path("mine").resolve())


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["paper", "recommended"])
def test_a_router_reranks(table, tmp_path, monkeypatch, preset):
    """One that learned from pairs on which either reward model is right half of the time, on plain contexts."""
    plain = parse_config(table)
    table["preset"] = preset  # whose contexts, of unit length, no router can learn from
    config, router = parse_config(table), tmp_path / "router"
    pairs = [{"prompt": f"say {i}", "chosen": "ex"[i % 2], "rejected": "xe"[i % 2]} for i in range(10)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    monkeypatch.setattr("laser.commands.train_classifier.QueryClassifier", partial(QueryClassifier, hidden=(4,)))
    train_classifier(plain, tmp_path / "pairs.jsonl", router)
    methods = {"classifier": standard_methods(config, router=router)["classifier"]}
    results = best_of_n(config, tmp_path / "out", methods)
    assert np.isclose(sum(results["classifier"].chosen.values()), 1)
    with pytest.raises(ConfigError, match="holds no classifier"):
        best_of_n(config, tmp_path / "new", {"classifier": standard_methods(config, router="none")["classifier"]})
    assert not (tmp_path / "new").exists()


def test_votes_differ_from_ranks():
    """Two of three prefer response 0 to every other: it wins all 3 pairs. Its mean rank, of 4 for the best, is
    (4 + 4 + 1) / 3, below the (3 + 3 + 4) / 3 of response 1."""
    scores = np.array([[3.0, 2.0, 1.0, 0.0], [3.0, 2.0, 1.0, 0.0], [0.0, 3.0, 2.0, 1.0]])
    weights = np.full(3, 1 / 3)
    assert _pick(scores, weights, "rank") == 1
    assert _pick(scores, weights, "agreement") == 0
    scores[:, 0] = np.nan
    assert _pick(scores, weights, "agreement") == 1
    assert _pick(np.full((3, 4), np.nan), weights, "agreement") is None
    assert _pick(np.array([[1.0], [2.0], [np.nan]]), weights, "agreement") == 0


@pytest.mark.slow
def test_a_reward_model_that_fails_is_left_out_and_the_others_compared(table, tmp_path):
    notes, config = [], parse_config(table)
    without = best_of_n(config, tmp_path / "without", some(config, "sequential", "score ensemble", "online ensemble"))
    table["rewards"]["models"].append(model(tmp_path, "down"))
    config = parse_config(table)
    results = best_of_n(config, tmp_path / "out", standard_methods(config), note=notes.append)
    assert any(note.startswith("left out: down: ") and "out of service" in note for note in notes)
    assert "fixed: down" not in results
    assert "fixed: knowing" in results
    for name, result in results.items():
        assert result.failed.keys() == {"down"}
        assert result.chosen.get("down", 0) == 0
        assert name not in without or result.value == without[name].value
    with pytest.raises(RewardModelError, match=r"no reward model could be used: .*out of service"):
        best_of_n(config, tmp_path / "out", some(config, "fixed: down"))


def test_prompts_without_a_choice_count_as_one_sample(table, tmp_path):
    table["rewards"]["models"].append(model(tmp_path, "silent"))
    config = parse_config(table)
    results = best_of_n(config, tmp_path / "out", some(config, "fixed: silent", "fixed: knowing"))
    silent, knowing = results["fixed: silent"], results["fixed: knowing"]
    assert (silent.without_choice, knowing.without_choice) == (12, 0)
    assert silent.value == pytest.approx(results[ONE_SAMPLE].value)
    written = json.loads((tmp_path / "out" / "results.json").read_text())
    assert written["fixed: silent"]["asked"] == {"silent": {"responses": 144, "unscored": 144, "too_long": 0}}
    assert written["fixed: knowing"]["asked"]["knowing"]["unscored"] == 0


def test_responses_too_long_for_a_reward_model_are_counted(table, tmp_path):
    save_model(tmp_path / "narrow", context=36)
    table["rewards"]["models"].append({"type": "loglik", "name": "narrow", "model": str(tmp_path / "narrow")})
    config = parse_config(table)
    asked = best_of_n(config, tmp_path / "out", some(config, "fixed: narrow"))["fixed: narrow"].asked["narrow"]
    assert 0 < asked.too_long <= asked.responses == 144


@pytest.mark.slow
@pytest.mark.parametrize("silent", [False, True])
def test_an_interruption_between_chunks_changes_nothing(table, tmp_path, monkeypatch, silent):
    """Three chunks of 4 prompts a split; the second run is stopped before the third, and continues from there."""
    monkeypatch.setattr(bench_module, "CHUNK", 4)
    judges, calls = tmp_path / "judges.py", tmp_path / "judges.py.calls"
    if silent:
        judges.write_text(judges.read_text().replace("[len(text) for text in responses]", "[None] * len(responses)"))
    table["rewards"]["models"].append({**model(tmp_path, "counting"), "name": "counting-1.5"})
    config = parse_config(table)
    methods = some(config, "fixed: counting-1.5", "online ensemble")
    whole = best_of_n(config, tmp_path / "whole", methods)
    num_calls = len(calls.read_text())
    calls.unlink()

    def stop(message):
        if message.startswith("scoring train prompts 8 to 12"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        best_of_n(config, tmp_path / "out", methods, note=stop)
    assert len(calls.read_text()) == num_calls * 2 / 6
    assert best_of_n(config, tmp_path / "out", methods) == whole
    assert len(calls.read_text()) == num_calls


def test_what_the_bandit_is_fed(table, tmp_path):
    """By default the gold answer's NLL where a prompt has one, and else the NLL of the response itself."""
    rows = [{"id": str(i), "prompt": f"say {i}"} | ({"answer": "e"} if i % 2 else {}) for i in range(24)]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    del table["best_of_n"]["reward"]
    samples = ScoredSamples(parse_config(table), tmp_path / "out", lambda _: None)
    (tmp_path / "out").mkdir()
    samples.sample()
    fed = {}
    for reward in (None, "gold_nll", "nll"):
        section = {"epochs": 1} if reward is None else {"epochs": 1, "reward": reward}
        fed[reward] = _charges(samples, parse_config({**table, "best_of_n": section}), make_metric("f1", "whole"))
    golds = [prompt.answer is not None for prompt in samples.prompts["train"]]
    assert 0 < sum(golds) < 12
    for prompt, has_gold in enumerate(golds):
        assert fed[None](prompt, 1) == fed["gold_nll" if has_gold else "nll"](prompt, 1)
    assert fed["nll"](0, 1) != fed["nll"](0, 2)


def test_a_gold_answer_after_a_full_context_is_made_room_for(table, tmp_path):
    samples = ScoredSamples(parse_config(table), tmp_path / "out", lambda _: None)
    (tmp_path / "out").mkdir()
    samples.sample()
    length = len(samples.policy.encode(samples.prompts["train"][:1])[0])
    seen = []
    samples.policy.context_length = length + 3
    samples.policy.logps = lambda starts, golds, which: seen.append((starts[0], golds[0][0])) or [np.array([-6.0])]
    assert _charges(samples, parse_config({**table, "best_of_n": {"reward": "gold_nll"}}), None)(0, 0) == 2
    assert [(len(start), len(gold)) for start, gold in seen] == [(length, 3)]


def test_a_start_that_fails_claims_nothing(table, tmp_path):
    good = parse_config(table)
    table["split"]["test"] = 0
    with pytest.raises(DataError, match=r"no test prompts"):
        best_of_n(parse_config(table), tmp_path / "out", {})
    assert not (tmp_path / "out").exists()
    (tmp_path / "prompts.jsonl").write_text((tmp_path / "prompts.jsonl").read_text().replace('"answer"', '"reply"'))
    with pytest.raises(DataError, match=r"no gold answer"):
        best_of_n(good, tmp_path / "out", {})
    write_prompts(tmp_path / "prompts.jsonl")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "config.json").write_text("{}")  # of a start that was killed before it sampled anything
    assert ORACLE in best_of_n(good, tmp_path / "out", {})
    with pytest.raises(RunDirectoryError, match="is a file"):
        best_of_n(good, tmp_path / "judges.py", {})


def test_accuracy_has_wilson_intervals_and_unreadable_answers_are_shown(table, tmp_path):
    table["evaluation"] = {"metric": "accuracy", "answer": "final_answer"}
    config, notes = parse_config(table), []
    results = best_of_n(config, tmp_path / "out", some(config, "fixed: knowing"), note=notes.append)
    for result in (results["fixed: knowing"], results[ORACLE]):
        assert result.interval == wilson_interval(12 * result.value, 12)
    assert results["fixed: knowing"].interval[1] > 0.2  # of 0 of 12; a bootstrap says 0 to 0
    begin = notes.index("72 of 72 answers cannot be read and count as wrong:")
    assert all("there is no 'Final answer:'; the response ends: " in line for line in notes[begin + 1 : begin + 4])
    assert "set evaluation.answer" in notes[begin + 4]


@pytest.mark.slow
def test_the_command_shows_three_unreadable_answers_and_what_to_set(table, tmp_path, capsys):
    table["evaluation"] = {"metric": "accuracy", "answer": "final_answer"}
    cli.best_of_n(write_toml(tmp_path / "run.toml", table), [], tmp_path / "out", ["random"])
    shown = capsys.readouterr().out
    assert "72 of 72 answers cannot be read and count as wrong:" in shown
    assert shown.count(": there is no 'Final answer:'; the response ends: ") == 3
    assert "set evaluation.answer to where answers are" in shown


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "name"),
    [("judges.py", "reward models"), ("prompts.jsonl", "test prompts"), ("base/config.json", "policy")],
)
def test_responses_of_what_has_changed_since_are_refused(table, tmp_path, change, name):
    """The configuration only names the files."""
    config = parse_config(table)
    best_of_n(config, tmp_path / "out", some(config, "random"))
    before = (tmp_path / "out" / "results.json").read_bytes()
    path = tmp_path / change
    content = path.read_text()
    path.write_text(content.replace("say 1", "tell 1") if change == "prompts.jsonl" else f"{content}\n")
    with pytest.raises(ConfigError, match=rf"{name}.* changed since .* restore them, or choose a new --out"):
        best_of_n(config, tmp_path / "out", some(config, "random"))
    assert (tmp_path / "out" / "results.json").read_bytes() == before
    path.write_text(content)
    best_of_n(config, tmp_path / "out", some(config, "random"))


@pytest.mark.slow
def test_the_command_keeps_names_whole_and_quotes_them(table, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    table["rewards"]["models"] += [model(tmp_path, "silent"), model(tmp_path, "down")]
    path = write_toml(tmp_path / "run.toml", table)
    wanted = ["score ensemble, ranks", "fixed: silent", "configured: linucb"]
    cli.best_of_n(path, [], tmp_path / "out", wanted)
    shown = capsys.readouterr().out
    for name in [*wanted, ORACLE, ONE_SAMPLE]:
        assert shown.count(f"│ {name} ") == 2  # all methods, then by category
    assert "…" not in shown
    assert all(line[-1] in "┓┩│┘" for line in shown.splitlines() if line[:1] in "┏┡│└")
    assert "left out: silent: 144 of 144 responses without a score" in shown
    assert "left out: down: " in shown
    with pytest.raises(ConfigError, match=r"no method 'nope'; there are .*'score ensemble, ranks', "):
        cli.best_of_n(path, [], tmp_path / "out", ["nope"])
    with pytest.raises(ConfigError, match=r"classifier: give --router"):
        cli.best_of_n(path, [], tmp_path / "out", ["classifier"])
    cli.best_of_n(path, [], tmp_path / "out", [])
    assert "classifier: give --router (laser train-classifier makes one)" in capsys.readouterr().out


def test_metrics():
    assert token_f1("The cat sat.", "a cat") == pytest.approx(2 / 3)
    assert token_f1("", "x") == 0
    assert token_f1("the", "a") == 1
    assert rouge_l()("the cat sat", "the cat") == pytest.approx(0.8)
    f1 = make_metric("f1", "whole")
    several = make_prompt("q")
    object.__setattr__(several, "metadata", {"answers": ["red", "dark blue"]})
    assert f1(several, "blue").value == pytest.approx(2 / 3)
    assert make_metric("accuracy", "whole")(make_prompt("q", answer="4"), " 4.0 ").value == 1
    with pytest.raises(DataError, match=r"no gold answer"):
        gold_answers(make_prompt("q"))
