"""Options of a configuration that a run would ignore."""

from __future__ import annotations

from laser.config import schema, selection
from laser.config.presets import UNLEARNING
from laser.core.errors import ConfigError, DataError
from laser.data.split import Splits

_WEIGHTED = ("ensemble", "online_ensemble", "frozen", "python")  # may use several reward models for one response


def check_used(config: schema.RunConfig) -> None:
    """Refuse options that training with this selector would ignore.

    The configuration may still hold them: `laser best-of-n` reads them for its rows of ensembles.

    Raises:
        ConfigError: `rewards.combine` is set, and the selector uses one reward model at a time.
    """
    combine, chosen = config.rewards.combine, config.selector.type
    if combine != "raw" and chosen not in _WEIGHTED:
        raise ConfigError(
            f"rewards.combine = {combine!r} says how an ensemble's scores become one, but selector.type = {chosen!r} "
            "uses one reward model at a time; drop rewards.combine or set selector.type = 'ensemble'"
        )


def nothing_to_choose(config: schema.RunConfig) -> str | None:
    """A sentence if a selector would learn to choose from a single reward model; else None."""
    if len(config.rewards.models) > 1 or config.selector.type in UNLEARNING:
        return None
    return "the pool has one reward model, so there is nothing to choose; add one or set selector.type = 'fixed'"


def check_answers(section: selection.SignalConfig, splits: Splits) -> None:
    """Check that there are gold answers for a signal that reads them while training.

    Raises:
        DataError: No training prompt has one.
    """
    if isinstance(section, selection.AccuracyGapSignal) and all(prompt.answer is None for prompt in splits.train):
        raise DataError(
            "signal.type = 'accuracy_gap' needs gold answers and no training prompt has one; set data.answer_field or "
            "choose another signal"
        )
