"""What the benchmarks share: both sides in turn, medians of several, and work of a known size."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import torch

from laser.config import RunConfig, parse_config
from laser.core.types import Prompt, Response
from laser.lm.sources import choose_device, choose_dtype, load_causal_lm, load_tokenizer
from laser.policy.policy import Policy

T = TypeVar("T")

WORDS = (
    "apple river stone music winter market garden letter silver window planet simple forest bridge yellow doctor "
    "number coffee animal summer engine island circle copper travel painter mountain question kitchen teacher"
).split()


def seconds(work: Callable[[], object]) -> float:
    """Seconds of one call."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    begin = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - begin


def in_turn(sides: Sequence[Callable[[], object]], repeats: int, *, warm: bool = True) -> list[float]:
    """Median seconds of each side, all sides in turn, after one warm-up of each."""
    if warm:
        for side in sides:
            side()
    times = [[seconds(side) for side in sides] for _ in range(repeats)]
    return [statistics.median(column) for column in zip(*times, strict=True)]


def device_peak(work: Callable[[], T]) -> tuple[T, int]:
    """What one call gives, and the most that the GPU held meanwhile, in bytes beyond before; 0 without a GPU."""
    if not torch.cuda.is_available():
        return work(), 0
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    return work(), torch.cuda.max_memory_allocated() - before


def load_policy(model: str, precision: str = "auto", **options: object) -> Policy:
    """A policy on the best device here, in the precision the library would choose or in "fp32" or "bf16"."""
    device = choose_device("auto")
    return Policy(
        load_causal_lm(model, device=device, dtype=choose_dtype(precision, device)), load_tokenizer(model), **options
    )  # type: ignore[arg-type]


def text(rng: np.random.Generator, tokenizer: object, num_tokens: int) -> str:
    """Words that the tokenizer turns into about `num_tokens` tokens."""
    words: list[str] = []
    while len(tokenizer(" ".join(words)).input_ids) < num_tokens:  # type: ignore[operator]
        words.extend(rng.choice(WORDS, size=max(1, num_tokens // 8)))
    return " ".join(words)


def make_prompts(policy: Policy, count: int, num_tokens: int, seed: int = 0) -> list[Prompt]:
    """Prompts of about `num_tokens` tokens."""
    rng = np.random.default_rng(seed)
    return [
        Prompt(str(row), ({"role": "user", "content": text(rng, policy.tokenizer, num_tokens)},))
        for row in range(count)
    ]


def make_responses(policy: Policy, count: int, per_prompt: int, num_tokens: int, seed: int = 1) -> list[list[Response]]:
    """Distinct responses of about `num_tokens` tokens to each of `count` prompts, ended by the end of turn."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        texts = [text(rng, policy.tokenizer, num_tokens) for _ in range(per_prompt)]
        ids = [(*policy.tokenizer(one).input_ids, policy.tokenizer.eos_token_id) for one in texts]
        rows.append([Response(tuple(i), one, (0.0,) * len(i), True) for i, one in zip(ids, texts, strict=True)])
    return rows


def batch_config(num_responses: int, max_new_tokens: int, pairs_per_prompt: int, *, temperature: float) -> RunConfig:
    """The configuration of one batch whose models are made by hand."""
    return parse_config(
        {
            "policy": {"model": "made by hand"},
            "data": {"type": "embedded"},
            "rewards": {"models": [{"type": "function", "name": "made-by-hand", "function": "none.py:none"}]},
            "generation": {
                "num_responses": num_responses,
                "max_new_tokens": max_new_tokens,
                "temperature": temperature,
            },
            "training": {"pairs_per_prompt": pairs_per_prompt},
        }
    )
