"""`laser serve` and `laser compare` find out before anything is started or written what cannot be used."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from laser.cli import main as cli
from laser.cli import serve
from laser.compare.schedule import check_devices
from laser.config import parse_config
from laser.core.errors import ConfigError, ServerError
from laser.lm.sources import load_causal_lm, load_tokenizer
from laser.policy.policy import Policy
from tiny import make_prompt, make_tokenizer, save_model

CPU = {"device": torch.device("cpu"), "dtype": torch.float32}

RUN = """
policy.model = "org/policy"
data.type = "embedded"
split = {train = 40, dev = 8, test = 8}
rewards.models = [{name = "a", type = "loglik", model = "org/a"}, {name = "b", type = "loglik", model = "org/b"}]
"""
SUITE = f"""
seeds = [0]
[methods.laser]
[base]
{RUN}
"""


def run(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["laser", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    return stopped.value.code, " ".join(capsys.readouterr().err.split())


@pytest.fixture
def config(tmp_path, monkeypatch):
    def started(*arguments):
        raise AssertionError("nothing is to be started")

    monkeypatch.setattr(os, "execvp", started)
    (tmp_path / "run.toml").write_text(RUN)
    return tmp_path / "run.toml"


def interpreter(folder, status):
    path = folder / "python"
    path.write_text(f"#!/bin/sh\nexit {status}\n")
    path.chmod(0o755)
    return path


def test_an_interpreter_without_vllm_is_a_sentence(config, tmp_path, monkeypatch, capsys):
    code, err = run(monkeypatch, capsys, "serve", config, "--python", interpreter(tmp_path, 1))
    assert code == 2
    assert f"{tmp_path}/python has no vLLM" in err
    assert "pip install vllm" in err
    assert "--python" in err
    (tmp_path / "python").write_text("no program")
    code, err = run(monkeypatch, capsys, "serve", config, "--python", tmp_path / "python")
    assert (code, "give another with --python" in err) == (2, True)


def test_the_probe_asks_a_real_interpreter(tmp_path, monkeypatch):
    (tmp_path / "empty" / "vllm").mkdir(parents=True)
    (tmp_path / "vllm").mkdir()
    (tmp_path / "vllm" / "__init__.py").write_text("raise RuntimeError('it is not to be imported')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    serve._check_has_vllm(sys.executable)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "empty"))
    with pytest.raises(ConfigError, match="has no vLLM"):
        serve._check_has_vllm(sys.executable)


def test_a_model_that_needs_several_gpus_is_split_over_them(config, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    options = ["serve", config, "--set", "policy.model=x", "--print", "--tensor-parallel"]
    monkeypatch.setattr("sys.argv", ["laser", *map(str, options), "2", "--replicas", "2"])
    with pytest.raises(SystemExit):
        cli.main()
    lines = capsys.readouterr().out.splitlines()
    assert ["CUDA_VISIBLE_DEVICES=0,1 " in lines[0], "CUDA_VISIBLE_DEVICES=2,3 " in lines[1]] == [True, True]
    assert all(line.endswith("--tensor-parallel-size 2") for line in lines)
    code, err = run(monkeypatch, capsys, *options, "4", "--replicas", 2)
    assert (code, "need 8 GPUs, and 4 are visible" in err) == (2, True), err


@pytest.mark.parametrize("port", ["99999", "0", "-1"])
def test_a_port_that_is_none_is_refused(config, monkeypatch, capsys, port):
    code, err = run(monkeypatch, capsys, "serve", config, "--port", port, "--print")
    assert code == 2
    assert "--port" in err


def test_replicas_have_ports_and_parts_of_the_gpus(config, monkeypatch, capsys):
    def printed(replicas, *, gpus, visible=None):
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        serve.serve(str(config), ["policy.model=x"], port=9000, replicas=replicas, show=True)
        lines = capsys.readouterr().out.splitlines()
        return [(line.partition(" python3 ")[0].split()[1:], line.split("--port ")[1].split()[0]) for line in lines]

    assert printed(1, gpus=2) == [([], "9000")]
    assert printed(2, gpus=0) == [([], "9000"), ([], "9001")]
    assert printed(2, gpus=5) == [(["CUDA_VISIBLE_DEVICES=0,1"], "9000"), (["CUDA_VISIBLE_DEVICES=2,3"], "9001")]
    assert printed(2, gpus=2, visible="6,7") == [
        (["CUDA_VISIBLE_DEVICES=6"], "9000"),
        (["CUDA_VISIBLE_DEVICES=7"], "9001"),
    ]
    with pytest.raises(ConfigError, match="--replicas 3 and --tensor-parallel 1 need 3 GPUs, and 2 are visible"):
        printed(3, gpus=2)
    for replicas in (0, -1):
        code, err = run(monkeypatch, capsys, "serve", config, "--replicas", replicas, "--print")
        assert (code, "--replicas" in err) == (2, True), err
    code, err = run(monkeypatch, capsys, "serve", config, "--port", 65535, "--replicas", 2, "--print")
    assert (code, "2 servers need the ports 65535 to 65536; lower --port" in err) == (2, True), err


@pytest.mark.slow
def test_a_policy_that_is_an_adapter_is_served_merged(tmp_path, monkeypatch):
    """The folder that vLLM loads has the log-probs of the policy that the run trains; it is made once."""
    monkeypatch.setenv("LASER_CACHE", str(tmp_path / "cache"))
    policy = Policy(load_causal_lm(str(save_model(tmp_path / "base")), **CPU), make_tokenizer(), lora_rank=2)
    with torch.no_grad():
        for parameter in policy.trainable_parameters():
            parameter.add_(0.1)
    policy.save_adapter(tmp_path / "adapter")
    table = {"policy": {"model": str(tmp_path / "adapter"), "precision": "fp32"}, "data": {"type": "embedded"}}
    table["rewards"] = {"models": [{"type": "function", "name": "f", "function": "f.py:f"}]}

    def served():
        arguments = serve.server_arguments(parse_config(table), host="127.0.0.1", port=8000)
        return Path(arguments[arguments.index("--model") + 1])

    folder = served()
    assert folder.parent == tmp_path / "cache" / "models"
    assert not (folder / "adapter_config.json").exists()
    merged = Policy(load_causal_lm(str(folder), **CPU), load_tokenizer(str(folder)), lora_rank=2)
    prompts = policy.encode([make_prompt("what?")])
    assert merged.encode([make_prompt("what?")]) == prompts
    (own,), (given,) = ((one.logps(prompts, [[[5, 6, 7]]], which="policy")) for one in (policy, merged))
    assert torch.allclose(own, given, atol=1e-4)
    written = (folder / "config.json").stat().st_mtime_ns
    assert served() == folder
    assert (folder / "config.json").stat().st_mtime_ns == written


@pytest.mark.slow
def test_replicas_end_with_the_command_and_not_with_each_other(tmp_path):
    """Of two servers one ends at once; SIGTERM to the command ends the other."""
    (tmp_path / "server.py").write_text(
        "import os, pathlib, sys, time\n"
        "name = pathlib.Path(__file__).with_name(sys.argv[1])\n"
        "name.with_suffix('.new').write_text(f'{os.getpid()} {os.environ.get(\"GPU\")}')\n"
        "name.with_suffix('.new').rename(name)\n"
        "time.sleep(0 if sys.argv[1] == 'short' else 60)\n"
        "sys.exit(3)\n"
    )
    commands = [[sys.executable, f"{tmp_path}/server.py", name] for name in ("short", "long")]
    code = f"from laser.cli.serve import _run_together; _run_together({commands!r}, [{{}}, {{'GPU': '1'}}])"
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    assert process.stderr.readline().startswith("a server ended with code 3, 1 continue: ")
    while not (tmp_path / "long").exists():
        time.sleep(0.05)
    pid, gpu = (tmp_path / "long").read_text().split()
    assert gpu == "1"
    process.send_signal(signal.SIGTERM)
    assert "KeyboardInterrupt" in process.communicate(timeout=60)[1]
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid), 0)


def test_without_any_server_left_there_is_a_sentence():
    with pytest.raises(ServerError, match="all servers have ended; read their output above"):
        serve._run_together([["false"], ["false"]], [{}, {}])


def test_a_missing_device_is_reported_before_anything_is_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    check_devices(["auto", "cpu", "cuda:0"])
    (tmp_path / "suite.toml").write_text(SUITE)
    command = ("compare", tmp_path / "suite.toml", "--out", tmp_path / "out")
    code, err = run(monkeypatch, capsys, *command, "--devices", "cuda:1")
    assert (code, err.count("device 'cuda:1' does not exist on this machine; choose among cpu, cuda:0")) == (2, 1), err
    code, err = run(monkeypatch, capsys, *command, "--devices", "gpu7")
    assert (code, "'gpu7' is not a device; choose auto, cpu, mps or cuda:N" in err) == (2, True), err
    assert not (tmp_path / "out").exists()


def test_mistakes_in_a_suite_name_its_file_or_what_to_write(tmp_path, monkeypatch, capsys):
    suite = tmp_path / "suite.toml"
    suite.write_text(SUITE)
    code, err = run(monkeypatch, capsys, "compare", suite, "--set", "base=missing.toml")
    assert (code, "write --set base.FIELD=VALUE" in err) == (2, True), err
    code, err = run(monkeypatch, capsys, "compare", suite, "--set", 'metric="test"', "--set", "base.split.test=0")
    assert code == 2
    assert "suite suite: " in err
    assert "metric = 'test' needs test prompts; set split.test" in err
