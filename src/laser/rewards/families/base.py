"""What a family is: rows of token ids in, one score each out.

Shape letters: R rows, L padded tokens, H hidden features, C outputs of a head.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from laser.core.errors import RewardModelError
from laser.lm.packing import pad_right
from laser.lm.sources import Loader

Outputs = Mapping[str, float]
"""Names of outputs and the weights with which they are added up."""


@dataclass(frozen=True, slots=True)
class Row:
    """One conversation, or one comparison, as a model reads it.

    Attributes:
        ids: Token ids, special ones included, without padding.
        types: Token types of a sentence pair; zeros elsewhere.
        prompt_length: How many of `ids` are the prompt's, where one can tell; else 0.
    """

    ids: Sequence[int]
    types: Sequence[int] = ()
    prompt_length: int = 0


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where weights are and what they are to become.

    Attributes:
        source: Hub id, local folder or ``package:NAME``.
        tokenizer: Its tokenizer.
        device: Where the weights go.
        dtype: What they become; heads are computed in float32 all the same.
        revision: Hub revision.
        trust_remote_code: Run model code from the hub.
    """

    source: str
    tokenizer: PreTrainedTokenizerBase
    device: torch.device
    dtype: torch.dtype
    revision: str | None = None
    trust_remote_code: bool = False

    def load(self, load: Loader, renaming: Mapping[str, str] | None = None) -> PreTrainedModel:
        """Load it by one of the loaders of `laser.lm.sources`. Raises ModelError."""
        return load(
            self.source,
            device=self.device,
            dtype=self.dtype,
            revision=self.revision,
            trust_remote_code=self.trust_remote_code,
            renaming=renaming,
        )


class FamilyModel(Protocol):
    """A loaded checkpoint that scores rows.

    Attributes:
        modules: What holds weights, all on one device; the pool moves them.
        window: Tokens of the longest row.
    """

    modules: Sequence[nn.Module]
    window: int

    def scores(self, rows: Sequence[Row]) -> Tensor:
        """Scores of rows of similar length, shape (R,); higher is better."""


class PairModel(Protocol):
    """A loaded checkpoint that compares two responses.

    Attributes:
        modules: What holds weights, all on one device; the pool moves them.
        cuts: Whether what does not fit is cut, or else not scored.
    """

    modules: Sequence[nn.Module]
    cuts: bool

    def encode(self, prompt: str, first: str, second: str) -> Row:
        """One comparison."""

    def fits(self, prompt: str, text: str) -> bool:
        """Whether a response fits next to another of its length."""

    def log_odds(self, rows: Sequence[Row]) -> Tensor:
        """Log-odds that the first response is the better one, shape (R,)."""


Load = Callable[[Checkpoint, Outputs | None], FamilyModel]
"""Loads a family's checkpoint; takes the outputs to add up, None for the only one."""


def padded(rows: Sequence[Row], pad_id: int, device: torch.device) -> dict[str, Tensor]:
    """Rows as `input_ids` and `attention_mask` of shape (R, L), padded on the right."""
    input_ids, mask = pad_right([row.ids for row in rows], pad_id, device)
    return {"input_ids": input_ids, "attention_mask": mask}


def last_states(hidden_RLH: Tensor, rows: Sequence[Row]) -> Tensor:
    """Hidden state of each row's last token, whatever token that is, shape (R, H)."""
    return states_at(hidden_RLH, [len(row.ids) - 1 for row in rows])


def states_at(hidden_RLH: Tensor, positions_R: Sequence[int]) -> Tensor:
    """Hidden state of each row at its position, float32, shape (R, H)."""
    return hidden_RLH[torch.arange(len(positions_R)), list(positions_R)].float()


def added_up(outputs_RC: Tensor, names: Mapping[str, int], wanted: Outputs | None) -> Tensor:
    """The only output, or the weighted sum of those wanted, shape (R,); call `check_outputs` first."""
    if wanted is None:
        return outputs_RC[:, 0]
    weights = outputs_RC.new_tensor(list(wanted.values()))
    return outputs_RC[:, [_index(names, name) for name in wanted]] @ weights


def check_outputs(names: Mapping[str, int], wanted: Outputs | None) -> None:
    """Raise RewardModelError unless the wanted outputs are there, or there is a single one and none is named."""
    if wanted is None and len(names) != 1:
        raise RewardModelError(f"the classifier has {len(names)} outputs; set label to one of {', '.join(names)}")
    for name in wanted or ():
        if _index(names, name) < 0:
            raise RewardModelError(f"the classifier has no label {name!r}; it has {', '.join(names)}")


def output_names(config: Any, count: int) -> dict[str, int]:
    """Names of a head's outputs from ``id2label``, else their numbers."""
    named = {str(name): int(index) for index, name in (getattr(config, "id2label", None) or {}).items()}
    return named if len(named) == count else {str(index): index for index in range(count)}


def pad_of(checkpoint: Checkpoint) -> int:
    """A token id to pad with where the attention mask alone decides what counts."""
    candidates = (checkpoint.tokenizer.pad_token_id, checkpoint.tokenizer.eos_token_id, 0)
    return next(int(candidate) for candidate in candidates if candidate is not None)


def _index(names: Mapping[str, int], name: str) -> int:
    """The output of that name or number; -1 where there is none."""
    if name in names:
        return names[name]
    return int(name) if name.isdecimal() and int(name) in names.values() else -1
