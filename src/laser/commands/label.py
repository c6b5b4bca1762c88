"""``laser label``: make a preference data set offline with the selected reward models; nothing is trained.

Source: arXiv 2410.01735, Sec. 5 (offline creation of preference data). Each batch is one file of pairs, which appears
whole under its final name, and a hidden record of what it left out, written after it. An interrupted job continues with
the batches that have no record, and counts the others from their records.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from laser.config import RunConfig
from laser.config.compare import first_difference
from laser.config.load import parse_config
from laser.core.errors import ConfigError, RewardModelError, RunDirectoryError
from laser.core.files import atomic_write, check_regular, open_regular, read_json, replacing, to_json, write_json
from laser.core.outputs import claim, claimed_by
from laser.core.state import load_state, save_state
from laser.core.types import Batch, FloatArray, Responses, Selection
from laser.rewards.spreads import deviations_by_arm
from laser.training.batch import Parts, draw_candidates, embed, orient, prepare_contexts, sample, score, select
from laser.training.pairs import Candidates, OrientedPairs
from laser.training.progress import PhaseClock, Progress, Silent
from laser.training.records import category_of
from laser.wiring import build
from laser.wiring.identity import check_sources, scored_sources, state_digest

Format = Literal["jsonl", "parquet"]

_RECORD, _SUMMARY = "label.json", "summary.json"
_LEFT_OUT = {
    "ties": "pairs of equal score",
    "unscored": "pairs without a score",
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
    """

    path: Path
    num_pairs: int
    num_prompts: int
    chosen: dict[str, int]
    left_out: dict[str, int]
    usage: dict[str, dict[str, int]]
    failed: dict[str, str]

    def sentences(self) -> list[str]:
        """Lines on what was left out and which reward models failed; empty if nothing was and none did."""
        counted = [f"{self.left_out[key]} {words}" for key, words in _LEFT_OUT.items() if self.left_out.get(key)]
        lines = [f"left out: {', '.join(counted)}"] if counted else []
        for name, usage in self.usage.items():
            said = [f"{usage['unscored']} of {usage['responses']} responses without a score"] * (usage["unscored"] > 0)
            said += [f"{usage['too_long']} responses too long for its window"] * (usage["too_long"] > 0)
            said += [f"{usage['failures']} calls that failed"] * (usage["failures"] > 0)
            lines += [f"left out: {name}: {', '.join(said)}"] if said else []
        return [*lines, *(f"failed: {name}: {reason}" for name, reason in self.failed.items())]


@dataclass(frozen=True, slots=True)
class _Part:
    """The files of one batch."""

    folder: Path
    step: int
    format: Format

    @property
    def path(self) -> Path:
        """Its pairs; no file without pairs, because readers of Parquet refuse a file without rows."""
        return self.folder / f"part-{self.step:06d}.{self.format}"

    @property
    def record(self) -> Path:
        """What it left out; written last, so it marks a finished batch."""
        return self.folder / f".part-{self.step:06d}.json"

    @property
    def selector(self) -> Path:
        """Stem of the selector's state, written if a failure made it choose more than once."""
        return self.folder / f".part-{self.step:06d}.selector"

    def is_done(self) -> bool:
        """Whether the batch is finished."""
        return self.record.is_file() and (self.path.is_file() or read_json(self.record)["pairs"] == 0)


def label(
    config: RunConfig, out: str | Path, *, format: Format = "jsonl", progress: Progress | None = None
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
        progress: Observes the job.

    Raises:
        LaserError: Something cannot be used, the job made no pair, or `out` belongs to another configuration.
    """
    out, progress = Path(out).absolute(), progress or Silent()
    _check_owner(config, out, format)
    built = build(config, on_tokens=progress.tokens, on_probe=progress.probe)
    sources = scored_sources(config, {"train": built.splits.train})
    sources["selector"] = state_digest(built.parts.selector.state_dict())
    if any(out.glob(".part-??????.json")):
        check_sources(read_json(out / _RECORD).get("sources", {}), sources, f"the first batches of {out}")
    else:  # only now, so that a failed start leaves no folder behind
        claim(out, _RECORD, {"config": config.model_dump(mode="json"), "format": format, "sources": sources})
    prompts, size = built.splits.train, config.training.batch_size
    starts = range(0, len(prompts), size)
    parts = [_Part(out, step, format) for step in range(len(starts))]
    num_done = sum(part.is_done() for part in parts)
    progress.started(iterations=1, batches_per_iteration=len(parts), iteration=0, step=num_done)
    for part, begin in zip(parts, starts, strict=True):
        batch = Batch(0, part.step, prompts[begin : begin + size])
        clock = PhaseClock(progress, iteration=0, step=part.step)
        if part.is_done():
            _pass_over(built.parts, config, batch, part, clock)
        else:
            progress.batch(_label_batch(built.parts, config, batch, part, clock))
    report = summarize_labels(out, format)
    with _writing(out):
        write_json(out / _SUMMARY, _summary(report, len(prompts)))
    if report.num_pairs == 0:
        for part in parts:  # so that the same command tries again
            part.record.unlink()
        raise RewardModelError(
            f"{len(prompts)} prompts gave no pair ({'; '.join(report.sentences())}); fix the cause and run the command "
            "again"
        )
    return report


def summarize_labels(out: Path, format: Format) -> LabelReport:
    """Count the pairs in a folder that `label` wrote, and what its batches left out."""
    prompts: set[str] = set()
    chosen: Counter[str] = Counter()
    for path in sorted(out.glob(f"part-*.{format}")):
        for row in _read(path, format):
            prompts.add(row["prompt_id"])
            chosen[row["reward_model"]] += 1
    left_out: Counter[str] = Counter()
    usage: dict[str, Counter[str]] = {}
    failed: dict[str, str] = {}
    for path in sorted(out.glob(".part-??????.json")):
        record = read_json(path)
        left_out.update(record["left_out"])
        failed |= record["failed"]
        for name, counts in record["usage"].items():
            usage.setdefault(name, Counter()).update(counts)
    totals = {name: dict(counts) for name, counts in usage.items()}
    return LabelReport(out, chosen.total(), len(prompts), dict(sorted(chosen.items())), dict(left_out), totals, failed)


def _label_batch(parts: Parts, config: RunConfig, batch: Batch, part: _Part, clock: PhaseClock) -> dict[str, Any]:
    """Write the pairs of a batch and what it left out; returns a record for the progress display."""
    before, names = parts.pool.usage(), parts.pool.names
    contexts_MD, selection = _choose(parts, config, batch, clock)
    with clock("sample"):
        responses = sample(parts, config, batch)
    candidates = draw_candidates(config, batch, responses)
    with clock("score"):
        selection, scores_BKN = score(parts, selection, contexts_MD, batch.prompts, responses, candidates)
        oriented = orient(config, candidates, scores_BKN, selection, parts.pool.spreads)
    parts.selector.expire(selection.id)
    rows = list(_rows(batch, selection, responses, oriented, names))
    failed = parts.pool.quarantine.fresh(names)
    record = {
        "pairs": len(rows),
        "left_out": _left_out(batch, candidates, oriented, config.training.pairs_per_prompt),
        "usage": {
            name: {key: count - before[name][key] for key, count in counts.items()}
            for name, counts in parts.pool.usage().items()
        },
        "failed": failed,
        "quarantine": parts.pool.quarantine.state_dict(),
        "deviations": deviations_by_arm(scores_BKN) if config.rewards.combine == "scaled" else None,
    }
    with _writing(part.folder):
        if rows:
            _write(part.path, rows, part.format)
        if failed:
            save_state(part.selector, parts.selector.state_dict())
        write_json(part.record, record)
    return {
        "iteration": batch.iteration,
        "step": batch.step,
        "category": category_of(batch.prompts),
        "selection": {"reward_models": [names[arm] for arm in selection.arms_M], "weights": selection.weights_MK},
        "pairs": len(rows),
        "loss": None,
        "bandit_rewards": [],
        "seconds": clock.seconds,
    }


def _choose(parts: Parts, config: RunConfig, batch: Batch, clock: PhaseClock) -> tuple[FloatArray, Selection]:
    """Contexts and selection of a batch, as the training loop makes them."""
    parts.pool.quarantine.next_batch()
    with clock("probe"):
        parts.signal.prepare(batch.iteration, parts.selector, lambda prompts: parts.contexts(embed(parts, prompts)))
    with clock("embed"):
        contexts_MD = prepare_contexts(parts, config, batch.prompts)
    with clock("select"):
        selection = select(parts, contexts_MD)
        parts.pool.prefetch(selection.used_arms)
    return contexts_MD, selection


def _pass_over(parts: Parts, config: RunConfig, batch: Batch, part: _Part, clock: PhaseClock) -> None:
    """Bring selector and pool to the state in which a finished batch left them."""
    record = read_json(part.record)
    _, selection = _choose(parts, config, batch, clock)
    parts.selector.expire(selection.id)
    if record["failed"]:
        parts.selector.load_state_dict(load_state(part.selector))
    parts.pool.quarantine.load_state_dict(record["quarantine"])
    if record["deviations"] is not None:
        parts.pool.spreads.add(record["deviations"])


def _left_out(batch: Batch, candidates: Candidates, oriented: OrientedPairs, pairs_per_prompt: int) -> dict[str, int]:
    cut = [int(prompt.metadata.get("cut_tokens", 0)) for prompt in batch.prompts]
    return {
        "ties": oriented.num_ties,
        "unscored": oriented.num_unscored,
        "missing_pairs": sum(max(0, pairs_per_prompt - len(pairs)) for pairs in candidates.pairs),
        "empty_responses": candidates.num_empty,
        "duplicate_responses": candidates.num_duplicates,
        "prompts_without_pairs": len(batch.prompts) - len({pair.prompt for pair in oriented.pairs}),
        "prompts_cut": sum(count > 0 for count in cut),
        "tokens_cut": sum(cut),
    }


def _summary(report: LabelReport, num_prompts: int) -> dict[str, Any]:
    return {
        "pairs": report.num_pairs,
        "prompts": num_prompts,
        "chosen": report.chosen,
        "left_out": report.left_out,
        "usage": report.usage,
        "failed": report.failed,
    }


def _check_owner(config: RunConfig, out: Path, format: Format) -> None:
    """Check that a folder is free or belongs to this job, without changing it. A folder without a batch is free."""
    stored = claimed_by(out, _RECORD, besides={_RECORD, _SUMMARY})
    if stored is None:
        return
    difference = first_difference(parse_config(dict(stored["config"]), source=str(out / _RECORD)), config)
    if difference is not None or stored["format"] != format:
        raise ConfigError(
            f"{out} was started with another configuration ({difference or 'format'}); choose a new --out"
        )


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    """Turn an error of the disk into a sentence."""
    try:
        yield
    except OSError as error:
        raise RunDirectoryError(
            f"cannot write to {out} ({error.strerror or error}); fix that and run the command again, which continues"
        ) from error


def _rows(
    batch: Batch, selection: Selection, responses: Responses, oriented: OrientedPairs, names: Sequence[str]
) -> Iterator[dict[str, Any]]:
    for pair in oriented.pairs:
        row = selection.row_of(pair.prompt)
        arm, prompt, texts = selection.arms_M[row], batch.prompts[pair.prompt], responses[pair.prompt]
        yield {
            "prompt": [dict(message) for message in prompt.messages],
            "chosen": [{"role": "assistant", "content": texts[pair.chosen].text}],
            "rejected": [{"role": "assistant", "content": texts[pair.rejected].text}],
            "chosen_score": pair.chosen_score,
            "rejected_score": pair.rejected_score,
            "reward_model": names[arm],
            "probability": float(selection.probabilities_MK[row, arm]),
            "category": prompt.category,
            "prompt_id": prompt.id,
        }


def _write(path: Path, rows: Sequence[dict[str, Any]], format: Format) -> None:
    if format == "jsonl":
        atomic_write(path, "".join(json.dumps(to_json(row), allow_nan=False) + "\n" for row in rows).encode())
        return
    import pyarrow
    import pyarrow.parquet

    with replacing(path) as temporary:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), temporary)


def _read(path: Path, format: Format) -> Iterator[dict[str, Any]]:
    try:
        if format == "jsonl":
            with open_regular(path) as file:
                yield from map(json.loads, file)
            return
        import pyarrow.parquet

        check_regular(path)
        yield from pyarrow.parquet.read_table(path).to_pylist()
    except (OSError, ValueError) as error:  # of which pyarrow's errors are
        reason = getattr(error, "strerror", None) or error
        raise RunDirectoryError(f"{path} is damaged ({reason}); remove it to label its prompts again") from error
