"""The number that a sentence states as its answer, where it may have several: "51 apples are left after 3 days".

Numbers in parentheses, reasons, comparisons and negations are not meant, nor those of known things ("the 3 children").
A duration is not meant where another number is stated as what something has, is or leaves. Exactly one number must be
left, and none in words; otherwise the sentence cannot be read.
"""

from __future__ import annotations

import re

from laser.evaluation.numbers import (
    NO_ANSWER,
    SPELLED_NUMBER,
    Number,
    UnreadableError,
    number_of,
    numbers_in,
    percent_if_said,
    plain_text,
    read_number,
)

_SENTENCE = re.compile(  # not before a remark on the number: "This is 3 more than before."
    r"(?<=[.!?])\s+(?=[^\d\s])(?!(?:this|that|it)\s(?:is|was)\s[\d.,]+\s(?:\w+\s){0,2}(?:more|less|fewer|times)\b)|[。！？\n]",
    re.IGNORECASE,
)
_NEAR = 60  # characters around a number that say what it is
_MOST = 20  # numbers in a sentence
_EQUALS = re.compile("[=≡≈]")
_EMPHASIS = re.compile(r"\*\*([^*\n]+[^*\n:.)])\*\*")
_LABEL = re.compile(
    r"^\W*(?:(?:step|part|case|question|problem|line|q|day|option)\s*#?\d+\s*[:.)](?=\s)|\d+[.)](?=\s+\D))",
    re.IGNORECASE,
)
_CONDITIONAL = re.compile(r"\b(?:otherwise|else|either|respectively)\b", re.IGNORECASE)
_CONCLUSION = re.compile(
    r".*(?:(?:^|[,;]|\band)\s*(?:so|thus|therefore|hence|then)\b|\b(?:which\s+means|this\s+means|meaning)\b"
    r"|\b(?:a|the|grand)\s+(?:total|sum)\s+of\b)",
    re.IGNORECASE | re.DOTALL,
)
_ASIDE = re.compile(
    r"""
    (?<![\^*/.+])\([^()]*\)(?!\s?\^)
    | ^\W*(?:because|since|as|if|when|while|given|given\s+that|with|of)\b[^,]*,(?!\d)
    | \bnot\b [^,;.]* (?=,(?!\d)|;|\bbut\b|\.?$)
    | \b(?:because|since|as\s+(?:this|that|it|he|she|they|there)|compared|than(?!\s\d)
      |(?<!\d[ ]more[ ])(?<!\d[ ]less[ ])(?<!\d[ ]fewer[ ])than|versus|unlike)\b.*
    | \b(?:rather\s+than|instead\s+of|which\s+(?:is|was)|of\s+(?:which|whom|them|these|those))\b.*
    | [,;\u2014\u2013-]\s*(?:(?:this|that|it)\s+(?:is|was)\s+)?[\d.,]*\d\s(?:\w+\s){0,2}
      (?:more|less|fewer|times|of\s(?:which|whom|them|these|those))\b.*
    """,
    re.IGNORECASE | re.DOTALL | re.VERBOSE,
)
_KNOWN = re.compile(r"\b(?:the|these|those|all|both|every|each\s+of)\s+(?:other|next|first|last)?\s*$", re.IGNORECASE)
_DURING = re.compile(
    r"\b(?:after|in|within|per|every|each|for|over|during|on)\s+(?:about|only|just|exactly|another|day|week)?\s*$",
    re.IGNORECASE,
)
_DURATION = re.compile(r"[\s-]*(?:\w+\s)?(?:second|minute|hour|day|week|month|year|decade|night)s?\b", re.IGNORECASE)
_STATES = re.compile(
    r"\b(?:is|are|be|was|were|has|have|had|equals?|totals?|leaves?|left|with)\s+(?:only|just|exactly|about|still)?\s*$",
    re.IGNORECASE,
)
_REST = re.compile(r"(?:\s[a-z]+){0,3}\s(?:left|remain|remaining|in\s+total|in\s+all|altogether)\b", re.IGNORECASE)

_SPELLED = re.compile(rf"{SPELLED_NUMBER}|\b(?:no|one|none)(?={_REST.pattern})", re.IGNORECASE)


def stated_number(text: str) -> Number:
    """The number that the last sentence with numbers states.

    Raises:
        UnreadableError: There is none, or several may be meant.
    """
    emphasized = _EMPHASIS.findall(text)
    if len(emphasized) == 1 and re.match(r"\W*\d", emphasized[0]):
        return read_number(emphasized[0])
    plain = plain_text(text)
    if _EQUALS.search(plain):
        return read_number(text)
    return percent_if_said(_stated(plain), plain)


def _stated(plain: str) -> Number:
    sentence = next((one for one in reversed(_SENTENCE.split(plain)) if numbers_in(one)), plain)
    if NO_ANSWER.search(sentence):
        raise UnreadableError("it says that there is no answer")
    if not _CONDITIONAL.search(sentence):
        sentence = _without(_ASIDE, _without(_LABEL, _tail(sentence)))
    found = numbers_in(sentence)
    if len(found) > _MOST:
        raise UnreadableError(f"{' '.join(plain.split())[:60]!r} has several numbers")
    spans = [*enumerate((one[0].start(), one[-1].end()) for one in found)]
    spans += [(-1, one.span()) for one in _SPELLED.finditer(sentence)]
    if len(spans) < 2:
        return number_of(sentence, 0)
    places = [(i, sentence[max(0, start - _NEAR) : start], sentence[end:][:_NEAR]) for i, (start, end) in spans]
    places = [place for place in places if not _KNOWN.search(place[1]) and not (place[0] < 0 and _is_duration(place))]
    if any(_is_stated(place) for place in places if place[0] >= 0):
        places = [place for place in places if place[0] >= 0 or _is_stated(place)]
    lasting = [place for place in places if not _is_duration(place)]
    if len(lasting) < len(places):
        places = [place for place in lasting if _is_stated(place)] or places
        places = places if len(lasting) == 1 else lasting
    if any(i < 0 for i, _, _ in places):
        raise UnreadableError(f"{' '.join(plain.split())[:60]!r} has a number in words")
    values = {number_of(sentence, i).value: number_of(sentence, i) for i, _, _ in places}
    if len(values) != 1:
        raise UnreadableError(f"{' '.join(plain.split())[:60]!r} has several numbers")
    return values.popitem()[1]


def _is_duration(place: tuple[int, str, str]) -> bool:
    return bool(_DURING.search(place[1]) and _DURATION.match(place[2]))


def _is_stated(place: tuple[int, str, str]) -> bool:
    return bool(_STATES.search(place[1]) or _REST.match(place[2]))


def _tail(sentence: str) -> str:
    """What follows the last "so", "or" or "a total of", if a number does."""
    conclusion = _CONCLUSION.match(sentence)
    tail = sentence[conclusion.end() :] if conclusion is not None else ""
    return tail if numbers_in(tail) else sentence


def _without(part: re.Pattern[str], sentence: str) -> str:
    rest = part.sub(" | ", sentence)
    return rest if numbers_in(rest) else sentence
