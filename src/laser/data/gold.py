"""Gold answers, options and answer types of a row, checked when the row is read."""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, get_args

from laser.core.errors import DataError
from laser.data.conversations import brief, read_text
from laser.data.tasks import AnswerType
from laser.data.tasks.latex import last_boxed

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_INVISIBLE = "\u200b\u2060\ufeff"
_GSM8K = re.compile(r"(?:(?P<solution>.*)\s)?####[ \t]*(?P<answer>[^\s#][^\n#]*)\s*", re.DOTALL)


def read_gold(where: str, value: Any) -> tuple[str, ...]:
    r"""The accepted gold answers in a field, as text; empty where there is none.

    Null, NaN and empty text mean that there is none; numbers and truth values become text as they are written (1.0,
    True); of text that ends in "#### 18" (GSM8K) counts what follows the mark, of a text with a `\boxed{18}` what
    is in its last box; a list holds several accepted answers; of verl's object counts its `ground_truth`, of SQuAD's
    its list `text`.

    Raises:
        DataError: The field holds anything else.
    """
    if isinstance(value, Mapping) and "ground_truth" in value:
        value = value["ground_truth"]
    if isinstance(value, Mapping) and isinstance(value.get("text"), list):
        value = value["text"]
    values = value if isinstance(value, Sequence) and not isinstance(value, str | bytes) else [value]
    texts = (_one(where, item) for item in values)
    return tuple(dict.fromkeys(text for text in texts if text is not None))


def solution_of(value: Any) -> str | None:
    """What comes before the "####" of a gold answer of GSM8K, or a text with a box; None for other answers."""
    if not isinstance(value, str):
        return None
    found = _GSM8K.fullmatch(value) if "####" in value else None
    is_solution = re.search(r"\w.*\\boxed|\\boxed.*\}.*\w", value, re.DOTALL) is not None
    return found["solution"] if found is not None else value if is_solution and last_boxed(value) else None


def read_options(where: str, value: Any) -> dict[str, str]:
    """Options of a multiple-choice question, text by letter.

    Args:
        where: A place for error messages.
        value: Text by letter; a list of texts, with their letters in front or not; a list of {label, text}; an object
            of two lists, `label` and `text`; JSON of one of these; or null.

    Raises:
        DataError: It is something else.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise DataError(_refused_options(where)) from None
    if value is None:
        return {}
    if isinstance(value, Mapping) and isinstance(value.get("label"), list) and isinstance(value.get("text"), list):
        if len(value["label"]) != len(value["text"]):
            raise DataError(
                f"{where}: the options have {len(value['label'])} labels and {len(value['text'])} texts; fix it"
            )
        value = [{"label": label, "text": text} for label, text in zip(value["label"], value["text"], strict=True)]
    if isinstance(value, Sequence) and not isinstance(value, str):
        value = _lettered(value)
    if not isinstance(value, Mapping) or not all(isinstance(text, str | int | float | None) for text in value.values()):
        raise DataError(_refused_options(where))
    texts = {read_text(where, letter): read_text(where, text) for letter, text in value.items() if text is not None}
    return {letter.upper() if len(letter) == 1 else letter: text for letter, text in texts.items()}


def options_field(row: Mapping[str, Any]) -> str:
    """The field with the options: `options`, or `choices` where it has a list of texts, or labels and texts."""
    choices = row.get("choices")
    has_texts = isinstance(choices, list | tuple) and all(isinstance(text, str) for text in choices)
    has_labels = isinstance(choices, Mapping) and {"label", "text"} <= choices.keys()
    return "choices" if "options" not in row and choices and (has_texts or has_labels) else "options"


def check_answer_type(where: str, value: Any) -> None:
    """Check that a row's `answer_type` is a known one.

    Raises:
        DataError: It is not; names the nearest.
    """
    known = get_args(AnswerType)
    if value is not None and value not in known:
        near = difflib.get_close_matches(str(value)[:60], known, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"use {', '.join(known)}, or set data.answer_type for all rows"
        raise DataError(f"{where}: answer_type {brief(value)} is unknown; {hint}")


def check_letter(where: str, value: Any, options: Mapping[str, str]) -> None:
    """Make sure that the answer to a multiple-choice question is not an index or the letter of a missing option.

    Raises:
        DataError: It is a number or one character, and neither a letter nor the text of an option.
    """
    if not options or not (isinstance(value, int | float) or (isinstance(value, str) and len(value.strip()) == 1)):
        return
    written = {str(value).strip().upper(), f"{value:g}" if isinstance(value, int | float) else ""}
    if not written & {*options, *(text.strip().upper() for text in options.values())}:
        raise DataError(
            f"{where}: the answer {brief(value)} is none of the options {', '.join(options)[:60]}; write the option's "
            "letter or text, not its index"
        )


def _one(where: str, value: Any) -> str | None:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, str):
        text = read_text(where, value).strip(_INVISIBLE)
        found = _GSM8K.fullmatch(text) if "####" in text else None
        if text.rstrip().endswith("####"):
            raise DataError(f"{where}: the gold answer ends in '####' with nothing after it; fill or remove it")
        boxed = last_boxed(text)  # MATH's solutions end so
        if boxed is not None and boxed.strip():
            return boxed.strip()
        return (found["answer"].strip() if found is not None else text) if text.strip() else None
    if isinstance(value, int | Decimal) or (isinstance(value, float) and math.isfinite(value)):
        return str(value)
    has = f"an object with {', '.join(map(repr, value))[:200]}" if isinstance(value, Mapping) else f"{brief(value)}"
    raise DataError(
        f"{where}: the gold answer is {has}; write text, a number or a list of them, or name the field that holds it "
        "(data.answer_field = 'outer.inner')"
    )


def _lettered(values: Sequence[Any]) -> dict[str, Any] | None:
    """Text by letter; letters that the list names win. None if an entry is not understood."""
    options: dict[str, Any] = {}
    own = [re.fullmatch(r"\(?([A-Z])[.):]\s*(.*)", value, re.DOTALL) for value in values if isinstance(value, str)]
    letters = {found[1]: found[2] for found in own if found is not None}
    if letters.keys() == set(_LETTERS[: len(values)]):
        return letters
    for letter, value in zip(_LETTERS, values, strict=False):
        if isinstance(value, Mapping):
            if not {"label", "text"} <= value.keys():
                return None
            options[str(value["label"])] = value["text"]
        else:
            options[letter] = re.sub(rf"^\(?{letter}[.):]\s*", "", value) if isinstance(value, str) else value
    return options if len(options) == len(values) else None


def _refused_options(where: str) -> str:
    return f'{where}: the options are not understood; write texts by letter ({{"A": ...}}) or a list of texts'
