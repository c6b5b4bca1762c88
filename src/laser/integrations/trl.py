"""TRL: an adaptive reward for `GRPOTrainer`, `RLOOTrainer` and `OnlineDPOTrainer`, and for others with their contract.

    adaptive = AdaptiveReward("run.toml")
    trainer = GRPOTrainer(model, reward_funcs=adaptive.functions(), callbacks=[adaptive], ...)

TRL calls one function per reward model. The first call of a batch scores all of it, each prompt with the reward model
that was chosen for it; every function returns None for the rows of the others, so TRL's ``rewards/NAME/mean`` is the
mean of what that reward model scored.
"""

from __future__ import annotations

import importlib.metadata
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from laser.config import RouterConfig, RunConfig
from laser.config.router import LOSS_IS_NO_SIGNAL
from laser.config.selection import DevGainSignal
from laser.core.errors import ConfigError, DataError, RunDirectoryError
from laser.core.files import is_folder
from laser.parallel.ranks import shared
from laser.router.identity import read_state, resolved, state_digest
from laser.router.router import Router

_TESTED = "1.16"
_FOLDER = "laser"  # inside the trainer's checkpoints
_NOT_DATA = ("trainer_state", "log_extra", "log_metric", "environments", "completion_ids")

RewardFunction = Callable[..., list[float | None]]


@dataclass(frozen=True, slots=True)
class _Rows:
    """Prompts, completions and columns of the data, one value per completion."""

    prompts: list[Any]
    completions: list[Any]
    columns: dict[str, list[Any]]


class AdaptiveReward(TrainerCallback, ExportableState):
    """A router as reward functions and callback of a trainer.

    Args:
        config: A `RouterConfig` or `RunConfig`, the path of a TOML file, or the nested dict that one would hold.
        answer: Column of the gold answers; None: `answer`, `answers`, `solution`, `ground_truth` or `reward_model`.
        metric: A metric of the trainer's evaluation, such as "eval_reward", whose gain is learned from.
        state: Folder of a router's state: what another training has learned, to start from, or that of a checkpoint
            elsewhere, to resume from. None: a fresh start, or the checkpoint that the trainer resumes from.
        untested_trl: Use a version of TRL that laser was not tested with.

    Raises:
        LaserError: The configuration cannot be used.
    """

    def __init__(
        self,
        config: RouterConfig | RunConfig | Mapping[str, Any] | str | Path,
        *,
        answer: str | None = None,
        metric: str | None = None,
        state: str | Path | None = None,
        untested_trl: bool = False,
    ) -> None:
        self._config = resolved(config)
        self._answer, self._metric, self._given_state = answer, metric, state
        self._untested_trl = untested_trl
        self._router: Router | None = None
        self._ranks = shared()
        self._model: Any = None  # None until the trainer calls back
        self._is_scaled = False
        self._fills_gaps = False
        self._batch: tuple[Any, ...] = ()
        self._columns: dict[int, list[float | None]] = {}  # of the batch, by arm, until they are taken
        self._metrics: dict[str, float] = {}
        _check_metric(self._config, metric)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the reward models, by arm."""
        return tuple(model.name for model in self._config.rewards.models)

    @property
    def router(self) -> Router:
        """The router; it is made when the trainer is, or at the first score."""
        if self._router is None:
            self._ranks = shared()
            self._router = Router(self._config, self._given_state, ranks=self._ranks)
        return self._router

    def functions(self) -> list[RewardFunction]:
        """One reward function per reward model, for `reward_funcs`."""
        return [self._function(arm, name) for arm, name in enumerate(self.names)]

    def orms(self) -> dict[str, type]:
        """One class per reward model, by name, for ms-swift: ``orms.update(adaptive.orms())``."""
        return {name: _orm(name, function) for name, function in zip(self.names, self.functions(), strict=True)}

    def _function(self, arm: int, name: str) -> RewardFunction:
        def reward(
            *, prompts: Sequence[Any], completions: Sequence[Any], trainer_state: Any = None, **columns: Any
        ) -> list[float | None]:
            step = 0 if trainer_state is None else int(trainer_state.global_step)
            batch = (step, list(prompts), list(completions))
            if arm not in self._columns or batch != self._batch:
                self._score(step, prompts, completions, columns)
                self._batch = batch
            return self._columns.pop(arm)

        reward.__name__ = reward.__qualname__ = name
        return reward

    def _score(self, step: int, prompts: Sequence[Any], completions: Sequence[Any], columns: Mapping[str, Any]) -> None:
        """Score a batch of all processes, and keep the columns of this one."""
        router, is_training = self.router, self._model is None or bool(self._model.training)
        if self._model is None:
            self._without_callback(step)
        mine = _Rows(list(prompts), list(completions), _data_columns(columns, len(completions)))
        rows, begin = self._of_all_processes(mine)
        scored = router.score(
            rows.prompts,
            rows.completions,
            step,
            self._gold(rows.columns),
            rows.columns,
            learn=is_training,
            scaled=self._is_scaled and is_training,
        )
        for arm in range(len(self.names)):
            column = scored.of_arm(arm)
            if self._fills_gaps:
                column = _filled(column, scored.arms == arm, rows.prompts)
            self._columns[arm] = column[begin : begin + len(completions)]
        log = columns.get("log_metric")
        if log is not None and is_training:
            for arm, name in enumerate(self.names):
                self._metrics[f"bandit/chosen/{name}"] = float(np.mean(scored.arms == arm))
            for name, value in self._metrics.items():
                log(name, value)
            self._metrics = {}

    def _of_all_processes(self, mine: _Rows) -> tuple[_Rows, int]:
        """The rows of all processes in order, and where those of this one begin: a group may span several."""
        if self._ranks.size == 1:
            return mine, 0
        from accelerate.utils import gather_object

        everyone: list[_Rows] = gather_object([mine])
        names = [name for name in mine.columns if all(name in rows.columns for rows in everyone)]
        return _Rows(
            [prompt for rows in everyone for prompt in rows.prompts],
            [completion for rows in everyone for completion in rows.completions],
            {name: [value for rows in everyone for value in rows.columns[name]] for name in sorted(names)},
        ), sum(len(rows.completions) for rows in everyone[: self._ranks.rank])

    def _gold(self, columns: Mapping[str, Sequence[Any]]) -> Sequence[Any] | None:
        """The column of the gold answers that the user named; None: the router looks for one."""
        if self._answer is None:
            return None
        if self._answer not in columns:
            raise DataError(
                f"the data has no column {self._answer!r} of gold answers; it has "
                f"{', '.join(sorted(columns)) or 'no columns but the prompt'}"
            )
        return columns[self._answer]

    def _without_callback(self, step: int) -> None:
        """Learn of the steps before, as nothing says when they end."""
        if not self._batch:
            warnings.warn(
                "AdaptiveReward is not among the trainer's callbacks: it cannot tell evaluation from training and "
                "saves no state; add callbacks=[adaptive]",
                stacklevel=2,
            )
        elif step > self._batch[0]:
            self._metrics = self.router.learn(step - 1)

    def on_init_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Check the trainer, and make the router."""
        self._model = kwargs["model"]
        kind = _check_trainer(args, untested=self._untested_trl)
        self._fills_gaps = kind == "OnlineDPO"
        self._is_scaled = kind == "RLOO" or (kind == "GRPO" and not _normalizes_groups(args))
        if self._is_scaled:
            warnings.warn(
                f"{kind} does not normalize rewards within a group here, so each reward model's scores are divided by "
                "their own spread; with GRPO, scale_rewards = 'group' leaves them as they are",
                stacklevel=2,
            )
        _ = self.router

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Restore the router of the checkpoint that the trainer resumes from, or count steps from 0."""
        self._model = kwargs["model"]
        if state.global_step > 0:
            self._restore(args, state)
        else:
            self.router.restart()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Learn of the step that has ended; never from its loss."""
        self._metrics = self.router.learn(state.global_step - 1)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Learn from the gain of the metric, if one was named."""
        if self._metric is None or state.global_step == 0:
            return
        metrics = kwargs["metrics"]
        if self._metric not in metrics:
            raise DataError(f"the evaluation has no metric {self._metric!r}; it has {', '.join(sorted(metrics))}")
        self._metrics = self.router.learn(state.global_step - 1, metric=float(metrics[self._metric]))

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Add what was learned last to the trainer's history; TRL's own log has it with the next batch."""
        if state.log_history and self._metrics:
            state.log_history[-1] |= self._metrics

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Write the router's state into the trainer's checkpoint."""
        if state.is_world_process_zero:
            self.router.save(_checkpoint(args, state) / _FOLDER)

    def state(self) -> dict[str, Any]:
        """The digest of the router's state, for ``trainer_state.json``: it says which state belongs to a checkpoint."""
        digest = None if self._router is None else state_digest(self._router.state_dict())
        return {"args": {}, "attributes": {"digest": digest}}

    def _restore(self, args: TrainingArguments, state: TrainerState) -> None:
        """Load the state whose digest the checkpoint names, from where it can be.

        Raises:
            RunDirectoryError: It is in none of these places.
        """
        saved: Any = state.stateful_callbacks  # of the checkpoint, by the name of the class
        digest = saved.get(type(self).__name__, {}).get("attributes", {}).get("digest")
        if digest is None:
            raise RunDirectoryError(
                f"the checkpoint of step {state.global_step} was saved without AdaptiveReward; start a new run, or "
                "resume from one that was saved with it"
            )
        named = args.resume_from_checkpoint if isinstance(args.resume_from_checkpoint, str) else None
        folders = [Path(folder) / _FOLDER for folder in (named, _checkpoint(args, state)) if folder is not None]
        folders += [Path(self._given_state)] if self._given_state is not None else []
        for folder in folders:
            if is_folder(folder) and state_digest(found := read_state(folder)) == digest:
                self.router.load_state_dict(found)
                return
        raise RunDirectoryError(
            f"the router's state of step {state.global_step} is not in {', '.join(map(str, folders))}; restore it, or "
            "name the folder 'laser' of the checkpoint: AdaptiveReward(..., state=FOLDER)"
        )


def _orm(name: str, function: RewardFunction) -> type:
    """A reward class as ms-swift makes them: with the trainer's arguments, called with texts and columns."""

    class Adaptive:
        def __init__(self, args: Any = None, **kwargs: Any) -> None:
            self.args = args

        def __call__(self, completions: Sequence[str], **columns: Any) -> list[float | None]:
            messages = columns.pop("messages", None)
            if messages is None:
                raise DataError("ms-swift gave no column 'messages', so the prompts are unknown; use ms-swift 4")
            return function(prompts=[row[:-1] for row in messages], completions=completions, **columns)

    Adaptive.__name__ = Adaptive.__qualname__ = name
    return Adaptive


def _check_metric(config: RouterConfig, metric: str | None) -> None:
    if metric is None and isinstance(config.signal, DevGainSignal):
        raise ConfigError(
            "signal.type = 'dev_gain' learns from a metric of the trainer's evaluation; name it: "
            "AdaptiveReward(..., metric='eval_reward')"
        )
    if metric is not None and metric.endswith("loss"):
        raise ConfigError(f"metric = {metric!r} cannot be learned from: {LOSS_IS_NO_SIGNAL}; name another metric")


def _check_trainer(args: TrainingArguments, *, untested: bool) -> str:
    """The trainer's kind, by its arguments: GRPO, RLOO or OnlineDPO.

    Raises:
        ConfigError: It is another trainer, or a version of TRL that was not tested.
    """
    version = importlib.metadata.version("trl")
    if not version.startswith(f"{_TESTED}.") and not untested:
        raise ConfigError(
            f"laser was tested with TRL {_TESTED}, and this is {version}; install trl=={_TESTED}.*, or add "
            "untested_trl=True and compare the first steps"
        )
    from trl.experimental.online_dpo import OnlineDPOConfig
    from trl.trainer.grpo_config import GRPOConfig
    from trl.trainer.rloo_config import RLOOConfig

    for kind, section in (("GRPO", GRPOConfig), ("RLOO", RLOOConfig), ("OnlineDPO", OnlineDPOConfig)):
        if isinstance(args, section):
            if args.restore_callback_states_from_checkpoint:
                raise ConfigError(
                    "restore_callback_states_from_checkpoint makes a second AdaptiveReward; set it to False, the "
                    "router restores its state itself"
                )
            return kind
    raise ConfigError(
        f"AdaptiveReward works with the GRPO, RLOO and OnlineDPO trainers of TRL, and this one has a "
        f"{type(args).__name__}; use one of them, or a reward server (laser serve-rewards)"
    )


def _normalizes_groups(args: Any) -> bool:
    """Whether GRPO divides rewards by their deviation within a group, so that the unit of a reward does not matter."""
    return bool(args.multi_objective_aggregation == "normalize_then_sum" or args.scale_rewards == "group")


def _checkpoint(args: TrainingArguments, state: TrainerState) -> Path:
    return Path(args.output_dir or ".") / f"checkpoint-{state.global_step}"


def _data_columns(columns: Mapping[str, Any], count: int) -> dict[str, list[Any]]:
    """What the data holds besides the prompt, one value per row."""
    return {
        name: list(values)
        for name, values in columns.items()
        if name not in _NOT_DATA and isinstance(values, list | tuple) and len(values) == count
    }


def _filled(column: Sequence[float | None], is_chosen: Any, prompts: Sequence[Any]) -> list[float | None]:
    """A column where no opinion is as good as the prompt's other responses: OnlineDPO would take None for 0."""
    groups: dict[str, list[float]] = {}
    for value, prompt in zip(column, prompts, strict=True):
        if value is not None:
            groups.setdefault(repr(prompt), []).append(value)
    return [
        float(np.mean(groups[repr(prompt)])) if value is None and chosen and repr(prompt) in groups else value
        for value, chosen, prompt in zip(column, is_chosen, prompts, strict=True)
    ]
