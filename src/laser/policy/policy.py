"""The policy: one set of base weights, an adapter that is trained, and a frozen reference adapter."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model, set_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from laser.core.errors import DataError, ModelError, TrainingError, first_line
from laser.core.files import check_regular
from laser.core.seeding import stream_seed
from laser.core.types import FloatArray, Prompt, StateDict
from laser.lm.chat import encode_prompt, surely_fits
from laser.lm.footprint import footprint_of, room_on
from laser.lm.limits import window_of
from laser.lm.logps import choose_layout, packed_logps, response_logps
from laser.lm.packing import TokenIds, by_length, pad_right
from laser.parallel.memory import Budget

Which = Literal["policy", "reference", "base"]

_ADAPTERS = {"policy": "default", "reference": "reference"}
_OUT_OF_MEMORY = TrainingError(
    "the device is out of memory with one text in a forward pass of the policy; lower policy.max_context or "
    "generation.max_new_tokens, or keep fewer reward models on the device (rewards.max_resident), and resume"
)


class Policy:
    """A causal LM with a LoRA adapter that is trained and a copy of it that is not.

    The reference pi_{m-1} is a second adapter over the same base weights (arXiv 2410.01735, Sec. 3.1), the initial
    policy is the base model with adapters off. So no weights are held twice.

    Args:
        model: A frozen causal LM; adapters are injected into it.
        tokenizer: Its tokenizer, with a chat template.
        lora_rank: Rank of the adapters.
        lora_alpha: Scale, applied as alpha / rank.
        lora_dropout: Dropout inside the trained adapter.
        target_modules: "all-linear", a regular expression, or names of modules.
        max_context: Token limit of prompt and response; None: the model's.
        system_prompt: System message for conversations that have none.
        gradient_checkpointing: Recompute activations in the backward pass.
        max_batch_tokens: Budget of a forward pass. If memory runs out in a pass without gradient, the budget of such
            passes is halved for good.
        seed: Seeds the adapter's initial weights and its dropout.

    Attributes:
        sampling_tokens: Budget of a chunk of sampling that suits the device (`laser.lm.footprint`).
        training_tokens: Budget of a micro-batch that suits the device.

    Raises:
        ModelError: `target_modules` names no layer of the model, or one whose adapter would not be trained.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        lora_rank: int = 16,
        lora_alpha: float = 32.0,
        lora_dropout: float = 0.0,
        target_modules: str | Sequence[str] = "all-linear",
        max_context: int | None = None,
        system_prompt: str | None = None,
        gradient_checkpointing: bool = False,
        max_batch_tokens: int = 8192,
        seed: int = 0,
    ) -> None:
        self.tokenizer = tokenizer
        self._max_batch_tokens = max_batch_tokens
        self._budget = Budget(max_batch_tokens, _OUT_OF_MEMORY)
        self._system_prompt = system_prompt
        self._rendered: dict[int, tuple[Prompt, list[int]]] = {}  # by identity, which holds while the prompt is here
        _silence(model)
        self._seed, self._has_dropout = seed, lora_dropout > 0
        self._layout = choose_layout(model)
        token, room = footprint_of(model, checkpointing=gradient_checkpointing), room_on(model.device)
        self.sampling_tokens, self.training_tokens = token.sampling_tokens(room), token.training_tokens(room)
        lora = LoraConfig(
            r=lora_rank,
            lora_alpha=lora_alpha,
            lora_dropout=lora_dropout,
            target_modules=target_modules if isinstance(target_modules, str) else list(target_modules),
            task_type="CAUSAL_LM",
        )
        self._peft = _inject(model, lora, stream_seed(seed, "policy"))
        self.model = model
        self.context_length = max_context or window_of(model.config)
        if gradient_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
            model.enable_input_require_grads()
        self.update_reference()
        compute_in_base_precision(model)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.device

    @property
    def context_dim(self) -> int:
        """D, the width of the hidden states that `embed` returns."""
        return int(self.model.config.get_text_config().hidden_size)

    @property
    def num_tokens(self) -> int:
        """Number of tokens that have an embedding."""
        weight = self.model.get_input_embeddings().weight
        assert isinstance(weight, Tensor)
        return len(weight)

    def encode(self, prompts: Sequence[Prompt]) -> list[list[int]]:
        """Render prompts with the chat template, the assistant's turn opened; B sequences of token ids.

        The prompts of the last call are remembered: a batch is embedded, sampled and trained on, and rendered once.
        """
        found = [self._rendered.get(id(prompt)) or (prompt, self._render(prompt)) for prompt in prompts]
        self._rendered = {id(prompt): (prompt, ids) for prompt, ids in found}
        return [list(ids) for _, ids in found]

    def check_fits(self, prompts: Sequence[Prompt], max_new_tokens: int) -> None:
        """Check that every prompt leaves room for a response.

        Raises:
            DataError: One does not.
        """
        room = self.context_length - max_new_tokens
        for prompt in prompts:  # one at a time: there may be too many for memory
            if surely_fits(
                self.tokenizer, prompt.messages, room, system_prompt=self._system_prompt, tools=prompt.tools
            ):
                continue
            length = len(self._render(prompt))
            if length > room:
                raise DataError(
                    f"prompt {prompt.id!r} has {length} tokens and leaves no room for {max_new_tokens} new ones "
                    f"in a context of {self.context_length}; shorten or drop it, or lower generation.max_new_tokens"
                )

    @torch.no_grad()
    def embed(self, prompts: Sequence[Prompt]) -> FloatArray:
        """Bandit contexts e_m(x): last-layer hidden state of each prompt's last token under the current policy.

        Source: arXiv 2410.01735, Sec. 3.2 and A.1. The last token is that of the rendered chat prompt, which ends
        where the answer begins.

        Returns:
            Shape (B, D), float64.

        Raises:
            TrainingError: Memory does not suffice for the longest prompt alone.
        """
        ids = self.encode(prompts)
        lengths = [len(row) for row in ids]
        contexts = np.empty((len(ids), self.context_dim))

        def read(tokens: int) -> None:
            for rows in by_length(lengths, tokens):
                hidden = self._last_hidden([ids[row] for row in rows])
                contexts[rows] = hidden.double().cpu().numpy()

        with self._active("policy"):
            self._budget.spend(read, least=max(lengths, default=0))
        return contexts

    def logps(
        self, prompt_ids: Sequence[TokenIds], response_ids: Sequence[Sequence[TokenIds]], *, which: Which
    ) -> list[Tensor]:
        """Log-prob of each response, summed over its tokens, without gradient.

        Args:
            prompt_ids: B rendered prompts.
            response_ids: For each prompt, its responses.
            which: The policy, its reference, or the base model without adapters.

        Returns:
            For each prompt a float32 tensor, one value per response, in nats.

        Raises:
            TrainingError: Memory does not suffice for the longest response alone.
        """
        with self._active(which):
            return response_logps(self.model, prompt_ids, response_ids, layout=self._layout, budget=self._budget)

    def trainable_logps(
        self, prompt_ids: Sequence[TokenIds], response_ids: Sequence[Sequence[TokenIds]], *, moment: Sequence[int] = ()
    ) -> Tensor:
        """Log-probs under the policy with gradient.

        Args:
            prompt_ids: B rendered prompts.
            response_ids: For each prompt, its responses.
            moment: Non-negative integers that address the pass; with the seed, they decide what dropout drops.

        Returns:
            One value per response, numbered flat, float32, in nats.
        """
        self.model.train()
        try:
            with self._dropout_of(moment):
                return packed_logps(
                    self.model, prompt_ids, response_ids, layout=self._layout, max_batch_tokens=self._max_batch_tokens
                )
        finally:
            self.model.eval()

    def update_reference(self) -> None:
        """Make the current policy the reference: pi_{m-1} <- pi_m."""
        with torch.no_grad():
            policy, reference = self._adapter("policy"), self._adapter("reference")
            for name, parameter in reference.items():
                parameter.copy_(policy[name])

    def trainable_parameters(self) -> list[nn.Parameter]:
        """Parameters of the policy's adapter, in a fixed order."""
        return list(self._adapter("policy").values())

    def state_dict(self) -> StateDict:
        """Copies of both adapters, as float32 arrays."""
        return {
            f"{which}.{name}": parameter.detach().float().cpu().numpy().copy()
            for which in _ADAPTERS
            for name, parameter in self._adapter(which).items()
        }

    def load_state_dict(self, state: StateDict) -> None:
        """Restore `state_dict`; raises ValueError if it belongs to other adapters."""
        for which in _ADAPTERS:
            for name, parameter in self._adapter(which).items():
                value = state.get(f"{which}.{name}")
                if value is None or tuple(value.shape) != tuple(parameter.shape):
                    raise ValueError(f"adapter weight {name} is missing or has another shape")
                with torch.no_grad():
                    parameter.copy_(torch.as_tensor(value))

    def adapter_digest(self) -> str:
        """Identity of the trained adapter's weights: 16 hexadecimal digits of their SHA-256."""
        digest = hashlib.sha256()
        for name, parameter in self._adapter("policy").items():
            digest.update(name.encode())
            digest.update(parameter.detach().float().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    def save_adapter(self, path: Path) -> None:
        """Write the trained adapter as a standard PEFT folder, tokenizer included."""
        self._peft.save_pretrained(path, selected_adapters=["default"], save_embedding_layers=False)
        self.tokenizer.save_pretrained(path)

    def load_adapter(self, path: Path) -> None:
        """Load an adapter that `save_adapter` wrote.

        Raises:
            ModelError: There is none, or it belongs to another model or rank.
        """
        try:
            check_regular(path / "adapter_model.safetensors")
            state = load_file(path / "adapter_model.safetensors")
            result = set_peft_model_state_dict(self._peft, state, adapter_name="default")
        except (OSError, SafetensorError, RuntimeError) as error:
            raise ModelError(
                f"the adapter in {path} does not fit this policy or is damaged ({first_line(error)})"
            ) from error
        if result.unexpected_keys or len(state) != len(self._adapter("policy")):
            raise ModelError(
                f"the adapter in {path} belongs to another model or other target_modules; set policy.model and "
                "policy.lora as in its run"
            )

    def _render(self, prompt: Prompt) -> list[int]:
        return encode_prompt(self.tokenizer, prompt.messages, system_prompt=self._system_prompt, tools=prompt.tools)

    @contextmanager
    def _dropout_of(self, moment: Sequence[int]) -> Iterator[None]:
        """Seed torch's generators for the block by its address, and restore them afterwards."""
        if not self._has_dropout:
            yield
            return
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(stream_seed(self._seed, "dropout", *moment))
            yield

    @contextmanager
    def _active(self, which: Which) -> Iterator[None]:
        """Run the forward passes of the block with the given weights; restores the policy, also after an error."""
        if which == "base":
            with self._peft.disable_adapter():
                yield
        elif which == "policy":
            yield
        else:
            self._peft.set_adapter(_ADAPTERS[which], inference_mode=True)
            try:
                yield
            finally:
                self._peft.set_adapter("default")

    def _adapter(self, which: str) -> dict[str, nn.Parameter]:
        mark = f".{_ADAPTERS[which]}."
        named = self.model.named_parameters()
        return {name.replace(mark, "."): parameter for name, parameter in named if mark in name and "lora_" in name}

    def _last_hidden(self, ids: Sequence[TokenIds]) -> Tensor:
        """Hidden state of the last token of right-padded rows, shape (R, D)."""
        input_ids, mask = pad_right(ids, 0, self.device)
        hidden = self.model.base_model(input_ids=input_ids, attention_mask=mask, use_cache=False).last_hidden_state
        last = torch.tensor([len(tokens) - 1 for tokens in ids], device=self.device)
        picked: Tensor = hidden[torch.arange(len(ids), device=self.device), last]
        return picked


def _inject(model: PreTrainedModel, lora: LoraConfig, seed: int) -> PeftModel:
    """Add the two adapters with seeded weights, without changing the global random state."""
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            peft = get_peft_model(model, lora)
            peft.add_adapter("reference", lora)
    except re.error as error:
        raise ModelError(
            f"policy.lora.target_modules = {lora.target_modules!r} is not a regular expression ({error}); "
            "correct it, or set 'all-linear'"
        ) from error
    except ValueError as error:
        linear = sorted(
            {name.rpartition(".")[2] for name, layer in model.named_modules() if isinstance(layer, nn.Linear)}
        )
        raise ModelError(
            f"policy.lora.target_modules = {lora.target_modules!r} names no layer of the model; "
            f"it has {', '.join(linear)}"
        ) from error
    _check_trainable(model)
    peft.set_requires_grad("reference", False)
    return peft.eval()


def _check_trainable(model: PreTrainedModel) -> None:
    """Refuse adapters that the policy would neither train nor save: on the output head, and on embeddings.

    Log-probs come from hidden states and the weights of the head (`laser.lm.logps`), past an adapter on it.
    """
    head = model.get_output_embeddings()
    for name, module in model.named_modules():
        if isinstance(module, BaseTunerLayer) and (module is head or getattr(module, "lora_embedding_A", None)):
            raise ModelError(
                f"policy.lora.target_modules puts an adapter on {name}, which laser cannot train; leave out the output "
                "head and the embeddings, as 'all-linear' does"
            )


def _silence(model: PreTrainedModel) -> None:
    """Turn off the dropout of pretraining in a model whose weights are frozen.

    Frozen weights need no regularization, and noise in pi but not in pi_ref would be trained on as if it were a
    preference. Modules hold the rate in a submodule or an attribute, or read it from the configuration.
    """
    for owner in (model.config, model.config.get_text_config(), *model.modules()):
        for name, value in list(vars(owner).items()):
            if isinstance(value, float) and ("drop" in name or (name == "p" and isinstance(owner, nn.Dropout))):
                setattr(owner, name, 0.0)


def compute_in_base_precision(model: PreTrainedModel) -> None:
    """Make adapters, whose weights stay in float32, compute in the precision of the base weights.

    By default PEFT converts the input of every adapted layer to float32, which moves twice the bytes and keeps a copy
    for the backward pass.
    """
    if model.dtype == torch.float32:
        return
    for module in model.modules():
        if isinstance(module, BaseTunerLayer):
            module.cast_input_dtype_enabled = False
    for part in (model.base_model, model):
        part.forward = torch.autocast(model.device.type, dtype=model.dtype)(part.forward)
