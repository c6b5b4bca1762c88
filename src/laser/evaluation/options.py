"""Answers to multiple-choice questions: letters, or the text of an option."""

from __future__ import annotations

import re
from collections.abc import Mapping

from laser.evaluation.words import normalized_words

_LEAD = re.compile(
    r"^(?:(?:therefore|thus|so|hence),?\s+)?(?:the\s+)?(?:correct\s+)?"
    r"(?:option|choice|answer|letter)s?\s*(?:is|are)?\s*:?\s*",
    re.IGNORECASE,
)
_ALONE = re.compile(r"\(?([A-Za-z])\)?[.:]?")
_BEFORE = re.compile(r"\(?([A-Za-z])(?:\)\s*[.:]?|[.:])\s*(.*)", re.DOTALL)
_SEVERAL = re.compile(r"\(?[A-Z]\)?\.?(?:\s*(?:,\s*and\b|,|;|/|&|\band\b)?\s*\(?[A-Z]\)?\.?)+")
_FORMULA = re.compile(r"[\d\\^=+<>]")
_STARTING = re.compile(
    r"\(?([A-Z])\)?\s*(?:,|\(|[-–—]|(?:because|since|as)\b|is\s+(?:the\s+)?(?:correct|right|best|answer)\b)"
)
_MARKUP = re.compile(r"\\(?:text|textbf|mathrm|mathbf)\{([^{}]*)\}|\\[()\[\]]")
_WRAPPING = "*_`\"'“”‘’$ "


def read_option(answer: str, options: Mapping[str, str]) -> str | None:
    """The letter or letters that an answer names, in order, or None.

    Understood are a letter alone, in brackets or before a period, colon or bracket ("B", "(b)", "B. the text"), several
    letters ("ABD", "A, B and D"), a letter that a reason follows ("B, because ..."), and the text of an option, alone
    or as the only option whose words the answer holds.

    Args:
        answer: What follows "Final answer:".
        options: Text of each letter; empty: any letter is taken.
    """
    text = _MARKUP.sub(lambda match: match[1] or "", answer).strip().strip(_WRAPPING)
    forms = [text]
    while (bare := _LEAD.sub("", forms[-1], count=1).strip(_WRAPPING)) != forms[-1]:
        forms.append(bare)
    found = (letters for form in forms if form and (letters := _read(form, options)) is not None)
    return next(found, None) or _begun_with(forms[-1], options) or _only_mentioned(text, options)


def _read(text: str, options: Mapping[str, str]) -> str | None:
    alone, before = _ALONE.fullmatch(text), _BEFORE.fullmatch(text)
    by_text = _named(text, options)
    if alone is not None and _known(alone[1], options) and (alone[1].isupper() or by_text is None):
        return alone[1].upper()
    if before is not None and _known(before[1], options) and _same(options.get(before[1].upper(), ""), before[2]):
        return before[1].upper()
    if by_text is not None:
        return by_text
    if _SEVERAL.fullmatch(text):
        letters = sorted(set(re.sub(r"\band\b|[^A-Z]", "", text)))
        if all(_known(letter, options) for letter in letters):
            return "".join(letters)
    return before[1].upper() if before is not None and _known(before[1], options) else None


def _begun_with(text: str, options: Mapping[str, str]) -> str | None:
    """The letter before a reason or a remark."""
    starting = _STARTING.match(text)
    return starting[1] if starting is not None and _known(starting[1], options) else None


def _known(letter: str, options: Mapping[str, str]) -> bool:
    return letter.upper() in options or not options


def same_option(letters: str, gold: str, options: Mapping[str, str]) -> bool:
    """Whether letters name the gold option, or one with the same text."""
    wanted = "".join(sorted(set(re.sub(r"[^A-Za-z]", "", gold).upper())))
    if letters == wanted:
        return True
    return letters in options and wanted in options and _alike(options[letters], options[wanted])


def _named(text: str, options: Mapping[str, str]) -> str | None:
    """The letter of the option with this text, or else with these words."""
    for alike in (_alike, _same):
        for letter, option in options.items():
            if alike(option, text):
                return letter
    return None


def _alike(first: str, second: str) -> bool:
    return first.strip().casefold() == second.strip().casefold()


def _same(first: str, second: str) -> bool:
    return _words(first) == _words(second)


def _only_mentioned(text: str, options: Mapping[str, str]) -> str | None:
    """The only option whose words stand in the text in a row; of options within each other the longest counts."""
    found = {letter: option for letter, option in options.items() if _words(option) and _holds(text, option)}
    if not found:
        return None
    letter = max(found, key=lambda name: len(_words(found[name])))
    return letter if all(_holds(found[letter], option) for option in found.values()) else None


def _holds(text: str, option: str) -> bool:
    return f" {' '.join(_words(option))} " in f" {' '.join(_words(text))} "


def _words(text: str) -> list[str]:
    """Words without punctuation and articles, but as they are where punctuation has a meaning: -5, 1/2, x = y."""
    text = re.sub("[“”‘’]", "", text)
    if _FORMULA.search(text):
        return [word for word in (part.strip(".,;:$\"'") for part in text.casefold().split()) if word]
    return normalized_words(text) or text.split()
