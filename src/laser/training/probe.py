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
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

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
from laser.training.charges import Charge
from laser.training.consensus import Answers, consensus_gaps, consensus_orders, gold_gaps, num_agreeing, share_agreeing
from laser.training.findings import Finding, Findings
from laser.training.over_optimization import Look, Sign, find_signs, make_look
from laser.training.probe_items import Item, ProbeData, from_state, given_items, identity, key_of
from laser.training.signals import Prepare

_VERSION = 4  # of the state


class Probe:
    """Tests reward models on probe prompts and labeled pairs, by category; see the module.

    A reward model scores the responses of a category when they are first needed, and each of them once: a refresh costs
    scores of new answers alone, and with gold answers only those of reward models that are chosen. Consensus labels
    need all scores, so they are taken together; a reward model that could not score then is added, and the labels made
    again, when it can.

    Args:
        section: How it is done.
        sampling: How the policy samples.
        pool: The reward models.
        generator: Samples the answers; None where there is no prompt to answer.
        data: Probe prompts and labeled pairs.
        is_right: Whether a response answers a prompt correctly.
        gold_format: A right response made from a gold answer, for prompts that the policy always gets wrong.
        report: Receives the findings of the first test, and after each refresh the signs of over-optimization.
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
        self._given = given_items(data.pairs)
        self._iteration = -1  # of the answers; -1: none yet
        self._items: dict[str, list[Item]] = {}  # in each category the given pairs come first
        self._scores: list[dict[str, dict[str, float]]] = [{} for _ in pool.names]  # by arm, item and response
        self._consensus: dict[str, list[FloatArray]] = {}  # by category, of each item's responses; made from the scores
        self._untaught: list[int] = []  # arms that could not be tested yet
        self._samples: dict[str, dict[str, list[str]]] = {}  # by category and item, what the policy answered last
        self._right: dict[str, dict[str, float]] = {}  # by category and item, the share of them that is right
        self._chosen: dict[str, dict[str, None]] = {}  # by category, reward models that were charged
        self._start: tuple[Findings, dict[str, Look]] | None = None  # before the first refresh
        self._signs: list[Sign] = []  # all that were reported

    def prepare(self, iteration: int, selector: Selector, contexts: Prepare) -> None:
        """Sample fresh answers if they are due, and teach the selector how good the reward models are on them."""
        refresh = self._section.refresh
        if self._iteration < 0:
            self._renew(iteration)
            teach = self._section.warm_start and any(self._items.values())
            self._untaught = list(range(len(self._pool.names))) if teach else []
            self._teach(selector, contexts)
            if any(self._scores) or not any(self._items.values()):
                self._report(self.findings())
            return
        if self._prompts and refresh > 0 and iteration >= self._iteration + refresh:
            self._start = self._start or (self.findings(), self._looks())
            self._renew(iteration)
            self._report_signs()
        self._teach(selector, contexts)

    def test_all(self) -> Findings:
        """Sample answers, test every reward model on everything, and return what was found."""
        self._renew(max(self._iteration, 0))
        for arm in range(len(self._pool.names)):
            for category in self._items:
                self._accuracies(arm, category)
        return self.findings()

    def findings(self) -> Findings:
        """What is known of each reward model in each category from the first test, and all signs since."""
        if self._start is not None:
            return replace(self._start[0], signs=tuple(self._signs))
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
        """Sample fresh answers; scores of given pairs and of answers that come again stay."""
        self._iteration, self._consensus = iteration, {}
        answered = {category: self._answered(prompts) for category, prompts in self._prompts.items()}
        self._items = {
            category: [*self._given.get(category, []), *answered.get(category, [])]
            for category in dict.fromkeys([*self._given, *self._prompts])
        }
        kept = {item.key: item.responses for items in self._items.values() for item in items}
        self._scores = [
            {key: {text: of[text] for text in kept[key] if text in of} for key, of in by_item.items() if key in kept}
            for by_item in self._scores
        ]

    def _report_signs(self) -> None:
        """Compare the fresh answers with those of the start, and report signs that were not reported before."""
        assert self._start is not None
        for category, names in self._chosen.items():
            for name in names:
                self._accuracies(self._pool.names.index(name), category)
        known = {(sign.what, sign.category, sign.reward_models) for sign in self._signs}
        signs = find_signs(self._start[1], self._looks(), self._chosen)
        fresh = [sign for sign in signs if (sign.what, sign.category, sign.reward_models) not in known]
        if fresh:
            self._signs += fresh
            self._report(Findings((), signs=tuple(fresh)))

    def _looks(self) -> dict[str, Look]:
        """The latest answers by category, with what the reward models that have scored them say."""
        return {category: self._look(category) for category in self._samples}

    def _look(self, category: str) -> Look:
        items = [item for item in self._items[category] if item.labels != "pairs"]
        arms = [arm for arm in range(len(self._pool.names)) if items and self._has_scored(arm, category)]
        scores: dict[str, dict[str, FloatArray]] = {}
        accuracy: dict[str, dict[str, float]] = {}
        for arm in arms:
            name, keys = self._pool.names[arm], [item.key for item in items]
            scores[name] = dict(zip(keys, self._rows(arm, category)[-len(items) :], strict=True))
            accuracy[name] = dict(zip(keys, map(share_agreeing, self._gaps(arm, category)[-len(items) :]), strict=True))
        responses = {item.key: item.responses for item in items}
        return make_look(self._samples[category], self._right[category], responses, scores, accuracy)

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
            self._chosen.setdefault(category, {})[self._pool.names[charge.arm]] = None
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
        rows, items = self._rows(arm, category), self._items[category]
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
        items = [item for of_category in self._items.values() for item in of_category]
        rows = {arm: [row for category in self._items for row in self._rows(arm, category)] for arm in arms}
        answers = [
            Answers(
                category=item.prompt.category,
                scores_KN=np.stack([rows[arm][place] for arm in arms]),
                counts_N=np.array(item.counts, dtype=np.float64),
                lengths_N=np.array([len(text) for text in item.responses], dtype=np.float64),
            )
            for place, item in enumerate(items)
        ]
        values = iter(consensus_orders(answers))
        return {category: [next(values) for _ in of_category] for category, of_category in self._items.items()}

    def _rows(self, arm: int, category: str) -> list[FloatArray]:
        """Scores of each item's responses."""
        known = self._scores[arm]
        return [np.array([known[item.key][text] for text in item.responses]) for item in self._items[category]]

    def _missing(self, arm: int, item: Item) -> list[str]:
        known = self._scores[arm].get(item.key, {})
        return [text for text in item.responses if text not in known]

    def _has_scored(self, arm: int, category: str) -> bool:
        """Whether an arm has scored a category, or where there is a consensus, everything."""
        names = self._items if self._needs_consensus() else [category]
        return not any(self._missing(arm, item) for name in names for item in self._items.get(name, []))

    def _score(self, arm: int, category: str) -> None:
        """Take the missing scores of a reward model in a category; for a consensus those of all in all."""
        together = self._needs_consensus()
        for one in range(len(self._pool.names)) if together else [arm]:
            items = [item for name in (self._items if together else [category]) for item in self._items[name]]
            missing = [(item, texts) for item in items if (texts := self._missing(one, item))]
            if missing:
                self._ask(one, missing)

    def _ask(self, arm: int, missing: Sequence[tuple[Item, list[str]]]) -> None:
        """Take scores; none if the reward model is in quarantine, or has not given a single score yet."""
        begin = time.perf_counter()
        try:
            scores = self._pool.score(arm, [item.prompt for item, _ in missing], [texts for _, texts in missing])
        except QuarantinedError:
            return
        finally:
            self.seconds_K[arm] += time.perf_counter() - begin
        if self._scores[arm] or any(np.isfinite(row).any() for row in scores):
            for (item, texts), row in zip(missing, scores, strict=True):
                self._scores[arm].setdefault(item.key, {}).update(zip(texts, row.tolist(), strict=True))
            self._consensus = {}

    def _answered(self, prompts: Sequence[Prompt]) -> list[Item]:
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
        category = prompts[0].category
        self._samples[category], self._right[category] = {}, {}
        texts = [[response.text for response in row] for row in replies]
        items = [self._item(prompt, row) for prompt, row in zip(prompts, texts, strict=True)]
        return [item for item in items if len(item.responses) > max(1, item.num_right)]

    def _item(self, prompt: Prompt, samples: list[str]) -> Item:
        key, counts = key_of(prompt.id), Counter(text for text in samples if text.strip())
        self._samples[prompt.category][key] = samples
        texts, right = sorted(counts), []
        has_gold = self._section.labels != "consensus" and prompt.answer is not None
        if has_gold:
            right = [text for text in texts if self._is_right(prompt, text)]
            self._right[prompt.category][key] = sum(counts[text] for text in right) / len(samples)
            texts = [text for text in texts if text not in right]
            right = right or [self._gold_format.format(answer=prompt.answer)]
        responses = (*right, *texts)
        counted = tuple(counts[text] for text in responses)
        return Item(key, prompt, "gold" if has_gold else "consensus", responses, len(right), counted)

    def state_dict(self) -> StateDict:
        """The answers, the scores taken so far, and what was found."""
        answered = {
            category: [one.as_state() for one in items[len(self._given.get(category, [])) :]]
            for category, items in self._items.items()
        }
        start = None
        if self._start is not None:
            start = [asdict(self._start[0]), {name: asdict(look) for name, look in self._start[1].items()}]
        return {
            "version": _VERSION,
            "iteration": self._iteration,
            "pairs": identity(self._given),
            "items": answered,
            "scores": to_json([{key: list(of.items()) for key, of in by_item.items()} for by_item in self._scores]),
            "untaught": list(self._untaught),
            "samples": self._samples,
            "right": self._right,
            "chosen": {category: list(names) for category, names in self._chosen.items()},
            "start": to_json(start),
            "signs": to_json([asdict(sign) for sign in self._signs]),
        }

    def load_state_dict(self, state: StateDict) -> None:
        """Restore `state_dict`.

        Raises:
            StateVersionError: Another version of laser wrote it.
            ValueError: It is of other labeled pairs.
        """
        check_state_version(state.get("version", 1), _VERSION)
        if state["pairs"] != identity(self._given):
            raise ValueError("signal.pairs holds other pairs than when the run was started; restore the file")
        self._iteration = int(state["iteration"])
        self._untaught = [int(arm) for arm in state["untaught"]]
        prompts = {prompt.id: prompt for of_category in self._prompts.values() for prompt in of_category}
        self._items = {
            category: [
                *self._given.get(category, []),
                *(from_state(row, prompts) for row in rows),
            ]
            for category, rows in state["items"].items()
        }
        self._scores = [
            {key: {text: _number(score) for text, score in rows} for key, rows in by_item.items()}
            for by_item in state["scores"]
        ]
        self._consensus = {}
        self._samples, self._right = state["samples"], state["right"]
        self._chosen = {category: dict.fromkeys(names) for category, names in state["chosen"].items()}
        start = state["start"]
        self._start = None
        if start is not None:
            looks = {name: Look(**_with_nan(look)) for name, look in start[1].items()}
            self._start = Findings.from_state(start[0]), looks
        self._signs = [Sign(**{**sign, "reward_models": tuple(sign["reward_models"])}) for sign in state["signs"]]


def _number(value: float | None) -> float:
    """A number that JSON holds: NaN is null there."""
    return float("nan") if value is None else float(value)


def _with_nan(value: Any) -> Any:
    """A structure read from JSON in which every null is a NaN."""
    if isinstance(value, dict):
        return {key: _with_nan(item) for key, item in value.items()}
    return _number(value)
