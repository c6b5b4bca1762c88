"""The pool: named reward models, loaded when first chosen, at most a few at a time."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from laser.core.errors import RewardModelError
from laser.core.types import BoolArray, FloatArray, Prompt, StateDict
from laser.parallel.ranks import Alone, Ranks
from laser.rewards.base import Counts, RewardModel, TrainingStep, counts_of
from laser.rewards.costs import ScoringCosts
from laser.rewards.failures import named
from laser.rewards.growth import Growth
from laser.rewards.overlap import Overlap
from laser.rewards.quarantine import Quarantine
from laser.rewards.spreads import RunningSpreads
from laser.rewards.values import as_scores

_LARGEST = 1e300  # of scores: differences and sums of them stay finite


class QuarantinedError(RewardModelError):
    """A reward model failed too often in a row and is in quarantine."""


def _nothing() -> None:
    """Fetch nothing, for a reward model without weights."""


@dataclass(frozen=True, slots=True)
class Arm:
    """A reward model that is built when it is needed.

    Attributes:
        name: Unique in the pool.
        build: Loads the model.
        fetch: Reads its files ahead, so that `build` need not wait for the disk; runs in a thread.
    """

    name: str
    build: Callable[[], RewardModel]
    fetch: Callable[[], None] = field(default=_nothing)


@dataclass(slots=True)
class Usage:
    """What one reward model was used for.

    Attributes:
        loads: Times it was loaded.
        unparks: Times it came back from CPU memory instead.
        calls: Times it scored.
        responses: Responses it was given.
        unscored: Responses it gave no number for.
        abstained: Those of them on which it had no opinion, which is not a failure.
        infinite: Responses it gave an infinite score, or one beyond 1e300; they count as unscored.
        too_long: Responses that did not fit its window behind their whole prompt: unscored, or scored with the prompt
            cut.
        failures: Times it failed.
        tokens: Tokens that a server billed for it.
    """

    loads: int = 0
    unparks: int = 0
    calls: int = 0
    responses: int = 0
    unscored: int = 0
    abstained: int = 0
    infinite: int = 0
    too_long: int = 0
    failures: int = 0
    tokens: int = 0


class RewardPool:
    """Holds the K reward models; the order of `arms` numbers them.

    Device memory is constant in K: at most `max_resident` models are on their device, the next `max_parked` least
    recently used wait in CPU memory, the rest on disk.

    Args:
        arms: The reward models.
        max_resident: How many are kept on their device; beyond it the least recently used leaves.
        max_parked: How many of those that left are kept in CPU memory; beyond it the longest parked is released.
        quarantine: Which reward models may be used; None: the first failure stops the run.
        ranks: The processes of the run; each scores its share of the prompts.
        at: Where the training is, shared with reward functions that ask for it.
        costs: Cost of the responses that they score; None: measured.

    Attributes:
        at: See above; the loop keeps it up to date.
        costs: See above.
        quarantine: See above.
        spreads: Running spread of each reward model's scores, for ensembles that scale by it.

    Raises:
        RewardModelError: No arm, or two of the same name.
    """

    def __init__(
        self,
        arms: Sequence[Arm],
        *,
        max_resident: int = 1,
        max_parked: int = 0,
        quarantine: Quarantine | None = None,
        ranks: Ranks | None = None,
        at: TrainingStep | None = None,
        costs: ScoringCosts | None = None,
    ) -> None:
        names = [arm.name for arm in arms]
        if not names:
            raise RewardModelError("the pool is empty (K = 0); add a reward model")
        if len(set(names)) < len(names):
            raise RewardModelError(f"two reward models share a name in {', '.join(names)}; give each another name")
        self._arms = tuple(arms)
        self._max_resident = max_resident
        self._max_parked = max_parked
        self.at = at or TrainingStep()
        self.quarantine = quarantine or Quarantine(len(arms), max_failures=0)
        self.spreads = RunningSpreads(len(arms))
        self.costs = costs or ScoringCosts(len(arms))
        self._resident: OrderedDict[int, RewardModel] = OrderedDict()
        self._parked: OrderedDict[int, RewardModel] = OrderedDict()
        self._ranks = ranks or Alone()
        self._fetching: threading.Thread | None = None
        self._overlap: Overlap | None = None
        self._usage = {name: Usage() for name in names}
        self._growth = Growth()
        self._warnings: list[str] = []

    @property
    def names(self) -> tuple[str, ...]:
        """Names by arm."""
        return tuple(arm.name for arm in self._arms)

    @property
    def loaded(self) -> tuple[str, ...]:
        """Names of the models now on their device, least recently used first."""
        return tuple(self._arms[index].name for index in self._resident)

    @property
    def parked(self) -> tuple[str, ...]:
        """Names of the models now waiting in CPU memory, longest parked first."""
        return tuple(self._arms[index].name for index in self._parked)

    @property
    def available_K(self) -> BoolArray:
        """False for reward models in quarantine."""
        return self.quarantine.available_K

    def usage(self) -> dict[str, dict[str, int]]:
        """What every reward model was used for, by name; see `Usage`."""
        return {name: dataclasses.asdict(usage) for name, usage in self._usage.items()}

    def take_warnings(self) -> list[str]:
        """Warnings since the last call, such as that this process keeps growing."""
        warnings, self._warnings = [*self._warnings, *self._growth.take_warnings()], []
        return warnings

    def score(self, arm: int, prompts: Sequence[Prompt], responses: Sequence[Sequence[str]]) -> list[FloatArray]:
        """Score with one reward model and check what it returns; after a failure it is tried again.

        Without any response nothing is loaded or called.

        Args:
            arm: Index of the reward model.
            prompts: B prompts.
            responses: Responses of each prompt.

        Returns:
            B float64 arrays; NaN where there is no finite score.

        Raises:
            RewardModelError: It cannot be loaded, fails, or returns another number of scores; `QuarantinedError` if
                it is in quarantine from now on.
        """
        name = self._arms[arm].name
        usage = self._usage[name]
        if not self.available_K[arm]:
            raise QuarantinedError(f"reward model {name!r} is in quarantine")
        if not any(map(len, responses)):
            return [np.zeros(0) for _ in responses]
        while True:
            try:
                self._acquire_everywhere(arm)
                started = time.perf_counter()
                asked = self._ranks.together(lambda part: self._ask(arm, prompts[part], responses[part]), len(prompts))
                break
            except RewardModelError as error:
                usage.failures += 1
                if self.quarantine.max_failures == 0:
                    raise
                if self.quarantine.failed(arm, str(error)):
                    self._forget(arm)
                    raise QuarantinedError(str(error)) from error
        self._growth.called()
        usage.calls += 1
        usage.responses += sum(map(len, responses))
        self.costs.add(arm, responses=sum(map(len, responses)), seconds=time.perf_counter() - started)
        usage.tokens += sum(count.tokens for _, count in asked)
        usage.too_long += sum(count.too_long for _, count in asked)
        abstained = sum(count.abstained for _, count in asked)
        scores = [row for row, _ in asked]
        self._judge_scores(arm, scores, abstained)
        if self._overlap is not None:
            self._overlap.add(arm, prompts, responses, scores)
        return scores

    def score_selection(
        self, weights_BK: FloatArray, prompts: Sequence[Prompt], responses: Sequence[Sequence[str]]
    ) -> list[FloatArray]:
        """Score each prompt's responses with the reward models that have weight for it.

        Each reward model runs once, for all of its prompts; one without weight is neither loaded nor called.

        Args:
            weights_BK: Non-negative weights of each prompt, rows summing to 1.
            prompts: B prompts.
            responses: Responses of each prompt.

        Returns:
            B float64 arrays of shape (K, number of responses): raw scores, NaN where a model did not score.

        Raises:
            RewardModelError: As for `score`.
        """
        scores_BKN = [np.full((weights_BK.shape[1], len(row)), np.nan) for row in responses]
        for arm in np.flatnonzero(weights_BK.any(axis=0)):
            rows = np.flatnonzero(weights_BK[:, arm]).tolist()
            given = self.score(int(arm), [prompts[row] for row in rows], [responses[row] for row in rows])
            for row, scores_N in zip(rows, given, strict=True):
                scores_BKN[row][arm] = scores_N
        return scores_BKN

    def observe(self) -> Overlap:
        """Begin to keep all scores, for a comparison of the models; earlier ones are dropped."""
        self._overlap = Overlap(self.names)
        return self._overlap

    def num_scored(self) -> dict[str, int]:
        """Responses that each reward model was given so far, by name."""
        return {name: usage.responses for name, usage in self._usage.items()}

    def prefetch(self, arms: Iterable[int]) -> None:
        """Read ahead the files of models that will score next, in a thread."""
        wanted = [arm for arm in arms if arm not in self._resident and arm not in self._parked]
        if wanted and (self._fetching is None or not self._fetching.is_alive()):
            fetches = [self._arms[arm].fetch for arm in wanted[: self._max_resident]]
            self._fetching = threading.Thread(target=lambda: [fetch() for fetch in fetches], daemon=True)
            self._fetching.start()

    def release_all(self) -> None:
        """Release every loaded model."""
        for models in (self._resident, self._parked):
            while models:
                self._release(*models.popitem())

    def state_dict(self) -> StateDict:
        """The quarantine, the spreads and what scoring has cost."""
        return {**self.quarantine.state_dict(), **self.spreads.state_dict(), **self.costs.state_dict()}

    def load_state_dict(self, state: StateDict) -> None:
        """Restore `state_dict`."""
        self.quarantine.load_state_dict(state)
        if "deviations" in state:  # without them it is of a run that had none
            self.spreads.load_state_dict(state)
        if "cost_seconds" in state:
            self.costs.load_state_dict(state)

    def _judge_scores(self, arm: int, scores: Sequence[FloatArray], abstained: int) -> None:
        """Count responses without a finite score; a call without any is a failure unless the reward model abstained."""
        name = self._arms[arm].name
        usage = self._usage[name]
        missing = 0
        for row in scores:
            too_large = np.abs(row) > _LARGEST
            usage.infinite += int(too_large.sum())
            row[too_large] = np.nan
            missing += int(np.isnan(row).sum())
        if missing < sum(map(len, scores)):
            self.quarantine.succeeded(arm)
        elif missing > abstained:
            self.quarantine.failed(arm, f"reward model {name!r} gave no finite score for a batch")
        elif usage.abstained == 0:
            self._warnings.append(
                f"{name} had no opinion on any of the {missing} responses of a call: no pair comes of it, and its "
                "bandit reward is 0; summary.json counts such responses as 'abstained'"
            )
        usage.unscored += missing
        usage.abstained += abstained

    def _ask(
        self, arm: int, prompts: Sequence[Prompt], responses: Sequence[Sequence[str]]
    ) -> list[tuple[FloatArray, Counts]]:
        """Scores of a share of the prompts; the first comes with the counts of the share."""
        name = self._arms[arm].name
        model = self._acquire(arm)
        with named(name):
            try:
                scores = [as_scores(row) for row in model.score(prompts, responses)]
            except (TypeError, ValueError, OverflowError) as error:
                raise RewardModelError(f"scoring failed or returned invalid scores: {error}") from error
        expected = [len(row) for row in responses]
        if [row.shape for row in scores] != [(length,) for length in expected]:
            shapes = [row.shape for row in scores]
            raise RewardModelError(f"reward model {name!r} returned scores of shape {shapes} for {expected} responses")
        return list(zip(scores, [counts_of(model).take(), *[Counts()] * len(scores)], strict=False))

    def _acquire_everywhere(self, arm: int) -> None:
        """Acquire on all processes, also those without a share: they may hold its weights between them."""

        def acquire(part: slice) -> list[None]:
            self._acquire(arm)
            return [None] * (part.stop - part.start)

        self._ranks.together(acquire, self._ranks.size)

    def _acquire(self, arm: int) -> RewardModel:
        """The model, loaded or fetched from CPU memory if need be, after making room for it."""
        if arm in self._resident:
            self._resident.move_to_end(arm)
            return self._resident[arm]
        with self._growth.loading():
            model = self._parked.pop(arm, None)  # before its place goes to the one that leaves
            while len(self._resident) >= self._max_resident:
                self._make_room()
            usage = self._usage[self._arms[arm].name]
            with named(self._arms[arm].name):
                if model is not None:
                    model.unpark()
                    usage.unparks += 1
                else:
                    model = self._arms[arm].build()
                    usage.loads += 1
        self._resident[arm] = model
        return model

    def _make_room(self) -> None:
        """Park the least recently used model, or release it where none may be parked."""
        arm, model = self._resident.popitem(last=False)
        if self._max_parked == 0:
            self._release(arm, model)
            return
        while len(self._parked) >= self._max_parked:
            self._release(*self._parked.popitem(last=False))
        try:
            with named(self._arms[arm].name):
                model.park()
            self._parked[arm] = model
        except RewardModelError as error:
            self._failed_to_leave(arm, error)

    def _forget(self, arm: int) -> None:
        """Release a model that keeps failing; when it leaves quarantine it is built afresh."""
        model = self._resident.pop(arm, None)
        if model is not None:
            self._release(arm, model)

    def _release(self, arm: int, model: RewardModel) -> None:
        try:
            with named(self._arms[arm].name):
                model.release()
        except RewardModelError as error:
            self._failed_to_leave(arm, error)

    def _failed_to_leave(self, arm: int, error: RewardModelError) -> None:
        """Count and report it; no score depends on a model that has left."""
        self._usage[self._arms[arm].name].failures += 1
        self._warnings.append(f"{error} (while it was released; its memory may still be in use)")
