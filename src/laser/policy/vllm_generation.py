"""Sample through a vLLM server, which returns token ids and log-probs and swaps the policy's adapter while it runs."""

from __future__ import annotations

import math
import reprlib
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from laser.core.errors import LaserError, ServerError
from laser.core.types import Prompt, Response
from laser.lm.chat import end_of_turn
from laser.lm.packing import TokenIds
from laser.policy.policy import Policy
from laser.serving.endpoint import MALFORMED, Endpoint

_CHECKED = 8  # responses whose log-probs are compared after a swap
_PREFIX = "laser-"
_HIGHEST_LOGP = 1e-3  # nats; rounding may bring a log-prob above 0


class VllmGenerator:
    """Samples on a server that holds the base weights; the adapter follows the policy.

    The name of a served adapter is made from its content, so a request never reaches another adapter, or prefixes
    cached for one. An adapter that the server has lost (after a restart, or because another run unloaded it) is loaded
    again. After each swap the server's log-probs of a few responses are compared with the policy's.

    Args:
        policy: The policy; its trained adapter is what is served.
        endpoint: A vLLM server with LoRA and runtime adapter updates, such as `laser serve` starts.
        model: Name under which the server has the base weights.
        adapter_folder: Folder for adapters, which the server must see under the same path. None: a temporary folder,
            made by the first swap and removed with this object.
        tolerance: Mean difference per token, in nats, above which the server counts as serving other weights.
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
        self._model = model
        self._given_folder = adapter_folder
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._tolerance = tolerance
        self._on_tokens = on_tokens or (lambda count: None)
        self._served: str | None = None
        self._trusted = False
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
            ServerError: The server is down, refuses, rejects the adapter, or serves other weights.
        """
        name = self._swap()
        ids = self._policy.encode(prompts)
        payloads = [
            {
                "model": name,
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
        replies = self._endpoint.post_all("/v1/completions", payloads)
        responses = [self._responses(reply, num_responses) for reply in replies]
        self._on_tokens(sum(len(response.token_ids) for row in responses for response in row))
        if not self._trusted:
            self._compare(ids, responses)
            self._trusted = True
        return responses

    @property
    def _folder(self) -> Path:
        """Folder for adapters; made when the first adapter is swapped in."""
        if self._given_folder is not None:
            return self._given_folder
        if self._temporary is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="laser-adapters-", ignore_cleanup_errors=True)
        return Path(self._temporary.name)

    def _swap(self) -> str:
        """Make the server hold the policy's current adapter; returns its name."""
        name = _PREFIX + self._policy.adapter_digest()
        held = {entry.get("id") for entry in self._models()}
        if name == self._served and name in held:
            return name
        folder = (self._folder / name).absolute()
        if not folder.is_dir():
            temporary = folder.with_name(f".{name}")
            self._policy.save_adapter(temporary)
            temporary.rename(folder)
        if self._model not in held:
            known = ", ".join(sorted(str(one) for one in held if not str(one).startswith(_PREFIX)))
            raise ServerError(
                f"{self._endpoint.url} has no model {self._model!r}; it has {known}; set generation.server.model to it"
            )
        if name not in held:
            self._load(name, folder)
        if self._served not in (None, name):  # others may be of other runs
            self._unload(str(self._served))
        self._served, self._trusted = name, False
        return name

    def _models(self) -> list[dict[str, Any]]:
        try:
            return [dict(entry) for entry in self._endpoint.get("/v1/models")["data"]]
        except MALFORMED as error:
            raise ServerError(f"{self._endpoint.url} lists no models; start a vLLM server there") from error

    def _load(self, name: str, folder: Path) -> None:
        try:
            self._endpoint.post_text("/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(folder)})
        except ServerError as error:
            raise ServerError(
                f"the server rejects the policy's adapter ({error}); start it with `laser serve`, on a machine that "
                f"can read {self._folder}"
            ) from error

    def _unload(self, name: str) -> None:
        """Unload an adapter that is not used any more; the server may have lost it already."""
        try:
            self._endpoint.post_text("/v1/unload_lora_adapter", {"lora_name": name})
        except LaserError:
            return
        shutil.rmtree(self._folder / name, ignore_errors=True)

    def _responses(self, reply: Any, num_responses: int) -> list[Response]:
        try:
            choices = sorted(reply["choices"], key=lambda choice: choice["index"])
            rows = [
                (
                    tuple(map(self._token, choice["token_ids"])),
                    tuple(map(self._logp, choice["logprobs"]["token_logprobs"])),
                    choice["finish_reason"] == "stop",
                )
                for choice in choices
            ]
        except MALFORMED as error:
            raise ServerError(f"{self._endpoint.url} gave no token ids or log-probs; use vLLM 0.11 or newer") from error
        if len(rows) != num_responses or any(len(ids) != len(logps) for ids, logps, _ in rows):
            raise ServerError(
                f"{self._endpoint.url} gave {len(rows)} responses of {num_responses}, or malformed ones; restart it"
            )
        texts = self._policy.tokenizer.batch_decode([list(ids) for ids, _, _ in rows], skip_special_tokens=True)
        return [Response(ids, text, logps, finished) for (ids, logps, finished), text in zip(rows, texts, strict=True)]

    def _token(self, value: Any) -> int:
        """A token id of the policy; raises ValueError for anything else."""
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < self._policy.num_tokens:
            raise ValueError(f"{value!r} is not a token of the policy")
        return value

    def _logp(self, value: Any) -> float:
        """A log-prob; raises ServerError for anything else."""
        if isinstance(value, bool) or not isinstance(value, int | float) or not -math.inf < value <= _HIGHEST_LOGP:
            raise ServerError(
                f"{self._endpoint.url} gave {reprlib.repr(value)} as the log-prob of a token, which must be finite and "
                "at most 0; restart the server, and use vLLM 0.11 or newer"
            )
        return float(value)

    def _compare(self, prompt_ids: Sequence[TokenIds], responses: Sequence[Sequence[Response]]) -> None:
        """Check that the server samples from the policy; a stale adapter has other log-probs."""
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
                f"{self._endpoint.url} samples from other weights than the policy's: log-probs differ by "
                f"{gap:.3f} nats per token, more than generation.server.logp_tolerance = {self._tolerance:g}; "
                "restart the server, or check that it has the same base model"
            )
