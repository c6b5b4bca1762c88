"""Words of a text: as two texts are compared, as SQuAD's metrics count them, and in scripts without spaces."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

from laser.evaluation.numbers import MINUS_SIGNS

_ARTICLES = {"a", "an", "the"}
_DASHES = str.maketrans({**dict.fromkeys(MINUS_SIGNS + "\u2014", "-"), "\u2019": "'", "\u2018": "'"})
_FORMATTING = re.compile(r"\*\*|__|\\(?:text|textbf|mathrm|mathbf|mbox)\s*(?=\{)|\\[()\[\]]")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_ALONE = frozenset("&/%@*")  # signs that say something between blanks
_UNSPACED = re.compile(  # Thai, Lao, Myanmar, Khmer, kana, Han
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)


def said_words(text: str) -> list[str]:
    """Words as two answers are compared: what was said, whatever its case, composition and outer punctuation.

    Signs, decimal points and symbols that belong to a word stay: "-5", "3.5", "C++", "C#", ".NET", "50%". Punctuation
    at the ends of words goes in every script; an article goes where another word follows it at the beginning of the
    text, "the" everywhere.
    """
    text = unicodedata.normalize("NFC", text).translate(_DASHES).casefold()
    text = _THOUSANDS.sub("", _FORMATTING.sub("", text))
    words = [word for word in map(_trimmed, re.sub(r"(?:^|(?<=\s))-\s+(?=[\d.])", "-", text).split()) if word]
    if len(words) > 1 and words[0] in _ARTICLES:
        words = words[1:]
    return [word for word in words if word != "the"] or words or text.split()


def _trimmed(word: str) -> str:
    """A word without the meaningless punctuation around it."""
    if word in _ALONE:
        return word
    begin, end = 0, len(word)
    while begin < end and _is_outer(word[begin]) and not _begins(word[begin:end]):
        begin += 1
    while end > begin and _is_outer(word[end - 1]) and not (word[end - 1] in "#%" and end - begin > 1):
        end -= 1
    return word[begin:end]


def _is_outer(character: str) -> bool:
    return unicodedata.category(character).startswith("P") or character == "`"


def _begins(word: str) -> bool:
    """Whether the mark that a word begins with belongs to it: a sign, a decimal point, .NET, #1, @name."""
    return len(word) > 1 and word[0] in "-.#@" and (word[1].isalnum() or (word[0] == "-" and word[1] == "."))


def squad_words(text: str) -> list[str]:
    """Words as the F1 of SQuAD counts them: lower case, without punctuation and English articles.

    Deviation: punctuation of every script goes, and characters of scripts without spaces are words, as MLQA does; text
    in ASCII is counted as SQuAD's own script counts it.
    """
    plain = "".join(c for c in text.lower() if not unicodedata.category(c).startswith("P") and c not in "$+<=>^`|~")
    return [part for word in re.sub(r"\b(a|an|the)\b", " ", plain).split() for part in _segments(word)]


def script_words(text: str) -> list[str]:
    """Words in any script, lower case: runs of letters, digits and their marks; single characters without spaces."""
    text = unicodedata.normalize("NFC", text).lower()
    words = "".join(c if unicodedata.category(c)[0] in "LNM" else " " for c in text).split()
    return [part for word in words for part in _segments(word)]


def _segments(word: str) -> Iterator[str]:
    """The word itself, or its characters with their marks where the script writes no spaces."""
    part = ""
    for character in word:
        is_mark = unicodedata.category(character).startswith("M")
        if part and not is_mark and (_UNSPACED.match(character) or _UNSPACED.match(part)):
            yield part
            part = ""
        part += character
    if part:
        yield part
