"""The probe: how good the reward models are on a handful of prompts, before and during training.

Labeled pairs of responses come from three places, and a reward model's accuracy on them is its bandit reward:

* "gold": the policy answers probe prompts; a response that the gold answer makes right is above a wrong one.
* "pairs": labeled preference pairs from a file.
* "consensus": the policy answers probe prompts without gold answers, and the pool and the policy itself order the
  answers (see `laser.training.consensus`).

At the start every reward model is tested, and the selector learns the results as if it had chosen each of them on
every prompt. So it begins with K observations per prompt for a few scores each, and no batch is spent on a reward model
only to try it. Except for a consensus, a reward model that is clearly behind another one of its category after a
quarter or half of the prompts scores no more of them: its mean so far is taught for the others.

The labeled responses also tell from which score on a response is likely right (`laser.training.thresholds`). Pairs
whose chosen response has a lower one are left out of training.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from itertools import chain
from math import ceil

import numpy as np

from laser.bandits.base import Selector, check_state_version
from laser.config.schema import GenerationConfig
from laser.config.selection import ProbeSignal
from laser.core.files import to_json
from laser.core.seeding import stream_seed
from laser.core.types import Batch, FloatArray, Prompt, Responses, Selection, StateDict
from laser.evaluation.answers import IsRight, Said
from laser.policy.generation import Generator
from laser.rewards.pool import RewardPool
from laser.training.charges import Charge
from laser.training.consensus import consensus_orders, labeled_gaps, num_agreeing, share_agreeing
from laser.training.findings import Finding, Findings
from laser.training.over_optimization import Look, Sign, find_signs, make_look
from laser.training.pairs import OrientedPairs
from laser.training.probe_items import Item, ProbeData, answered_item, from_state, given_items, identity
from laser.training.probe_scores import ProbeScores, clearly_behind
from laser.training.signals import Prepare
from laser.training.thresholds import drop_doubtful, right_threshold, thresholds_of

_VERSION = 5  # of the state
_ROUNDS = (0.25, 0.5)  # shares of the prompts after which reward models that are clearly behind leave


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
        said: What a response answers, None for nothing; for a consensus.
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
        said: Said = lambda prompt, text: text,
        gold_format: str = "{answer}",
        report: Callable[[Findings], None] = lambda findings: None,
        seed: int,
    ) -> None:
        self._section, self._sampling, self._gold_format, self._seed = section, sampling, gold_format, seed
        self._pool, self._generator, self._is_right, self._said, self._report = pool, generator, is_right, said, report
        self._scores = ProbeScores(pool)
        self.seconds_K = self._scores.seconds_K
        self._prompts = data.prompts
        self._given = given_items(data.pairs)
        self._iteration = -1  # of the answers; -1: none yet
        self._items: dict[str, list[Item]] = {}  # in each category the given pairs come first
        self._firsts: dict[str, dict[str, int]] = {}  # by category, items that test reward models clearly behind
        self._consensus: dict[str, list[FloatArray]] = {}  # by category, of each item's responses; made from the scores
        self._untaught: list[int] = []  # arms that could not be tested yet
        self._samples: dict[str, dict[str, list[str]]] = {}  # by category and item, what the policy answered last
        self._right: dict[str, dict[str, float]] = {}  # by category and item, the share of them that is right
        self._chosen: dict[str, dict[str, None]] = {}  # by category, reward models that were charged
        self._start: tuple[Findings, dict[str, Look]] | None = None  # before the first refresh
        self._signs: list[Sign] = []  # all that were reported
        self._thresholds: dict[str, dict[str, float]] = {}  # by category and reward model, before the latest answers

    def prepare(self, iteration: int, selector: Selector, contexts: Prepare) -> None:
        """Sample fresh answers if they are due, and teach the selector how good the reward models are on them."""
        refresh = self._section.refresh
        if self._iteration < 0:
            self._renew(iteration)
            teach = self._section.warm_start and any(self._items.values())
            self._untaught = list(range(len(self._pool.names))) if teach else []
            self._teach(selector, contexts)
            if self._section.warm_start or not any(self._items.values()):
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
            sources = tuple(dict.fromkeys(item.labels for item in items))
            for arm, name in enumerate(self._pool.names):
                if items and self._has_scored(arm, category):
                    gaps = np.concatenate(self._gaps(arm, category))
                    num_tied = int((gaps == 0).sum())
                    found.append(Finding(category, name, num_agreeing(gaps), len(gaps), sources, num_tied))
        num_prompts = sum(map(len, self._prompts.values()))
        num_answered = sum(item.labels != "pairs" for items in self._items.values() for item in items)
        tested = {one.reward_model for one in found}
        unscored = tuple(name for name in self._pool.names if name not in tested and any(self._items.values()))
        return Findings(tuple(found), num_prompts, num_prompts - num_answered, unscored)

    def measure(self, batch: Batch, responses: Responses, charges: Sequence[Charge]) -> FloatArray:
        """Pair accuracy of each charge's reward model, a mean over the categories of the charge's prompts."""
        return np.array([self._of_charge(batch, charge) for charge in charges], dtype=np.float64)

    def drop_doubtful(self, batch: Batch, selection: Selection, oriented: OrientedPairs) -> OrientedPairs:
        """Leave out pairs whose chosen response is likely wrong, by the scores of labeled responses of the category.

        That needs a reward model that was chosen alone, and whose scores separate right from wrong across prompts.
        """
        if not self._section.drop_doubtful:
            return oriented
        return drop_doubtful(batch, selection, oriented, self._threshold)

    def _latest_thresholds(self) -> dict[str, dict[str, float]]:
        """By category and reward model, the threshold of the latest answers that it has scored; scores nothing."""
        latest = {category: dict(of) for category, of in self._thresholds.items()}
        for category, items in self._items.items():
            for arm, name in enumerate(self._pool.names):
                if items and self._has_scored(arm, category):
                    latest.setdefault(category, {})[name] = self._threshold(arm, category)
        return latest

    def _threshold(self, arm: int, category: str) -> float:
        """Lowest score of a response that is likely right; -inf where labels or scores do not say."""
        tested = self._tested(arm, category)
        if not tested or not self._can_score(arm, category):
            return float("-inf")
        right, wrong = [], []
        for row, item, values in zip(self._scores.rows(arm, tested), tested, self._values(category), strict=False):
            labels = item.labels_N(values)
            right.append(row[labels > 0])
            wrong.append(row[labels < 0])
        return right_threshold(np.concatenate(right), np.concatenate(wrong))

    def _renew(self, iteration: int) -> None:
        """Sample fresh answers; scores of given pairs and of answers that come again stay."""
        self._thresholds = self._latest_thresholds()
        self._iteration, self._consensus = iteration, {}
        answered = {category: self._answered(prompts) for category, prompts in self._prompts.items()}
        self._items = {
            category: [*self._given.get(category, []), *answered.get(category, [])]
            for category in dict.fromkeys([*self._given, *self._prompts])
        }
        self._scores.keep(self._all_items())

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
        responses = {item.key: item.responses for item in self._items[category] if item.labels != "pairs"}
        scores: dict[str, dict[str, FloatArray]] = {}
        accuracy: dict[str, dict[str, float]] = {}
        for arm, name in enumerate(self._pool.names):
            if responses and self._has_scored(arm, category):
                tested = self._tested(arm, category)
                rows = list(zip(tested, self._scores.rows(arm, tested), self._gaps(arm, category), strict=True))
                scores[name] = {item.key: row for item, row, _ in rows if item.labels != "pairs"}
                accuracy[name] = {item.key: share_agreeing(gaps) for item, _, gaps in rows if item.labels != "pairs"}
        return make_look(self._samples[category], self._right[category], responses, scores, accuracy)

    def _teach(self, selector: Selector, contexts: Prepare) -> None:
        arms = [arm for arm in self._untaught if self._pool.available_K[arm]]
        arms = arms if self._needs_consensus() else self._race(arms)
        if not arms:
            return
        rows_MD = contexts([item.prompt for item in self._all_items()])
        for arm in arms:
            accuracies = [value for category in self._items for value in self._filled(arm, category)]
            if all(self._has_scored(arm, category) for category in self._items):
                selection = selector.select(rows_MD, np.arange(len(self._pool.names)) == arm)
                selector.update(selection.id, np.array(accuracies))
                self._untaught.remove(arm)

    def _race(self, arms: Sequence[int]) -> list[int]:
        """Test reward models on some prompts, and note those that need no more; returns those that could score."""
        arms = list(arms)
        for share in _ROUNDS if arms else ():
            firsts = {category: items[: ceil(share * len(items))] for category, items in self._items.items()}
            for arm, name in ((arm, self._pool.names[arm]) for arm in tuple(arms)):
                tests = [items for category, items in firsts.items() if name not in self._firsts.get(category, {})]
                if not self._scores.take(arm, list(chain.from_iterable(tests))):
                    arms.remove(arm)
            for category, items in firsts.items():
                accuracies_KN = np.array([self._scores.accuracies(arm, items) for arm in range(len(self._pool.names))])
                for behind in np.flatnonzero(clearly_behind(accuracies_KN)):
                    self._firsts.setdefault(category, {}).setdefault(self._pool.names[behind], len(items))
        return arms

    def _filled(self, arm: int, category: str) -> list[float]:
        """Accuracy on each item of a category, on those that it is not tested on the mean of the others."""
        tested = self._accuracies(arm, category)
        known = [value for value in tested if not np.isnan(value)]
        mean = float(np.mean(known)) if known else float("nan")
        return tested + [mean] * (len(self._items[category]) - len(tested))

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
        """Accuracy on each item that tests an arm; NaN, and measured later, if the reward model cannot score now."""
        if not self._can_score(arm, category):
            return [float("nan")] * len(self._tested(arm, category))
        return [share_agreeing(gaps) for gaps in self._gaps(arm, category)]

    def _tested(self, arm: int, category: str) -> list[Item]:
        """The items of a category that test an arm: the first ones if it was clearly behind; all for a consensus."""
        items = self._items.get(category, [])
        num = None if self._needs_consensus() else self._firsts.get(category, {}).get(self._pool.names[arm])
        return items[:num]

    def _all_items(self) -> list[Item]:
        return [item for items in self._items.values() for item in items]

    def _gaps(self, arm: int, category: str) -> list[FloatArray]:
        """Score gaps of each item's labeled pairs, above 0 where a reward model orders a pair as the labels do."""
        tested = self._tested(arm, category)
        values = self._values(category)[: len(tested)]
        return labeled_gaps(self._scores.rows(arm, tested), [item.num_right for item in tested], values)

    def _values(self, category: str) -> Sequence[FloatArray]:
        """Consensus value of each item's responses; empty ones where nothing needs a consensus."""
        if not self._needs_consensus():
            return [np.empty(0)] * len(self._items[category])
        self._consensus = self._consensus or self._agreed()
        return self._consensus[category]

    def _needs_consensus(self) -> bool:
        return any(item.labels == "consensus" for items in self._items.values() for item in items)

    def _agreed(self) -> dict[str, list[FloatArray]]:
        """Consensus values of all items' responses, from all reward models that have scored."""
        items = self._all_items()
        arms = [arm for arm in range(len(self._pool.names)) if self._scores.has(arm, items)]
        rows = [self._scores.rows(arm, items) for arm in arms]
        answers = [item.with_scores(np.stack([of_arm[place] for of_arm in rows])) for place, item in enumerate(items)]
        values = iter(consensus_orders(answers))
        return {category: [next(values) for _ in of_category] for category, of_category in self._items.items()}

    def _has_scored(self, arm: int, category: str) -> bool:
        """Whether an arm has scored what tests it in a category, or where there is a consensus, everything."""
        return self._scores.has(arm, self._all_items() if self._needs_consensus() else self._tested(arm, category))

    def _can_score(self, arm: int, category: str) -> bool:
        """`_has_scored` after taking the missing scores; for a consensus, those of all reward models."""
        if not self._needs_consensus():
            return self._scores.take(arm, self._tested(arm, category))
        if not self._has_scored(arm, category):
            for one in range(len(self._pool.names)):
                self._scores.take(one, self._all_items())
            self._consensus = {}
        return self._has_scored(arm, category)

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
        is_right = self._is_right if self._section.labels != "consensus" and prompt.answer is not None else None
        item = answered_item(prompt, samples, is_right, self._said, self._gold_format)
        self._samples[prompt.category][item.key] = samples
        if is_right is not None:
            self._right[prompt.category][item.key] = sum(item.counts[: item.num_right]) / len(samples)
        return item

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
            "scores": self._scores.as_state(),
            "firsts": self._firsts,
            "untaught": list(self._untaught),
            "samples": self._samples,
            "right": self._right,
            "chosen": {category: list(names) for category, names in self._chosen.items()},
            "start": to_json(start),
            "signs": to_json([asdict(sign) for sign in self._signs]),
            "thresholds": to_json(self._latest_thresholds()),  # null: scores do not separate right from wrong
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
        self._iteration, self._untaught = int(state["iteration"]), [int(arm) for arm in state["untaught"]]
        prompts = {prompt.id: prompt for of_category in self._prompts.values() for prompt in of_category}
        self._items = {
            category: [*self._given.get(category, []), *(from_state(row, prompts) for row in rows)]
            for category, rows in state["items"].items()
        }
        self._scores.load(state["scores"])
        self._firsts, self._consensus = state["firsts"], {}
        self._samples, self._right = state["samples"], state["right"]
        self._thresholds = thresholds_of(state)
        self._chosen = {category: dict.fromkeys(names) for category, names in state["chosen"].items()}
        if state["start"] is not None:
            findings, looks = state["start"]
            self._start = Findings.from_state(findings), {name: Look.from_state(of) for name, of in looks.items()}
        self._signs = [Sign(**{**sign, "reward_models": tuple(sign["reward_models"])}) for sign in state["signs"]]
