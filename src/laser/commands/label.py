"""``laser label``: make a preference data set offline with the selected reward models; nothing is trained.

Source: arXiv 2410.01735, Sec. 5 (offline creation of preference data). An interrupted job continues after the batches
that are finished. The random draws of a prompt depend on its id, so its rows do not depend on the shard that it is in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from laser.commands.label_files import LabelFolder, Shard
from laser.commands.label_parts import Counts, Format, Part
from laser.config import RunConfig
from laser.config.schema import ContextConfig
from laser.config.selection import NoSignal
from laser.core.errors import DataError, RewardModelError
from laser.core.state import changes, state_from_json, state_to_json
from laser.core.types import Batch, Prompt, Selection
from laser.data.store import categories_of, digest, slice_of
from laser.training.batch import Address, Parts, choose, draw_candidates, embed, orient, sample_at, score
from laser.training.checkpoint import Stateful
from laser.training.pairs import Candidates, OrientedPairs
from laser.training.progress import PhaseClock, Progress
from laser.training.records import category_of
from laser.wiring import build
from laser.wiring.identity import scored_sources, state_digest
from laser.wiring.learned import FrozenFilter, frozen_filter

_BLIND = {"fixed", "random", "sequential", "ensemble", "online_ensemble"}
"""Selectors that choose without contexts."""

_LEFT_OUT = {
    "ties": "pairs of equal score",
    "unscored": "pairs without a score",
    "doubtful": "pairs whose chosen response scores as wrong responses of the probe do",
    "missing_pairs": "pairs that too few different responses could not make",
    "empty_responses": "empty responses",
    "duplicate_responses": "repeated responses",
    "prompts_without_pairs": "prompts without a pair",
    "tokens_cut": "tokens from the middle of prompts",
    "prompts_cut": "prompts cut that way",
}


@dataclass(frozen=True, slots=True)
class LabelReport:
    """Result of a labeling job.

    Attributes:
        path: Folder of the data set.
        num_pairs: Pairs in it.
        num_prompts: Prompts with at least one pair.
        chosen: Number of pairs that each reward model decided, by name.
        left_out: Pairs, responses and prompts without a row, and tokens removed from prompts, by reason.
        usage: For each reward model the counts of `RewardPool.usage`: `responses`, `unscored`, `too_long`, ...
        failed: Reward models that went into quarantine, and the reason.
        notes: Sentences on thresholds of a frozen selector's run that do not apply here.
    """

    path: Path
    num_pairs: int
    num_prompts: int
    chosen: dict[str, int]
    left_out: dict[str, int]
    usage: dict[str, dict[str, int]]
    failed: dict[str, str]
    notes: tuple[str, ...] = ()

    def sentences(self) -> list[str]:
        """Lines on what was left out and which reward models failed; empty if nothing was and none did."""
        counted = [f"{self.left_out[key]} {words}" for key, words in _LEFT_OUT.items() if self.left_out.get(key)]
        lines = [f"left out: {', '.join(counted)}"] if counted else []
        for name, usage in self.usage.items():
            said = [f"{usage['unscored']} of {usage['responses']} responses without a score"] * (usage["unscored"] > 0)
            said += [f"{usage['too_long']} responses too long for its window"] * (usage["too_long"] > 0)
            said += [f"{usage['failures']} calls that failed"] * (usage["failures"] > 0)
            lines += [f"left out: {name}: {', '.join(said)}"] if said else []
        return [*lines, *self.notes, *(f"failed: {name}: {reason}" for name, reason in self.failed.items())]


def label(
    config: RunConfig,
    out: str | Path,
    *,
    format: Format = "jsonl",
    shard: str | None = None,
    progress: Progress | None = None,
) -> LabelReport:
    """Write preference pairs for the training prompts, in the standard conversational format.

    A row has `prompt`, `chosen` and `rejected` (lists of chat messages), `chosen_score`, `rejected_score`,
    `reward_model`, `probability` (with which it was chosen), `category` and `prompt_id`. The selector does not learn
    from the batches; it uses what it learned from a probe or, frozen, in another run. `summary.json` counts what was
    left out.

    Args:
        config: Policy, prompts, pool and selector; iterations and losses have no effect.
        out: Folder of the data set; an interrupted job continues.
        format: JSON Lines or Parquet.
        shard: "I/N": only slice I (from 1) of N slices by a hash of the prompt's id. Shards may share `out`.
        progress: Observes the job.

    Raises:
        LaserError: Something cannot be used, the job made no pair, or `out` belongs to another configuration.
    """
    progress, mine = progress or Progress(), Shard.parse(shard) if shard is not None else Shard()
    folder = LabelFolder(Path(out).absolute(), format, mine)
    folder.check_owner(config)
    keep = partial(kept_prompts, shard=mine)
    built = build(without_unread(config), on_tokens=progress.tokens, on_probe=progress.probe, keep=keep)
    parts, prompts, size = built.parts, built.splits.train, config.training.batch_size
    frozen = build_filter(config, prompts)
    parts = replace(parts, filter_pairs=frozen.filter_pairs) if config.selector.type == "frozen" else parts
    sources = scored_sources(config, {"train": prompts})
    thresholds = {"thresholds": frozen.thresholds} if frozen.thresholds else {}
    folder.claim(
        config, {**sources, "selector": state_digest(parts.selector.state_dict() | thresholds)}, engine="local"
    )
    with folder.locked():
        todo = folder.parts(len(prompts), size)
        num_done = sum(len(part.steps) if part.is_done() else len(part.done_steps()) for part in todo)
        progress.started(
            iterations=1, batches_per_iteration=sum(len(one.steps) for one in todo), iteration=0, step=num_done
        )
        with PhaseClock(progress, iteration=0, step=num_done)("probe"):
            parts.signal.prepare(0, parts.selector, lambda probed: parts.contexts(embed(parts, probed)))
        memory = _Memory(parts, frozen=config.selector.type == "frozen")
        for part in todo:
            if part.is_done():
                memory.last = part.counted
                continue
            done = part.done_steps()
            for step in part.steps:
                if step in done:
                    memory.last = partial(part.counted_in, step)
                    continue
                memory.begin()
                batch = Batch(0, step, list(prompts[step * size : (step + 1) * size]))
                clock = PhaseClock(progress, iteration=0, step=step)
                progress.batch(_label_batch(parts, config, batch, part, memory, clock))
            part.finish()
        return finish_job(folder, todo, frozen.notes)


def without_unread(config: RunConfig) -> RunConfig:
    """The configuration, without contexts or a probe if the selector does not read them: they cost passes."""
    if config.selector.type == "frozen":
        return config.model_copy(update={"signal": NoSignal()})
    if config.selector.type not in _BLIND:
        return config
    return config.model_copy(update={"context": ContextConfig(source="none")})


def build_filter(config: RunConfig, prompts: Sequence[Prompt]) -> FrozenFilter:
    """What leaves out doubtful pairs by the thresholds of a frozen selector's run; nothing for other selectors."""
    return frozen_filter(config, set(categories_of(prompts))) if config.selector.type == "frozen" else FrozenFilter()


def kept_prompts(prompts: Sequence[Prompt], *, shard: Shard) -> Sequence[Prompt]:
    """The prompts of a shard.

    Raises:
        DataError: It has none.
    """
    if shard.count == 1 or not prompts:
        return prompts
    kept = slice_of(prompts, shard.index, shard.count)
    if not kept:
        raise DataError(f"shard {shard.index}/{shard.count} has none of the {len(prompts)} prompts; use fewer shards")
    return kept


def finish_job(folder: LabelFolder, parts: Sequence[Part], notes: tuple[str, ...]) -> LabelReport:
    """Sum up a job whose parts are all finished; `notes` are for the report.

    Raises:
        RewardModelError: It made no pair; the same command tries again. A shard may have none, if all responses have
            scores: the rows are in the others.
    """
    counts = Counts()
    for part in parts:
        counts.add(part.counted())
        part.remove_batches()  # of one that was finished when the process was killed
    record = counts.as_record()
    report = LabelReport(
        folder.path,
        num_pairs=record["pairs"],
        num_prompts=record["with_pairs"],
        notes=notes,
        **{name: record[name] for name in ("chosen", "left_out", "usage", "failed")},
    )
    is_only, is_sound = folder.shard.count == 1, not counts.failed and not counts.left_out["unscored"]
    fails = report.num_pairs == 0 and (is_only or not is_sound)
    if is_only or not fails:
        folder.write_summary(counts)
    if fails:
        for part in parts:
            part.record.unlink()
        raise RewardModelError(
            f"{counts.prompts} prompts gave no pair ({'; '.join(report.sentences())}); fix the cause and run the "
            "command again"
        )
    return report


def address(prompt: Prompt) -> Address:
    """Where the random draws of a prompt are: a hash of its id."""
    hashed = digest(prompt.id)
    return int.from_bytes(hashed[:4], "little"), int.from_bytes(hashed[4:8], "little")


class _Memory:
    """What batches change in the objects of a job, kept in their records: draws, failures, running moments and spreads.

    Args:
        parts: The objects, at the start of the job.
        frozen: Whether contexts are prepared for every batch with the moments of the start: those of the run that the
            selector comes from.

    Attributes:
        last: Reads the record of the last finished batch or part, if it is not restored yet.
    """

    def __init__(self, parts: Parts, *, frozen: bool) -> None:
        self._parts: dict[str, Stateful] = {"selector": parts.selector, "pool": parts.pool}
        self._contexts = parts.contexts
        self._frozen = frozen
        if not frozen:
            self._parts["contexts"] = parts.contexts
        self._start = {name: deepcopy(part.state_dict()) for name, part in self._parts.items()}
        self._moments = deepcopy(parts.contexts.state_dict())
        self.last: Callable[[], Mapping[str, Any]] | None = None

    def record(self) -> dict[str, Any]:
        """What has changed since the start."""
        return {
            name: state_to_json(changes(part.state_dict(), self._start[name])) for name, part in self._parts.items()
        }

    def begin(self) -> None:
        """Get ready for the batch after the last one."""
        if self._frozen:
            self._contexts.load_state_dict(self._moments)
        if self.last is None:
            return
        kept = self.last()["state"]
        for name, part in self._parts.items():
            part.load_state_dict({**self._start[name], **state_from_json(kept[name])})
        self.last = None


def _label_batch(
    parts: Parts, config: RunConfig, batch: Batch, part: Part, memory: _Memory, clock: PhaseClock
) -> dict[str, Any]:
    """Write the pairs of a batch and what it counts; returns a record for the progress display."""
    before, at = parts.pool.usage(), [address(prompt) for prompt in batch.prompts]
    contexts_MD, selection = choose(parts, config, batch, clock)
    with clock("sample"):
        responses = sample_at(parts.generator, config, batch.prompts, at)
    candidates = draw_candidates(config, responses, at)
    with clock("score"):
        selection, scores_BKN = score(parts, selection, contexts_MD, batch.prompts, responses, candidates)
        oriented = orient(config, candidates, scores_BKN, selection, parts.pool.spreads)
        oriented = parts.filter_pairs(batch, selection, oriented)
    parts.selector.expire(selection.id)
    names = parts.pool.names
    texts = [[response.text for response in row] for row in responses]
    rows = list(pair_rows(batch.prompts, selection, texts, oriented, names))
    counts = count_batch(config, batch.prompts, candidates, oriented, rows)
    counts.failed = parts.pool.quarantine.fresh(names)
    for name, used in parts.pool.usage().items():
        counts.usage[name] = Counter({key: count - before[name][key] for key, count in used.items()})
    part.write_batch(batch.step, rows, {**counts.as_record(), "state": memory.record()})
    return shown(batch, selection, names, len(rows), clock.seconds)


def pair_rows(
    prompts: Sequence[Prompt],
    selection: Selection,
    texts: Sequence[Sequence[str]],
    oriented: OrientedPairs,
    names: Sequence[str],
) -> Iterator[dict[str, Any]]:
    """The rows of a batch, one per pair."""
    for pair in oriented.pairs:
        row = selection.row_of(pair.prompt)
        arm, prompt, responses = selection.arms_M[row], prompts[pair.prompt], texts[pair.prompt]
        yield {
            "prompt": [dict(message) for message in prompt.messages],
            "chosen": [{"role": "assistant", "content": responses[pair.chosen]}],
            "rejected": [{"role": "assistant", "content": responses[pair.rejected]}],
            "chosen_score": pair.chosen_score,
            "rejected_score": pair.rejected_score,
            "reward_model": names[arm],
            "probability": float(selection.probabilities_MK[row, arm]),
            "category": prompt.category,
            "prompt_id": prompt.id,
        }


def count_batch(
    config: RunConfig,
    prompts: Sequence[Prompt],
    candidates: Candidates,
    oriented: OrientedPairs,
    rows: Sequence[Mapping[str, Any]],
) -> Counts:
    """What a batch counts, but for the use of reward models."""
    cut = [int(prompt.metadata.get("cut_tokens", 0)) for prompt in prompts]
    with_pairs = len({pair.prompt for pair in oriented.pairs})
    left_out = {
        "ties": oriented.num_ties,
        "unscored": oriented.num_unscored,
        "doubtful": oriented.num_doubtful,
        "missing_pairs": sum(max(0, config.training.pairs_per_prompt - len(pairs)) for pairs in candidates.pairs),
        "empty_responses": candidates.num_empty,
        "duplicate_responses": candidates.num_duplicates,
        "prompts_without_pairs": len(prompts) - with_pairs,
        "prompts_cut": sum(count > 0 for count in cut),
        "tokens_cut": sum(cut),
    }
    return Counts(len(prompts), with_pairs, Counter(row["reward_model"] for row in rows), Counter(left_out))


def shown(
    batch: Batch, selection: Selection, names: Sequence[str], num_pairs: int, seconds: Mapping[str, float]
) -> dict[str, Any]:
    """What a progress display shows of a batch."""
    return {
        "iteration": batch.iteration,
        "step": batch.step,
        "category": category_of(batch.prompts),
        "selection": {"reward_models": [names[arm] for arm in selection.arms_M], "weights": selection.weights_MK},
        "pairs": num_pairs,
        "loss": None,
        "bandit_rewards": [],
        "seconds": seconds,
    }
