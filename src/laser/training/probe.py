"""The probe: how good the reward models are on a handful of prompts, before and during training.

Labeled pairs of responses come from three places, and a reward model's accuracy on them is its bandit reward:

* "gold": the policy answers probe prompts; a response that the gold answer makes right is above a wrong one.
* "pairs": labeled preference pairs from a file.
* "consensus": the policy answers probe prompts without gold answers, and the pool and the policy itself order the
  answers (see `laser.training.consensus`).

At the start every reward model is tested on everything, and the selector learns the results as if it had chosen each
of them there. So it begins with K observations per prompt for a few scores each, and no batch is spent on a reward
model only to try it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from laser.bandits.base import Selector, check_state_version
from laser.config.schema import GenerationConfig
from laser.config.selection import ProbeSignal
from laser.core.files import to_json
from laser.core.seeding import stream_seed
from laser.core.types import Batch, FloatArray, Prompt, Responses, StateDict
from laser.data.preferences import Candidates
from laser.data.store import digest
from laser.evaluation.answers import IsRight
from laser.policy.generation import Generator
from laser.rewards.pool import QuarantinedError, RewardPool
from laser.rewards.spreads import deviations_by_arm, spread
from laser.training.charges import Charge
from laser.training.consensus import consensus, consensus_gaps, gold_gaps, num_agreeing, share_agreeing
from laser.training.findings import Finding, Findings, Labels
from laser.training.signals import Prepare

_VERSION = 3  # of the state


@dataclass(frozen=True, slots=True)
class ProbeData:
    """What a probe tests on, by category.

    Attributes:
        prompts: Prompts that the policy answers.
        pairs: Prompts with better and worse responses.
    """

    prompts: Mapping[str, Sequence[Prompt]] = field(default_factory=dict)
    pairs: Mapping[str, Sequence[Candidates]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Item:
    """A probe prompt with distinct responses.

    Attributes:
        prompt: The prompt.
        labels: Where the labels of its pairs come from.
        responses: Its distinct responses, the right or better ones first.
        num_right: Number of those; 0 with consensus labels.
        counts: How many of the policy's samples were each response; 0 for one that it did not sample.
    """

    prompt: Prompt
    labels: Labels
    responses: tuple[str, ...]
    num_right: int
    counts: tuple[int, ...]


class Probe:
    """Tests reward models on probe prompts and labeled pairs, by category; see the module.

    A reward model's scores in a category are taken when first needed and kept until the next refresh: at most
    K x prompts x responses scores, which the steps count like any others. Consensus labels need all scores, so they are
    taken together; a reward model that could not score then is added, and the labels made again, when it can.

    Args:
        section: How it is done.
        sampling: How the policy samples.
        pool: The reward models.
        generator: Samples the answers; None where there is no prompt to answer.
        data: Probe prompts and labeled pairs.
        is_right: Whether a response answers a prompt correctly.
        gold_format: A right response made from a gold answer, for prompts that the policy always gets wrong.
        report: Receives the findings of each first test of all reward models.
        seed: The run's seed.

    Attributes:
        seconds_K: How long each reward model has scored for the probe, in this process.
    """

    def __init__(
        self,
        section: ProbeSignal,
        sampling: GenerationConfig,
        pool: RewardPool,
        generator: Generator | None,
        data: ProbeData,
        is_right: IsRight,
        *,
        gold_format: str = "{answer}",
        report: Callable[[Findings], None] = lambda findings: None,
        seed: int,
    ) -> None:
        self._section, self._sampling, self._gold_format, self._seed = section, sampling, gold_format, seed
        self._pool, self._generator, self._is_right, self._report = pool, generator, is_right, report
        self.seconds_K: FloatArray = np.zeros(len(pool.names))
        self._prompts = data.prompts
        self._given = {category: [_given(pair) for pair in pairs] for category, pairs in data.pairs.items()}
        self._iteration = -1  # of the answers; -1: none yet
        self._items: dict[str, list[_Item]] = {}  # in each category the given pairs come first
        self._scores: dict[tuple[int, str], list[FloatArray]] = {}  # by arm and category, of its first items' responses
        self._consensus: dict[str, list[FloatArray]] = {}  # by category, of each item's responses; made from the scores
        self._untaught: list[int] = []  # arms that could not be tested yet

    def prepare(self, iteration: int, selector: Selector, contexts: Prepare) -> None:
        """Sample fresh answers if they are due, and teach the selector how good the reward models are on them."""
        refresh = self._section.refresh
        fresh = self._iteration < 0 or (refresh > 0 and iteration >= self._iteration + refresh)
        if fresh:
            self._renew(iteration)
            teach = self._section.warm_start and any(self._items.values())
            self._untaught = list(range(len(self._pool.names))) if teach else []
        self._teach(selector, contexts)
        if fresh and (self._scores or not any(self._items.values())):
            self._report(self.findings())

    def test_all(self) -> Findings:
        """Sample answers, test every reward model on everything, and return what was found."""
        self._renew(max(self._iteration, 0))
        for arm in range(len(self._pool.names)):
            for category in self._items:
                self._accuracies(arm, category)
        return self.findings()

    def findings(self) -> Findings:
        """What is known so far of each reward model in each category."""
        found = []
        for category, items in self._items.items():
            for arm, name in enumerate(self._pool.names):
                if items and self._has_scored(arm, category):
                    gaps = np.concatenate(self._gaps(arm, category))
                    sources = tuple(dict.fromkeys(item.labels for item in items))
                    num_tied = int((gaps == 0).sum())
                    found.append(Finding(category, name, num_agreeing(gaps), len(gaps), sources, num_tied))
        num_prompts = sum(map(len, self._prompts.values()))
        num_answered = sum(item.labels != "pairs" for items in self._items.values() for item in items)
        return Findings(tuple(found), num_prompts, num_prompts - num_answered)

    def measure(self, batch: Batch, responses: Responses, charges: Sequence[Charge]) -> FloatArray:
        """Pair accuracy of each charge's reward model, a mean over the categories of the charge's prompts."""
        return np.array([self._of_charge(batch, charge) for charge in charges], dtype=np.float64)

    def _renew(self, iteration: int) -> None:
        """Sample fresh answers; scores of the given pairs stay."""
        self._iteration, self._consensus = iteration, {}
        categories = dict.fromkeys([*self._given, *self._prompts])
        self._items = {
            category: [*self._given.get(category, []), *self._answered(self._prompts.get(category, []))]
            for category in categories
        }
        kept = {(arm, name): rows[: len(self._given.get(name, []))] for (arm, name), rows in self._scores.items()}
        self._scores = {key: rows for key, rows in kept.items() if rows}

    def _teach(self, selector: Selector, contexts: Prepare) -> None:
        arms = [arm for arm in self._untaught if self._pool.available_K[arm]]
        if not arms:
            return
        rows_MD = contexts([item.prompt for items in self._items.values() for item in items])
        for arm in arms:
            accuracies = [value for category in self._items for value in self._accuracies(arm, category)]
            if all(self._has_scored(arm, category) for category in self._items):
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
        items = self._items.get(category, [])
        if not items:
            return []
        if not self._has_scored(arm, category):
            self._score(arm, category)
        if not self._has_scored(arm, category):
            return [float("nan")] * len(items)
        return [share_agreeing(gaps) for gaps in self._gaps(arm, category)]

    def _gaps(self, arm: int, category: str) -> list[FloatArray]:
        """Score gaps of each item's labeled pairs, above 0 where a reward model orders a pair as the labels do."""
        rows, items = self._scores.get((arm, category), []), self._items[category]
        if not self._consensus and any(item.labels == "consensus" for item in items):
            self._consensus = self._agreed()
        return [
            gold_gaps(row, item.num_right) if item.num_right else consensus_gaps(row, self._consensus[category][place])
            for place, (row, item) in enumerate(zip(rows, items, strict=True))
        ]

    def _needs_consensus(self) -> bool:
        return any(item.labels == "consensus" for items in self._items.values() for item in items)

    def _agreed(self) -> dict[str, list[FloatArray]]:
        """Consensus values of all items' responses, from all reward models that have scored."""
        arms = [arm for arm in range(len(self._pool.names)) if all(self._has_scored(arm, name) for name in self._items)]
        scores = {
            category: [np.stack([self._scores[arm, category][place] for arm in arms]) for place in range(len(items))]
            for category, items in self._items.items()
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

    def _has_scored(self, arm: int, category: str) -> bool:
        return len(self._scores.get((arm, category), [])) == len(self._items.get(category, []))

    def _score(self, arm: int, category: str) -> None:
        """Take the missing scores of a reward model in a category; for a consensus those of all in all."""
        together = self._needs_consensus()
        for one in range(len(self._pool.names)) if together else [arm]:
            missing = {
                name: self._items[name][len(self._scores.get((one, name), [])) :]
                for name in (self._items if together else [category])
            }
            scores = self._ask(one, [item for items in missing.values() for item in items])
            if scores:
                rows = iter(scores)
                for name, items in missing.items():
                    self._scores[one, name] = [*self._scores.get((one, name), []), *(next(rows) for _ in items)]
                self._consensus = {}

    def _ask(self, arm: int, items: Sequence[_Item]) -> list[FloatArray]:
        """Scores of the items' responses; none if the reward model is in quarantine or gave no score at all."""
        begin = time.perf_counter()
        try:
            scores = self._pool.score(arm, [item.prompt for item in items], [item.responses for item in items])
        except QuarantinedError:
            return []
        finally:
            self.seconds_K[arm] += time.perf_counter() - begin
        return scores if any(np.isfinite(row).any() for row in scores) else []

    def _answered(self, prompts: Sequence[Prompt]) -> list[_Item]:
        if not prompts or self._generator is None:
            return []
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
        has_gold = self._section.labels != "consensus" and prompt.answer is not None
        if has_gold:
            right = [text for text in texts if self._is_right(prompt, text)]
            texts = [text for text in texts if text not in right]
            right = right or [self._gold_format.format(answer=prompt.answer)]
        responses = (*right, *texts)
        counted = tuple(counts[text] for text in responses)
        return _Item(prompt, "gold" if has_gold else "consensus", responses, len(right), counted)

    def state_dict(self) -> StateDict:
        """The answers and the scores taken so far."""
        answered = {
            category: [
                [one.prompt.id, one.labels, list(one.responses), one.num_right, list(one.counts)]
                for one in items[len(self._given.get(category, [])) :]
            ]
            for category, items in self._items.items()
        }
        scores = [[arm, category, to_json(rows)] for (arm, category), rows in self._scores.items()]
        return {
            "version": _VERSION,
            "iteration": self._iteration,
            "pairs": _digest(self._given),
            "items": answered,
            "scores": scores,
            "untaught": list(self._untaught),
        }

    def load_state_dict(self, state: StateDict) -> None:
        """Restore `state_dict`.

        Raises:
            StateVersionError: Another version of laser wrote it.
            ValueError: It is of other labeled pairs.
        """
        check_state_version(state.get("version", 1), _VERSION)
        if state["pairs"] != _digest(self._given):
            raise ValueError("signal.pairs holds other pairs than when the run was started; restore the file")
        self._iteration = int(state["iteration"])
        self._untaught = [int(arm) for arm in state["untaught"]]
        prompts = {prompt.id: prompt for of_category in self._prompts.values() for prompt in of_category}
        self._items = {
            category: [
                *self._given.get(category, []),
                *(
                    _Item(prompts[name], labels, tuple(texts), num_right, tuple(counts))
                    for name, labels, texts, num_right, counts in rows
                ),
            ]
            for category, rows in state["items"].items()
        }
        self._scores = {
            (int(arm), category): [np.array(row, dtype=np.float64) for row in rows]  # null becomes NaN
            for arm, category, rows in state["scores"]
        }
        self._consensus = {}


def _given(pair: Candidates) -> _Item:
    return _Item(pair.prompt, "pairs", pair.texts, len(pair.correct), (0,) * len(pair.texts))


def _digest(given: Mapping[str, Iterable[_Item]]) -> str:
    """Identity of labeled pairs."""
    rows = [[name, [[one.prompt.messages, one.responses, one.num_right] for one in of]] for name, of in given.items()]
    return digest(rows).hex()
