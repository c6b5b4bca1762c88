"""The number that a sentence states as its answer, where it may have several: "51 apples are left after 3 days".

Numbers in parentheses, reasons, comparisons and negations are not meant, nor those of known things ("the 3 children").
A duration is not meant where another number is stated as what something has, is or leaves. Exactly one number must be
left; otherwise the sentence cannot be read.
"""

from __future__ import annotations

import re

from laser.evaluation.numbers import Number, UnreadableError, number_of, numbers_in, plain_text, read_number

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
    r".*(?:(?:^|[,;]|\band)\s*(?:so|thus|therefore|hence|then|or)\b|\b(?:which\s+means|this\s+means|meaning)\b"
    r"|\b(?:a|the|grand)\s+(?:total|sum)\s+of\b)",
    re.IGNORECASE | re.DOTALL,
)
_ASIDE = re.compile(
    r"""
    \([^()]*\)
    | ^\W*(?:because|since|as|if|when|while|given|given\s+that|with|of)\b[^,]*,(?!\d)
    | \bnot\b [^,;.]* (?=,(?!\d)|;|\bbut\b|\.?$)
    | \b(?:because|since|as\s+(?:this|that|it|he|she|they|there)|than|compared|versus|unlike)\b.*
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
    sentence = next((one for one in reversed(_SENTENCE.split(plain)) if numbers_in(one)), plain)
    if not _CONDITIONAL.search(sentence):
        sentence = _without(_ASIDE, _without(_LABEL, _tail(sentence)))
    found = numbers_in(sentence)
    if len(found) < 2:
        return number_of(sentence, 0)
    if len(found) > _MOST:
        raise UnreadableError(f"{' '.join(text.split())[:60]!r} has several numbers")
    places = [
        (i, sentence[max(0, one[0].start() - _NEAR) : one[0].start()], sentence[one[-1].end() :][:_NEAR])
        for i, one in enumerate(found)
    ]
    places = [place for place in places if not _KNOWN.search(place[1])]
    lasting = [place for place in places if not (_DURING.search(place[1]) and _DURATION.match(place[2]))]
    if len(lasting) < len(places):
        places = [place for place in lasting if _STATES.search(place[1]) or _REST.match(place[2])] or places
        places = places if len(lasting) == 1 else lasting
    values = {number_of(sentence, i).value: number_of(sentence, i) for i, _, _ in places}
    if len(values) != 1:
        raise UnreadableError(f"{' '.join(text.split())[:60]!r} has several numbers")
    return values.popitem()[1]


def _tail(sentence: str) -> str:
    """What follows the last "so", "or" or "a total of", if a number does."""
    conclusion = _CONCLUSION.match(sentence)
    tail = sentence[conclusion.end() :] if conclusion is not None else ""
    return tail if numbers_in(tail) else sentence


def _without(part: re.Pattern[str], sentence: str) -> str:
    rest = part.sub(" | ", sentence)
    return rest if numbers_in(rest) else sentence
