"""Sequence classifiers as transformers knows them: `AutoModelForSequenceClassification`.

Meant for Skywork-Reward, Skywork-Reward-V2, GRM (rewardmodel-ft), FsfairX, RM-Mistral, Tulu 3 and RewardBench 2 RMs,
OpenAssistant's DeBERTa and any classifier of the hub.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from transformers import PreTrainedModel

from laser.core.errors import ModelError
from laser.lm.limits import window_of
from laser.lm.packing import pad_right
from laser.lm.sources import load_classifier
from laser.rewards.families.base import (
    Checkpoint,
    FamilyModel,
    Outputs,
    Row,
    added_up,
    check_outputs,
    output_names,
    padded,
)


class StandardClassifier:
    """A logit of a sequence classifier, or a weighted sum of several.

    A decoder is read at its last token that is not its configuration's pad token, as transformers does. Where pad and
    end of turn are one token, that is the token before the end. A configuration without a pad token is read at the
    very last token; padding then uses an id that ends no row.

    Args:
        model: A frozen sequence classifier.
        outputs: Which logits count, and how much; None for the only one.

    Raises:
        RewardModelError: A wanted output is missing, or none is named and there are several.
    """

    def __init__(self, model: PreTrainedModel, outputs: Outputs | None = None) -> None:
        self.modules: Sequence[nn.Module] = [model]
        self.window = window_of(model.config)
        self._model = model
        self._outputs = outputs
        self._names = output_names(model.config, int(model.config.num_labels or 1))
        self._pad_id: int | None = model.config.get_text_config().pad_token_id
        check_outputs(self._names, outputs)

    def scores(self, rows: Sequence[Row]) -> Tensor:
        """Scores of rows, shape (R,)."""
        pad_id = self._pad_id if self._pad_id is not None else self._unused_at_the_end(rows)
        inputs = padded(rows, pad_id, self._model.device)
        if getattr(self._model.config, "type_vocab_size", 0) > 1:
            types = [list(row.types) or [0] * len(row.ids) for row in rows]
            inputs["token_type_ids"] = pad_right(types, 0, self._model.device)[0]
        return added_up(self._model(**inputs).logits.float(), self._names, self._outputs)

    def _unused_at_the_end(self, rows: Sequence[Row]) -> int:
        """A token id that ends no row, set as the pad token of the model."""
        last = {row.ids[-1] for row in rows}
        pad_id = next(candidate for candidate in range(len(last) + 1) if candidate not in last)
        self._model.config.get_text_config().pad_token_id = pad_id
        self._model.config.pad_token_id = pad_id
        return pad_id


def load_standard(checkpoint: Checkpoint, outputs: Outputs | None) -> FamilyModel:
    """Load a sequence classifier. Raises ModelError or RewardModelError."""
    try:
        model = checkpoint.load(load_classifier)
    except ModelError as error:
        raise ModelError(f"{error}; if its head is of another kind, set family (docs/reward-models.md)") from error
    return StandardClassifier(model, outputs)
