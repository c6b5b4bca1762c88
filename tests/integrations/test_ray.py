"""`laser label --engine ray` on a local cluster of two nodes, one of whose workers is killed."""

import json
import os

import numpy as np
import pytest

import laser
from laser.commands import label_files
from laser.commands.label import label
from laser.commands.label_parts import Part
from laser.config import parse_config
from laser.core.errors import ConfigError, RewardModelError
from laser.core.types import Prompt, Selection
from laser.integrations.ray import _read_prompts, _Scorer, _unwrapped, _Work, _write_prompts, label_with_ray
from laser.training.pairs import Candidates
from runs import make_table

JUDGES = """
import os, pathlib, signal

def vowels(prompts, responses):
    killed = pathlib.Path(__file__).parent / "killed"
    if not killed.exists():
        killed.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return [sum(c in "aeiou" for c in text) - 0.01 * len(text) for text in responses]

def fails(prompts, responses):
    raise RuntimeError("no answer from the judge")
"""


@pytest.fixture
def table(tmp_path):
    table = make_table(tmp_path, "short", split={"train": 24, "dev": 0}, selector={"type": "ensemble"})
    (tmp_path / "judges.py").write_text(JUDGES)
    vowels = {"type": "function", "name": "vowels", "function": f"{tmp_path}/judges.py:vowels"}
    return {**table, "rewards": {"models": [table["rewards"]["models"][1], vowels]}}


@pytest.fixture(scope="module")
def cluster():
    pytest.importorskip("ray", reason="needs Ray: pip install 'laser-rm[ray]'")
    os.environ.setdefault("RAY_worker_niceness", "0")  # of 15 by default, with which workers starve on a busy machine
    import ray
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 3, "object_store_memory": 100 * 2**20, "include_dashboard": False}
    two_nodes = Cluster(initialize_head=True, head_node_args=node)
    two_nodes.add_node(num_cpus=3, object_store_memory=100 * 2**20)
    ray.init(address=two_nodes.address, log_to_driver=False, logging_level="ERROR")
    yield two_nodes
    ray.shutdown()
    two_nodes.shutdown()


def files(folder):
    return {path.name: path.read_bytes() for path in folder.glob("part-*")}


@pytest.mark.slow
def test_two_nodes_and_a_killed_actor_make_the_files_of_one_process(cluster, table, tmp_path, monkeypatch):
    """The actor dies while it scores its first batch. A restart labels what is missing alone."""
    monkeypatch.setattr(label_files, "PART_PROMPTS", 16)
    config, out = parse_config(table), tmp_path / "ray"
    report = label_with_ray(config, out, workers=2)
    assert (tmp_path / "killed").exists()
    whole = label(config, tmp_path / "whole")
    assert files(out) == files(tmp_path / "whole")
    assert (report.num_pairs, report.chosen, report.left_out) == (whole.num_pairs, whole.chosen, whole.left_out)
    assert not (out / ".prompts").exists()

    (out / ".part-000001.json").unlink()
    kept = (out / "part-000000.jsonl").stat().st_mtime_ns
    label_with_ray(config, out, workers=1)
    assert files(out) == files(tmp_path / "whole")
    assert (out / "part-000000.jsonl").stat().st_mtime_ns == kept
    with pytest.raises(ConfigError, match="was started with --engine ray; use that, or choose a new --out"):
        label(config, out)


@pytest.mark.slow
def test_doubtful_pairs_are_left_out_as_in_one_process(cluster, table, tmp_path):
    """By the thresholds of the selector's run."""
    (tmp_path / "killed").touch()
    rows = [{"prompt": str(row), "chosen": "aa" + "b" * row, "rejected": "a" * (row % 2) + "b"} for row in range(8)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps({"prompt": f"{row}?"}) + "\n" for row in range(24)))
    data = {"type": "file", "train": f"{tmp_path}/prompts.jsonl"}
    signal = {"type": "probe", "labels": "pairs", "pairs": f"{tmp_path}/pairs.jsonl"}
    bandit = {"type": "linucb", "alpha": 0.1, "ridge": 0.05}
    laser.train(parse_config({**table, "data": data, "signal": signal, "selector": bandit}), tmp_path / "run")
    config = parse_config({**table, "data": data, "selector": {"type": "frozen", "run": f"{tmp_path}/run"}})
    report, whole = label_with_ray(config, tmp_path / "ray", workers=2), label(config, tmp_path / "whole")
    assert files(tmp_path / "ray") == files(tmp_path / "whole")
    assert report.left_out == whole.left_out
    assert report.left_out["doubtful"] > 0


def test_a_reward_model_that_keeps_failing_ends_the_job_by_name(table, tmp_path):
    ray = pytest.importorskip("ray", reason="needs Ray: pip install 'laser-rm[ray]'")
    table["rewards"]["models"][1]["function"] = f"{tmp_path}/judges.py:fails"
    weights = np.array([[0.0, 1.0]])
    asked = Prompt("p", ({"role": "user", "content": "?"},))
    part, texts, pairs = (
        Part(tmp_path, "part", "jsonl", range(1)),
        [["a", "b"]],
        Candidates((((0, 1),),), 0, 0, 0),
    )
    work = _Work(part, 0, [asked], Selection(0, weights, weights, weights, ()), texts, pairs, [np.full((2, 2), np.nan)])
    with pytest.raises(RewardModelError, match="'vowels' raised RuntimeError: no answer from the judge") as raised:
        _Scorer(parse_config(table), 1)({"work": work})
    wrapped = ray.exceptions.RayTaskError("map", "traceback", raised.value).as_instanceof_cause()
    assert "the Ray job failed (a node is gone)" in str(_unwrapped(ray.exceptions.RayError("a node is gone")))
    assert _unwrapped(wrapped) is raised.value


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"selector": {"type": "linucb"}}, "a selector of type 'linucb' remembers them; use frozen"),
        ({"selector": {"type": "random"}}, "a selector of type 'random' remembers them"),
        ({"rewards": {"combine": "scaled"}}, "'scaled' remembers earlier batches"),
        (
            {"selector": {"type": "classifier", "path": "router"}, "context": {"normalization": "unit"}},
            "'unit' remembers earlier batches",
        ),
    ],
)
def test_what_depends_on_the_order_of_batches_is_refused(table, tmp_path, sections, words):
    rewards = {**table["rewards"], **sections.pop("rewards", {})}
    with pytest.raises(ConfigError, match=words):
        label_with_ray(parse_config({**table, "rewards": rewards, **sections}), tmp_path / "pairs")
    assert not (tmp_path / "pairs").exists()


def test_without_ray_the_cure_is_named(table, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(ConfigError, match=r"needs Ray; install it with: pip install 'laser-rm\[ray\]'"):
        label_with_ray(parse_config(table), tmp_path / "pairs")
    assert not (tmp_path / "pairs").exists()


@pytest.mark.slow
def test_a_cluster_that_does_not_answer_is_named(table, tmp_path, monkeypatch):
    ray = pytest.importorskip("ray", reason="needs Ray: pip install 'laser-rm[ray]'")
    ray.shutdown()
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(ConfigError, match=r"no Ray cluster answers .*; correct RAY_ADDRESS"):
        label_with_ray(parse_config(table), tmp_path / "pairs")
    assert not (tmp_path / "pairs").exists()


def test_options_of_ray_without_it_are_refused(tmp_path):
    from laser.cli.label import label as command

    with pytest.raises(ConfigError, match="--workers does nothing without --engine ray"):
        command(None, [], tmp_path / "pairs", workers=2)


def test_the_prompts_of_a_part_survive_their_file(table, tmp_path):
    part = Part(tmp_path, "part-000001", "jsonl", range(2, 4))
    prompts = [
        Prompt(str(row), ({"role": "user", "content": "\u2028é"},), "c", "4", {"n": [1]}, True) for row in range(7)
    ]
    _write_prompts(part, prompts, 2)
    assert list(_read_prompts(part, [3], 2)) == [(3, prompts[6:8])]
    assert json.loads((tmp_path / ".prompts" / "part-000001.jsonl").read_text().splitlines()[0])[0] == "4"
