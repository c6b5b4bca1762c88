"""``laser label``: a preference data set made offline by the selected reward models; nothing is trained.

Source: arXiv 2410.01735, Sec. 5 (offline creation of preference data). Each batch is one file, written whole under its
final name or not at all, so that an interrupted job goes on where it stood and `datasets` loads the folder as it is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from laser.build import build
from laser.config import RunConfig
from laser.config.compare import first_difference
from laser.config.load import parse_config
from laser.errors import ConfigError, RunDirectoryError
from laser.training.batch import Judged, Moment, Parts, choose, judge_batch, sample
from laser.training.progress import PhaseClock, Progress, Silent
from laser.training.run_directory import atomic_write, read_json, to_json, write_json
from laser.types import Prompt

Format = Literal["jsonl", "parquet"]


@dataclass(frozen=True, slots=True)
class LabelReport:
    """What a job left behind.

    Attributes:
        path: Folder of the data set.
        num_pairs: Pairs in it.
        num_prompts: Prompts with at least one pair.
        chosen: How many pairs each reward model decided, by name.
    """

    path: Path
    num_pairs: int
    num_prompts: int
    chosen: dict[str, int]


def label(
    config: RunConfig, out: str | Path, *, format: Format = "jsonl", progress: Progress | None = None
) -> LabelReport:
    """Write preference pairs for the training prompts, in the standard conversational format.

    A row has `prompt`, `chosen` and `rejected` (lists of chat messages), `chosen_score`, `rejected_score`,
    `reward_model`, `probability` (with which it was chosen), `category` and `prompt_id`. The selector does not learn
    from the batches; it knows what a probe or the run of a frozen selector taught it.

    Args:
        config: Policy, prompts, pool and selector; iterations and losses have no effect.
        out: Folder of the data set; one that was interrupted is continued.
        format: JSON Lines or Parquet.
        progress: Told what happens.

    Raises:
        LaserError: Something cannot be used, or `out` belongs to another configuration.
    """
    out, progress = Path(out), progress or Silent()
    _claim(config, out, format)
    built = build(config, on_tokens=progress.tokens)
    settings, size = built.plan.batch, config.training.batch_size
    prompts = built.splits.train
    batches = [prompts[begin : begin + size] for begin in range(0, len(prompts), size)]
    progress.started(iterations=1, batches_per_iteration=len(batches), iteration=0, step=0)
    for step, batch in enumerate(batches):
        target = out / f"part-{step:06d}.{format}"
        at, clock = Moment(0, step), PhaseClock(progress, iteration=0, step=step)
        nothing = out / f".part-{step:06d}.empty"
        if target.exists() or nothing.exists():  # the selector draws as if the batch had just been done
            built.parts.selector.expire(choose(built.parts, batch, settings, at, clock)[1].id)
            continue
        respond = partial(sample, built.parts, batch, settings, at)
        judged = judge_batch(built.parts, batch, settings, at, clock, respond)
        built.parts.selector.expire(judged.selection.id)
        rows = list(_rows(built.parts, batch, judged))
        if rows:
            _write(target, rows, format)
        else:
            nothing.touch()  # readers of Parquet refuse a file without rows
    return summarize_labels(out, format)


def summarize_labels(out: Path, format: Format) -> LabelReport:
    """Count what lies in a folder that `label` wrote."""
    prompts: set[str] = set()
    chosen: dict[str, int] = {}
    for path in sorted(out.glob(f"part-*.{format}")):
        for row in _read(path, format):
            prompts.add(row["prompt_id"])
            chosen[row["reward_model"]] = chosen.get(row["reward_model"], 0) + 1
    return LabelReport(out, sum(chosen.values()), len(prompts), dict(sorted(chosen.items())))


def _claim(config: RunConfig, out: Path, format: Format) -> None:
    """Begin a folder, or make sure that it is this job's."""
    record = out / "label.json"
    if record.is_file():
        stored = read_json(record)
        difference = first_difference(parse_config(dict(stored["config"]), source=str(record)), config)
        if difference is not None or stored["format"] != format:
            raise ConfigError(
                f"{out} was begun with another configuration ({difference or 'format'}); choose a new --out"
            )
        return
    if out.exists() and any(out.iterdir()):
        raise RunDirectoryError(f"{out} is not empty; choose another --out")
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_json(record, {"config": config.model_dump(mode="json"), "format": format})
    except OSError as error:
        raise RunDirectoryError(f"cannot write to {out} ({error.strerror}); choose another --out") from error


def _rows(parts: Parts, prompts: Sequence[Prompt], judged: Judged) -> Iterator[dict[str, Any]]:
    arms, probabilities_MK = judged.selection.arms_M, judged.selection.probabilities_MK
    for pair in judged.oriented.pairs:
        row = pair.prompt if len(arms) > 1 else 0
        prompt, responses = prompts[pair.prompt], judged.responses[pair.prompt]
        yield {
            "prompt": [dict(message) for message in prompt.messages],
            "chosen": [{"role": "assistant", "content": responses[pair.chosen].text}],
            "rejected": [{"role": "assistant", "content": responses[pair.rejected].text}],
            "chosen_score": pair.chosen_score,
            "rejected_score": pair.rejected_score,
            "reward_model": parts.pool.names[arms[row]],
            "probability": float(probabilities_MK[row, arms[row]]),
            "category": prompt.category,
            "prompt_id": prompt.id,
        }


def _write(path: Path, rows: Sequence[dict[str, Any]], format: Format) -> None:
    if format == "jsonl":
        atomic_write(path, "".join(json.dumps(to_json(row), allow_nan=False) + "\n" for row in rows).encode())
        return
    import pyarrow
    import pyarrow.parquet

    temporary = path.with_name(f".{path.name}.tmp")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), temporary)
    temporary.replace(path)


def _read(path: Path, format: Format) -> Iterator[dict[str, Any]]:
    if format == "jsonl":
        with path.open(encoding="utf-8") as file:
            yield from map(json.loads, file)
        return
    import pyarrow.parquet

    yield from pyarrow.parquet.read_table(path).to_pylist()
