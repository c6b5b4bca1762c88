"""Limits of what a model can read: tokens of its window, and token ids that it has an embedding for."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedTokenizerBase

from laser.core.errors import ModelError
from laser.lm.chat import control_ids, encode_prompt, has_chat_template

UNLIMITED = 2**31

_POSITIONS_BEHIND_PADDING = frozenset(
    {
        "camembert",
        "data2vec-text",
        "ernie_m",
        "esm",
        "ibert",
        "layoutlmv3",
        "lilt",
        "longformer",
        "luke",
        "markuplm",
        "mluke",
        "mpnet",
        "roberta",
        "roberta-prelayernorm",
        "xlm-roberta",
        "xlm-roberta-xl",
        "xmod",
    }
)
"""Model types whose first token has position padding_idx + 1, so that as many rows of the table stay unused."""


def window_of(config: Any) -> int:
    """Tokens that a model can read, from its configuration; `UNLIMITED` where it does not say."""
    text = config.get_text_config()
    limit = getattr(text, "max_position_embeddings", None)
    if not limit:
        return UNLIMITED
    if getattr(text, "model_type", None) in _POSITIONS_BEHIND_PADDING:
        padding = getattr(text, "pad_token_id", None)
        return int(limit) - (1 if padding is None else int(padding)) - 1
    return int(limit)


def check_vocabulary(tokenizer: PreTrainedTokenizerBase, config: Any, source: str) -> None:
    """Check that every id that the tokenizer can give has an embedding.

    Special tokens that neither the tokenizer's roles nor its chat template use cannot come up: in a text they stay
    text. So Gemma 3's image token, which its text models have no embedding for, is not an obstacle.

    Raises:
        ModelError: One has none.
    """
    rows = getattr(config.get_text_config(), "vocab_size", None)
    if not isinstance(rows, int) or rows <= 0:
        return
    special = control_ids(tokenizer)
    beyond = {index for index in tokenizer.get_vocab().values() if index >= rows and index not in special}
    roles = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.unk_token_id)
    used = {*roles, tokenizer.cls_token_id, tokenizer.sep_token_id, *_template_ids(tokenizer)}
    beyond |= {index for index in used if index is not None and index >= rows}
    if beyond:
        first = min(beyond)
        token = tokenizer.convert_ids_to_tokens(first)
        raise ModelError(
            f"the tokenizer of {source} has the id {first} ({token!r}), but the model has {rows} embeddings; "
            "use the tokenizer that the model was trained with, or call "
            "model.resize_token_embeddings(len(tokenizer)) and save the model again"
        )


def _template_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    if not has_chat_template(tokenizer):
        return []
    try:
        return encode_prompt(tokenizer, [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hi"}])
    except ModelError:  # a template that refuses this conversation says so when it gets a real one
        return []
