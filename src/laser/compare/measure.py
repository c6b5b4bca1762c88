"""Measures the policy of a finished run on test prompts: by a metric, or by its win rate against the reference's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from laser.commands.evaluate import Note, Target, answer_targets, evaluate_targets
from laser.commands.judge import win_rates
from laser.compare.cells import Measurement
from laser.config import RunConfig
from laser.config.judge import JudgeConfig
from laser.core.errors import DataError

_BEFORE = "before"


def measure(config: RunConfig, run: Path, label: str, measurement: Measurement, note: Note) -> dict[str, Any]:
    """Measure a finished run; an interrupted measurement continues from the responses and verdicts in its directory.

    Returns:
        ``value`` in [0, 1]; ``before``, that of the untrained policy, or None; and the details.

    Raises:
        LaserError: The measurement failed.
    """
    targets = [Target(label, measurement.config, config, run)]
    if measurement.base:
        targets.append(Target(_BEFORE, measurement.config, config, None))
    out = run / measurement.answers
    if measurement.judge is None:
        evaluation = evaluate_targets(targets, split="test", out=out, note=note)
        values = {name: measured.overall.value for name, measured in evaluation.measured.items()}
        details = evaluation.as_record()
    else:
        files = dict(answer_targets(targets, split="test", out=out, note=note).files)
        reference = files.pop(label) if measurement.against is None else _responses_of(measurement)
        values, details = _judged(reference, files, measurement, run / measurement.file, note)
        values.setdefault(label, 0.5)  # the reference against itself
    return {"value": values[label], _BEFORE: values.get(_BEFORE), "details": details}


def _judged(
    reference: Path, others: dict[str, Path], measurement: Measurement, out: Path, note: Note
) -> tuple[dict[str, float], dict[str, Any]]:
    """Return each policy's win rate against the reference, and the record of the verdicts."""
    if not others:
        return {}, {}
    judge = JudgeConfig.model_validate(measurement.judge)
    result = win_rates([reference, *others.values()], judge, out=out.with_name(f"judged-{out.name}"), note=note)
    values = {}
    for name, judged in zip(others, result.judged.values(), strict=True):
        controlled = judged.compared.length_controlled
        if measurement.length_controlled and controlled is None:
            raise DataError("these responses do not show the effect of length; set metric = 'win_rate'")
        share = controlled.win_rate if measurement.length_controlled and controlled else judged.compared.win_rate
        values[name] = share.value
    return values, result.as_record()


def _responses_of(measurement: Measurement) -> Path:
    """Return the file of the reference's responses to the same prompts."""
    assert measurement.against is not None
    stem, method = Path(measurement.answers).stem, measurement.against.parent.name
    path = measurement.against / f"{stem}.{method}.jsonl"
    if not path.is_file():
        raise DataError(f"{measurement.against} has no responses to the test prompts; run the reference's cell first")
    return path
