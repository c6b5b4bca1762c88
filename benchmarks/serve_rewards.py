"""The reward server against a bare FastAPI endpoint, and SIGKILLs under load.

Both servers get the same samples, one a request, from the same number of clients with one connection each, in turn.
The bare endpoint parses the request, calls the reward function and answers; the reward server also chooses, groups,
learns, and brings everything to the disk before it answers. Every score is compared with a direct call.

    python benchmarks/serve_rewards.py [--clients 1000] [--requests 4] [--repeats 5] [--kills 20]
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "clients" / "laser-client" / "src")]

from reward_server_kills import CONFIG, free_port, kill_under_load  # noqa: E402
from reward_servers import DIRECT, FUNCTIONS  # noqa: E402

SAMPLES = 4  # of a prompt
BARE = """
import sys

import uvicorn
from fastapi import FastAPI, Request

app = FastAPI()


@app.post("/")
async def score(request: Request):
    body = await request.json()
    return {"scores": [float(len(text)) for text in body["responses"]], "arms": ["length"] * len(body["responses"])}


uvicorn.run(app, port=int(sys.argv[1]), log_level="warning", access_log=False, backlog=4096)
"""


async def _client(port: int, samples: list[tuple[str, str]], times: list[float], wrong: list[str]) -> int:
    """Send samples over one connection; returns how many were answered."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for prompt, text in samples:
        body = json.dumps({"prompts": [prompt], "responses": [text], "labels": ["99"]}).encode()
        head = (
            f"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        )
        begun = time.perf_counter()
        writer.write(head.encode() + b"\r\n" + body)
        headers = (await reader.readuntil(b"\r\n\r\n")).lower()
        content = await reader.readexactly(int(headers.partition(b"content-length:")[2].split(b"\r\n")[0]))
        times.append(time.perf_counter() - begun)
        reply = json.loads(content)
        if reply.get("scores") != [DIRECT[reply["arms"][0]](text)]:
            wrong.append(text)
    writer.close()
    return len(samples)


async def load(port: int, clients: int, requests: int, tag: str) -> tuple[float, float, float, int]:
    """Requests a second, median and 99th percentile of the latency in seconds, and wrong or lost samples."""
    times: list[float] = []
    wrong: list[str] = []
    work = [
        [(f"question {tag} {(client * requests + at) // SAMPLES}", "9" * (1 + at % SAMPLES)) for at in range(requests)]
        for client in range(clients)
    ]
    begun = time.perf_counter()
    answered = await asyncio.gather(*(_client(port, samples, times, wrong) for samples in work))
    seconds = time.perf_counter() - begun
    missing = clients * requests - sum(answered) + len(wrong)
    cuts = statistics.quantiles(times, n=100)
    return clients * requests / seconds, cuts[49], cuts[98], missing


def cpu_seconds(process: subprocess.Popen[bytes]) -> float:
    """Processor time of a process so far, which does not depend on what else the machine does."""
    times = psutil.Process(process.pid).cpu_times()
    return times.user + times.system


def start(command: list[str], port: int) -> subprocess.Popen[bytes]:
    """A server, once it listens."""
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL)
    for _ in range(1200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return process
        time.sleep(0.1)
    raise RuntimeError("the server does not start")


def compare(folder: Path, options: argparse.Namespace) -> None:
    """Print ratios of the reward server to the bare endpoint, medians of several turns."""
    (folder / "scores.py").write_text(FUNCTIONS)
    (folder / "run.toml").write_text(CONFIG.format(folder=folder))
    (folder / "bare.py").write_text(BARE)
    ports = free_port(), free_port()
    ours = ["-m", "laser", "serve-rewards", str(folder / "run.toml"), "--port", str(ports[0])]
    ours += ["--state", str(folder / "state"), "--samples", str(SAMPLES)]
    servers = [
        start([sys.executable, *ours], ports[0]),
        start([sys.executable, str(folder / "bare.py"), str(ports[1])], ports[1]),
    ]
    ratios, missing = [], 0
    for turn in range(options.repeats + 1):
        results, spent = [], []
        for port, server in zip(ports, servers, strict=True):
            before = cpu_seconds(server)
            results.append(asyncio.run(load(port, options.clients, options.requests, f"{turn}")))
            spent.append(cpu_seconds(server) - before)
        missing += sum(result[3] for result in results)
        print(f"turn {turn}:", *(f"{rate:.0f}/s p50 {p50:.3f} p99 {p99:.3f} s" for rate, p50, p99, _ in results))
        if turn:  # the first one warms up
            (rate, p50, p99, _), (bare_rate, bare_p50, bare_p99, _) = results
            ratios.append((rate / bare_rate, p50 / bare_p50, p99 / bare_p99, spent[0] / spent[1]))
    for server in servers:
        server.send_signal(signal.SIGTERM)
        server.wait()
    throughput, p50, p99, cpu = (statistics.median(column) for column in zip(*ratios, strict=True))
    sent = 2 * (options.repeats + 1) * options.clients * options.requests
    print(f"{options.clients} clients, {sent} samples sent, {missing} lost or wrong")
    print(f"throughput {throughput:.2f} of the bare endpoint, p50 {p50:.2f} times, p99 {p99:.2f} times its latency")
    print(f"processor time of a request {cpu:.2f} times the bare endpoint's")


def main() -> None:
    """Run both parts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--requests", type=int, default=4, help="requests of a client in a turn")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--kills", type=int, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        compare(Path(folder), options)
    if options.kills:
        with tempfile.TemporaryDirectory() as folder:
            report = kill_under_load(
                Path(folder), kills=options.kills, prompts=400, samples=SAMPLES, clients=16, seed=1
            )
        print({name: value for name, value in dataclasses.asdict(report).items() if not isinstance(value, list)})
        print(f"wrong scores {len(report.wrong)}, prompts of two reward models {len(report.split)}")


if __name__ == "__main__":
    main()
