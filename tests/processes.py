"""Runs of several real processes on this machine: starting them, and what must be the same however many there are."""

import multiprocessing
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np

from runs import adapter, steps

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "GLOO_SOCKET_IFNAME": "lo"}

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    ["laser.commands.train", "laser.integrations.server.app", "transformers.models.llama.modeling_llama"]
)


def fork(processes, work, *arguments):
    """Call a function in processes that find each other as those of torchrun do, without importing torch in each."""
    ranks = begin(processes, work, *arguments)
    for rank in ranks:
        rank.join(240)
    assert [rank.exitcode for rank in ranks] == [0] * processes


def begin(processes, work, *arguments):
    """The processes of `fork`, started."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    ranks = [FORKS.Process(target=_rank, args=(rank, processes, port, work, arguments)) for rank in range(processes)]
    for rank in ranks:
        rank.start()
    return ranks


def _rank(rank, processes, port, work, arguments):
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
    os.environ |= {"LOCAL_WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= {"GLOO_SOCKET_IFNAME": "lo"}
    work(*arguments)


def launch(processes, *arguments):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command += ["-m", "laser", *map(str, arguments)]
    return subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process, timeout=240):
    out, err = process.communicate(timeout=timeout)
    return process.returncode, out, err


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
