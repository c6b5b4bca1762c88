"""Sample responses: a prompt is prefilled once for its n responses, and finished rows leave the batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from laser.core.errors import TrainingError, diverged
from laser.core.types import Prompt, Response
from laser.lm.chat import end_of_turn
from laser.lm.packing import by_length
from laser.parallel.memory import Budget
from laser.policy.decoding import choose_decoder
from laser.policy.policy import Policy

_DRAWN_AT_ONCE = 2**22  # logits turned into probabilities at a time: several copies of them are needed
_MORE_ON_GPU = 8
_OUT_OF_MEMORY = TrainingError(
    "the device is out of memory while sampling for a single prompt, the smallest chunk whatever "
    "generation.max_batch_tokens is; lower generation.num_responses or generation.max_new_tokens, or keep fewer reward "
    "models on the device (rewards.max_resident), and resume"
)


class Generator(Protocol):
    """Prompts in, n responses each out, with token ids and their log-probs."""

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        num_responses: int,
        temperature: float,
        top_p: float,
        max_new_tokens: int,
        seeds: Sequence[int],
    ) -> list[list[Response]]:
        """Sample responses.

        Args:
            prompts: B prompts.
            num_responses: n, responses per prompt.
            temperature: Divides the logits; 0 is greedy decoding.
            top_p: Mass of the nucleus that is sampled from; 1 is the whole distribution.
            max_new_tokens: Longest response in tokens.
            seeds: One seed per prompt; the same seed gives a prompt the same responses in any batch.

        Returns:
            B lists of n responses.
        """


@dataclass
class _Rows:
    """State of the rows still being sampled. R rows; numbers are b * n + i within the chunk."""

    numbers: Tensor
    tokens: list[list[int]]
    logps: list[list[float]]
    finished: list[bool] = field(default_factory=list)


class TransformersGenerator:
    """Samples with the policy in this process.

    Args:
        policy: The policy; its trained adapter is active.
        max_batch_tokens: Budget of a chunk, in tokens whose keys and values are held; a chunk holds at least one
            prompt's n rows. If memory runs out, it is halved for good. None: what suits the device
            (`laser.lm.footprint`).
        on_tokens: Called with the number of tokens after every decoding step.
        on_draw: Called at every decoding step with the unfinished rows of the chunk, and the id that each has drawn.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        max_batch_tokens: int | None = None,
        on_tokens: Callable[[int], None] | None = None,
        on_draw: Callable[[Sequence[int], Sequence[int]], None] | None = None,
    ) -> None:
        self._policy = policy
        self._decoder = choose_decoder(policy.model)
        self._budget = Budget(max_batch_tokens or policy.sampling_tokens, _OUT_OF_MEMORY)
        self._on_tokens = on_tokens or (lambda count: None)
        self._on_draw = on_draw

    @torch.no_grad()
    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        num_responses: int,
        temperature: float,
        top_p: float,
        max_new_tokens: int,
        seeds: Sequence[int],
    ) -> list[list[Response]]:
        """Sample responses; see `Generator.generate`.

        A token is drawn by inverting the cumulative distribution at one uniform number per response and position,
        from the generator of the prompt's seed. So a prompt's responses do not depend on the other prompts in its
        chunk, beyond the rounding of logits.

        Raises:
            TrainingError: Memory does not suffice for one prompt's responses, or a token's log-prob is not a number.
        """
        ids = self._policy.encode(prompts)
        replies: list[list[Response]] = [[] for _ in prompts]
        costs = [self._decoder.tokens_held(len(row), num_responses, max_new_tokens) for row in ids]

        def sample(tokens: int) -> None:
            missing = [row for row, reply in enumerate(replies) if not reply]
            for indices in by_length([costs[row] for row in missing], tokens):
                chunk = [missing[index] for index in indices]
                uniforms = np.stack(
                    [np.random.default_rng(seeds[row]).random((num_responses, max_new_tokens)) for row in chunk]
                )
                sampled = self._sample(
                    [ids[row] for row in chunk], torch.from_numpy(uniforms).flatten(0, 1), temperature, top_p
                )
                for position, row in enumerate(chunk):
                    replies[row] = sampled[position * num_responses : (position + 1) * num_responses]

        self._budget.spend(sample, least=max(costs, default=0))
        return replies

    def _sample(
        self, ids: Sequence[Sequence[int]], uniforms: Tensor, temperature: float, top_p: float
    ) -> list[Response]:
        """Sample all rows of a chunk; `uniforms` has shape (rows, max_new_tokens), rows numbered prompt by prompt."""
        device = self._policy.device
        num_rows, max_new_tokens = uniforms.shape
        repeats = num_rows // len(ids)
        decoder = self._decoder(self._policy.model, ids, repeats, max_new_tokens)
        logits = decoder.start()
        stops = torch.tensor(sorted(self._stop_ids()), device=device)
        rows = _Rows(
            torch.arange(num_rows, device=device), [[] for _ in range(num_rows)], [[] for _ in range(num_rows)]
        )
        rows.finished = [False] * num_rows
        uniforms = uniforms.to(device)
        for step in range(max_new_tokens):
            tokens, logps = _draw(logits, uniforms[rows.numbers, step], temperature, top_p)
            ends = torch.isin(tokens, stops)
            _record(rows, tokens, logps, ends)
            self._on_tokens(len(tokens))
            if self._on_draw is not None:
                self._on_draw(rows.numbers.tolist(), tokens.tolist())
            keep = (~ends).nonzero()[:, 0]
            if len(keep) == 0 or step == max_new_tokens - 1:
                break
            rows.numbers = rows.numbers[keep]
            logits = decoder.advance(tokens[keep], keep)
        return self._responses(rows)

    def _stop_ids(self) -> set[int]:
        configured = getattr(self._policy.model.generation_config, "eos_token_id", None)
        ids = set(configured) if isinstance(configured, list | tuple) else {configured}
        tokenizer = self._policy.tokenizer
        ids |= {tokenizer.eos_token_id, end_of_turn(tokenizer)}
        return {int(token) for token in ids if token is not None}

    def _responses(self, rows: _Rows) -> list[Response]:
        texts = self._policy.tokenizer.batch_decode(rows.tokens, skip_special_tokens=True)
        return [
            Response(tuple(tokens), text, tuple(logps), finished)
            for tokens, text, logps, finished in zip(rows.tokens, texts, rows.logps, rows.finished, strict=True)
        ]


def _draw(logits: Tensor, uniforms: Tensor, temperature: float, top_p: float) -> tuple[Tensor, Tensor]:
    """Draw one token per row; returns the tokens and their log-probs at temperature 1, both of shape (R,)."""
    tile = max(1, _DRAWN_AT_ONCE * (_MORE_ON_GPU if logits.is_cuda else 1) // logits.shape[1])
    parts = [
        _draw_tile(logits[begin : begin + tile].float(), uniforms[begin : begin + tile], temperature, top_p)
        for begin in range(0, len(logits), tile)
    ]
    return torch.cat([tokens for tokens, _ in parts]), torch.cat([logps for _, logps in parts])


def _draw_tile(logits: Tensor, uniforms: Tensor, temperature: float, top_p: float) -> tuple[Tensor, Tensor]:
    if temperature == 0:
        tokens = logits.argmax(dim=-1)
    else:
        probabilities = torch.softmax(logits / temperature, dim=-1)
        if top_p < 1:
            probabilities = _nucleus(probabilities, top_p)
        cumulative = probabilities.cumsum(dim=-1)
        total = cumulative[:, -1:]
        # A uniform close to 1 rounds to the total, beyond the last token with mass: stay just below it.
        below = torch.nextafter(total, torch.zeros_like(total))
        thresholds = torch.minimum(uniforms[:, None].to(total.dtype) * total, below)
        tokens = torch.searchsorted(cumulative, thresholds, right=True)[:, 0]
        tokens = tokens.clamp(max=logits.shape[1] - 1)  # NaN sorts behind all tokens; `_record` refuses it
    logps = logits.gather(1, tokens[:, None])[:, 0] - torch.logsumexp(logits, dim=-1)
    return tokens, logps


def _nucleus(probabilities: Tensor, top_p: float) -> Tensor:
    """Zero all but the smallest set of likeliest tokens whose mass reaches `top_p`."""
    ordered, order = probabilities.sort(dim=-1, descending=True)
    before = ordered.cumsum(dim=-1) - ordered
    return torch.zeros_like(probabilities).scatter(1, order, ordered.masked_fill(before >= top_p, 0.0))


def _record(rows: _Rows, tokens: Tensor, logps: Tensor, ends: Tensor) -> None:
    columns = (rows.numbers.tolist(), tokens.tolist(), logps.tolist(), ends.tolist())
    if any(map(math.isnan, columns[2])):
        raise diverged("the policy's probabilities of the next token are not numbers")
    for number, token, logp, end in zip(*columns, strict=True):
        rows.tokens[number].append(token)
        rows.logps[number].append(logp)
        rows.finished[number] = end
