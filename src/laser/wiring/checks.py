"""What a configuration asks for and a run would not do."""

from __future__ import annotations

from laser.config import schema, selection
from laser.config.presets import UNLEARNING
from laser.core.errors import ConfigError, DataError
from laser.data.split import Splits

_WEIGHTED = ("ensemble", "online_ensemble", "frozen", "python")  # may ask several reward models about one response


def check_used(config: schema.RunConfig) -> None:
    """Refuse what training with this selector would ignore.

    A configuration may hold it nevertheless: `laser best-of-n` reads it for its rows of ensembles.

    Raises:
        ConfigError: `rewards.combine` is set, and the selector asks one reward model at a time.
    """
    combine, chosen = config.rewards.combine, config.selector.type
    if combine != "raw" and chosen not in _WEIGHTED:
        raise ConfigError(
            f"rewards.combine = {combine!r} says how an ensemble's scores become one, but selector.type = {chosen!r} "
            "asks one reward model at a time; drop rewards.combine or set selector.type = 'ensemble'"
        )


def nothing_to_choose(config: schema.RunConfig) -> str | None:
    """A sentence where a selector would learn to choose from a single reward model; else None."""
    if len(config.rewards.models) > 1 or config.selector.type in UNLEARNING:
        return None
    return "the pool has one reward model, so there is nothing to choose; add one or set selector.type = 'fixed'"


def check_answers(section: selection.SignalConfig, splits: Splits) -> None:
    """Make sure that there are gold answers for the signal that reads them while training.

    Raises:
        DataError: No training prompt has one.
    """
    if isinstance(section, selection.AccuracyGapSignal) and all(prompt.answer is None for prompt in splits.train):
        raise DataError(
            "signal.type = 'accuracy_gap' needs gold answers and no training prompt has one; set data.answer_field or "
            "choose another signal"
        )
