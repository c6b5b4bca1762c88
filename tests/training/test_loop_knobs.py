"""Fields that the loop reads change a tiny run: what it does, when it checks and what it keeps.

`test_knobs.py` has those of `draw_batches`.
"""

import json

import pytest

import laser
from runs import essence, make_table, steps

SMALL = {
    "split": {"train": 8, "dev": 2},
    "generation": {"num_responses": 3, "max_new_tokens": 4},
    "training": {"iterations": 2, "batches_per_iteration": 2, "pairs_per_prompt": 2},
    "checkpoint": {"every": 1, "keep": 9},
}
DIFFERENT = {
    "training.sampling": "per_iteration",
    "training.reference": "initial",
    "training.granularity": "per_prompt",
    "training.bandit_loss": "post_update",
    "training.pairs_per_prompt": 1,
    "training.iterations": 1,
    "generation.num_responses": 4,
    "generation.temperature": 0.3,
    "generation.top_p": 0.2,
    "generation.max_new_tokens": 2,
    "seed": 11,
}


def run(folder, name, **changes):
    """Train with some fields changed, given by dotted path; returns the run's folder."""
    table = {**make_table(folder, "vowels", "short", **SMALL), "seed": 5}
    for path, value in changes.items():
        section, _, key = path.rpartition(".")
        (table.setdefault(section, {}) if section else table)[key] = value
    laser.train(table, folder / name)
    return folder / name


@pytest.fixture(scope="module")
def default(tmp_path_factory):
    folder = tmp_path_factory.mktemp("knobs")
    return folder, essence(run(folder, "default"))


@pytest.mark.slow
@pytest.mark.parametrize("path", DIFFERENT)
def test_a_field_changes_the_batches(default, path):
    folder, expected = default
    assert essence(run(folder, path, **{path: DIFFERENT[path]})) != expected


def evaluations(path):
    return [json.loads(line)["batches"] for line in (path / "evaluations.jsonl").read_text().splitlines()]


def checkpoints(path):
    return sorted(entry.name for entry in (path / "checkpoints").iterdir())


@pytest.mark.slow
def test_evaluation_every_says_after_which_iterations_the_dev_metric_is_measured(tmp_path):
    always, rarely = (run(tmp_path, f"every-{every}", **{"evaluation.every": every}) for every in (1, 2))
    assert (evaluations(always), evaluations(rarely)) == ([0, 2, 4], [0, 4])


@pytest.mark.slow
def test_checkpoint_every_and_keep_say_what_is_on_disk(tmp_path):
    fine, coarse, few = (
        checkpoints(run(tmp_path, f"{every}-{keep}", **{"checkpoint.every": every, "checkpoint.keep": keep}))
        for every, keep in ((1, 9), (5, 9), (1, 2))
    )
    assert len(fine) > len(coarse)
    assert few == fine[-2:]


@pytest.mark.slow
@pytest.mark.parametrize(("checks", "num_batches"), [(1, 2), (2, 4)])
def test_convergence_waits_for_checks_in_a_row(tmp_path, checks, num_batches):
    """A policy that does not learn stalls at every check: no reward model orders its responses."""
    table = make_table(tmp_path, "constant", **SMALL, selector={"type": "fixed", "arm": "constant"})
    table["training"] |= {"iterations": 5, "convergence_threshold": 0.1, "convergence_patience": checks}
    laser.train(table, tmp_path / "run")
    assert len(steps(tmp_path / "run")) == num_batches
