"""What a finished run's policy is worth on test prompts: a metric, or a judge's preference to the reference's run."""

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
    """Measure a finished run; responses and verdicts are kept in its directory, so that an interrupted one goes on.

    Args:
        config: What it was trained with.
        run: Its directory.
        label: What files call its policy.
        measurement: What is measured.
        note: Told what happens.

    Returns:
        ``value`` in [0, 1]; ``before``, that of the untrained policy, or None; and the details.

    Raises:
        LaserError: It cannot be measured.
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
    """Win rate of each other policy against the reference, and the record of the verdicts."""
    if not others:
        return {}, {}
    judge = JudgeConfig.model_validate(measurement.judge)
    result = win_rates([reference, *others.values()], judge, out=out.with_name(f"judged-{out.name}"), note=note)
    values = {}
    for name, judged in zip(others, result.judged.values(), strict=True):
        controlled = judged.compared.length_controlled
        if measurement.length_controlled and controlled is None:
            raise DataError("the effect of length cannot be seen in these responses; set metric = 'win_rate'")
        share = controlled.win_rate if measurement.length_controlled and controlled else judged.compared.win_rate
        values[name] = share.value
    return values, result.as_record()


def _responses_of(measurement: Measurement) -> Path:
    """The responses that the reference's run gave to the same prompts."""
    assert measurement.against is not None
    stem, method = Path(measurement.answers).stem, measurement.against.parent.name
    path = measurement.against / f"{stem}.{method}.jsonl"
    if not path.is_file():
        raise DataError(f"{measurement.against} holds no responses to the test prompts; run the reference's cell first")
    return path
