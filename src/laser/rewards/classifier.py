"""Sequence classifiers as reward models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from laser.errors import RewardModelError
from laser.lm.chat import encode_prompt, has_chat_template
from laser.lm.packing import by_length, pad_right
from laser.rewards.weights import Weighted
from laser.types import FloatArray, Prompt


class ClassifierRM(Weighted):
    """Scores the logit of a class, or the single output of a scalar head.

    Args:
        model: A frozen sequence classifier.
        tokenizer: Its tokenizer.
        label: Class whose logit is the score; None only for a single output.
        template: "chat": the conversation with the response as the assistant's turn, through the chat template;
            "pair": the last user message and the response as a sentence pair.
        max_batch_tokens: Budget of one forward pass, in padded tokens.

    Raises:
        RewardModelError: The label is unknown or missing, or there is no chat template for `template` = "chat".
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        label: str | None = None,
        template: Literal["chat", "pair"] = "chat",
        max_batch_tokens: int = 8192,
    ) -> None:
        if template == "chat" and not has_chat_template(tokenizer):
            raise RewardModelError(
                f"{tokenizer.name_or_path or 'it'} has no chat template; set template = 'pair' for it"
            )
        super().__init__([model])
        self._model: PreTrainedModel | None = model
        self._tokenizer = tokenizer
        self._template = template
        self._column = _column(model, label)
        self._max_batch_tokens = max_batch_tokens
        self._context_length = int(getattr(model.config, "max_position_embeddings", None) or 2**31)
        self._pad_id = _pad_id(model, tokenizer)

    @torch.no_grad()
    def score(self, prompts: Sequence[Prompt], responses: Sequence[Sequence[str]]) -> list[FloatArray]:
        """Score responses; see `RewardModel.score`. NaN for an empty response and for one beyond the context."""
        assert self._model is not None
        scores = [np.full(len(row), np.nan) for row in responses]
        places, rows = [], []
        for index, (prompt, texts) in enumerate(zip(prompts, responses, strict=True)):
            for position, text in enumerate(texts):
                ids, types = self._encode(prompt, text) if text.strip() else ([], [])
                if 0 < len(ids) <= self._context_length:
                    places.append((index, position))
                    rows.append((ids, types))
        for chunk in by_length([len(ids) for ids, _ in rows], self._max_batch_tokens):
            logits = self._model(**self._padded([rows[number] for number in chunk])).logits[:, self._column]
            for number, value in zip(chunk, logits.double().tolist(), strict=True):
                index, position = places[number]
                scores[index][position] = value
        return scores

    def release(self) -> None:
        """Drop the weights."""
        super().release()
        self._model = None

    def _encode(self, prompt: Prompt, text: str) -> tuple[list[int], list[int]]:
        """Token ids and token types of one conversation."""
        if self._template == "pair":
            encoded = self._tokenizer(prompt.text, text, return_token_type_ids=True)
            return list(encoded["input_ids"]), list(encoded["token_type_ids"])
        messages = [*prompt.messages, {"role": "assistant", "content": text}]
        ids = encode_prompt(self._tokenizer, messages, generation_prompt=False)
        return ids, [0] * len(ids)

    def _padded(self, rows: Sequence[tuple[list[int], list[int]]]) -> dict[str, torch.Tensor]:
        assert self._model is not None
        device = self._model.device
        input_ids, mask = pad_right([ids for ids, _ in rows], self._pad_id, device)
        inputs = {"input_ids": input_ids, "attention_mask": mask}
        if getattr(self._model.config, "type_vocab_size", 0) > 1:
            inputs["token_type_ids"] = pad_right([types for _, types in rows], 0, device)[0]
        return inputs


def _column(model: PreTrainedModel, label: str | None) -> int:
    labels = {str(name): int(index) for index, name in (model.config.id2label or {}).items()}
    if label is None and len(labels) != 1:
        raise RewardModelError(f"the classifier has {len(labels)} outputs; set label to one of {', '.join(labels)}")
    if label is not None and label not in labels:
        raise RewardModelError(f"the classifier has no label {label!r}; it has {', '.join(labels)}")
    return labels[label] if label is not None else 0


def _pad_id(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """Decoder classifiers find the last token by the pad id, so model and tokenizer must agree on one."""
    candidates = (model.config.get_text_config().pad_token_id, tokenizer.pad_token_id, tokenizer.eos_token_id)
    pad_id = next((int(candidate) for candidate in candidates if candidate is not None), 0)
    model.config.get_text_config().pad_token_id = pad_id
    model.config.pad_token_id = pad_id
    return pad_id
