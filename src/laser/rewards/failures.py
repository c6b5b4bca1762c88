"""Errors inside a reward model, reported as its failures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from laser.core.errors import LaserError, LostProcessError, RewardModelError
from laser.parallel.memory import free_unused, is_out_of_memory
from laser.rewards.undisturbed import said


@contextmanager
def named(name: str) -> Iterator[None]:
    """Turn every error of the block into a RewardModelError with the reward model's name."""
    try:
        yield
    except LostProcessError:
        raise
    except LaserError as error:
        message = str(error)
        raise RewardModelError(message if repr(name) in message else f"reward model {name!r}: {message}") from error
    except Exception as error:
        if not is_out_of_memory(error):
            reason = (said(error).splitlines() or [""])[0]
            raise RewardModelError(f"reward model {name!r} failed: {reason}; fix it, or leave it out") from error
        free_unused()
        raise RewardModelError(
            f"reward model {name!r}: the device is out of memory; lower its max_batch_tokens, set its device = 'cpu', "
            "or keep fewer models on the device (rewards.max_resident, rewards.max_parked)"
        ) from error
