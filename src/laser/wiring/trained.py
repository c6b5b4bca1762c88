"""Objects from a run directory: its configuration, its trained policy, its frozen selector."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from laser.analysis.records import read_config
from laser.bandits.base import Selector
from laser.bandits.context import ContextPreparer
from laser.config import RunConfig, parse_config
from laser.core.errors import ModelError, RunDirectoryError
from laser.core.files import check_inside, file_digest, in_words, read_json
from laser.core.state import load_state
from laser.policy.generation import Generator, TransformersGenerator
from laser.policy.policy import Policy
from laser.rewards.pool import RewardPool
from laser.training.checkpoint import newest_checkpoint
from laser.training.signature import is_ours, powers
from laser.wiring import build_contexts, build_generator, build_policy, build_selector


def read_run(path: Path, *, sections: Sequence[str], trust: bool) -> RunConfig:
    """The configuration of a run.

    Args:
        path: The run directory.
        sections: The sections that will be used.
        trust: Use them even if this user's laser has not signed the run.

    Raises:
        RunDirectoryError: There is no run, or another user started it and the sections do more than compute.
    """
    stored = read_config(path)
    does = powers({name: stored.get(name) for name in sections})
    if does and not trust and not is_ours(stored, read_json(path / "run.json")):
        raise RunDirectoryError(
            f"{path} was not started by your laser here, or its config.json has changed since; using it would: "
            f"{'; '.join(does)}. Read {path / 'config.json'}, and add --trust if you agree"
        )
    return parse_config(dict(stored), source=str(path / "config.json"))


def find_weights(run: Path) -> Path:
    """The folder with a run's trained weights: its adapter, or the newest checkpoint of an unfinished run.

    Raises:
        RunDirectoryError: The run has neither yet.
    """
    adapter = run / "adapter"
    with in_words("read", adapter, "restore it or remove it"):
        check_inside(run, adapter)
    if (adapter / "adapter_model.safetensors").is_file():
        return adapter
    checkpoint = newest_checkpoint(run / "checkpoints", ("policy",))
    if checkpoint is None:
        raise RunDirectoryError(f"{run} has neither an adapter nor a checkpoint yet; train it further")
    return checkpoint


def weights_digest(folder: Path) -> str:
    """Identity of the weights in a folder that `find_weights` gave: 16 hexadecimal digits of their SHA-256."""
    name = "adapter_model.safetensors" if folder.name == "adapter" else "policy.safetensors"
    with in_words("read", folder / name, "restore it"):
        return file_digest(folder / name)[:16]


def build_trained_policy(config: RunConfig, run: Path | None) -> Policy:
    """Load a policy with the weights of a run.

    Args:
        config: The run's configuration.
        run: The run directory; None: the model before training.

    Raises:
        LaserError: The model or the weights cannot be loaded, or do not fit each other.
    """
    policy = build_policy(config)
    if run is not None:
        load_trained(policy, run)
    return policy


def load_trained(policy: Policy, run: Path) -> None:
    """Give a policy the weights of a run.

    Raises:
        LaserError: The weights cannot be loaded, or do not fit the policy.
    """
    folder = find_weights(run)
    if folder.name == "adapter":
        policy.load_adapter(folder)
        return
    try:
        policy.load_state_dict(load_state(folder / "policy"))
    except (ValueError, KeyError) as error:
        raise ModelError(f"the weights in {folder} do not fit policy.model and policy.lora: {error}") from error


def build_streaming_generator(
    config: RunConfig, policy: Policy, on_draw: Callable[[Sequence[int], Sequence[int]], None]
) -> Generator:
    """A generator that, if it samples in this process, reports tokens as they are drawn."""
    section = config.generation
    if section.engine == "transformers":
        return TransformersGenerator(policy, max_batch_tokens=section.max_batch_tokens, on_draw=on_draw)
    return build_generator(section, policy)


def restore_spreads(pool: RewardPool, run: Path) -> None:
    """Give a pool the spreads of its reward models' scores as a run ended.

    Raises:
        RunDirectoryError: The run has no checkpoint, or one of another pool.
    """
    folder = newest_checkpoint(run / "checkpoints", ("pool",))
    if folder is None:
        raise RunDirectoryError(f"{run} has no checkpoint yet, so nothing is known of its scores; train it further")
    try:
        pool.spreads.load_state_dict(load_state(folder / "pool"))
    except (LookupError, TypeError, ValueError) as error:
        raise RunDirectoryError(f"the spreads of scores in {folder} do not fit these reward models: {error}") from error


def build_frozen(config: RunConfig, run: Path, dim: int) -> tuple[ContextPreparer, Selector]:
    """The trained selector of a run, which chooses without learning, and its context preparer.

    Raises:
        LaserError: The run has no checkpoint, or its selector does not fit.
    """
    contexts = build_contexts(config, dim=dim)
    frozen = config
    if config.selector.type != "frozen":
        table = config.model_dump(mode="json")
        selector = {"type": "frozen", "run": str(run.resolve())}
        frozen = parse_config({**table, "selector": selector, "signal": {"type": "none"}}, source=str(run))
    return contexts, build_selector(frozen, contexts)
