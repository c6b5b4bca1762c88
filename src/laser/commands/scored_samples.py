"""Prompts, responses, contexts and scores that the methods of a best-of-n comparison share, kept in one folder.

Responses and scores are kept in chunks of prompts, each written whole under its final name or not at all, so that an
interruption loses one chunk at most.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from laser.config import RunConfig
from laser.config.compare import first_difference
from laser.config.load import parse_config
from laser.core.errors import ConfigError, DataError, RewardModelError
from laser.core.outputs import claimed_by
from laser.core.seeding import stream_seed
from laser.core.state import load_state, save_state
from laser.core.types import BoolArray, FloatArray, Response, StateDict
from laser.training.pending import pack_responses, unpack_responses
from laser.wiring import build_embedder, build_generator, build_policy, build_pool, build_splits
from laser.wiring.fitting import fit_prompts

CHUNK = 64
"""Prompts of one file of responses or scores."""

RECORD, SOURCES = "config.json", "sources.json"
"""Files of the folder: its configuration, and identities of what the configuration only names."""


@dataclass(frozen=True, slots=True)
class ScoreCounts:
    """How many responses one reward model scored.

    Attributes:
        responses: Responses shown to it.
        unscored: Responses without a finite score.
        too_long: Responses that did not fit its window after their whole prompt.
    """

    responses: int
    unscored: int
    too_long: int


class ScoredSamples:
    """Loads policy, prompts and pool; nothing is written before `sample`.

    Attributes:
        failed: Reward models that failed, and why; they are not called again.
        used: The (split, arm) whose scores were read since a caller last cleared it.
        gold_nlls: NLL of the gold answer after a response to a training prompt, by the index of both, where known.

    Args:
        config: Policy, prompts with a training and a test split, pool.
        out: Folder to keep responses and scores in.
        note: Receives progress messages.

    Raises:
        LaserError: A model or the data cannot be loaded, or there are no prompts.
    """

    def __init__(self, config: RunConfig, out: Path, note: Callable[[str], None]) -> None:
        self.config, self._out, self.note = config, out, note
        splits = build_splits(config)
        self.prompts = {"train": splits.train, "test": splits.test}
        for name, prompts in self.prompts.items():
            if not prompts:
                raise DataError(f"there are no {name} prompts; set split.{name}")
        self.policy = build_policy(config)
        for name, prompts in self.prompts.items():
            fitted = fit_prompts(config, self.policy, prompts, config.generation.max_new_tokens)
            self.prompts[name] = fitted.prompts
            if fitted.num_cut:
                note(f"{fitted.num_cut} {name} prompts cut in the middle to fit, {fitted.num_tokens} tokens in all")
        self.embedder = build_embedder(config.context, self.policy)
        self.pool = build_pool(config)
        self._unused_pool = self.pool.state_dict()
        self.responses: dict[str, list[list[Response]]] = {}
        self.contexts: dict[str, FloatArray] = {}
        self.failed: dict[str, str] = {}
        self.used: set[tuple[str, int]] = set()
        self.gold_nlls: dict[tuple[int, int], float] = {}
        self._scores: dict[tuple[str, int], list[FloatArray]] = {}
        self._too_long: dict[tuple[str, int], int] = {}

    @property
    def available_K(self) -> BoolArray:
        """False for reward models that failed."""
        return np.array([name not in self.failed for name in self.pool.names], dtype=np.bool_)

    def sample(self) -> None:
        """Sample the responses that are not in the folder yet, and embed the prompts."""
        self.responses = {name: self._sampled(name) for name in self.prompts}
        self.contexts = {name: self.embedder.embed(prompts) for name, prompts in self.prompts.items()}

    def scores(self, split: str, arm: int) -> list[FloatArray]:
        """Scores of all responses of a split by one reward model, from the folder if they are there.

        Raises:
            RewardModelError: It fails; it is in `failed` afterwards.
        """
        if (split, arm) not in self._scores:
            chunks = [self._scored(split, arm, begin, end) for begin, end in self._chunks(split)]
            flat = np.concatenate([chunk["scores"] for chunk in chunks])
            ends = np.cumsum([len(row) for row in self.responses[split]])[:-1]
            self._scores[split, arm] = np.split(flat, ends)
            self._too_long[split, arm] = sum(int(chunk["too_long"]) for chunk in chunks)
        self.used.add((split, arm))
        return self._scores[split, arm]

    def weighted(self, row: int, weights_K: FloatArray) -> FloatArray:
        """Scores of a test prompt's responses, shape (K, N); NaN for reward models without weight."""
        scores_KN = np.full((len(weights_K), len(self.responses["test"][row])), np.nan)
        for arm in np.flatnonzero(weights_K):
            scores_KN[arm] = self.scores("test", int(arm))[row]
        return scores_KN

    def counts(self) -> dict[str, ScoreCounts]:
        """Counts of the reward models in `used`, by name."""
        found = {}
        for arm in sorted({arm for _, arm in self.used}):
            keys = sorted(key for key in self.used if key[1] == arm)
            flat = np.concatenate([row for key in keys for row in self._scores[key]])
            unscored, too_long = int(np.isnan(flat).sum()), sum(self._too_long[key] for key in keys)
            found[self.pool.names[arm]] = ScoreCounts(len(flat), unscored, too_long)
        return found

    def _chunks(self, split: str) -> Iterator[tuple[int, int]]:
        total = len(self.prompts[split])
        for begin in range(0, total, CHUNK):
            yield begin, min(begin + CHUNK, total)

    def _scored(self, split: str, arm: int, begin: int, end: int) -> StateDict:
        name = self.pool.names[arm]
        stem = self._out / f"scores-{split}-{name}-{begin:06d}"
        if not _is_kept(stem):
            self.note(f"scoring {split} prompts {begin} to {end} of {len(self.prompts[split])} with {name}")
            texts = [[response.text for response in row] for row in self.responses[split][begin:end]]
            self.pool.load_state_dict(self._unused_pool)  # every chunk is scored alike, whatever came before it
            before = self.pool.usage()[name]["too_long"]
            try:
                scores = np.concatenate(self.pool.score(arm, self.prompts[split][begin:end], texts))
            except RewardModelError as error:
                self.failed[name] = str(error)
                self.note(f"left out: {name}: {error}")
                raise
            save_state(stem, {"scores": scores, "too_long": self.pool.usage()[name]["too_long"] - before})
        return load_state(stem)

    def _sampled(self, split: str) -> list[list[Response]]:
        prompts, generation = self.prompts[split], self.config.generation
        generator = build_generator(generation, self.policy)
        rows: list[list[Response]] = []
        for begin, end in self._chunks(split):
            stem = self._out / f"responses-{split}-{begin:06d}"
            if not _is_kept(stem):
                self.note(f"sampling for {split} prompts {begin} to {end} of {len(prompts)}")
                seeds = [
                    stream_seed(self.config.seed, "generation", 0 if split == "train" else 1, row)
                    for row in range(begin, end)
                ]
                replies = generator.generate(
                    prompts[begin:end],
                    num_responses=generation.num_responses,
                    temperature=generation.temperature,
                    top_p=generation.top_p,
                    max_new_tokens=generation.max_new_tokens,
                    seeds=seeds,
                )
                save_state(stem, pack_responses([replies]))
            rows.extend(unpack_responses(load_state(stem))[0])
        return rows


def check_owner(config: RunConfig, out: Path) -> None:
    """Make sure that a folder is free or of this comparison; changes nothing. A folder without responses is free.

    Raises:
        LaserError: It belongs to another configuration or holds something else.
    """
    stored = claimed_by(out, RECORD, besides={RECORD, SOURCES})
    if stored is None:
        return
    difference = first_difference(parse_config(dict(stored), source=str(out / RECORD)), config)
    if difference is not None:
        raise ConfigError(f"{difference}; the responses in {out} belong to another configuration, choose a new --out")


def _is_kept(stem: Path) -> bool:
    return Path(f"{stem}.json").is_file()
