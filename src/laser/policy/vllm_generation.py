"""Sample through vLLM servers, which return token ids and log-probs and swap the policy's adapter while they run."""

from __future__ import annotations

import math
import reprlib
import shutil
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from laser.core.errors import ServerError
from laser.core.types import Prompt, Response
from laser.lm.chat import end_of_turn
from laser.lm.packing import TokenIds
from laser.policy.policy import Policy
from laser.policy.vllm_server import PREFIX, AdapterServer, is_out
from laser.serving.endpoint import MALFORMED, Endpoint, none_answers

_CHECKED = 8  # responses whose log-probs are compared after a swap
_CHECKED_TOKENS = 16  # tokens of each, where the check comes before the batch
_HIGHEST_LOGP = 1e-3  # nats; rounding may bring a log-prob above 0
_COMPLETIONS = "/v1/completions"


class VllmGenerator:
    """Samples on servers that hold the base weights; the adapter follows the policy.

    The name of a served adapter is made from its content, so a request never reaches another adapter, or prefixes
    cached for one. After each swap the log-probs of a few responses are compared with the policy's: of a single
    server's first batch; of each of several servers before the batch, because not all of them need have taken the
    adapter. Servers that do not answer are left out of the batch, and get the adapter when they are back.

    Args:
        policy: The policy; its trained adapter is what is served.
        endpoint: vLLM servers with LoRA and runtime adapter updates, such as `laser serve` starts.
        model: Name under which the servers have the base weights.
        adapter_folder: Folder for adapters, which the servers must see under the same path. None: a temporary folder,
            made by the first swap and removed with this object.
        tolerance: Mean difference per token, in nats, above which a server counts as serving other weights.
        on_tokens: Called with the number of tokens after every call of `generate`.
    """

    def __init__(
        self,
        policy: Policy,
        endpoint: Endpoint,
        *,
        model: str,
        adapter_folder: Path | None,
        tolerance: float = 0.1,
        on_tokens: Callable[[int], None] | None = None,
    ) -> None:
        self._policy = policy
        self._endpoint = endpoint
        self._servers = [AdapterServer(server, model) for server in endpoint.each()]
        self._given_folder = adapter_folder
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._tolerance = tolerance
        self._on_tokens = on_tokens or (lambda count: None)
        self._writing = threading.Lock()
        self._held: Path | None = None
        end = end_of_turn(policy.tokenizer)
        self._stop: dict[str, Any] = {} if end is None else {"stop_token_ids": [end]}

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        num_responses: int,
        temperature: float,
        top_p: float,
        max_new_tokens: int,
        seeds: Sequence[int],
    ) -> list[list[Response]]:
        """Sample responses; see `Generator.generate`.

        The server's kernels round differently in other batches, so the same seeds can give other responses.

        Raises:
            ServerError: No server answers, or one refuses, rejects the adapter, or serves other weights.
        """
        adapter = self._adapter()
        ids = self._policy.encode(prompts)
        payloads = [
            {
                "model": adapter.name,
                "prompt": list(row),
                "n": num_responses,
                "temperature": temperature,
                "top_p": top_p,
                "top_k": 0,
                "min_p": 0.0,
                "repetition_penalty": 1.0,
                "max_tokens": max_new_tokens,
                "seed": seed % 2**31,
                "logprobs": 0,
                "return_token_ids": True,
                **self._stop,
            }
            for row, seed in zip(ids, seeds, strict=True)
        ]
        ready = self._swap(adapter, ids, payloads)
        endpoint = self._endpoint.among([server.endpoint for server in ready])
        replies = endpoint.post_all(_COMPLETIONS, payloads)
        responses = [self._responses(reply, num_responses, endpoint) for reply in replies]
        self._on_tokens(sum(len(response.token_ids) for row in responses for response in row))
        for server in ready:
            if not server.is_trusted:  # a single one
                self._compare(server, ids, responses)
        return responses

    @property
    def _folder(self) -> Path:
        """Folder for adapters; made when the first adapter is swapped in."""
        if self._given_folder is not None:
            return self._given_folder
        if self._temporary is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="laser-adapters-", ignore_cleanup_errors=True)
        return Path(self._temporary.name)

    def _adapter(self) -> Path:
        """The folder for the policy's current adapter, whose name is the adapter's."""
        return (self._folder / f"{PREFIX}{self._policy.adapter_digest()}").absolute()

    def _write(self, adapter: Path) -> None:
        """Write the policy's current adapter, if no server needed it before."""
        with self._writing:
            if not adapter.is_dir():
                temporary = adapter.with_name(f".{adapter.name}")
                self._policy.save_adapter(temporary)
                temporary.rename(adapter)

    def _swap(
        self, adapter: Path, ids: Sequence[TokenIds] = (), payloads: Sequence[Mapping[str, Any]] = ()
    ) -> list[AdapterServer]:
        """The servers that answer, after all of them have taken the adapter; each of several has been checked."""
        checks = [
            {**payload, "n": 1, "max_tokens": min(_CHECKED_TOKENS, payload["max_tokens"])}
            for payload in payloads[: _CHECKED if len(self._servers) > 1 else 0]
        ]
        usable = [server for server in self._servers if server.endpoint.is_in]
        given = self._prepared(usable, adapter, checks, retry=False)
        if all(isinstance(replies, ServerError) for replies in given.values()):
            given = self._prepared(self._servers, adapter, checks, retry=True)
        ready = {server: replies for server, replies in given.items() if not isinstance(replies, ServerError)}
        if not ready:
            raise none_answers([error for error in given.values() if isinstance(error, ServerError)])
        for server, replies in ready.items():
            if replies:
                self._compare(server, ids, [self._responses(reply, 1, server.endpoint) for reply in replies])
        if self._held is not None and self._held != adapter:
            shutil.rmtree(self._held, ignore_errors=True)
        self._held = adapter
        return list(ready)

    def _prepared(
        self, servers: Sequence[AdapterServer], adapter: Path, checks: Sequence[Mapping[str, Any]], *, retry: bool
    ) -> dict[AdapterServer, list[Any] | ServerError]:
        """For each server its replies to the checks, or why it is left out; other errors are raised."""

        def prepare(server: AdapterServer) -> list[Any] | ServerError:
            endpoint = server.endpoint if retry else server.endpoint.once()
            try:
                server.hold(adapter, endpoint, self._write)
                return [] if server.is_trusted or not checks else endpoint.post_all(_COMPLETIONS, checks)
            except ServerError as error:
                if is_out(error):
                    return error
                raise

        with ThreadPoolExecutor(max(1, len(servers))) as executor:
            return dict(zip(servers, executor.map(prepare, servers), strict=True))

    def _responses(self, reply: Any, num_responses: int, endpoint: Endpoint) -> list[Response]:
        try:
            choices = sorted(reply["choices"], key=lambda choice: choice["index"])
            rows = [
                (
                    tuple(map(self._token, choice["token_ids"])),
                    tuple(_logp(value, endpoint) for value in choice["logprobs"]["token_logprobs"]),
                    choice["finish_reason"] == "stop",
                )
                for choice in choices
            ]
        except MALFORMED as error:
            raise ServerError(f"{endpoint.where()} gave no token ids or log-probs; use vLLM 0.11 or newer") from error
        if len(rows) != num_responses or any(len(ids) != len(logps) for ids, logps, _ in rows):
            raise ServerError(
                f"{endpoint.where()} gave {len(rows)} responses of {num_responses}, or malformed ones; restart it"
            )
        texts = self._policy.tokenizer.batch_decode([list(ids) for ids, _, _ in rows], skip_special_tokens=True)
        return [Response(ids, text, logps, finished) for (ids, logps, finished), text in zip(rows, texts, strict=True)]

    def _token(self, value: Any) -> int:
        """A token id of the policy; raises ValueError for anything else."""
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < self._policy.num_tokens:
            raise ValueError(f"{value!r} is not a token of the policy")
        return value

    def _compare(
        self, server: AdapterServer, prompt_ids: Sequence[TokenIds], responses: Sequence[Sequence[Response]]
    ) -> None:
        """Check that a server samples from the policy; a stale adapter has other log-probs."""
        some = [
            (row, response) for row, of_prompt in enumerate(responses) for response in of_prompt if response.token_ids
        ]
        some = some[:: max(1, len(some) // _CHECKED)][:_CHECKED]
        if not some:
            return
        own = torch.cat(
            self._policy.logps(
                [prompt_ids[row] for row, _ in some], [[response.token_ids] for _, response in some], which="policy"
            )
        ).tolist()
        gaps = [
            abs(value - sum(response.sampling_logps)) / len(response.token_ids)
            for value, (_, response) in zip(own, some, strict=True)
        ]
        gap = sum(gaps) / len(gaps)
        if not gap <= self._tolerance:
            raise ServerError(
                f"{server.endpoint.url} samples from other weights than the policy's: log-probs differ by "
                f"{gap:.3f} nats per token, more than generation.server.logp_tolerance = {self._tolerance:g}; "
                "restart the server, or check that it has the same base model"
            )
        server.is_trusted = True


def _logp(value: Any, endpoint: Endpoint) -> float:
    """A log-prob; raises ServerError for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not -math.inf < value <= _HIGHEST_LOGP:
        raise ServerError(
            f"{endpoint.where()} gave {reprlib.repr(value)} as the log-prob of a token, which must be finite and at "
            "most 0; restart the server, and use vLLM 0.11 or newer"
        )
    return float(value)
