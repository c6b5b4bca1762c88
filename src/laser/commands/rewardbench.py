"""``laser rewardbench``: how often each reward model, and a trained selector, prefers the correct response."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from laser.config import RunConfig
from laser.core.errors import ConfigError, DataError, RewardModelError
from laser.core.seeding import stream
from laser.core.statistics import wilson_interval
from laser.core.types import BoolArray, FloatArray, IntArray
from laser.data.preferences import Candidates, load_candidates
from laser.evaluation.candidates import Labeled, all_above, macro_f1, share_of_best, ties_score
from laser.wiring import build_contexts, build_embedder, build_policy, build_pool, build_selector
from laser.wiring.data import prompt_fields

LENGTH = "length only"
SELECTED = "selected"

_TIES_ID = re.compile(r"(ref|tied):(.+)")


@dataclass(frozen=True, slots=True)
class BenchResult:
    """What was measured.

    Attributes:
        num_pairs: Labeled pairs, or prompts with several candidates.
        candidates: Largest number of responses to one of them; 2 for pairs.
        chance: Accuracy of choosing at random, in [0, 1], RewardBench 2's ties aside.
        accuracy: For each reward model, "length only" and the selector where there is one, in [0, 1]: share of prompts
            whose best response is a correct one. Ties count by share, prompts with an unscored response as wrong.
        interval: 95% Wilson intervals of `accuracy`.
        by_category: For each of them, accuracy by category; RewardBench 2's own score for its subset Ties.
        score: For each of them, the mean over categories, which is RewardBench 2's score; empty for pairs.
        by_subset: For each of them, RewardBench's result by subset: ties of a pair count as wrong.
        counts: Prompts of each category.
        agreement: Macro F1 of one reward model's verdicts against another's, over pairs that neither ties (Fig. 3).
        unscored: Responses without a score, by reward model.
        too_long: Responses that did not fit its window, left out or scored with their prompt cut.
        silent: Reward models that scored no response; their accuracy of 0 means nothing.
        chosen: For each category, how often the selector chose each reward model; empty without a selector.
        failed: Reward models that could not be used, and why.
    """

    num_pairs: int
    candidates: int
    chance: float
    accuracy: dict[str, float]
    interval: dict[str, tuple[float, float]]
    by_category: dict[str, dict[str, float]]
    score: dict[str, float]
    by_subset: dict[str, dict[str, float]]
    counts: dict[str, int]
    agreement: dict[str, dict[str, float]]
    unscored: dict[str, int]
    too_long: dict[str, int]
    silent: tuple[str, ...]
    chosen: dict[str, dict[str, float]]
    failed: dict[str, str]

    def as_record(self) -> dict[str, Any]:
        """JSON-able form."""
        return asdict(self)

    def as_rewardbench(self, name: str, model_type: str) -> dict[str, Any]:
        """Result of one reward model as RewardBench writes it: a flat object with a number for each subset."""
        return {"model": name, "model_type": model_type, "chat_template": "tokenizer", **self.by_subset[name]}


def rewardbench(
    config: RunConfig, paths: Sequence[str | Path], *, select: bool = False, learn: float = 0.0
) -> BenchResult:
    """Measure the pool of a configuration on labeled responses: pairs, or RewardBench 2's best-of-4 and ties.

    Source: arXiv 2410.01735, Fig. 3 (agreement) and Fig. 8 (accuracy by category, and that of the selection).

    Args:
        config: The pool, and the policy and selector for `select`.
        paths: Files of labeled responses; see `load_candidates`.
        select: Also measure the configuration's selector, per prompt, without learning: name a trained one as
            ``selector = {type = "frozen", run = ...}``.
        learn: Share of the prompts that the selector learns from first, each choice rewarded by whether it was
            correct; everything is then measured on the other prompts.

    Raises:
        LaserError: A file or the policy cannot be used, or no reward model could be.
    """
    if not 0 <= learn < 1:
        raise ConfigError(f"--learn is {learn}; give a share of the prompts from 0 up to, but not including, 1")
    fields = prompt_fields(config.data)
    items = [one for path in paths for one in load_candidates(path, fields)]
    _check_ties(items)
    scored = _score(config, items)
    if not scored.scores:
        raise RewardModelError(f"no reward model could be used: {'; '.join(scored.failed.values())}")
    columns = {**scored.scores, LENGTH: [_labeled(one, [float(len(text)) for text in one.texts]) for one in items]}
    taught_N = _taught(items, learn, config.seed)
    arms_N: IntArray | None = None
    if select or learn:
        arms_N = _choices(config, items, scored.scores, taught_N)
        names = [model.name for model in config.rewards.models]
        columns[SELECTED] = [scored.scores[names[arm]][row] for row, arm in enumerate(arms_N)]
    measured = np.flatnonzero(~taught_N)
    items, kept = (
        [items[row] for row in measured],
        {name: [of[row] for row in measured] for name, of in columns.items()},
    )
    gaps = {name: np.concatenate([one.gaps for one in kept[name]]) for name in scored.scores}
    categories = np.array([one.prompt.category for one in items])
    right = {name: _right(items, of) for name, of in kept.items()}
    by_category = {name: _by(items, categories, of, right[name]) for name, of in kept.items()}
    subsets = np.array([str(one.prompt.metadata.get("subset") or one.prompt.category) for one in items])
    strict = {name: _strict(items, values) for name, values in right.items()}
    largest = max(len(one.texts) for one in items)
    return BenchResult(
        num_pairs=len(items),
        candidates=largest,
        chance=_chance(items),
        accuracy={name: float(values.mean()) for name, values in right.items()},
        interval={name: wilson_interval(float(values.sum()), len(values)) for name, values in right.items()},
        by_category=by_category,
        score={name: float(np.mean(list(of.values()))) for name, of in by_category.items()} if largest > 2 else {},
        by_subset={name: _by(items, subsets, of, strict[name]) for name, of in kept.items()},
        counts={str(category): int((categories == category).sum()) for category in sorted(set(categories.tolist()))},
        agreement={a: {b: macro_f1(gaps[a], gaps[b]) for b in gaps} for a in gaps},
        unscored=scored.unscored,
        too_long=scored.too_long,
        silent=scored.silent,
        chosen={} if arms_N is None else _shares(config, arms_N[measured], categories),
        failed=scored.failed,
    )


@dataclass(frozen=True, slots=True)
class _Scored:
    """By reward model: `scores` of each prompt's responses; the rest as in `BenchResult`."""

    scores: dict[str, list[Labeled]]
    unscored: dict[str, int]
    too_long: dict[str, int]
    silent: tuple[str, ...]
    failed: dict[str, str]


def _score(config: RunConfig, items: Sequence[Candidates]) -> _Scored:
    """Let every reward model score every response once."""
    pool = build_pool(config)
    of_prompt: dict[str, dict[str, int]] = {}
    for one in items:
        known = of_prompt.setdefault(_key(one), {})
        for text in one.texts:
            known.setdefault(text, len(known))
    first = {_key(one): one.prompt for one in reversed(items)}
    prompts, texts = [first[key] for key in of_prompt], [list(known) for known in of_prompt.values()]
    rows = {key: row for row, key in enumerate(of_prompt)}
    found: dict[str, list[Labeled]] = {}
    unscored, failed, silent = {}, {}, []
    for arm, name in enumerate(pool.names):
        try:
            scores = pool.score(arm, prompts, texts)
        except RewardModelError as error:
            failed[name] = str(error)
            continue
        unscored[name] = sum(int(np.isnan(row).sum()) for row in scores)
        if unscored[name] == sum(map(len, texts)):
            silent.append(name)
        found[name] = [
            _labeled(one, [float(scores[rows[key]][of_prompt[key][text]]) for text in one.texts])
            for one, key in ((one, _key(one)) for one in items)
        ]
    pool.release_all()
    too_long = {name: used["too_long"] for name, used in pool.usage().items() if name in found}
    return _Scored(found, unscored, too_long, tuple(silent), failed)


def _labeled(item: Candidates, scores: Sequence[float]) -> Labeled:
    values = np.array(scores, dtype=np.float64)
    return Labeled(values[: len(item.correct)], values[len(item.correct) :])


def _key(item: Candidates) -> str:
    """A prompt's conversation: several pairs may share it, and its responses are scored once."""
    return json.dumps([dict(message) for message in item.prompt.messages])


def _is_ties(item: Candidates) -> bool:
    return str(item.prompt.metadata.get("subset", "")).lower() == "ties" and len(item.texts) > 2


def _check_ties(items: Sequence[Candidates]) -> None:
    for one in items:
        if _is_ties(one) and not _TIES_ID.fullmatch(one.prompt.id):
            raise DataError(
                f"a row of the subset Ties has the id {one.prompt.id!r:.60}, not ref:N or tied:N as in RewardBench 2; "
                "get the file again"
            )


def _taught(items: Sequence[Candidates], share: float, seed: int) -> BoolArray:
    """The rows of a seeded share of the prompts."""
    keys = list(dict.fromkeys(_key(one) for one in items))
    order = stream(seed, "data", 2).permutation(len(keys))
    taught = {keys[index] for index in order[: round(share * len(keys))]}
    return np.array([_key(one) in taught for one in items])


def _choices(
    config: RunConfig, items: Sequence[Candidates], scores: Mapping[str, Sequence[Labeled]], taught_N: BoolArray
) -> IntArray:
    """The reward model that the selector chooses for each prompt, after learning from those it is taught."""
    policy = build_policy(config) if config.context.source == "policy" else None
    embedder = build_embedder(config.context, policy)
    contexts = build_contexts(config, dim=embedder.context_dim)
    selector = build_selector(config, contexts)
    names = [model.name for model in config.rewards.models]
    available_K = np.array([name in scores for name in names])
    right = {name: _right(items, of) for name, of in scores.items()}
    embedded_ND = embedder.embed([one.prompt for one in items])
    for row in stream(config.seed, "data", 3).permutation(np.flatnonzero(taught_N)):
        selection = selector.select(contexts(embedded_ND[row : row + 1]), available_K)
        fed = [float(right[names[arm]][row]) for _, arm in selection.charged_E]
        selector.update(selection.id, np.array(fed))
    selection = selector.select(contexts(embedded_ND), available_K)
    selector.expire(selection.id)
    return selection.arms_M


def _shares(config: RunConfig, arms_N: IntArray, categories: NDArray[np.str_]) -> dict[str, dict[str, float]]:
    return {
        str(category): {
            model.name: float((arms_N[categories == category] == arm).mean())
            for arm, model in enumerate(config.rewards.models)
        }
        for category in sorted(set(categories.tolist()))
    }


def _right(items: Sequence[Candidates], scores: Sequence[Labeled]) -> FloatArray:
    """How far each prompt's best response is a correct one, in [0, 1]."""
    return np.array(
        [float(all_above(of)) if _is_ties(one) else share_of_best(of) for one, of in zip(items, scores, strict=True)]
    )


def _chance(items: Sequence[Candidates]) -> float:
    """Accuracy of choosing at random; RewardBench 2's ties have none unless there is nothing else."""
    chosen = [one for one in items if not _is_ties(one)] or items
    return float(np.mean([len(one.correct) / len(one.texts) for one in chosen]))


def _strict(items: Sequence[Candidates], right_N: FloatArray) -> FloatArray:
    """`_right` as RewardBench counts: a tie of a pair is wrong, one among more candidates counts by share."""
    is_pair = np.array([len(one.texts) == 2 for one in items])
    return np.where(is_pair & (right_N < 1), 0.0, right_N)


def _by(
    items: Sequence[Candidates], groups: NDArray[np.str_], scores: Sequence[Labeled], right_N: FloatArray
) -> dict[str, float]:
    """Mean of each group; of RewardBench 2's ties their own score."""
    means = {}
    for group in sorted(set(groups.tolist())):
        rows = np.flatnonzero(groups == group).tolist()
        ties = all(_is_ties(items[row]) for row in rows)
        means[str(group)] = _ties(items, scores, rows) if ties else float(right_N[rows].mean())
    return means


def _ties(items: Sequence[Candidates], scores: Sequence[Labeled], rows: Sequence[int]) -> float:
    parts: dict[str, dict[str, Labeled]] = {"ref": {}, "tied": {}}
    for row in rows:
        found = _TIES_ID.fullmatch(items[row].prompt.id)
        assert found is not None  # _check_ties
        parts[found[1]][found[2]] = scores[row]
    return ties_score(parts["ref"], parts["tied"])
