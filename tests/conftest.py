"""Shared by all tests: threads are pinned, the hub is never reached."""

import atexit
import os
import shutil
import tempfile

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="laser-state-")  # the key that signs runs
atexit.register(shutil.rmtree, os.environ["XDG_STATE_HOME"], ignore_errors=True)


def pytest_xdist_auto_num_workers():
    """Three processes on two cores: tests of servers, kills and deadlines wait for a quarter of their time."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores * 3 // 2)


def pytest_sessionfinish():
    """Leave behind how many inputs were tried."""
    from counted import write_counts

    write_counts()
