"""The ROSCOE suite as equations on embeddings (Golovneva et al., arXiv 2212.07919, Tables 2 to 5).

Symbols: hypothesis h of N steps h_i (the response), source s of T sentences s_t (the prompt), reference r of K steps
r_t (a gold chain), M_i tokens in step h_i. Every score is in [0, 1] and higher is better. Rows of matrices are unit
vectors, so that a product is a cosine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from laser.core.types import FloatArray


@dataclass(frozen=True, slots=True)
class Chain:
    """A text of at least one step, embedded.

    Attributes:
        steps_ND: One unit vector a step.
        whole_D: The unit vector of the whole text.
        tokens: One unit vector a token of each step, shapes (M_i, D).
    """

    steps_ND: FloatArray
    whole_D: FloatArray
    tokens: tuple[FloatArray, ...]

    @property
    def all_tokens(self) -> FloatArray:
        """The tokens of all steps, shape (M, D)."""
        return np.concatenate(self.tokens)


def r_align(first_ND: FloatArray, second_TD: FloatArray) -> FloatArray:
    """Reasoning alignment of each row of the first with the second: [1 + max_t cos(h_i, s_t)] / 2, shape (N,)."""
    alignment: FloatArray = (1 + (first_ND @ second_TD.T).max(axis=1)) / 2
    return alignment


def faithfulness_step(h: Chain, s: Chain) -> float:
    """Are the steps grounded in the source? (1/N) sum_i r-align(h_i -> s)."""
    return float(r_align(h.steps_ND, s.steps_ND).mean())


def faithfulness_token(h: Chain, s: Chain) -> float:
    """The same with tokens: 1/(N + M) sum_i [r-align(h_i -> s) + sum_j r-align_token(h_ij -> s)]."""
    steps = r_align(h.steps_ND, s.steps_ND)
    tokens = r_align(h.all_tokens, s.all_tokens)
    return float(np.concatenate([steps, tokens]).mean())


def informativeness_step(h: Chain, s: Chain) -> float:
    """Is the source used? [(1/T) sum_t r-align(s_t -> h) + (1/N) sum_i r-align(h_i -> s)] / 2."""
    return float(r_align(s.steps_ND, h.steps_ND).mean() + r_align(h.steps_ND, s.steps_ND).mean()) / 2


def informativeness_chain(h: Chain, s: Chain) -> float:
    """Agreement of chain and source as wholes: [1 + cos(h, s)] / 2."""
    return float(1 + h.whole_D @ s.whole_D) / 2


def repetition_token(h: Chain, s: Chain) -> float:
    """Steps that say the same in the same words: 1 - max_{i > 1} max_{j < i} (1/M_i) sum_l r-align_token(h_il -> h_j).

    A single step repeats nothing and scores 1, as in the authors' code.
    """
    pairs = [(i, j) for i in range(len(h.tokens)) for j in range(i) if len(h.tokens[i]) and len(h.tokens[j])]
    return 1 - max((float(r_align(h.tokens[i], h.tokens[j]).mean()) for i, j in pairs), default=0.0)


def repetition_step(h: Chain, s: Chain) -> float:
    """Steps that say the same: [1 - max_{i > 1} max_{j < i} cos(h_i, h_j)] / 2; a single step scores 1."""
    cosines = (h.steps_ND @ h.steps_ND.T)[np.tril_indices(len(h.steps_ND), -1)]
    return float(1 - cosines.max()) / 2 if len(cosines) else 1.0


def reasoning_alignment(h: Chain, s: Chain, r: Chain) -> float:
    """Overlap with the reference: (1/N) sum_i r-align(h_i -> r)."""
    return float(r_align(h.steps_ND, r.steps_ND).mean())


def hallucination(h: Chain, s: Chain, r: Chain) -> float:
    """Steps in neither source nor reference: 1 - max_i [1 - r-align(h_i -> s)] [1 - r-align(h_i -> r)]."""
    foreign = (1 - r_align(h.steps_ND, s.steps_ND)) * (1 - r_align(h.steps_ND, r.steps_ND))
    return float(1 - foreign.max())


def redundancy(h: Chain, s: Chain, r: Chain) -> float:
    """Steps that the reference does not need: min_i r-align(h_i -> r)."""
    return float(r_align(h.steps_ND, r.steps_ND).min())


def common_sense_error(h: Chain, s: Chain, r: Chain) -> float:
    """Knowledge of the reference that is missing: 1 - max_t [1 - r-align(r_t -> h)] [1 - r-align(r_t -> s)]."""
    missing = (1 - r_align(r.steps_ND, h.steps_ND)) * (1 - r_align(r.steps_ND, s.steps_ND))
    return float(1 - missing.max())


def missing_step(h: Chain, s: Chain, r: Chain) -> float:
    """Steps of the reference that are missing: min_t r-align(r_t -> h)."""
    return float(r_align(r.steps_ND, h.steps_ND).min())


def semantic_coverage_step(h: Chain, s: Chain, r: Chain) -> float:
    """Is it grounded as the reference is? 1 - |(1/K) sum_t r-align(r_t -> s) - (1/N) sum_i r-align(h_i -> s)|.

    Deviation: one minus the distance of the paper, as in the authors' code, so that higher is better.
    """
    return 1 - abs(float(r_align(r.steps_ND, s.steps_ND).mean()) - faithfulness_step(h, s))


def semantic_coverage_chain(h: Chain, s: Chain, r: Chain) -> float:
    """Agreement of chain and reference as wholes: [1 + cos(r, h)] / 2."""
    return float(1 + r.whole_D @ h.whole_D) / 2


UNSUPERVISED: Mapping[str, Callable[[Chain, Chain], float]] = {
    "faithfulness_step": faithfulness_step,
    "faithfulness_token": faithfulness_token,
    "informativeness_step": informativeness_step,
    "informativeness_chain": informativeness_chain,
    "repetition_token": repetition_token,
    "repetition_step": repetition_step,
}
"""Metrics of a response and its prompt."""

SUPERVISED: Mapping[str, Callable[[Chain, Chain, Chain], float]] = {
    "reasoning_alignment": reasoning_alignment,
    "hallucination": hallucination,
    "redundancy": redundancy,
    "common_sense_error": common_sense_error,
    "missing_step": missing_step,
    "semantic_coverage_step": semantic_coverage_step,
    "semantic_coverage_chain": semantic_coverage_chain,
}
"""Metrics that also need a reference."""
