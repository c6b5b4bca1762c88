"""Whether a state belongs to a router."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from laser.config import RouterConfig, RunConfig, load_router_config, parse_router_config
from laser.core.errors import ConfigError, RunDirectoryError
from laser.core.files import in_words, replacing_folder
from laser.core.state import load_state, save_state
from laser.core.types import StateDict
from laser.wiring.rewards import changed_names, reward_fingerprints

VERSION = 1
_STATE = "router"  # stem of the files of a state
_SECTIONS = ("seed", "context", "selector", "signal")


def identity_of(config: RouterConfig) -> dict[str, Any]:
    """What a state depends on: the reward models, and the sections of the configuration that choose and learn."""
    table = config.model_dump(mode="json")
    return {
        "names": [model.name for model in config.rewards.models],
        "reward_models": reward_fingerprints(config),
        **{name: table[name] for name in _SECTIONS},
    }


def read_state(folder: str | Path) -> StateDict:
    """The state that `Router.save` wrote into a folder; raises RunDirectoryError if it is missing or damaged."""
    return load_state(Path(folder) / _STATE)


def write_state(folder: str | Path, state: StateDict) -> None:
    """Write a state into a folder, whole or not at all; raises RunDirectoryError if that is not possible."""
    folder = Path(folder).absolute()
    with in_words("write the router's state to", folder, "free space or fix the permissions"):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with replacing_folder(folder) as temporary:
            save_state(temporary / _STATE, state)


def state_digest(state: StateDict) -> str:
    """SHA-256 of a state, the same before it is saved and after it is loaded; 64 hexadecimal digits."""
    arrays = {name: value for name, value in state.items() if isinstance(value, np.ndarray)}
    values = {name: value for name, value in state.items() if name not in arrays}
    digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode())
    for name, value in sorted(arrays.items()):
        digest.update(f"{name} {value.dtype} {value.shape}".encode() + np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()


def check_state(state: StateDict, here: Mapping[str, Any], *, changed_rewards: bool) -> None:
    """Make sure that a state is of a router with this identity.

    Args:
        state: What `Router.state_dict` returned.
        here: The identity of the router that is to continue.
        changed_rewards: Accept reward models with other weights or code.

    Raises:
        RunDirectoryError: It is of another version, pool or configuration.
    """
    if state.get("version") != VERSION or not isinstance(state.get("identity"), Mapping):
        raise RunDirectoryError(
            f"the state of the router has version {state.get('version')!r} and this laser reads version {VERSION}; use "
            "the laser that wrote it, or start without it"
        )
    then = state["identity"]
    if then["names"] != here["names"]:
        raise RunDirectoryError(
            f"the state is of the reward models {', '.join(then['names'])}, and here they are "
            f"{', '.join(here['names'])}; use that pool, or start without the state"
        )
    changed = changed_names(then["reward_models"], here["reward_models"])
    if changed and not changed_rewards:
        raise RunDirectoryError(
            f"reward model {changed[0]!r} has other weights or code than when the state was saved, so what was learned "
            "may mean something else; restore it, or load the state with changed_rewards=True"
        )
    for name in _SECTIONS:
        if then[name] != here[name]:
            raise RunDirectoryError(
                f"the state was saved with {name} = {then[name]}, and here it is {here[name]}; restore that, or start "
                "without the state"
            )


def resolved(config: RouterConfig | RunConfig | Mapping[str, Any] | str | Path) -> RouterConfig:
    """The configuration of a router, however it is given; raises ConfigError."""
    match config:
        case RouterConfig():
            return config
        case RunConfig():
            return parse_router_config(config.model_dump(mode="json"))
        case str() | Path():
            return load_router_config(config)
        case Mapping():
            return parse_router_config(dict(config))
    raise ConfigError(
        f"config is of type {type(config).__name__}; give a RouterConfig, the path of a TOML file, or a dict"
    )
