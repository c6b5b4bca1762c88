"""Answers to multiple-choice questions: letters, or the text of an option."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from laser.evaluation.numbers import MINUS_SIGNS, RETRACTING
from laser.evaluation.words import said_words

_LEAD = re.compile(
    r"^(?:(?:therefore|thus|so|hence),?\s+)?(?:(?:i\s+(?:would\s+)?(?:choose|pick|select)|it\s+is|it['’]s)\s+)?"
    r"(?:the\s+|my\s+)?(?:final\s+)?(?:correct\s+|right\s+|best\s+)?"
    r"(?:option|choice|answer|letter)?s?\s*(?:is|are)?\s*:?\s*",
    re.IGNORECASE,
)
_MARKUP = re.compile(r"\\(?:text|textbf|mathrm|mathbf|boxed)\s*\{([^{}]*)\}|\\[()\[\]]|\*\*|__")
_QUOTES = re.compile("[“”‘’$]")
_WRAPPING = "*_`\"'“”‘’$ "
_DENIED = (
    r"\)?[.:]?\s*(?:[-–—(]\s*)?(?:(?:is|was)(?:\s+not|n['’]t)\s+(?:correct|right|true|the|an?)\b"
    r"|(?:(?:is|was)\s+)?(?:wrong|incorrect|false)\b(?!\s\w))"
)
_DENIED_BEFORE = re.compile(
    r"(?:\b(?:not|never|neither|nor|except|excluding|without|cannot|(?:all|anything|everything) but)|n't)"
    r"(?: \S+){0,3} $"
)
_DENIED_AFTER = re.compile(r" (?:is|was)(?: not|n't| wrong| incorrect| false)\b")
_PLAIN = {code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)} | {ord("。"): "."}  # full-width forms
_PLAIN |= dict.fromkeys(map(ord, MINUS_SIGNS), "-")


@dataclass(frozen=True, slots=True)
class _Labels:
    """How answers write the labels of some options: alone, before a text, several, before a reason, or denied."""

    alone: re.Pattern[str]
    before: re.Pattern[str]
    several: re.Pattern[str]
    starting: re.Pattern[str]
    denied: re.Pattern[str]


@lru_cache(maxsize=64)
def _labels(names: tuple[str, ...]) -> _Labels:
    """Patterns for these labels, which may be digits as in ARC or Roman numerals; without any, for the letters."""
    label = "|".join(map(re.escape, sorted(names, key=len, reverse=True))) if names else "[A-Z]"
    one = rf"\(?(?:{label})\)?\.?"
    between = r"\s*(?:,\s*and\b|,|;|/|&|\band\b)" + ("?" if not names or all(map(_is_letter, names)) else "")
    return _Labels(
        re.compile(rf"[({{\[]?({label})[)}}\]]?[.:!]?", re.IGNORECASE),
        re.compile(rf"[(\[]?({label})(?:[)\]]\s*[.:]?|[.:](?!\d))\s*(.*)", re.DOTALL | re.IGNORECASE),
        re.compile(rf"{one}(?:{between}\s*{one})+"),
        re.compile(
            rf"\(?({label})\)?\s*(?:,(?!\d|\s*(?:or|and)\b)|\((?!or\b)|[-–—](?!>)|(?:because|since|as)\b"
            r"|is\s+(?:the\s+)?(?:correct|right|best|answer)\b)"
        ),
        re.compile(rf"\A\(?(?:{label}){_DENIED}|(?<=\w)\W{{0,3}}(?i:{RETRACTING})(?<!\w)(?:{label})(?!\w)"),
    )


def read_option(answer: str, options: Mapping[str, str]) -> str | None:
    """The letter or letters that an answer names, in order, or None.

    It reads a letter alone, in brackets or before a period, colon or bracket ("B", "(b)", "B. the text"), several
    letters ("ABD", "A, B and D"), a letter before a reason ("B, because ..."), and the text of an option, alone or as
    the only option whose words the answer has.

    Args:
        answer: What follows "Final answer:" or the like.
        options: Text of each letter; empty: any letter counts.
    """
    text = _unmarked(answer.translate(_PLAIN)).strip().strip(_WRAPPING)
    forms = [text]
    while (bare := _LEAD.sub("", forms[-1], count=1).strip(_WRAPPING)) != forms[-1]:
        forms.append(bare)
    if _labels(tuple(options)).denied.search(forms[-1]):
        return None
    found = (letters for form in forms if form and (letters := _read(form, options)) is not None)
    return next(found, None) or _begun_with(forms[-1], options) or _only_mentioned(text, options)


def same_option(letters: str, gold: str, options: Mapping[str, str]) -> bool:
    """Whether letters name the gold option, or one with the same text."""
    expected = gold_letters(gold, options)
    if letters == expected:
        return True
    return letters in options and expected in options and _alike(options[letters], options[expected or ""])


def gold_letters(gold: str, options: Mapping[str, str]) -> str | None:
    """The letter or letters of a gold answer, which may be the text of an option; None if it is neither."""
    label = _label(gold.strip().strip("()[]."), options)
    if label is not None:
        return label
    letters = re.sub(r"[\s,;/&()\[\].]|\band\b", "", gold).upper()
    if re.fullmatch("[A-Z]+", letters) and (not options or options.keys() >= set(letters)):
        return "".join(sorted(set(letters)))
    return _named(gold, options) or (read_option(gold, options) if options else None)


def _unmarked(text: str) -> str:
    """The text without commands of LaTeX and markdown, nested ones included."""
    while (bare := _MARKUP.sub(lambda match: match[1] or "", text)) != text:
        text = bare
    return text


def _read(text: str, options: Mapping[str, str]) -> str | None:
    labels = _labels(tuple(options))
    alone, before = labels.alone.fullmatch(text), labels.before.fullmatch(text)
    if alone is not None and (not alone[1].islower() or _named(text, options) is None):
        return _label(alone[1], options)
    exact = next((letter for letter, option in options.items() if _alike(option, text)), None)
    if exact is not None:
        return exact
    if before is not None:
        return _label(before[1], options)
    by_text = _named(text, options)
    if by_text is not None:
        return by_text
    if labels.several.fullmatch(text):
        return "".join(sorted(set(re.sub(r"\band\b|[^A-Z\d]", "", text))))
    return None


def _begun_with(text: str, options: Mapping[str, str]) -> str | None:
    """The letter before a reason or a remark."""
    starting = _labels(tuple(options)).starting.match(text)
    return starting[1] if starting is not None else None


def _label(name: str, options: Mapping[str, str]) -> str | None:
    """The label of this name, whatever its case; without options any letter is one."""
    if not options:
        return name.upper() if _is_letter(name.upper()) else None
    return next((label for label in (name, name.upper(), name.lower()) if label in options), None)


def _is_letter(name: str) -> bool:
    return len(name) == 1 and "A" <= name <= "Z"


def _named(text: str, options: Mapping[str, str]) -> str | None:
    """The letter of the option with this text, or else with these words."""
    for alike in (_alike, _same):
        for letter, option in options.items():
            if alike(option, text):
                return letter
    return None


def _alike(first: str, second: str) -> bool:
    return _as_written(first) == _as_written(second)


def _as_written(text: str) -> str:
    return unicodedata.normalize("NFC", text).translate(_PLAIN).strip().casefold()


def _same(first: str, second: str) -> bool:
    return _words(first) == _words(second)


def _only_mentioned(text: str, options: Mapping[str, str]) -> str | None:
    """The only option whose words are in the text in a row; of options within each other the longest counts."""
    found = {letter: option for letter, option in options.items() if _words(option) and _says(text, option)}
    if not found:
        return None
    letter = max(found, key=lambda name: len(_words(found[name])))
    return letter if all(_holds(found[letter], option) for option in found.values()) else None


def _says(text: str, option: str) -> bool:
    """Whether the text has the option's words and does not deny them."""
    before, words, after = f" {' '.join(_words(text))} ".partition(f" {' '.join(_words(option))} ")
    return bool(words) and not (_DENIED_BEFORE.search(f"{before} ") or _DENIED_AFTER.match(f" {after}"))


def _holds(text: str, option: str) -> bool:
    return f" {' '.join(_words(option))} " in f" {' '.join(_words(text))} "


def _words(text: str) -> list[str]:
    return said_words(_QUOTES.sub("", text)) or text.split()
