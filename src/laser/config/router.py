"""The configuration of a router: how reward models are chosen inside another trainer."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from laser.config.evaluation import EvaluationConfig
from laser.config.presets import UNLEARNING
from laser.config.rewards import RewardsConfig
from laser.config.schema import ContextConfig, checked_names
from laser.config.section import Section
from laser.config.selection import DevGainSignal, LinUCBSelector, NoSignal, ProbeSignal, SelectorConfig, SignalConfig

LOSS_IS_NO_SIGNAL = (
    "the loss of GRPO and RLOO says nothing about a reward model: its value is near zero at every on-policy step, "
    "however good the rewards are"
)

LOOP_ONLY = ("refresh", "num_responses")
"""Fields of a probe that only laser's own loop reads."""

_SEVERAL = ("ensemble", "online_ensemble")


class RouterConfig(Section):
    """What a router needs: the pool, the selector, its contexts and its feedback."""

    preset: Literal["paper", "recommended"] = Field("paper", description="Defaults to start from.")
    seed: int = Field(0, ge=0, le=2**63 - 1, description="The one seed of every random stream.")
    rewards: RewardsConfig
    context: ContextConfig = Field(default_factory=ContextConfig)
    selector: SelectorConfig = Field(default_factory=LinUCBSelector)
    signal: SignalConfig = Field(default_factory=NoSignal)
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig, description="How answers are read.")

    @model_validator(mode="after")
    def _can_route(self) -> RouterConfig:
        checked_names(self.rewards, self.selector)
        for problem in (self._context_problem(), self._selector_problem(), self._signal_problem()):
            if problem is not None:
                raise ValueError(problem)
        return self

    def _context_problem(self) -> str | None:
        if self.context.source != "policy":
            return None
        return (
            "context.source = 'policy' reads the hidden states of laser's own policy, and a router has none; set "
            "context.source = 'encoder', 'category' or 'none'"
        )

    def _selector_problem(self) -> str | None:
        kind = self.selector.type
        if kind in _SEVERAL or self.rewards.combine != "raw":
            cause = f"selector.type = {kind!r}" if kind in _SEVERAL else f"rewards.combine = {self.rewards.combine!r}"
            return (
                f"{cause} uses several reward models for one response, and a router chooses one; choose a bandit, or "
                "give all reward models to the trainer"
            )
        if kind == "sequential":
            return "selector.type = 'sequential' counts the batches of laser's own loop; choose another for a router"
        return None

    def _signal_problem(self) -> str | None:
        signal = self.signal
        if signal.type in ("agreement", "python"):
            return (
                f"signal.type = {signal.type!r} works in laser train alone; a router learns from gold answers "
                "(signal.type = 'none' or 'accuracy_gap'), a 'probe', or the trainer's metric ('dev_gain')"
            )
        unread = [name for name in LOOP_ONLY if name in signal.model_fields_set]
        if isinstance(signal, ProbeSignal) and unread:
            return (
                f"signal.{unread[0]} has no effect in a router, whose probe looks at what the trainer sampled first; "
                "drop it"
            )
        if isinstance(signal, ProbeSignal) and self.selector.type in UNLEARNING:
            return (
                f"selector.type = {self.selector.type!r} learns nothing, so signal.type = 'probe' has no effect; drop "
                "[signal] or choose a bandit"
            )
        if "weight" in signal.model_fields_set and signal.weight != 1 and not isinstance(signal, DevGainSignal):
            return f"signal.weight = {signal.weight} mixes the signal with the loss, and {LOSS_IS_NO_SIGNAL}; drop it"
        return None
