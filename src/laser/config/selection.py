"""Configuration of selectors, feedback and signals: how a reward model is chosen and which bandit reward it gets."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from laser.config.section import Factory, LocalPath, PositiveInt, Section

Alpha = Annotated[float, Field(ge=0, description="Width of the confidence bound.")]
ForcedPulls = Annotated[int, Field(ge=0, description="Pulls every arm gets before the rule decides.")]


class BanditSelector(Section):
    """What every selector that learns from bandit rewards has."""

    cost_weight: float = Field(
        0.0,
        ge=0,
        description="Bandit reward given up to use a free reward model instead of the dearest one: a reward model's "
        "cost relative to the dearest, times this weight, is subtracted from its value. 0: costs play no part.",
    )


class LinUCBSelector(BanditSelector):
    """Disjoint LinUCB (Eq. 1 and 2)."""

    type: Literal["linucb"] = "linucb"
    alpha: float = Field(0.1, ge=0, description="Width of the confidence bound (authors' code: 0.1).")
    ridge: float = Field(1.0, gt=0, description="A_k starts at ridge x identity (paper: 1).")
    initial_b_scale: float = Field(0.0, ge=0, description="Standard deviation of the random initial b (0: zeros).")
    forced_pulls: ForcedPulls = 0


class ForgettingSelector(BanditSelector):
    """LinUCB that forgets, for bandit rewards that drift."""

    type: Literal["forgetting"] = "forgetting"
    rule: Literal["discount", "window", "decay", "adaptive"] = Field(
        "adaptive",
        description="discount: observations fade, the prior stays (D-LinUCB); window: only the latest count; decay: "
        "observations and prior fade alike (paretobandit's rule); adaptive: discount at several gammas, weighed "
        "by how well each predicts.",
    )
    alpha: Alpha = 0.7
    gamma: float = Field(0.995, gt=0, lt=1, description="Factor per observation, for discount and decay.")
    window: PositiveInt = Field(200, description="Latest observations that count, over all arms, for window.")
    ridge: float = Field(1.0, gt=0, description="Prior precision of every arm.")
    floor: float = Field(1e-4, gt=0, le=1, description="Smallest share of the prior that decay leaves.")
    forced_pulls: ForcedPulls = 0


class ThompsonSelector(BanditSelector):
    """Linear Thompson sampling."""

    type: Literal["thompson"] = "thompson"
    scale: float = Field(0.1, gt=0, description="Standard deviation of the noise; scales exploration.")
    ridge: float = Field(1.0, gt=0, description="Prior precision of every arm.")
    forced_pulls: ForcedPulls = 0


class BayesianRouterSelector(BanditSelector):
    """BayesianRouter: Thompson sampling from a prior that an offline router has learned (arXiv 2510.02850)."""

    type: Literal["bayesian_router"] = "bayesian_router"
    prior: LocalPath | None = Field(
        None, description="Folder that `laser train-classifier` wrote; None: a prior mean of zero."
    )
    scale: float = Field(0.1, gt=0, description="Standard deviation of the noise; scales exploration.")
    ridge: float = Field(1.0, gt=0, description="Prior precision: how many observations the prior is worth.")


class NeuralUCBSelector(BanditSelector):
    """An MLP per arm with a confidence bound from its gradients."""

    type: Literal["neural_ucb"] = "neural_ucb"
    hidden: tuple[PositiveInt, ...] = Field((256, 128), min_length=1, description="Hidden widths (paper: 256, 128).")
    alpha: Alpha = 0.1
    ridge: float = Field(1.0, gt=0, description="Z starts at ridge x identity.")
    confidence: Literal["full", "diagonal"] = Field(
        "full", description="Exact, by inner products of gradients, or the usual diagonal of Z."
    )
    train_steps: PositiveInt = Field(20, description="Adam steps after each selection.")
    learning_rate: float = Field(1e-3, gt=0, description="Adam's learning rate.")
    memory: PositiveInt = Field(
        2000, description="Observations that an arm remembers; when it is full, the oldest eighth is forgotten."
    )
    forced_pulls: ForcedPulls = 0


class Exp3Selector(BanditSelector):
    """Exp3 (Eq. 3 and 4)."""

    type: Literal["exp3"] = "exp3"
    gamma: float = Field(0.1, ge=0, le=1, description="Share of uniform exploration.")
    eta: float = Field(1.0, gt=0, description="Step of the log-weights (paper: 1).")
    forced_pulls: ForcedPulls = 0


class UCB1Selector(BanditSelector):
    """UCB1, without contexts."""

    type: Literal["ucb1"] = "ucb1"
    alpha: float = Field(1.0, ge=0, description="Width of the bound; 1 is the published one.")


class EpsilonGreedySelector(BanditSelector):
    """Epsilon-greedy, without contexts."""

    type: Literal["epsilon_greedy"] = "epsilon_greedy"
    epsilon: float = Field(0.1, ge=0, le=1, description="Probability of a uniformly random arm.")


class FixedSelector(Section):
    """Always the same reward model (the paper's Best RM baseline)."""

    type: Literal["fixed"] = "fixed"
    arm: str = Field(description="Name of the reward model.")


class RandomSelector(Section):
    """A uniformly random reward model (baseline)."""

    type: Literal["random"] = "random"


class SequentialSelector(Section):
    """The reward models one after the other (baseline)."""

    type: Literal["sequential"] = "sequential"
    order: tuple[str, ...] | None = Field(None, min_length=1, description="Names in their order; None: the pool's.")
    switch: Literal["batch", "iteration"] = Field("batch", description="How often the next one is taken.")


class ClassifierSelector(Section):
    """A trained classifier of queries (baseline)."""

    type: Literal["classifier"] = "classifier"
    path: LocalPath = Field(description="Folder that `laser train-classifier` wrote.")


class FrozenSelector(Section):
    """The selector of another run as it ended, without learning (CS-LASeR, Table 5)."""

    type: Literal["frozen"] = "frozen"
    run: LocalPath = Field(description="Directory of the run that trained it; pool and policy width must be the same.")


class EnsembleSelector(Section):
    """Every reward model with equal weight (score or agreement ensemble; see rewards.combine)."""

    type: Literal["ensemble"] = "ensemble"


class OnlineEnsembleSelector(Section):
    """Every reward model, with weights learned by multiplicative updates (Online RM Ensemble)."""

    type: Literal["online_ensemble"] = "online_ensemble"
    eta: float = Field(0.5, gt=0, le=1, description="Step of the multiplicative update.")


class PythonSelector(Section):
    """A custom selector from a Python factory ``(num_arms, dim, seed) -> Selector``."""

    type: Literal["python"] = "python"
    factory: Factory


SelectorConfig = Annotated[
    LinUCBSelector
    | ForgettingSelector
    | ThompsonSelector
    | BayesianRouterSelector
    | NeuralUCBSelector
    | Exp3Selector
    | UCB1Selector
    | EpsilonGreedySelector
    | FixedSelector
    | RandomSelector
    | SequentialSelector
    | ClassifierSelector
    | FrozenSelector
    | EnsembleSelector
    | OnlineEnsembleSelector
    | PythonSelector,
    Field(discriminator="type"),
]

Window = Annotated[int, Field(ge=2)]


class QuantileFeedback(Section):
    """Losses scaled by the quantiles of their history (Sec. A.2)."""

    type: Literal["quantile"] = "quantile"
    low: float = Field(0.2, ge=0, lt=1, description="Lower quantile of the history (paper: 0.2).")
    high: float = Field(0.8, gt=0, le=1, description="Upper quantile of the history (paper: 0.8).")
    window: Window | None = Field(
        None, description="Number of latest losses the quantiles see; None: the full history (paper)."
    )


class ZScoreFeedback(Section):
    """Losses scaled by the mean and deviation of the arm's own history (arXiv 2510.02850)."""

    type: Literal["zscore"] = "zscore"
    window: Window | None = Field(50, description="Number of an arm's latest losses that count; None: all.")


class PythonFeedback(Section):
    """Custom feedback from a Python factory ``() -> Feedback``."""

    type: Literal["python"] = "python"
    factory: Factory


Feedback = Annotated[QuantileFeedback | ZScoreFeedback | PythonFeedback, Field(discriminator="type")]

Weight = Annotated[float, Field(ge=0, le=1, description="Share of the signal in the bandit reward.")]
Every = Annotated[int, Field(ge=1, description="Batches between measurements; in between the loss counts alone.")]


class NoSignal(Section):
    """The loss alone (paper)."""

    type: Literal["none"] = "none"
    weight: ClassVar[float] = 0.0


class AccuracyGapSignal(Section):
    """Accuracy of chosen minus rejected responses by the gold answers of the training prompts (LASeR with Acc)."""

    type: Literal["accuracy_gap"] = "accuracy_gap"
    weight: Weight = 1.0


class ProbeSignal(Section):
    """Pair accuracy of reward models on a few prompts per category."""

    type: Literal["probe"] = "probe"
    weight: Weight = 1.0
    labels: Literal["auto", "gold", "pairs", "consensus"] = Field(
        "auto",
        description="gold answers; labeled pairs; or a consensus: all scores, each reward model's divided by their "
        "spread and weighted by their strength in the category, without the effect of length, and how often the policy "
        "gave the answer. auto: gold where prompts have answers, else pairs, else the consensus.",
    )
    pairs: LocalPath | None = Field(
        None,
        description="File of labeled preference pairs with the categories of the training prompts, a few dozen each; "
        "rows as for `laser rewardbench`. All of them are used.",
    )
    warm_start: bool = Field(True, description="Test every reward model first and teach the selector the result.")
    refresh: int = Field(
        1,
        ge=0,
        description="Iterations between fresh answers, on which chosen reward models are measured again and signs of "
        "over-optimization are looked for; 0: never.",
    )
    prompts_per_category: PositiveInt = Field(
        16, description="Training prompts set aside per category, at most a quarter of it, rounded up."
    )
    num_responses: PositiveInt = Field(8, description="Answers the policy gives to each.")
    drop_doubtful: bool = Field(
        True,
        description="Do not train on pairs whose chosen response scores as wrong responses do: below the threshold "
        "that separates right from wrong ones of the category in the probe. No effect where the scores of a reward "
        "model do not separate them, or where several are chosen together. With a frozen selector, `laser label` takes "
        "the thresholds of its run, and no other field of a probe has an effect.",
    )

    @model_validator(mode="after")
    def _has_its_labels(self) -> ProbeSignal:
        if self.labels == "pairs" and self.pairs is None:
            raise ValueError("signal.labels = 'pairs' needs a file of labeled pairs; set signal.pairs")
        if self.labels in ("gold", "consensus") and self.pairs is not None:
            raise ValueError(
                f"signal.labels = {self.labels!r} reads no labeled pairs, so signal.pairs has no effect; set "
                "signal.labels = 'pairs' or 'auto', or drop signal.pairs"
            )
        if self.labels == "consensus" and self.num_responses < 2:
            raise ValueError(
                "signal.labels = 'consensus' compares the policy's answers to a prompt, and signal.num_responses is 1; "
                "raise it to 8"
            )
        return self


class AgreementSignal(Section):
    """Share of the other reward models that agree with the chosen one."""

    type: Literal["agreement"] = "agreement"
    weight: Weight = 0.5
    every: Every = 4


class DevGainSignal(Section):
    """Gain of greedy accuracy on held-out dev prompts."""

    type: Literal["dev_gain"] = "dev_gain"
    weight: Weight = 0.5
    every: Every = 1
    prompts: PositiveInt = Field(32, description="Dev prompts that are looked at.")
    span: float = Field(0.1, gt=0, le=1, description="Gain in accuracy that counts as a full bandit reward.")


class PythonSignal(Section):
    """A custom signal from a Python factory ``(pool) -> Signal``."""

    type: Literal["python"] = "python"
    factory: Factory
    weight: Weight = 0.5


SignalConfig = Annotated[
    NoSignal | AccuracyGapSignal | ProbeSignal | AgreementSignal | DevGainSignal | PythonSignal,
    Field(discriminator="type"),
]
