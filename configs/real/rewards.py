"""Reward functions of the real experiments: surface properties that reward models are known to follow."""

from laser.demo.rewards import fluency as trigram

__all__ = ["trigram", "verbose"]


def verbose(prompts, responses):
    """The longer, the better."""
    return [float(len(response)) for response in responses]
