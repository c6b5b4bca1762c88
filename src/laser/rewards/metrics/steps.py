"""A text as the steps of a reasoning chain."""

from __future__ import annotations

import re

_MARKER = re.compile(r"^\s*(?:[-*•]|\(?\d{1,3}[.)])\s+")  # of a list item
_ABBREVIATIONS = "".join(
    rf"(?<!\b{word}\.)" for word in ("Mr", "Mrs", "Ms", "Dr", "St", "Prof", "vs", "etc", r"e\.g", r"i\.e", "No", "Fig")
)
_BOUNDARY = re.compile(rf"(?<=[.!?]){_ABBREVIATIONS}\s+(?=[^\sa-z])|(?<=[.!?][\"')\]])\s+(?=[^\sa-z])")


def split_steps(text: str) -> list[str]:
    """The sentences of every line, list markers and blank ones left out.

    Source: arXiv 2212.07919, whose code splits GSM8K chains at sentences and lines. Deviation: a rule (a full stop,
    question or exclamation mark before a space and no small letter, common abbreviations excepted) takes the place of
    NLTK's punkt model, which has to be downloaded.
    """
    lines = (_MARKER.sub("", line).strip() for line in text.splitlines())
    steps = (step.strip() for line in lines for step in _BOUNDARY.split(line))
    return [step for step in steps if any(character.isalnum() for character in step)]
