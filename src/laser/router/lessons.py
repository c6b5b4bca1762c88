"""What a router learns from: gold answers, a probe, a metric, or bandit rewards from outside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from laser.bandits.arm_selector import section
from laser.config import RouterConfig
from laser.config.presets import UNLEARNING
from laser.config.router import LOSS_IS_NO_SIGNAL
from laser.config.selection import DevGainSignal, ProbeSignal
from laser.core.errors import DataError
from laser.core.types import FloatArray, StateDict
from laser.data.files import Fields
from laser.data.preferences import Candidates
from laser.evaluation.answers import Reader, Said
from laser.rewards.pool import RewardPool
from laser.router.choosing import Chooser
from laser.router.groups import Group
from laser.router.probe import Question, RolloutProbe
from laser.router.rows import Responses, read_prompt
from laser.router.scoring import score_by_all
from laser.training.consensus import gold_gaps, share_agreeing
from laser.wiring.probe import read_pairs

_SPAN = 0.1  # gain of a metric that counts as a full bandit reward, where the configuration does not say

NOTHING_TO_LEARN = (
    "nothing can be learned: no row has a gold answer, no probe does without, and no feedback came; "
    f"{LOSS_IS_NO_SIGNAL}. Name the column of the gold answers, or set signal.type = 'probe' with signal.labels = "
    "'consensus', which needs none"
)


@dataclass(frozen=True, slots=True)
class Asked:
    """A group that all reward models have scored for the probe, (K, N)."""

    group: Group
    question: Question
    scores_KN: FloatArray


class Lessons:
    """Turns what is known of groups into bandit rewards, and teaches the selector.

    Args:
        config: The configuration.
        chooser: Its contexts and selector learn.

    Attributes:
        probe: Scores of all reward models on some groups; None without one.
        is_grounded: Whether there is anything to learn from.
    """

    def __init__(self, config: RouterConfig, chooser: Chooser) -> None:
        self._chooser, signal = chooser, config.signal
        self._is_learning = config.selector.type not in UNLEARNING
        said = Reader(config.evaluation.answer).said
        self.probe = _probe(signal, said) if isinstance(signal, ProbeSignal) else None
        self._by_metric_alone = isinstance(signal, DevGainSignal)
        self._span = signal.span if isinstance(signal, DevGainSignal) else _SPAN
        self._metric: float | None = None
        does_without_gold = isinstance(signal, ProbeSignal) and signal.labels != "gold"
        self.is_grounded = not self._is_learning or does_without_gold or self._by_metric_alone

    @property
    def untested(self) -> Sequence[Candidates]:
        """Labeled pairs that the reward models have not scored yet."""
        return () if self.probe is None else self.probe.untested

    def check(self, category: str) -> None:
        """Make sure that something can be learned of prompts of a category; raises DataError."""
        if self.probe is not None:
            self.probe.check(category)

    def test(self, pairs: Sequence[Candidates], scores: Sequence[FloatArray]) -> None:
        """Learn from the scores of labeled pairs by all reward models, (K, N) each."""
        assert self.probe is not None
        embeddings = [self._chooser.embed(read_prompt(pair.prompt)) for pair in pairs]
        for pair, embedding_D, scores_KN in zip(pairs, embeddings, scores, strict=True):
            question = Question(pair.texts, len(pair.correct), (0,) * len(pair.texts))
            self.probe.add(pair.prompt.category, embedding_D, question, scores_KN)
        self._chooser.contexts.remember(np.stack(embeddings))
        self._teach()

    def ask(
        self, pool: RewardPool, groups: Sequence[Group], responses: Sequence[Responses], known: FloatArray | None = None
    ) -> list[Asked]:
        """Let all reward models score the groups that the probe still needs.

        Args:
            pool: The reward models.
            groups: New groups.
            responses: What was sampled for each.
            known: The scores of an earlier call, (K, N), to repeat it without the reward models.
        """
        if self.probe is None or not groups:
            return []
        open_groups = [
            (group, given, question)
            for group, given, question in zip(groups, responses, self.probe.questions(responses), strict=True)
            if question is not None
        ]
        if not open_groups:
            return []
        prompts, texts = [given.prompt for _, given, _ in open_groups], [said.texts for *_, said in open_groups]
        scores = score_by_all(pool, prompts, texts) if known is None else [known]
        return [
            Asked(group, question, scores_KN)
            for (group, _, question), scores_KN in zip(open_groups, scores, strict=True)
        ]

    def add(self, asked: Sequence[Asked], *, teach: bool = False) -> None:
        """Keep what `ask` found, and teach the selector now, or when it learns next."""
        for one in asked:
            assert self.probe is not None
            self.probe.add(one.group.category, one.group.embedding_D, one.question, one.scores_KN)
        if teach:
            self._remember([one.group for one in asked])
            self._teach()

    def learn(self, waiting: Sequence[Group], metric: float | None) -> list[tuple[Group, float]]:
        """Teach the selector the bandit rewards of groups; returns those that earned one.

        Args:
            waiting: Groups that were not learned, in an order that does not depend on when they came.
            metric: A number that the trainer measured; None: it did not.

        Raises:
            DataError: The metric is not finite, or nothing can ever be learned.
        """
        if metric is not None and not np.isfinite(metric):
            raise DataError(f"the metric is {metric}; give a finite number")
        scored = [group for group in waiting if group.scores]
        self.is_grounded = self.is_grounded or metric is not None
        if scored and not self.is_grounded:
            raise DataError(NOTHING_TO_LEARN)
        gain = self._gain(metric)
        self._remember(scored)
        self._teach()
        earned = [(group, self._reward(group, gain)) for group in waiting]
        known = [(group, reward) for group, reward in earned if np.isfinite(reward)]
        self._observe(known)
        for group in (group for group, _ in known) if metric is None else waiting:  # no later gain is theirs
            group.learned = True
        return known

    def _gain(self, metric: float | None) -> float:
        """Bandit reward of a metric's gain since the last one: 0.5 for no change; NaN without two of them."""
        if metric is None:
            return float("nan")
        last, self._metric = self._metric, float(metric)
        return float("nan") if last is None else float(np.clip(0.5 + 0.5 * (metric - last) / self._span, 0.0, 1.0))

    def _reward(self, group: Group, gain: float) -> float:
        """Bandit reward of a group; NaN for none."""
        if group.fed is not None:
            return group.fed
        if not group.scores:
            return float("nan")
        if self._by_metric_alone:
            return gain
        probed = self.probe.accuracy(group.arm, group.category) if self.probe is not None else float("nan")
        return next((value for value in (agreement(group), probed, gain) if not np.isnan(value)), float("nan"))

    def _remember(self, scored: Sequence[Group]) -> None:
        """Add the prompts of groups to the moments of the contexts, each once."""
        fresh = [group for group in scored if not group.remembered]
        if fresh:
            self._chooser.contexts.remember(np.stack([group.embedding_D for group in fresh]))
        for group in fresh:
            group.remembered = True

    def _teach(self) -> None:
        """Teach the selector what the probe found of all reward models."""
        for embedding_D, accuracies_K in self.probe.take_lessons() if self.probe is not None else []:
            arms = np.flatnonzero(~np.isnan(accuracies_K))
            if len(arms):
                contexts_MD = np.repeat(self._chooser.contexts.prepared(embedding_D[None]), len(arms), axis=0)
                self._chooser.selector.observe(contexts_MD, arms, accuracies_K[arms], np.ones(len(arms)))

    def _observe(self, known: Sequence[tuple[Group, float]]) -> None:
        if not known or not self._is_learning:
            return
        groups = [group for group, _ in known]
        self._chooser.selector.observe(
            self._chooser.contexts.prepared(np.stack([group.embedding_D for group in groups])),
            np.array([group.arm for group in groups], dtype=np.int64),
            np.array([reward for _, reward in known], dtype=np.float64),
            np.array([group.probability for group in groups], dtype=np.float64),
        )

    def state_dict(self) -> StateDict:
        """The probe, and the last metric."""
        probe = self.probe.state_dict() if self.probe is not None else {}
        state: StateDict = {"metric": self._metric, "grounded": self.is_grounded}
        return state | {f"probe.{name}": value for name, value in probe.items()}

    def load_state_dict(self, state: StateDict) -> None:
        """Restore `state_dict`."""
        self._metric, self.is_grounded = state["metric"], bool(state["grounded"])
        if self.probe is not None:
            self.probe.load_state_dict(section(state, "probe."))


def _probe(section: ProbeSignal, said: Said) -> RolloutProbe:
    return RolloutProbe(section, said, () if section.pairs is None else read_pairs(section.pairs, Fields()))


def metrics_of(waiting: Sequence[Group], known: Sequence[tuple[Group, float]], pool: RewardPool) -> dict[str, float]:
    """Metrics of groups that have ended, of which some earned a bandit reward."""
    scored = [group for group in waiting if group.scores]
    metrics = {"bandit/groups": float(len(scored)), "bandit/learned": float(len(known))}
    if known:
        metrics["bandit/reward"] = float(np.mean([reward for _, reward in known]))
    for arm, name in enumerate(pool.names):
        if scored:
            metrics[f"bandit/chosen/{name}"] = float(np.mean([group.arm == arm for group in scored]))
        earned = [reward for group, reward in known if group.arm == arm]
        if earned:
            metrics[f"bandit/reward/{name}"] = float(np.mean(earned))
    metrics["bandit/quarantined"] = float((~pool.available_K).sum())
    return metrics


def agreement(group: Group) -> float:
    """Share of pairs of a right and a wrong response that the scores order correctly.

    NaN without such a pair; 0 where the reward model scored none of them: one that orders nothing is worth nothing.
    """
    right = np.array([value is True for value in group.right], dtype=bool)
    wrong = np.array([value is False for value in group.right], dtype=bool)
    if not right.any() or not wrong.any():
        return float("nan")
    scores = np.array(group.scores, dtype=np.float64)
    gaps = gold_gaps(np.concatenate([scores[right], scores[wrong]]), int(right.sum()))
    return share_agreeing(gaps) if len(gaps) else 0.0
