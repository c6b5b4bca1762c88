"""Next-token logits of a causal LM: the families that read a score off the LM head."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from transformers import PreTrainedModel

from laser.lm.packing import pad_right
from laser.rewards.families.base import Row


def next_logits(model: PreTrainedModel, rows: Sequence[Row], pad_id: int) -> Tensor:
    """Logits of the token after each row, float32, shape (R, vocabulary).

    Rows are padded on the left, so that the head runs on one position only.
    """
    backwards = [list(row.ids)[::-1] for row in rows]
    input_ids, mask = (tensor.flip(1) for tensor in pad_right(backwards, pad_id, model.device))
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    output = model(input_ids=input_ids, attention_mask=mask, position_ids=positions, logits_to_keep=1)
    logits: Tensor = output.logits[:, -1].float()
    return logits
