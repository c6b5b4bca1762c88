"""Whose run a run directory is: a signature over its configuration, with a key that only its user's laser has.

Resuming a run does what its ``config.json`` says: import Python files, run the code of models that are allowed to bring
some, send prompts and keys to servers. That is right for a run one started and wrong for a folder from somewhere else,
and the two look alike. So the configuration is signed (HMAC-SHA-256) when the run is created, with the fingerprints of
its reward models. The key never leaves the user's state folder.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from laser.core.files import to_json

_KEY_BYTES = 32
_SIGNED = ("reward_models",)  # of the provenance; the rest is for readers


def sign(config: Mapping[str, Any], provenance: Mapping[str, Any]) -> str | None:
    """The signature of a run's configuration and fingerprints; None where no key can be kept."""
    key = _key(create=True)
    return None if key is None else _digest(key, config, provenance)


def is_ours(config: Mapping[str, Any], provenance: Mapping[str, Any]) -> bool:
    """Whether this user's laser signed the run, on this machine or one with the same state folder."""
    key, given = _key(create=False), provenance.get("signature")
    return key is not None and isinstance(given, str) and hmac.compare_digest(given, _digest(key, config, provenance))


def powers(config: Mapping[str, Any]) -> list[str]:
    """What a configuration makes laser do beyond computing: clauses for the user who decides whether to trust it."""
    return list(dict.fromkeys(_powers(config)))


def _powers(value: Any) -> Iterator[str]:
    if isinstance(value, list | tuple):
        for item in value:
            yield from _powers(item)
    if not isinstance(value, Mapping):
        return
    for key in ("function", "factory"):
        if value.get(key):
            yield f"run {value[key]}"
    if value.get("trust_remote_code") is True:
        yield f"run code that {value.get('model')} brings"
    for address in filter(None, (value.get("url"), *(value.get("urls") or ()))):
        variable = value.get("api_key_env")
        yield f"send the key in {variable} to {address}" if variable else f"talk to {address}"
    if value.get("to") and "project" in value:
        yield f"report to {', '.join(value['to'])}"
    for key, item in value.items():
        if key != "server" or value.get("engine") == "vllm":
            yield from _powers(item)


def _digest(key: bytes, config: Mapping[str, Any], provenance: Mapping[str, Any]) -> str:
    signed = [config, {name: provenance.get(name) for name in _SIGNED}]
    return hmac.new(key, json.dumps(to_json(signed), sort_keys=True).encode(), hashlib.sha256).hexdigest()


def _key(*, create: bool) -> bytes | None:
    """The user's key, made when first needed; None where there is none and none can be written."""
    path = _state_folder() / "signing-key"
    try:
        if create and not path.exists():
            _write_key(path)
        key = path.read_bytes()
    except (OSError, RuntimeError):  # no home, or one that cannot be written
        return None
    return key if len(key) == _KEY_BYTES else None


def _write_key(path: Path) -> None:
    """Write a fresh key for this user's eyes; if two processes do so at once, one key wins for both."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(_KEY_BYTES))
        os.link(temporary, path)
    except FileExistsError:
        pass
    finally:
        temporary.unlink()


def _state_folder() -> Path:
    home = os.environ.get("XDG_STATE_HOME")
    return (Path(home) if home else Path.home() / ".local" / "state") / "laser"
