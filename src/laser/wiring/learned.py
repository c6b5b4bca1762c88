"""Load a selector learned in another run or by `laser train-classifier`, if it fits this run."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict

from laser.analysis.records import is_run, read_config
from laser.bandits.base import Selector, StateVersionError
from laser.bandits.baselines import Frozen
from laser.bandits.classifier import QueryClassifier
from laser.bandits.context import ContextPreparer
from laser.config import RouterConfig, RunConfig, parse_config, selection
from laser.config.servers import ServerSection
from laser.core.errors import ConfigError, RunDirectoryError
from laser.core.files import read_json
from laser.core.state import load_state
from laser.core.types import FloatArray, StateDict
from laser.lm.sources import fingerprint
from laser.rewards.costs import ScoringCosts
from laser.training.batch import PairFilter, all_pairs
from laser.training.checkpoint import newest_checkpoint
from laser.training.thresholds import drop_doubtful, thresholds_of
from laser.wiring.rewards import build_costs, changed_names, reward_fingerprints

ROUTER_VERSION = 1

_FROZEN_PARTS = ("selector", "contexts", "pool")
_NO_UNIT = {
    *("model", "revision", "tokenizer", "function", "factory"),  # compared by their fingerprints
    *("cost", "trust_remote_code", "device", "precision", "max_batch_tokens", "shard", "max_batch", "cache"),
    *ServerSection.model_fields,
}
"""Fields of reward models on which the unit of a score does not depend."""


class BuildSelector(Protocol):
    """Makes the selector that a configuration describes (`laser.wiring.selection.build_selector`)."""

    def __call__(self, config: RunConfig | RouterConfig, contexts: ContextPreparer, *, costs: ScoringCosts) -> Selector:
        """Return the selector."""


class RouterRecord(TypedDict):
    """``router.json``: the pool, contexts and policy of a classifier's training; fields as in the configuration."""

    version: int
    names: list[str]
    dim: int
    accuracy: float | None
    context: dict[str, str | float | int | None]
    policy: dict[str, str | None]
    reward_models: dict[str, str]


_RECORD = TypeAdapter(RouterRecord)


@dataclass(frozen=True, slots=True)
class FrozenFilter:
    """What leaves out doubtful pairs with a frozen selector.

    Attributes:
        filter_pairs: Leaves them out.
        thresholds: Lowest scores that count as right, by category and reward model of the selector's run.
        notes: Sentences on those that do not apply.
    """

    filter_pairs: PairFilter = all_pairs
    thresholds: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def router_record(config: RunConfig | RouterConfig, *, dim: int, accuracy: float) -> RouterRecord:
    """Describe a classifier trained with a configuration."""
    return RouterRecord(
        version=ROUTER_VERSION,
        names=[model.name for model in config.rewards.models],
        dim=dim,
        accuracy=accuracy,
        context=_context_record(config),
        policy=_policy_record(config),
        reward_models=reward_fingerprints(config),
    )


def load_classifier(folder: Path, config: RunConfig | RouterConfig, dim: int) -> tuple[QueryClassifier, list[int]]:
    """The classifier that `laser train-classifier` saved, and the arm of this pool for each of its outputs.

    Raises:
        ConfigError: There is none, it is damaged, or it was trained for another context or policy, or with a reward
            model that is not in the pool.
    """
    arms = _check_router(folder, config, dim)
    try:
        classifier = QueryClassifier.restore(_router_state(folder, "classifier"))
        if (classifier.num_arms, classifier.dim) != (len(arms), dim):
            raise ValueError("another shape than router.json says")
    except (LookupError, TypeError, ValueError) as error:
        raise _useless(folder) from error
    return classifier, arms


def load_prior(folder: Path, config: RunConfig | RouterConfig, dim: int) -> FloatArray:
    """The prior means (K, D) that `laser train-classifier` saved; raises as `load_classifier` does.

    A reward model that joined the pool later has a prior mean of 0.
    """
    arms = _check_router(folder, config, dim)
    try:
        theta_KD = np.asarray(_router_state(folder, "prior")["theta"], dtype=np.float64)
    except (LookupError, TypeError, ValueError) as error:
        raise _useless(folder) from error
    if theta_KD.shape != (len(arms), dim) or not np.isfinite(theta_KD).all():
        raise _useless(folder)
    prior_KD = np.zeros((len(config.rewards.models), dim))
    prior_KD[arms] = theta_KD
    return prior_KD


def router_context(folder: Path) -> dict[str, Any]:
    """The [context] that the classifier in a folder was trained with; raises as `load_classifier` does."""
    section: dict[str, Any] = {name: value for name, value in _record(folder)["context"].items() if name != "seed"}
    categories = str(section.get("categories") or "")
    return {**section, "categories": categories.split(",") if categories else None}


def _record(folder: Path) -> RouterRecord:
    if not (folder / "router.json").is_file():
        raise ConfigError(f"{folder} holds no classifier; make one with laser train-classifier")
    try:
        record = _RECORD.validate_python(read_json(folder / "router.json"), strict=True)
    except (RunDirectoryError, ValidationError) as error:
        raise _useless(folder) from error
    if record["version"] != ROUTER_VERSION:
        raise _useless(folder)
    return record


def _check_router(folder: Path, config: RunConfig | RouterConfig, dim: int) -> list[int]:
    """The arm of this pool for each reward model that the classifier was trained with."""
    theirs = _record(folder)
    ours = router_record(config, dim=dim, accuracy=0.0)
    if not set(theirs["names"]) <= set(ours["names"]) or theirs["dim"] != dim:
        raise ConfigError(
            f"the classifier in {folder} is for the pool {', '.join(theirs['names'])} and {theirs['dim']} context "
            f"features; here they are {', '.join(ours['names'])} and {dim}. Train it again with this configuration"
        )
    for where, then, now in (
        ("context", theirs["context"], ours["context"]),
        ("policy", theirs["policy"], ours["policy"]),
    ):
        for name in now:
            if then.get(name) != now[name]:
                raise ConfigError(
                    f"the classifier in {folder} was trained with {where}.{name} = {then.get(name)!r}, and here it is "
                    f"{now[name]!r}: train it again with this configuration"
                )
    known = {name: ours["reward_models"][name] for name in theirs["names"]}
    if changed := changed_names(theirs["reward_models"], known):
        raise ConfigError(
            f"reward model {changed[0]!r} has other weights or code here than when the classifier in {folder} was "
            "trained; train it again with this configuration"
        )
    return [ours["names"].index(name) for name in theirs["names"]]


def _policy_record(config: RunConfig | RouterConfig) -> dict[str, str | None]:
    """What an embedding depends on besides [context]; nothing where it does not come from the policy."""
    if not isinstance(config, RunConfig) or config.context.source != "policy":
        return {}
    section = config.policy
    return {
        "model": fingerprint(section.model, section.revision),
        "system_prompt": section.system_prompt,
        "chat_template": section.chat_template,
    }


def _context_record(config: RunConfig | RouterConfig) -> dict[str, str | float | int | None]:
    """The settings that a prepared context depends on; the seed only with a projection."""
    section = config.context
    whence = {"source": section.source, "encoder": section.encoder, "categories": ",".join(section.categories or ())}
    prepared = section.model_dump(mode="json", exclude=set(whence))
    seed = None if section.projection is None else config.seed
    return {**prepared, **(whence if section.source != "policy" else {}), "seed": seed}


def _router_state(folder: Path, name: str) -> StateDict:
    try:
        return load_state(folder / name)
    except RunDirectoryError as error:
        raise _useless(folder) from error


def _useless(folder: Path) -> ConfigError:
    return ConfigError(
        f"the classifier in {folder} was made by another version or is damaged; train it again with "
        "laser train-classifier"
    )


def load_frozen(
    config: RunConfig | RouterConfig,
    run: Path,
    contexts: ContextPreparer,
    build: BuildSelector,
) -> Frozen:
    """The selector of another run in its last state. Both runs must prepare contexts alike.

    Args:
        config: This run's configuration.
        run: The other run's directory.
        contexts: Prepares this run's contexts; takes over the state of the other run.
        build: Makes the selector that a configuration describes.

    Raises:
        LaserError: There is no such state, or it has other arms or contexts.
    """
    theirs = _frozen_config(config, run)
    folder = newest_checkpoint(run / "checkpoints", _FROZEN_PARTS)
    if folder is None:
        raise RunDirectoryError(f"{run} has no checkpoint yet, so its selector has no state; train it further")
    costs = build_costs(theirs.rewards)
    inner = build(theirs, contexts, costs=costs)
    try:
        pool = load_state(folder / "pool")
        if "cost_seconds" in pool:  # else an earlier version wrote it, which measured none
            costs.load_state_dict(pool)
        inner.load_state_dict(load_state(folder / "selector"))
        contexts.load_state_dict(load_state(folder / "contexts"))
    except StateVersionError as error:
        raise RunDirectoryError(f"the selector of {run} was saved by another version of laser: {error}") from error
    except (LookupError, TypeError, ValueError) as error:
        raise RunDirectoryError(f"the selector of {run} does not fit this policy: {error}") from error
    return Frozen(inner)


def frozen_filter(config: RunConfig, categories: Collection[str]) -> FrozenFilter:
    """What leaves out the pairs that the run of a frozen selector would leave out, by its latest thresholds.

    `signal.drop_doubtful` of a probe in this configuration decides whether it does, else that of the run.

    Raises:
        LaserError: The run cannot be used.
    """
    assert isinstance(config.selector, selection.FrozenSelector)
    run = Path(config.selector.run)
    theirs = _frozen_config(config, run)
    section = config.signal if isinstance(config.signal, selection.ProbeSignal) else theirs.signal
    if not isinstance(section, selection.ProbeSignal) or not section.drop_doubtful:
        return FrozenFilter()
    folder = newest_checkpoint(run / "checkpoints", (*_FROZEN_PARTS, "signal"))
    known = {} if folder is None else thresholds_of(load_state(folder / "signal"))
    pairs = list(zip(config.rewards.models, theirs.rewards.models, strict=True))
    others = [one.name for one, then in pairs if one.model_dump(exclude=_NO_UNIT) != then.model_dump(exclude=_NO_UNIT)]
    notes = [f"{name} has other settings here than in {run}, so no doubtful pair of it is left out" for name in others]
    if missing := sorted(set(categories) - set(known)):
        notes.append(f"{run} has no thresholds for {', '.join(missing):.200}: no doubtful pair is left out there")
    of_arm = [
        {of: row[one.name] for of, row in known.items() if one.name in row and one.name not in others}
        for one, _ in pairs
    ]
    return FrozenFilter(partial(drop_doubtful, threshold=partial(_threshold, of_arm)), known, tuple(notes))


def _threshold(of_arm: Sequence[Mapping[str, float]], arm: int, category: str) -> float:
    return of_arm[arm].get(category, -np.inf)


def _frozen_config(config: RunConfig | RouterConfig, run: Path) -> RunConfig:
    """The configuration of the run of a frozen selector, if it fits this one."""
    if not is_run(run):
        raise ConfigError(f"selector.run {run} is not a run directory; give one that laser train wrote")
    theirs = parse_config(read_config(run), source=str(run / "config.json"))
    _check_frozen(config, theirs, run)
    return theirs


def _check_frozen(config: RunConfig | RouterConfig, theirs: RunConfig, run: Path) -> None:
    ours, other = ([model.name for model in one.rewards.models] for one in (config, theirs))
    if ours != other:
        raise ConfigError(
            f"the selector of {run} was trained on the pool {', '.join(other)}; here it is {', '.join(ours)}"
        )
    if isinstance(theirs.selector, selection.FrozenSelector):
        raise ConfigError(f"the selector of {run} is frozen too; name the run that trained it")
    if isinstance(theirs.selector, selection.PythonSelector):
        raise ConfigError(
            f"the selector of {run} is Python code of that run, which laser does not run from here; freeze another"
        )
    if theirs.context != config.context:
        raise ConfigError(f"the selector of {run} was trained with other [context] settings; copy them from its config")
    if config.context.projection is not None and theirs.seed != config.seed:
        raise ConfigError(
            f"the selector of {run} was trained behind the projection of seed {theirs.seed}, and here it is that of "
            f"seed {config.seed}; set seed = {theirs.seed}"
        )
    then = read_json(run / "run.json").get("reward_models")
    if not isinstance(then, dict):
        raise RunDirectoryError(
            f"{run / 'run.json'} does not say which reward models its selector was trained on: it is damaged or of "
            "another version; train it again with this one"
        )
    if changed := changed_names(then, reward_fingerprints(config)):
        raise ConfigError(
            f"reward model {changed[0]!r} has other weights or code here than in {run}, so its selector's arm means "
            "something else; use that run's reward models, or train a selector on these"
        )
