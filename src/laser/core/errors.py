"""The one hierarchy of errors a user can act on.

Every message is a sentence that names the culprit and the cure. The command line prints it without a traceback and
exits with code 2; a library caller catches ``LaserError`` or one of its leaves.
"""


class LaserError(Exception):
    """Base of every error that the user can fix.

    Attributes:
        reported: Whether another process of the run reports it; None: the processes had not met when it was raised.
    """

    reported: bool | None = None


def first_line(error: BaseException) -> str:
    """The first line of an exception's message; its type where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


class ConfigError(LaserError):
    """The configuration is malformed, unknown in part, or asks for something impossible."""


class DataError(LaserError):
    """Prompts or answers cannot be read, or there are too few of them."""


class DataWarning(UserWarning):
    """Rows that were read, but perhaps not as their author meant; the command line prints the sentence alone."""


class ModelError(LaserError):
    """A language model, tokenizer or adapter cannot be loaded or used as asked."""


class RewardModelError(LaserError):
    """A reward model cannot be loaded, or broke its contract while scoring."""


class ServerError(LaserError):
    """A server cannot be reached, refuses, or answers what it should not."""


class RunDirectoryError(LaserError):
    """A run directory is missing, occupied, not writable, damaged, or belongs to another configuration."""


class TrainingError(LaserError):
    """Training cannot continue; the state up to the last checkpoint is on disk."""


def diverged(what: str) -> TrainingError:
    """The error that says that the policy's numbers are not finite any more; resuming would only repeat it."""
    return TrainingError(f"{what}; start a new run with a lower training.learning_rate or policy.precision = 'fp32'")


class LostProcessError(TrainingError):
    """Another process of the run has ended in the middle; the run can be resumed with as many as are there."""


class StoppedError(LaserError):
    """The run was asked to stop and did so between batches; its state is on disk."""
