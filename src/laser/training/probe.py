"""The probe: how good the reward models are on a handful of prompts, before and during training.

The policy answers the probe prompts. Its responses to one prompt make labeled pairs, and a reward model's accuracy on
them is its bandit reward. Labels come from gold answers ("gold": a right response above a wrong one) or, without any,
from the pool and the policy itself ("consensus", see `laser.training.consensus`). At the start every reward model is
tested on every probe prompt, and the selector learns the results as if it had chosen each of them there. So it begins
with K observations per prompt for a few scores each, and no batch is spent on a reward model only to try it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from laser.bandits.base import Selector, check_state_version
from laser.config.schema import GenerationConfig
from laser.config.selection import ProbeSignal
from laser.core.files import to_json
from laser.core.seeding import stream_seed
from laser.core.types import Batch, FloatArray, Prompt, Responses, StateDict
from laser.evaluation.answers import IsRight
from laser.policy.generation import Generator
from laser.rewards.pool import QuarantinedError, RewardPool
from laser.rewards.spreads import deviations_by_arm, spread
from laser.training.charges import Charge
from laser.training.consensus import consensus, consensus_gaps, gold_gaps, num_agreeing, share_agreeing
from laser.training.findings import Finding, Findings
from laser.training.signals import Prepare

_VERSION = 2  # of the state


@dataclass(frozen=True, slots=True)
class _Item:
    """A probe prompt with distinct responses.

    Attributes:
        prompt: The prompt.
        responses: Its distinct responses, the right ones first.
        num_right: Number of right ones; 0 with consensus labels.
        counts: How many of the policy's samples were each response; 0 for one made from a gold answer.
    """

    prompt: Prompt
    responses: tuple[str, ...]
    num_right: int
    counts: tuple[int, ...]


class Probe:
    """Tests reward models on probe prompts, by category; see the module.

    A reward model's scores in a category are taken when first needed and kept until the next refresh: at most
    K x prompts x responses scores, which the steps count like any others. Consensus labels need all scores, so they are
    taken together; a reward model that could not score then is added, and the labels made again, when it can.

    Args:
        section: How it is done; its labels are "gold" or "consensus".
        sampling: How the policy samples.
        pool: The reward models.
        generator: Samples the answers.
        prompts: Probe prompts, by category; with gold answers if the labels are gold.
        is_right: Whether a response answers a prompt correctly.
        gold_format: A right response made from a gold answer, for prompts that the policy always gets wrong.
        report: Receives the findings of each first test of all reward models.
        seed: The run's seed.
    """

    def __init__(
        self,
        section: ProbeSignal,
        sampling: GenerationConfig,
        pool: RewardPool,
        generator: Generator,
        prompts: Mapping[str, Sequence[Prompt]],
        is_right: IsRight,
        *,
        gold_format: str = "{answer}",
        report: Callable[[Findings], None] = lambda findings: None,
        seed: int,
    ) -> None:
        self._section, self._sampling, self._gold_format, self._seed = section, sampling, gold_format, seed
        self._pool, self._generator, self._is_right, self._report = pool, generator, is_right, report
        self._prompts = {prompt.id: prompt for of_category in prompts.values() for prompt in of_category}
        self._categories = dict(prompts)
        self._iteration = -1  # of the answers; -1: none yet
        self._items: dict[str, list[_Item]] = {}
        self._scores: dict[tuple[int, str], list[FloatArray]] = {}  # by arm and category, of each item's responses
        self._consensus: dict[str, list[FloatArray]] = {}  # by category, of each item's responses; made from the scores
        self._untaught: list[int] = []  # arms that could not be tested yet

    def prepare(self, iteration: int, selector: Selector, contexts: Prepare) -> None:
        """Sample fresh answers if they are due, and teach the selector how good the reward models are on them."""
        refresh = self._section.refresh
        fresh = self._iteration < 0 or (refresh > 0 and iteration >= self._iteration + refresh)
        if fresh:
            self._iteration, self._scores, self._consensus = iteration, {}, {}
            self._items = {category: self._answered(prompts) for category, prompts in self._categories.items()}
            teach = self._section.warm_start and any(self._items.values())
            self._untaught = list(range(len(self._pool.names))) if teach else []
        self._teach(selector, contexts)
        if fresh and self._scores:
            self._report(self.findings())

    def findings(self) -> Findings:
        """What is known so far of each reward model in each category."""
        arms = sorted({arm for arm, _ in self._scores})
        found = []
        for category in self._items:
            for arm in arms:
                if self._items[category] and (arm, category) in self._scores:
                    gaps = np.concatenate(self._gaps(arm, category))
                    found.append(Finding(category, self._pool.names[arm], num_agreeing(gaps), len(gaps)))
        return Findings("consensus" if self._section.labels == "consensus" else "gold", tuple(found))

    def measure(self, batch: Batch, responses: Responses, charges: Sequence[Charge]) -> FloatArray:
        """Pair accuracy of each charge's reward model, a mean over the categories of the charge's prompts."""
        return np.array([self._of_charge(batch, charge) for charge in charges], dtype=np.float64)

    def _teach(self, selector: Selector, contexts: Prepare) -> None:
        arms = [arm for arm in self._untaught if self._pool.available_K[arm]]
        if not arms:
            return
        rows_MD = contexts([item.prompt for items in self._items.values() for item in items])
        for arm in arms:
            accuracies = [value for category in self._items for value in self._accuracies(arm, category)]
            if all((arm, category) in self._scores for category in self._items):
                selection = selector.select(rows_MD, np.arange(len(self._pool.names)) == arm)
                selector.update(selection.id, np.array(accuracies))
                self._untaught.remove(arm)

    def _of_charge(self, batch: Batch, charge: Charge) -> float:
        counts = Counter(batch.prompts[prompt].category for prompt in charge.prompts)
        total, weight = 0.0, 0
        for category, count in counts.items():
            known = [value for value in self._accuracies(charge.arm, category) if not np.isnan(value)]
            if known:
                total += count * float(np.mean(known))
                weight += count
        return total / weight if weight else float("nan")

    def _accuracies(self, arm: int, category: str) -> list[float]:
        """Accuracy on each item of a category; NaN, and measured later, if the reward model cannot score now."""
        if category not in self._items:
            return []
        if (arm, category) not in self._scores:
            self._score(arm, category)
        if (arm, category) not in self._scores:
            return [float("nan")] * len(self._items[category])
        return [share_agreeing(gaps) for gaps in self._gaps(arm, category)]

    def _gaps(self, arm: int, category: str) -> list[FloatArray]:
        """Score gaps of each item's labelled pairs, above 0 where a reward model orders a pair as the labels do."""
        rows = self._scores[arm, category]
        if self._section.labels == "gold":
            return [gold_gaps(row, item.num_right) for row, item in zip(rows, self._items[category], strict=True)]
        if not self._consensus:
            self._consensus = self._agreed()
        return [consensus_gaps(row, order) for row, order in zip(rows, self._consensus[category], strict=True)]

    def _agreed(self) -> dict[str, list[FloatArray]]:
        """Consensus values of all items' responses, from all reward models that have scored."""
        arms = sorted({arm for arm, _ in self._scores})
        scores = {
            category: [np.stack(rows) for rows in zip(*(self._scores[arm, category] for arm in arms), strict=True)]
            for category in self._items
        }
        spreads_K = np.array(
            [spread(row) for row in deviations_by_arm([one for row in scores.values() for one in row])]
        )
        return {
            category: [
                consensus(scores_KN, spreads_K, np.array(item.counts, dtype=np.float64))
                for scores_KN, item in zip(scores[category], items, strict=True)
            ]
            for category, items in self._items.items()
        }

    def _score(self, arm: int, category: str) -> None:
        """Take the scores of a reward model in a category; for a consensus those of all in all that are missing."""
        if self._section.labels == "gold":
            arms, categories = [arm], [category]
        else:
            arms = [one for one in range(len(self._pool.names)) if (one, category) not in self._scores]
            categories = list(self._items)
        for one in arms:
            items = [item for name in categories for item in self._items[name]]
            scores = self._ask(one, items)
            if scores is not None:
                rows = iter(scores)
                for name in categories:
                    self._scores[one, name] = [next(rows) for _ in self._items[name]]
                self._consensus = {}

    def _ask(self, arm: int, items: Sequence[_Item]) -> list[FloatArray] | None:
        """Scores of the items' responses; None if the reward model is in quarantine or gave no score at all."""
        if not items:
            return []
        try:
            scores = self._pool.score(arm, [item.prompt for item in items], [item.responses for item in items])
        except QuarantinedError:
            return None
        return scores if any(np.isfinite(row).any() for row in scores) else None

    def _answered(self, prompts: Sequence[Prompt]) -> list[_Item]:
        replies = self._generator.generate(
            prompts,
            num_responses=self._section.num_responses,
            temperature=self._sampling.temperature,
            top_p=1.0,
            max_new_tokens=self._sampling.max_new_tokens,
            seeds=[stream_seed(self._seed, "probe", self._iteration, row) for row in range(len(prompts))],
        )
        items = [
            self._item(prompt, Counter(response.text for response in row if response.text.strip()))
            for prompt, row in zip(prompts, replies, strict=True)
        ]
        return [item for item in items if len(item.responses) > max(1, item.num_right)]

    def _item(self, prompt: Prompt, counts: Counter[str]) -> _Item:
        texts, right = sorted(counts), []
        if self._section.labels == "gold":
            right = [text for text in texts if self._is_right(prompt, text)]
            texts = [text for text in texts if text not in right]
            right = right or [self._gold_format.format(answer=prompt.answer)]
        responses = (*right, *texts)
        return _Item(prompt, responses, len(right), tuple(counts[text] for text in responses))

    def state_dict(self) -> StateDict:
        """The answers and the scores taken so far."""
        items = {
            category: [[one.prompt.id, list(one.responses), one.num_right, list(one.counts)] for one in of_category]
            for category, of_category in self._items.items()
        }
        scores = [[arm, category, to_json(rows)] for (arm, category), rows in self._scores.items()]
        return {
            "version": _VERSION,
            "iteration": self._iteration,
            "items": items,
            "scores": scores,
            "untaught": list(self._untaught),
        }

    def load_state_dict(self, state: StateDict) -> None:
        """Restore `state_dict`; raises StateVersionError where another version of laser wrote it."""
        check_state_version(state.get("version", 1), _VERSION)
        self._iteration = int(state["iteration"])
        self._untaught = [int(arm) for arm in state["untaught"]]
        self._items = {
            category: [
                _Item(self._prompts[name], tuple(texts), num_right, tuple(counts))
                for name, texts, num_right, counts in rows
            ]
            for category, rows in state["items"].items()
        }
        self._scores = {
            (int(arm), category): [np.array(row, dtype=np.float64) for row in rows]  # null becomes NaN
            for arm, category, rows in state["scores"]
        }
        self._consensus = {}
