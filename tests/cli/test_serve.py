"""`laser serve` and `laser compare` find out before anything is started or written what cannot be used."""

import os
import sys

import pytest
import torch

from laser.cli import main as cli
from laser.cli import serve
from laser.compare.schedule import check_devices
from laser.core.errors import ConfigError

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


@pytest.mark.parametrize("port", ["99999", "0", "-1"])
def test_a_port_that_is_none_is_refused(config, monkeypatch, capsys, port):
    code, err = run(monkeypatch, capsys, "serve", config, "--port", port, "--print")
    assert code == 2
    assert "--port" in err


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
