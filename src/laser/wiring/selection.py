"""Selectors, feedback and signals from configuration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from laser.bandits.arm_selector import ArmSelector
from laser.bandits.base import Feedback, Selector
from laser.bandits.baselines import Fixed, Sequential, UniformRandom
from laser.bandits.classifier import ClassifierSelector
from laser.bandits.context import ContextPreparer
from laser.bandits.context_free import UCB1, EpsilonGreedy, Exp3
from laser.bandits.ensembles import MultiplicativeWeights, UniformEnsemble
from laser.bandits.feedback import QuantileFeedback, ZScoreFeedback
from laser.bandits.forgetting import ForgettingLinUCB
from laser.bandits.linucb import LinUCB
from laser.bandits.neural import NeuralUCB
from laser.bandits.thompson import LinearThompson
from laser.config import RouterConfig, RunConfig, selection
from laser.config.rewards import RewardsConfig
from laser.core.errors import ConfigError, DataError
from laser.core.types import Prompt
from laser.evaluation.answers import Reader, answer_check
from laser.policy.generation import Generator
from laser.rewards.costs import ScoringCosts
from laser.rewards.pool import RewardPool
from laser.training.findings import Findings
from laser.training.loop import Evaluate
from laser.training.probe import Probe
from laser.training.probe_items import ProbeData
from laser.training.signals import AccuracyGap, DevGain, NoSignal, PoolAgreement, Signal
from laser.wiring.custom import custom_feedback, custom_selector, custom_signal
from laser.wiring.learned import load_classifier, load_frozen, load_prior
from laser.wiring.rewards import build_costs


def build_selector(
    config: RunConfig | RouterConfig,
    contexts: ContextPreparer,
    *,
    batches_per_iteration: Callable[[], int] = lambda: 1,
    costs: ScoringCosts | None = None,
) -> Selector:
    """Make the selector over the pool's arms.

    Args:
        config: The configuration.
        contexts: Prepares its contexts; a frozen selector also restores their state.
        batches_per_iteration: Counts T, for a sequential selector that switches by iteration.
        costs: What scoring costs; None: the configured costs.

    Raises:
        LaserError: A file of another run cannot be used with this pool; costs have a weight and are unknown.
    """
    names, dim, seed = [model.name for model in config.rewards.models], contexts.output_dim, config.seed
    num = len(names)
    match config.selector:
        case selection.FixedSelector(arm=name):
            return Fixed(num, names.index(name))
        case selection.RandomSelector():
            return UniformRandom(num, seed=seed)
        case selection.SequentialSelector(order=order, switch=switch):
            arms = [names.index(name) for name in order] if order else list(range(num))
            return Sequential(num, arms, every=1 if switch == "batch" else batches_per_iteration())
        case selection.EnsembleSelector():
            return UniformEnsemble(num)
        case selection.OnlineEnsembleSelector(eta=eta):
            return MultiplicativeWeights(num, eta=eta)
        case selection.PythonSelector(factory=factory):
            return custom_selector(factory, num, dim, seed)
        case selection.FrozenSelector(run=run):
            return load_frozen(config, Path(run), contexts, build_selector)
        case selection.ClassifierSelector(path=path):
            classifier, arms = load_classifier(Path(path), config, dim)
            return ClassifierSelector(classifier, arms, num_arms=num)
        case _ as section:
            bandit = _bandit(section, config, num, dim)
            if section.cost_weight > 0:
                _penalize(bandit, section.cost_weight, costs or _given_costs(config.rewards))
            return bandit


def _penalize(bandit: ArmSelector, weight: float, costs: ScoringCosts) -> None:
    bandit.penalize(lambda: weight * costs.shares_K)


def _given_costs(section: RewardsConfig) -> ScoringCosts:
    costs = build_costs(section)
    if costs.measured:
        raise ConfigError(
            "selector.cost_weight compares seconds that only a training run measures; give every reward model a cost "
            "(rewards.models.*.cost)"
        )
    return costs


def _bandit(section: selection.BanditSelector, config: RunConfig | RouterConfig, num: int, dim: int) -> ArmSelector:
    seed = config.seed
    match section:
        case selection.LinUCBSelector(alpha=alpha, ridge=ridge, initial_b_scale=scale, forced_pulls=forced):
            return LinUCB(num, dim, alpha=alpha, ridge=ridge, initial_b_scale=scale, forced_pulls=forced, seed=seed)
        case selection.ForgettingSelector():
            return ForgettingLinUCB(
                num,
                dim,
                rule=section.rule,
                alpha=section.alpha,
                gamma=section.gamma,
                window=section.window,
                ridge=section.ridge,
                floor=section.floor,
                forced_pulls=section.forced_pulls,
                seed=seed,
            )
        case selection.ThompsonSelector(scale=scale, ridge=ridge, forced_pulls=forced):
            return LinearThompson(num, dim, scale=scale, ridge=ridge, forced_pulls=forced, seed=seed)
        case selection.BayesianRouterSelector(prior=path, scale=scale, ridge=ridge):
            prior = load_prior(Path(path), config, dim) if path is not None else None
            return LinearThompson(num, dim, scale=scale, ridge=ridge, prior_KD=prior, seed=seed)
        case selection.NeuralUCBSelector():
            return NeuralUCB(
                num,
                dim,
                hidden=section.hidden,
                alpha=section.alpha,
                ridge=section.ridge,
                confidence=section.confidence,
                train_steps=section.train_steps,
                learning_rate=section.learning_rate,
                memory=section.memory,
                forced_pulls=section.forced_pulls,
                seed=seed,
            )
        case selection.Exp3Selector(gamma=gamma, eta=eta, forced_pulls=forced):
            return Exp3(num, gamma=gamma, eta=eta, forced_pulls=forced, seed=seed)
        case selection.UCB1Selector(alpha=alpha):
            return UCB1(num, alpha=alpha, seed=seed)
        case selection.EpsilonGreedySelector(epsilon=epsilon):
            return EpsilonGreedy(num, epsilon=epsilon, seed=seed)
    raise AssertionError(f"no selector for {section}")


def build_feedback(section: selection.Feedback) -> Feedback:
    """Make the scaling of losses."""
    match section:
        case selection.QuantileFeedback(low=low, high=high, window=window):
            return QuantileFeedback(low=low, high=high, window=window)
        case selection.ZScoreFeedback(window=window):
            return ZScoreFeedback(window=window)
        case selection.PythonFeedback(factory=factory):
            return custom_feedback(factory)


def build_signal(
    config: RunConfig,
    pool: RewardPool,
    generator: Generator,
    probe: ProbeData,
    evaluation: Callable[[Sequence[Prompt]], Evaluate | None],
    dev: Sequence[Prompt],
    *,
    on_probe: Callable[[Findings], None] = lambda findings: None,
) -> Signal:
    """Make the grounded signal; `on_probe` receives what a probe finds.

    Raises:
        DataError: It needs gold answers that the dev prompts do not have.
    """
    is_right = answer_check(config.evaluation.answer, dev or None)
    match config.signal:
        case selection.NoSignal():
            return NoSignal()
        case selection.AccuracyGapSignal():
            return AccuracyGap(is_right)
        case selection.PythonSignal(factory=factory):
            return custom_signal(factory, pool)
        case selection.AgreementSignal(every=every):
            return PoolAgreement(pool, every=every)
        case selection.DevGainSignal(every=every, prompts=num, span=span):
            evaluate = evaluation(dev[:num])
            if evaluate is None:
                raise DataError("signal.type = 'dev_gain' needs dev prompts with gold answers; raise split.dev")
            return DevGain(lambda: evaluate().overall, every=every, span=span)
        case selection.ProbeSignal() as section:
            return build_probe(config, section, pool, generator, probe, on_probe)


def build_probe(
    config: RunConfig,
    section: selection.ProbeSignal,
    pool: RewardPool,
    generator: Generator | None,
    data: ProbeData,
    on_probe: Callable[[Findings], None] = lambda findings: None,
) -> Probe:
    """Make a probe of the pool; `generator` may be None where `data` has no prompt to answer."""
    gold = [prompt for prompts in data.prompts.values() for prompt in prompts if prompt.answer is not None]
    reader = Reader(config.evaluation.answer, gold)
    return Probe(
        section,
        config.generation,
        pool,
        generator,
        data,
        reader.is_right,
        said=reader.said,
        gold_format="{answer}" if config.evaluation.answer == "whole" else "Final answer: {answer}",
        report=on_probe,
        seed=config.seed,
    )
