"""One vLLM server that samples: which adapter it holds, and whether that is the policy's."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from laser.core.errors import ServerError
from laser.serving.endpoint import MALFORMED, Endpoint, RefusedError, UnreachableError

PREFIX = "laser-"
"""How the names of adapters begin."""

_FAILED = 500  # what vLLM answers if its workers reject an adapter
_LISTING = 30.0  # seconds for the list of models, after which a server counts as hanging


class AdapterServer:
    """A server that holds the base weights and swaps adapters.

    Attributes:
        endpoint: As given; its address names the server.
        is_trusted: Whether its log-probs under the adapter that it holds have been checked.
    """

    def __init__(self, endpoint: Endpoint, model: str) -> None:
        self.endpoint = endpoint
        self.is_trusted = False
        self._model = model
        self._served: str | None = None

    def hold(self, adapter: Path, endpoint: Endpoint, write: Callable[[Path], None]) -> None:
        """Make the server hold an adapter and drop the one that it held for this object before.

        An adapter that the server has lost (after a restart, or because another run unloaded it) is loaded again.

        Args:
            adapter: Folder for its files, which has the adapter's name; made from its content.
            endpoint: `endpoint`, or `Endpoint.once` of it.
            write: Puts the files there, before the server loads them.

        Raises:
            ServerError: The server does not answer, lacks the model, or rejects the adapter.
        """
        name, held = adapter.name, {entry.get("id") for entry in _models(endpoint)}
        if name == self._served and name in held:
            return
        if self._model not in held:
            known = ", ".join(sorted(str(one) for one in held if not str(one).startswith(PREFIX)))
            raise ServerError(
                f"{self.endpoint.url} has no model {self._model!r}; it has {known}; set generation.server.model to it"
            )
        self.is_trusted = False
        if name not in held:
            write(adapter)
            _load(adapter, endpoint)
        if self._served != name and self._served in held:  # others may be of other runs
            _unload(str(self._served), endpoint)
        self._served = name


def _models(endpoint: Endpoint) -> list[dict[str, Any]]:
    try:
        return [dict(entry) for entry in endpoint.get("/v1/models", timeout=_LISTING)["data"]]
    except MALFORMED as error:
        raise ServerError(f"{endpoint.url} lists no models; start a vLLM server there") from error


def _load(adapter: Path, endpoint: Endpoint) -> None:
    try:
        endpoint.post_text("/v1/load_lora_adapter", {"lora_name": adapter.name, "lora_path": str(adapter)})
    except ServerError as error:
        if is_out(error) and not (isinstance(error, RefusedError) and error.status == _FAILED):
            raise
        raise ServerError(
            f"the server rejects the policy's adapter ({error}); start it with `laser serve`, on a machine that can "
            f"read {adapter.parent}"
        ) from error


def _unload(name: str, endpoint: Endpoint) -> None:
    """Unload an adapter that is not used any more; another run may have unloaded it."""
    with contextlib.suppress(ServerError):
        endpoint.post_text("/v1/unload_lora_adapter", {"lora_name": name})


def is_out(error: ServerError) -> bool:
    """Whether an error says that a server is down or busy, and not that something is wrong with it."""
    return isinstance(error, UnreachableError) or (isinstance(error, RefusedError) and error.is_busy)
