"""Killing a reward server while clients use it, and comparing what it says and knows with what was sent."""

import contextlib
import os
import random
import signal
import socket
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field

from laser.integrations.server.command import Limits, make_worker, serve_rewards
from laser.integrations.server.run import serve  # noqa: F401  # loaded before processes are forked
from laser_client import Client
from processes import FORKS
from reward_servers import DIRECT, make_config

CONFIG = """
seed = 5
context = {{ source = "none" }}
[rewards]
max_failures = 1
models = [
  {{ type = "function", name = "length", function = "{folder}/scores.py:length" }},
  {{ type = "function", name = "digits", function = "{folder}/scores.py:digits" }},
]
"""


@dataclass
class KillReport:
    """What clients got, and what the server knows at the end.

    Attributes:
        kills: Kills that hit the server.
        wrong: Samples whose score is not that of a direct call.
        split: Prompts of two reward models.
        rows: Samples that the server knows.
        groups: Its groups.
        learned: Groups it has learned from.
    """

    kills: int = 0
    wrong: list = field(default_factory=list)
    split: list = field(default_factory=list)
    rows: int = 0
    groups: int = 0
    learned: int = 0


def kill_under_load(folder, *, kills, prompts, samples, clients, seed):
    """Send `prompts` times `samples` samples from threads, kill the server meanwhile, and look at what came out."""
    rng, report = random.Random(seed), KillReport()
    make_config(folder, "length", "digits")
    (folder / "run.toml").write_text(CONFIG.format(folder=folder))
    port = free_port()
    work = [(f"question {number}", "9" * (1 + index)) for number in range(prompts) for index in range(samples)]
    rng.shuffle(work)
    got, lock = defaultdict(dict), threading.Lock()
    pace = threading.Semaphore(0)

    def send():
        client = Client(f"http://127.0.0.1:{port}", retry_seconds=120)
        while True:
            pace.acquire()
            with lock:
                if not work:
                    return
                prompt, text = work.pop()
            (scored,) = client.score([prompt], [text], labels=["99"])
            with lock:
                got[prompt][text] = scored

    threads = [threading.Thread(target=send) for _ in range(clients)]
    process = _start(folder, port, samples)
    for thread in threads:
        thread.start()
    share = len(work) // (kills + 1)
    for _ in range(kills):
        _release(pace, share)
        time.sleep(rng.uniform(0.02, 0.3))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        report.kills += process.exitcode == -signal.SIGKILL
        process = _start(folder, port, samples)
    _release(pace, prompts * samples + clients)
    for thread in threads:
        thread.join()
    os.kill(process.pid, signal.SIGTERM)
    process.join()
    assert process.exitcode == 0
    for prompt, scored in got.items():
        report.wrong += [(prompt, text) for text, one in scored.items() if one.score != DIRECT[one.reward_model](text)]
        report.split += [prompt] * (len({one.reward_model for one in scored.values()}) > 1)
    assert sum(map(len, got.values())) == prompts * samples
    _look(folder, report, samples)
    return report


def _look(folder, report, samples):
    from laser.config import load_router_config

    worker = make_worker(load_router_config(folder / "run.toml"), folder / "state", Limits(samples=samples))
    groups = list(worker.ledger.book.groups)
    report.rows, report.groups = sum(len(group.rows) for group in groups), len(groups)
    report.learned = worker.ledger.book.num_learned
    worker.ledger.release()


def _start(folder, port, samples):
    process = FORKS.Process(target=_serve, args=(folder, port, samples))
    process.start()
    return process


def _serve(folder, port, samples):
    with contextlib.suppress(KeyboardInterrupt):
        serve_rewards(
            folder / "run.toml", port=port, state=folder / "state", limits=Limits(samples=samples, wait=0.001)
        )


def free_port():
    """A port that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


def _release(pace, count):
    for _ in range(count):
        pace.release()
