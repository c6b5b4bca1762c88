"""Requests to the reward server: retried with the same names, so that a sample that was scored counts once."""

from __future__ import annotations

import http.client
import json
import os
import random
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

URL_VARIABLE = "LASER_REWARDS_URL"
TOKEN_VARIABLE = "LASER_REWARDS_TOKEN"  # noqa: S105  # the name of the variable

_DEFAULT_URL = "http://127.0.0.1:8100"
_RETRIED = (429, 500, 502, 503, 504)
_FIRST_WAIT, _LONGEST_WAIT = 0.25, 15.0  # seconds between tries
_LONGEST_REPLY = 2**30  # bytes


class RewardServerError(Exception):
    """The reward server cannot be reached, or refuses a request; the message says what to do."""


@dataclass(frozen=True)
class Scored:
    """The answer for one response.

    Attributes:
        score: Its score; None where the reward model has no opinion.
        filled: The score, or where there is none the mean of the prompt's scores so far, or 0.
        reward_model: Name of the reward model.
        probability: The probability with which it was chosen.
    """

    score: float | None
    filled: float
    reward_model: str
    probability: float


class Client:
    """A reward server; all methods may be called from several threads.

    Args:
        url: Its address; None: from the variable LASER_REWARDS_URL.
        token: Its token; None: from the variable LASER_REWARDS_TOKEN, if it is set.
        timeout: Seconds that one try may take.
        retry_seconds: Seconds for which a request is tried again, so that the server can be restarted meanwhile.

    Raises:
        RewardServerError: The address is invalid.
    """

    def __init__(
        self, url: str | None = None, token: str | None = None, *, timeout: float = 600.0, retry_seconds: float = 600.0
    ) -> None:
        self.url = (url or os.environ.get(URL_VARIABLE) or _DEFAULT_URL).rstrip("/")
        token = token or os.environ.get(TOKEN_VARIABLE)
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise RewardServerError(f"{self.url!r} is not an address; set {URL_VARIABLE} to http://HOST:PORT")
        self._parts = parts
        self._timeout = timeout
        self._retry_seconds = retry_seconds
        self._headers = {"Authorization": f"Bearer {token.strip()}"} if token else {}
        self._connections = threading.local()

    def score(
        self,
        prompts: Sequence[Any],
        responses: Sequence[str],
        *,
        labels: Sequence[Any] | None = None,
        categories: Sequence[str] | None = None,
        columns: Sequence[Mapping[str, Any]] | None = None,
        groups: Sequence[str] | None = None,
        ids: Sequence[str] | None = None,
        step: int | None = None,
        learn: str = "auto",
    ) -> list[Scored]:
        """Scores of responses, in their order.

        Args:
            prompts: The prompt of each response: text, or a list of messages.
            responses: Texts.
            labels: Gold answers, None where there is none.
            categories: Categories of the prompts.
            columns: Further fields for reward functions.
            groups: The trainer's names for the samples of a prompt.
            ids: The trainer's names for the samples; by default new ones.
            step: The trainer's step.
            learn: "auto"; "later": once `learn` names the group; "never": an evaluation.

        Raises:
            RewardServerError: The server cannot be reached, or refuses.
        """
        if not responses:
            return []
        body: dict[str, Any] = {
            "prompts": list(prompts),
            "responses": list(responses),
            "ids": list(ids) if ids is not None else new_ids(len(responses)),
            "learn": learn,
        }
        optional = {"labels": labels, "categories": categories, "columns": columns, "groups": groups}
        body |= {name: list(values) for name, values in optional.items() if values is not None}
        if step is not None:
            body["step"] = int(step)
        reply = self.post("/score", body)
        fields = [reply[name] for name in ("scores", "filled", "arms", "probabilities")]
        scored = [Scored(*values) for values in zip(*fields, strict=True)]
        if len(scored) != len(responses):
            raise RewardServerError(f"{self.url} gave {len(scored)} scores for {len(responses)} responses")
        return scored

    def learn(self, *, step: int | None = None, groups: Sequence[str] | None = None) -> dict[str, float]:
        """Learn from groups that were sent with learn="later"; returns the server's metrics."""
        body: dict[str, Any] = {}
        if step is not None:
            body["step"] = int(step)
        if groups is not None:
            body["groups"] = list(groups)
        metrics: dict[str, float] = self.post("/learn", body)["metrics"]
        return metrics

    def feedback(self, value: float, *, prompt: Any = None, step: int | None = None) -> None:
        """Give the open groups of a prompt, of a step or of both a bandit reward in [0, 1]."""
        given = {"prompt": prompt, "step": step}
        self.post("/feedback", {"value": value, **{name: one for name, one in given.items() if one is not None}})

    def read_state(self) -> bytes:
        """Everything that the server has learned, for a checkpoint."""
        return self._request("GET", "/state", None)

    def write_state(self, state: bytes) -> None:
        """Let the server continue from a state that `read_state` gave."""
        self._request("PUT", "/state", state, kind="application/octet-stream")

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """The server's answer to a JSON object.

        Raises:
            RewardServerError: The server cannot be reached, refuses, or answers something else than JSON.
        """
        reply = self._request("POST", path, json.dumps(body, allow_nan=False).encode())
        try:
            return json.loads(reply)
        except ValueError as error:
            raise RewardServerError(f"{self.url} is not a reward server of laser: it does not answer JSON") from error

    def _request(self, method: str, path: str, body: bytes | None, kind: str = "application/json") -> bytes:
        headers = {**self._headers, **({"Content-Type": kind} if body is not None else {})}
        end, wait = time.monotonic() + self._retry_seconds, _FIRST_WAIT
        while True:
            try:
                status, content = self._send(method, path, body, headers)
            except (OSError, http.client.HTTPException) as error:
                self._disconnect()
                reason, status = f"cannot be reached ({error!r})", 0
            else:
                if status == 200:
                    return content
                reason = f"refused with status {status}: {_complaint(content)}"
            if status not in (0, *_RETRIED) or time.monotonic() + wait > end:
                raise RewardServerError(f"{self.url} {reason}")
            time.sleep(wait * random.uniform(0.5, 1.0))  # noqa: S311  # spreads retries
            wait = min(2 * wait, _LONGEST_WAIT)

    def _send(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> tuple[int, bytes]:
        connection = getattr(self._connections, "connection", None)
        if connection is None:
            kind = http.client.HTTPSConnection if self._parts.scheme == "https" else http.client.HTTPConnection
            connection = kind(self._parts.hostname or "", self._parts.port, timeout=self._timeout)
            self._connections.connection = connection
        connection.request(method, self._parts.path + path, body, dict(headers))
        reply = connection.getresponse()
        content = reply.read(_LONGEST_REPLY)
        if reply.will_close:
            self._disconnect()
        return reply.status, content

    def _disconnect(self) -> None:
        connection = getattr(self._connections, "connection", None)
        if connection is not None:
            connection.close()
            self._connections.connection = None


def new_ids(count: int) -> list[str]:
    """Names that no other sample has."""
    return [uuid.uuid4().hex for _ in range(count)]


def _complaint(content: bytes) -> str:
    try:
        return str(json.loads(content)["error"])[:500]
    except (ValueError, TypeError, KeyError):
        return repr(content[:200])
