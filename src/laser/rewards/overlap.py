"""Agreement of reward models on the same responses: how often they agree, and where they differ most."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from laser.core.types import FloatArray, IntArray, Prompt


@dataclass(frozen=True, slots=True)
class Agreement:
    """Two reward models over the pairs of responses that both of them order.

    Attributes:
        first: Name of one.
        second: Name of the other, later in the pool.
        alike: Pairs that both order the same way.
        judged: Pairs that both order.
    """

    first: str
    second: str
    alike: int
    judged: int


@dataclass(frozen=True, slots=True)
class Disagreement:
    """Two responses to one prompt that two reward models order oppositely.

    Attributes:
        prompt: The prompt.
        responses: Both responses.
        scores: What each of the two reward models gave them, by name.
        strength: The smaller of both score differences, each in units of its model's mean difference.
    """

    prompt: Prompt
    responses: tuple[str, str]
    scores: dict[str, tuple[float, float]]
    strength: float


class Overlap:
    """Keeps the scores of a batch by prompt and response, and compares the models where more than one scored.

    Source: arXiv 2410.01735, Fig. 3, which compares verdicts on labeled pairs. Here nothing says which response of a
    pair is right, so each pair counts in both orders; macro F1 is then the share of pairs ordered alike.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names)
        self._prompts: dict[str, Prompt] = {}
        self._rows: dict[str, dict[str, FloatArray]] = {}

    def add(
        self, arm: int, prompts: Sequence[Prompt], responses: Sequence[Sequence[str]], scores: Sequence[FloatArray]
    ) -> None:
        """Keep one model's scores; NaN means no opinion."""
        for prompt, texts, given in zip(prompts, responses, scores, strict=True):
            self._prompts[prompt.id] = prompt
            rows = self._rows.setdefault(prompt.id, {})
            for text, score in zip(texts, given, strict=True):
                rows.setdefault(text, np.full(len(self._names), np.nan))[arm] = score

    def agreement(self) -> list[Agreement]:
        """How often every two models agree; only those that order at least one pair in common."""
        alike: dict[tuple[int, int], int] = {}
        judged: dict[tuple[int, int], int] = {}
        for prompt in self._several():
            gaps_KP = self._gaps(prompt)[2]
            for couple in combinations(range(len(self._names)), 2):
                signs = np.sign(gaps_KP[couple[0]]) * np.sign(gaps_KP[couple[1]])
                alike[couple] = alike.get(couple, 0) + int((signs > 0).sum())
                judged[couple] = judged.get(couple, 0) + int(np.isfinite(signs[signs != 0]).sum())
        return [
            Agreement(self._names[a], self._names[b], alike[a, b], count) for (a, b), count in judged.items() if count
        ]

    def widest(self) -> Disagreement | None:
        """The pair on which two models disagree most strongly; None where no two disagree."""
        found = [self._gaps(prompt) for prompt in self._several()]
        if not found:
            return None
        every_KP = np.abs(np.concatenate([gaps_KP for _, _, gaps_KP in found], axis=1))
        counts_K = np.maximum(np.isfinite(every_KP).sum(axis=1), 1)
        scale_K = np.nansum(every_KP, axis=1) / counts_K
        scale_K[scale_K == 0] = np.inf
        best: Disagreement | None = None
        for prompt, (first, second, gaps_KP) in zip(self._several(), found, strict=True):
            for couple in combinations(range(len(self._names)), 2):
                a, b = gaps_KP[list(couple)] / scale_K[list(couple), None]
                strength_P = np.where(a * b < 0, np.minimum(np.abs(a), np.abs(b)), 0.0)
                at = int(strength_P.argmax())
                if strength_P[at] > (best.strength if best else 0.0):
                    pair = int(first[at]), int(second[at])
                    best = self._disagreement(prompt, pair, couple, float(strength_P[at]))
        return best

    def _several(self) -> Iterator[str]:
        """Prompts with several responses on which more than one model has an opinion."""
        for prompt, rows in self._rows.items():
            if len(rows) > 1 and np.isfinite(np.stack(list(rows.values()))).any(axis=0).sum() > 1:
                yield prompt

    def _gaps(self, prompt: str) -> tuple[IntArray, IntArray, FloatArray]:
        """Every two responses to a prompt, and by how much each model prefers the first, shape (K, pairs)."""
        scores_NK = np.stack(list(self._rows[prompt].values()))
        first, second = np.triu_indices(len(scores_NK), 1)
        return first, second, (scores_NK[first] - scores_NK[second]).T

    def _disagreement(self, prompt: str, pair: tuple[int, int], arms: tuple[int, int], strength: float) -> Disagreement:
        texts, rows = list(self._rows[prompt]), list(self._rows[prompt].values())
        scores = {self._names[arm]: (float(rows[pair[0]][arm]), float(rows[pair[1]][arm])) for arm in arms}
        return Disagreement(self._prompts[prompt], (texts[pair[0]], texts[pair[1]]), scores, strength)
