"""Building blocks of custom parts: the contracts of the roles, base classes that do the common work, and the records
that go in and out. See docs/extend.md.
"""

from __future__ import annotations

from laser.bandits.arm_selector import ArmSelector, Judgement, Observations
from laser.bandits.base import Feedback, Selector
from laser.core.types import (
    Batch,
    BoolArray,
    FloatArray,
    IntArray,
    Message,
    Pair,
    Prompt,
    Response,
    Responses,
    Selection,
    StateDict,
)
from laser.lm.limits import window_of
from laser.policy.generation import Generator, TransformersGenerator
from laser.policy.policy import Policy
from laser.rewards.base import NoWeights, RewardModel
from laser.rewards.families.backbone import head_tensors, hidden_states, linear, load_backbone, needed
from laser.rewards.families.base import Checkpoint, FamilyModel, Outputs, PairModel, Row, pad_of
from laser.rewards.pool import RewardPool
from laser.training.charges import Charge
from laser.training.signals import Signal, Stateless

__all__ = [
    "ArmSelector",
    "Batch",
    "BoolArray",
    "Charge",
    "Checkpoint",
    "FamilyModel",
    "Feedback",
    "FloatArray",
    "Generator",
    "IntArray",
    "Judgement",
    "Message",
    "NoWeights",
    "Observations",
    "Outputs",
    "Pair",
    "PairModel",
    "Policy",
    "Prompt",
    "Response",
    "Responses",
    "RewardModel",
    "RewardPool",
    "Row",
    "Selection",
    "Selector",
    "Signal",
    "StateDict",
    "Stateless",
    "TransformersGenerator",
    "head_tensors",
    "hidden_states",
    "linear",
    "load_backbone",
    "needed",
    "pad_of",
    "window_of",
]
