"""Runs of several real processes on this machine: starting them, and what must be the same however many there are."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from runs import adapter, steps

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "GLOO_SOCKET_IFNAME": "lo"}


def launch(processes, *arguments):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command += ["-m", "laser", *map(str, arguments)]
    return subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process, timeout=240):
    out, err = process.communicate(timeout=timeout)
    return process.returncode, out, err


def toml(path, table):
    """A configuration file; JSON is TOML enough for inline values."""
    lines = [f"{name} = {json.dumps(value)}" for name, value in table.items() if not isinstance(value, dict)]
    for name, section in table.items():
        if isinstance(section, dict) and name != "rewards":
            lines.append(f"[{name}]")
            lines += [f"{key} = {inline(value)}" for key, value in section.items()]
    for model in table["rewards"]["models"]:
        lines += ["[[rewards.models]]", *(f"{key} = {json.dumps(value)}" for key, value in model.items())]
    path.write_text("\n".join(lines))
    return path


def inline(value):
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {inline(item)}" for key, item in value.items()) + "}"
    return json.dumps(value)


def same(first, second):
    ours, theirs = steps(first), steps(second)
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert a["selection"]["arms"] == b["selection"]["arms"]
        assert np.allclose(a["selection"]["values"], b["selection"]["values"], atol=1e-4)
        assert a["pairs"] == b["pairs"]
        assert a["scored"] == b["scored"]
        assert (a["loss"] is None) == (b["loss"] is None) == (a["pairs"] == 0)
        assert a["loss"] is None or np.isclose(a["loss"], b["loss"], atol=1e-4)
        assert np.isclose(a["grad_norm"], b["grad_norm"], rtol=1e-3)
        assert a["tokens"] == b["tokens"]
    for name, weights in adapter(first).items():
        assert np.allclose(weights, adapter(second)[name], atol=1e-4), name


def worker_of(launcher, rank):
    for child in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split():
        if f"\0RANK={rank}\0" in Path(f"/proc/{child}/environ").read_text():
            return int(child)
    raise AssertionError("no such worker")
