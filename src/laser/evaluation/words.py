"""Words of a text as question-answering metrics compare them."""

from __future__ import annotations

import re
import string


def normalized_words(text: str) -> list[str]:
    """Lower-case words without punctuation and articles (the normalisation of SQuAD's evaluation)."""
    plain = "".join(character for character in text.lower() if character not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", plain).split()
