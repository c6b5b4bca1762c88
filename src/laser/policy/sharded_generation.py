"""Sampling by several processes."""

from __future__ import annotations

from collections.abc import Sequence

from laser.core.types import Prompt, Response
from laser.parallel.ranks import Ranks
from laser.policy.generation import Generator


class ShardedGenerator:
    """Each process samples for its share of the prompts; or the main process for all, if a server does the work."""

    def __init__(self, generator: Generator, ranks: Ranks, *, only_main: bool = False) -> None:
        self._generator = generator
        self._ranks = ranks
        self._only_main = only_main

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
        """Sample responses; see `Generator.generate`."""

        def sample(part: slice) -> list[list[Response]]:
            return self._generator.generate(
                prompts[part],
                num_responses=num_responses,
                temperature=temperature,
                top_p=top_p,
                max_new_tokens=max_new_tokens,
                seeds=seeds[part],
            )

        if not self._only_main:
            return self._ranks.together(sample, len(prompts))
        everything = slice(0, len(prompts))
        first = self._ranks.together(
            lambda part: [sample(everything) if part.start == 0 else []] * (part.stop - part.start), self._ranks.size
        )
        return first[0]
