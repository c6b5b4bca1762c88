"""Conversations as the rows that reward models read: a template, special tokens once, and the window."""

from __future__ import annotations

import re
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from laser.core.errors import RewardModelError
from laser.core.types import Prompt
from laser.lm.chat import encode_pieces, encode_prompt, encode_text, has_chat_template
from laser.rewards.base import Counts
from laser.rewards.families.base import Row
from laser.rewards.families.tokens import first_token, surrounded, token_of
from laser.rewards.window import Overflow, fit, without_beginning

_SLOT = re.compile(r"(\{prompt\}|\{response\})")


def check_template(tokenizer: PreTrainedTokenizerBase, template: str) -> None:
    """Raise RewardModelError unless the tokenizer can render the template."""
    if template == "chat" and not has_chat_template(tokenizer):
        raise RewardModelError(
            f"{tokenizer.name_or_path or 'it'} has no chat template; set template = 'pair' for it, or to the text it "
            "was trained on with {prompt} and {response}"
        )


class ConversationEncoder:
    """Renders prompt and response for a reward model.

    Args:
        tokenizer: The reward model's tokenizer.
        template: "chat": the conversation with the response as the assistant's turn, through the chat template, which
            alone decides on BOS; "pair": the last user message and the response as a sentence pair; else a text with
            {prompt}, where the last user message goes, and {response}, between the tokenizer's special tokens.
        window: Tokens that the model reads.
        overflow: What becomes of a response that does not fit; see `laser.rewards.window.fit`.
        reward_token: Token put at the end, at which the model is read; None: none.

    Raises:
        RewardModelError: There is no chat template for `template` = "chat", or the reward token is none.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        template: str = "chat",
        window: int,
        overflow: Overflow = "skip",
        reward_token: str | None = None,
    ) -> None:
        check_template(tokenizer, template)
        self._tokenizer = tokenizer
        self._template = template
        self._pieces = _SLOT.split(template)
        self._window = window
        self._overflow: Overflow = overflow
        self._ending = [] if reward_token is None else [token_of(tokenizer, reward_token)]
        self.counts = Counts()

    def rows(self, prompt: Prompt, texts: Sequence[str]) -> list[Row | None]:
        """A row per response; None for a blank one and for one that does not fit."""
        rows = [self._row(prompt, text) if text.strip() else None for text in texts]
        length = max((row.prompt_length for row in rows if row), default=0)
        rest = [len(row.ids) - row.prompt_length if row else 0 for row in rows]
        window = fit(length, rest, self._window, self._overflow)
        self.counts.too_long += window.num_too_long
        return [
            self._cut(row, window.cut) if row and scored else None
            for row, scored in zip(rows, window.scored, strict=True)
        ]

    def _row(self, prompt: Prompt, text: str) -> Row:
        if self._template == "pair":
            return self._pair(prompt.text, text)
        if self._template == "chat":
            messages = [*prompt.messages, {"role": "assistant", "content": text}]
            ids, before = (
                encode_prompt(self._tokenizer, turns, tools=prompt.tools, generation_prompt=False)
                for turns in (messages, prompt.messages)
            )
        else:
            ids = self._filled(self._pieces, prompt.text, text)
            before = self._filled(self._pieces[: self._pieces.index("{response}")], prompt.text, "")
        ending = [] if ids[-1:] == self._ending else self._ending
        return Row([*ids, *ending], prompt_length=_common(before, ids))

    def _filled(self, pieces: Sequence[str], prompt: str, response: str) -> list[int]:
        contents = {"{prompt}": prompt, "{response}": response}
        filled = [(contents.get(piece, piece), piece in contents) for piece in pieces]
        return surrounded(self._tokenizer, encode_pieces(self._tokenizer, filled))

    def _pair(self, prompt: str, text: str) -> Row:
        encoded = self._tokenizer(prompt, text, return_token_type_ids=True, split_special_tokens=True)
        length = len(encode_text(self._tokenizer, prompt))
        return Row(list(encoded["input_ids"]), list(encoded["token_type_ids"]), length)

    def _cut(self, row: Row, cut: int) -> Row:
        if cut == 0:
            return row
        ids = without_beginning(row.ids, cut, first_token(self._tokenizer))
        types = list(row.types)[cut:]  # those of the prompt are all alike
        return Row(ids, types, row.prompt_length - cut)


def _common(first: Sequence[int], second: Sequence[int]) -> int:
    """Length of the common beginning."""
    same = next((place for place, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), None)
    return min(len(first), len(second)) if same is None else same
