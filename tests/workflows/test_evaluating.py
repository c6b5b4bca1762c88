"""`laser eval` without a judge, on a tiny run: the numbers, what is kept, and what is refused."""

import json
import shutil

import numpy as np
import pytest

import laser
from laser.commands.evaluate import evaluate
from laser.config import parse_config
from laser.config.load import with_overrides
from laser.core.errors import ConfigError, DataError, LaserError, ModelError, RunDirectoryError
from laser.core.statistics import wilson_interval
from laser.data.responses import load_responses
from laser.evaluation.metrics import rouge_l
from runs import make_table

GOLD = "7m 7h 4bh e o d 7 h 4 f u t a r ed"
WHOLE = ["evaluation.metric=rouge_l", "evaluation.answer=whole", "evaluation.max_new_tokens=24"]


def write_prompts(path, count=40):
    """The gold answer is short words of which a random model writes some by chance."""
    rows = [{"id": str(i), "prompt": f"say {i}", "answer": GOLD, "category": "xy"[i % 2]} for i in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Two runs that differ by seed alone, over prompts from a file, and the folder they are in."""
    folder = tmp_path_factory.mktemp("evaluated")
    table = make_table(
        folder,
        "vowels",
        training={"learning_rate": 0.05, "iterations": 1},
        data={"type": "file", "train": write_prompts(folder / "prompts.jsonl")},
        split={"train": 12, "dev": 12, "test": 12},
        evaluation={"answer": "whole"},
    )
    laser.train(table, folder / "first")
    laser.train({**table, "seed": 4}, folder / "second")
    return folder


@pytest.mark.slow
def test_a_run_measures_what_training_measured(project):
    """Greedy answers of the same weights on the same prompts: the run's own last dev check."""
    checks = (project / "first" / "evaluations.jsonl").read_text().splitlines()
    evaluation = evaluate([project / "first"])
    measured = evaluation.measured["first"]
    last = json.loads(checks[-1])
    assert measured.overall.value == last["accuracy"]
    assert measured.unreadable.num == last["num_unparseable"]
    assert (measured.overall.low, measured.overall.high) == wilson_interval(sum(measured.values), 12)
    assert {name: share.value for name, share in measured.by_category.items()} == last["by_category"]
    assert evaluation.differences == {}


@pytest.mark.slow
def test_the_results_are_the_metric_of_the_kept_responses(project, tmp_path):
    evaluation = evaluate(
        [project / "first", project / "second"], split="test", base=True, overrides=WHOLE, out=tmp_path / "r.json"
    )
    assert list(evaluation.measured) == ["base", "first", "second"]
    results = json.loads((tmp_path / "r.json").read_text())
    compare = rouge_l()
    for label, measured in evaluation.measured.items():
        kept = load_responses(tmp_path / f"r.{label}.jsonl")
        values = [compare(one.text, GOLD) for one in kept]
        assert measured.values == pytest.approx(values)
        assert measured.overall.value == pytest.approx(np.mean(values))
        assert measured.overall.low <= measured.overall.value <= measured.overall.high
        assert measured.num_truncated == sum(not one.finished for one in kept) > 0
        assert results["policies"][label]["overall"]["value"] == measured.overall.value
        assert results["policies"][label]["responses"] == f"r.{label}.jsonl"
        assert [one.prompt.id for one in kept] == results["prompt_ids"]
    texts = {label: [one.text for one in answered] for label, answered in evaluation.answers.responses.items()}
    assert texts["base"] != texts["first"] != texts["second"]
    assert any(value > 0 for measured in evaluation.measured.values() for value in measured.values)


@pytest.mark.slow
def test_differences_are_paired(project):
    evaluation = evaluate([project / "first"], base=True, overrides=WHOLE)
    share = evaluation.differences["first"]
    ours, theirs = (np.array(evaluation.measured[label].values) for label in ("first", "base"))
    assert share.value == pytest.approx((ours - theirs).mean())
    same = evaluate([project / "first", project / "first" / ".." / "second"], overrides=[*WHOLE, "seed=3"])
    assert list(same.measured) == ["first", "second"]


@pytest.mark.slow
def test_a_configuration_means_its_untrained_model(project, tmp_path):
    (tmp_path / "plain.toml").write_text(
        f'seed = 3\npolicy = {{model = "{project}/base", max_context = 450}}\n'
        f'data = {{type = "file", train = "{project}/prompts.jsonl"}}\nsplit = {{train = 12, dev = 12, test = 12}}\n'
        "generation = {max_new_tokens = 6, num_responses = 5}\n"
        f'[[rewards.models]]\nname = "a"\ntype = "function"\nfunction = "{project}/scores.py:vowels"\n'
    )
    plain = evaluate([tmp_path / "plain.toml"], overrides=WHOLE)
    base = evaluate([project / "first"], base=True, overrides=WHOLE)
    assert [one.text for one in plain.answers.responses["plain"]] == [
        one.text for one in base.answers.responses["base"]
    ]


ROW = '{"id": "1", "prompt": "say", "response": "mine"}'


@pytest.mark.parametrize(
    "content", ["mine", ROW, f"{ROW}\n{ROW.replace('1', '2')}", f"{ROW}\nmine", f'{ROW}\n{{"id": "2", "pro']
)
def test_a_users_file_next_to_the_results_stays_whole(project, tmp_path, content):
    """The last line of a file need not end in a newline to be the user's."""
    (tmp_path / "r.first.jsonl").write_text(content)
    with pytest.raises(LaserError, match=r"r\.first\.jsonl"):
        evaluate([project / "first"], overrides=WHOLE, out=tmp_path / "r.json")
    assert (tmp_path / "r.first.jsonl").read_text() == content


@pytest.mark.slow
@pytest.mark.parametrize("cut", [1, 8, 100, -1])
def test_a_row_cut_anywhere_is_sampled_again(project, tmp_path, cut):
    whole = evaluate([project / "first"], overrides=WHOLE, out=tmp_path / "r.json")
    kept = (tmp_path / "r.first.jsonl").read_text()
    lines = kept.splitlines(keepends=True)
    (tmp_path / "r.first.jsonl").write_text("".join(lines[:-1]) + lines[-1][:cut])
    assert evaluate([project / "first"], overrides=WHOLE, out=tmp_path / "r.json").measured == whole.measured
    assert (tmp_path / "r.first.jsonl").read_text() == kept


@pytest.mark.slow
def test_an_interrupted_evaluation_continues(project, tmp_path):
    whole = evaluate([project / "first"], overrides=WHOLE, out=tmp_path / "r.json")
    lines = (tmp_path / "r.first.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "r.first.jsonl").write_text("".join(lines[:5]) + lines[5][:40])
    (tmp_path / "r.json").unlink()
    noted = []
    again = evaluate([project / "first"], overrides=WHOLE, out=tmp_path / "r.json", note=noted.append)
    assert "first: sampling for prompts 1 to 7 of 7" in noted
    assert again.measured == whole.measured
    assert (tmp_path / "r.first.jsonl").read_text().splitlines(keepends=True) == lines
    noted.clear()
    assert evaluate([project / "first"], overrides=WHOLE, out=tmp_path / "r.json", note=noted.append) == again
    assert noted == ["first: all 12 responses are there"]


CHANGES = [
    *("seed=9", "evaluation.max_new_tokens=5", "evaluation.temperature=0.5"),
    *("policy.chat_template=plain", "policy.precision=bf16", "policy.lora.alpha=3", "policy.system_prompt=Be brief."),
    *("policy.max_context=300", "generation.engine=vllm"),
]


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES)
def test_kept_responses_of_other_settings_are_refused(project, tmp_path, change):
    evaluate([project / "first"], overrides=WHOLE, out=tmp_path / "r.json")
    with pytest.raises(ConfigError, match="choose another --out"):
        evaluate([project / "first"], overrides=[*WHOLE, change], out=tmp_path / "r.json")


@pytest.mark.slow
def test_an_unfinished_run_is_evaluated_at_its_checkpoint(project, tmp_path):
    shutil.copytree(project / "first", tmp_path / "first")
    shutil.rmtree(tmp_path / "first" / "adapter")
    checkpoint, adapter = (evaluate([where / "first"], overrides=WHOLE) for where in (tmp_path, project))
    assert checkpoint.measured == adapter.measured
    shutil.rmtree(tmp_path / "first" / "checkpoints")
    with pytest.raises(RunDirectoryError, match="neither an adapter nor a checkpoint"):
        evaluate([tmp_path / "first"])


@pytest.mark.slow
def test_prompts_of_the_training_are_counted(project):
    """The second run split the same prompts by another seed: some of the first one's dev prompts trained it."""
    evaluation = evaluate([project / "first", project / "second"])
    shared = {p.text for p in evaluation.answers.prompts}
    config = parse_config(json.loads((project / "second" / "config.json").read_text()))
    trained_on = {p.text for p in laser.wiring.build_splits(config).train}
    assert evaluation.answers.seen == {"first": 0, "second": len(shared & trained_on)}
    assert len(shared & trained_on) > 0
    moved = evaluate([project / "first"], overrides=["split.dev=24", "split.test=0"])
    assert moved.answers.seen["first"] is not None


def test_what_cannot_be_evaluated(project, tmp_path):
    with pytest.raises(RunDirectoryError, match="holds no run"):
        evaluate([tmp_path])
    with pytest.raises(DataError, match=r"no test prompts; set split\.test"):
        evaluate([project / "first"], split="test", overrides=["split.test=0"])
    with pytest.raises(
        DataError, match=r"12 of 12 dev prompts have no gold answer to measure against, the first '\d+'"
    ):
        evaluate(project / "first", overrides="data.answer_field=none", note=pytest.fail)  # before anything is loaded
    with pytest.raises(ConfigError, match="responses are for --judge"):
        evaluate([project / "prompts.jsonl"])
    with pytest.raises(ConfigError, match="named twice"):
        evaluate([project / "first", project / "first"])
    with pytest.raises(ModelError, match="does not fit this policy"):
        evaluate([project / "first"], overrides=["policy.lora.rank=7"])
    with pytest.raises(ModelError, match=r"other target_modules"):
        evaluate([project / "first"], overrides=["policy.lora.target_modules=['q_proj']"])
    with pytest.raises(ConfigError, match="did you mean 'split'"):
        evaluate([project / "first"], overrides=["splt.dev=3"])
    with pytest.raises(ConfigError, match="nothing to evaluate"):
        evaluate([])


def test_a_run_from_elsewhere_that_would_do_things_needs_trust(project, tmp_path):
    shutil.copytree(project / "first", tmp_path / "first")
    path = tmp_path / "first" / "config.json"
    evaluate([tmp_path / "first"])  # a copy is as it was signed
    config = json.loads(path.read_text())
    config["seed"] += 0
    config["policy"]["trust_remote_code"] = True
    path.write_text(json.dumps(config))
    with pytest.raises(RunDirectoryError, match=r"run code that .* brings.*add --trust"):
        evaluate([tmp_path / "first"])
    assert evaluate([tmp_path / "first"], trust=True).measured


def test_overrides_leave_the_rest(project):
    config = parse_config(json.loads((project / "first" / "config.json").read_text()))
    changed = with_overrides(config, ["rewards.models.vowels.noise=0.5", "split.dev=3"])
    assert changed.rewards.models[1].noise == 0.5
    assert changed.split.dev == 3
    assert changed.model_copy(update={"rewards": config.rewards, "split": config.split}) == config
    assert with_overrides(config, []) is config


def test_every_field_of_policy_and_generation_is_in_the_identity_or_known_to_change_nothing():
    """A new field changes the identity of kept responses until it is listed."""
    from laser.config.schema import GenerationConfig, LoraConfig, PolicyConfig
    from laser.config.servers import ServerConfig
    from laser.wiring.identity import _WITHOUT_EFFECT

    fields = {*PolicyConfig.model_fields, *(f"lora.{name}" for name in LoraConfig.model_fields)}
    assert fields >= set(_WITHOUT_EFFECT["policy"])
    fields = {*GenerationConfig.model_fields, *(f"server.{name}" for name in ServerConfig.model_fields)}
    assert fields >= set(_WITHOUT_EFFECT["generation"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "change", ["generation.temperature=0.3", "generation.server.url=http://h:1", "rewards.max_resident=3"]
)
def test_settings_that_change_no_answer_keep_the_responses(project, tmp_path, change):
    evaluate([project / "first"], overrides=WHOLE, out=tmp_path / "r.json")
    noted = []
    evaluate([project / "first"], overrides=[*WHOLE, change], out=tmp_path / "r.json", note=noted.append)
    assert noted == ["first: all 12 responses are there"]
