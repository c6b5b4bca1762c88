"""Labels of prompts by a sequence classifier, such as the one with which the paper sorts WildChat."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from laser.core.errors import ModelError
from laser.lm.limits import window_of
from laser.lm.packing import by_length, pad_right
from laser.lm.sources import choose_device, choose_dtype, load_classifier, load_tokenizer
from laser.parallel.memory import Budget


class PromptLabels:
    """Gives each text the classifier's most probable label.

    A text beyond the classifier's window is cut at its end: a request states its topic first.

    Source: arXiv 2410.01735, A.1, footnote 5 (valpy/prompt-classification).

    Args:
        source: Hub id or local folder of a sequence classifier with names for its labels.
        device: Where it runs.
        max_batch_tokens: Budget of one forward pass, in padded tokens; halved where memory runs out.

    Raises:
        ModelError: There is no such classifier; later, memory does not suffice for one text.
    """

    def __init__(self, source: str, *, device: str = "auto", max_batch_tokens: int = 8192) -> None:
        chosen = choose_device(device)
        self._model = load_classifier(source, device=chosen, dtype=choose_dtype("auto", chosen))
        self._tokenizer = load_tokenizer(source)
        self._budget = Budget(
            max_batch_tokens,
            ModelError("the device is out of memory with one text in a forward pass; label on another device"),
        )
        config = self._model.config
        self._longest = min(window_of(config), self._tokenizer.model_max_length)
        pad = next((one for one in (config.pad_token_id, self._tokenizer.pad_token_id) if one is not None), 0)
        config.pad_token_id = self._pad_id = int(pad)
        self._labels: dict[int, str] = {int(index): str(label) for index, label in (config.id2label or {}).items()}

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> list[str]:
        """Label texts, in their order."""
        ids = [list(self._tokenizer(text, truncation=True, max_length=self._longest)["input_ids"]) for text in texts]
        labels = [""] * len(ids)
        lengths = [len(row) for row in ids]

        def read(tokens: int) -> None:
            for rows in by_length(lengths, tokens):
                input_ids, mask = pad_right([ids[row] for row in rows], self._pad_id, self._model.device)
                best = self._model(input_ids=input_ids, attention_mask=mask).logits.argmax(dim=-1).tolist()
                for row, index in zip(rows, best, strict=True):
                    labels[row] = self._labels[index]

        self._budget.spend(read, least=max(lengths, default=0))
        return labels
