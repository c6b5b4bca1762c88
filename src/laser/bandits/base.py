"""The two roles a bandit plays in the loop: `Selector` chooses, `Feedback` tells it how well that went."""

from __future__ import annotations

from typing import Protocol

from laser.core.types import BoolArray, FloatArray, IntArray, Selection, StateDict


class StateVersionError(ValueError):
    """A state was written by another version of what is to be restored, whatever else it holds."""


def check_state_version(found: object, known: int) -> None:
    """Raise StateVersionError, with the cure, where a state's version is not the one that is known here."""
    if found != known:
        raise StateVersionError(
            f"its state has version {found!r} and this laser reads version {known}; use the laser that wrote it "
            "(run.json names it), or train again"
        )


class Selector(Protocol):
    """Chooses reward models for contexts and learns from bandit rewards.

    The same interface serves both granularities: M = 1 with the mean context of a batch (arXiv 2410.01735, Sec. 3.2),
    or M = B with one context per prompt. Rows of one call are chosen with the same knowledge.
    """

    @property
    def num_arms(self) -> int:
        """K, the number of reward models."""

    def select(self, contexts_MD: FloatArray, available_K: BoolArray | None = None) -> Selection:
        """Choose arms for M contexts.

        Args:
            contexts_MD: Finite prepared contexts, shape (M, D), float64.
            available_K: False for arms that must not be chosen (quarantined); None means all are available.

        Returns:
            The selection, open until it is updated or expired.

        Raises:
            ValueError: A context is not finite, has the wrong width, or no arm is available.
        """

    def update(self, selection_id: int, bandit_rewards_E: FloatArray) -> None:
        """Learn the bandit rewards of a selection; selections may be closed late and in any order.

        Args:
            selection_id: `Selection.id` of an open selection.
            bandit_rewards_E: One bandit reward per entry of `Selection.charged_E`: for a selector that chooses one arm
                per row one per row, shape (M,). NaN marks an entry without an observation.

        Raises:
            KeyError: The selection is not open.
            ValueError: Wrong shape, or an infinite reward.
        """

    def expire(self, selection_id: int) -> None:
        """Close a selection that will never get a bandit reward. Raises KeyError if it is not open."""

    def state_dict(self) -> StateDict:
        """Everything needed to continue identically, open selections and random state included."""

    def load_state_dict(self, state: StateDict) -> None:
        """Restore `state_dict`.

        Raises:
            ValueError: It belongs to a selector of another shape; `StateVersionError` where another version wrote it.
        """


class Feedback(Protocol):
    """Turns losses into bandit rewards in [0, 1]."""

    def scale(self, losses_E: FloatArray, arms_E: IntArray) -> FloatArray:
        """Scale the losses charged in one selection against the history before it, then remember them.

        Args:
            losses_E: One loss per entry of `Selection.charged_E`, shape (E,), in nats; NaN where no pair was made.
            arms_E: The arm of each entry, shape (E,).

        Returns:
            Bandit rewards in [0, 1], shape (E,).
        """

    def state_dict(self) -> StateDict:
        """History needed to continue identically."""

    def load_state_dict(self, state: StateDict) -> None:
        """Restore `state_dict`."""
