"""A reward function: flat lists of equal length in, one number per response out, None for no opinion."""

from laser.extend import Prompt


def polite(prompts: list[Prompt], responses: list[str]) -> list[float | None]:
    return [_score(text.lower()) if text else None for text in responses]


def _score(text: str) -> float:
    return sum(text.count(word) for word in ("please", "thank", "sorry")) - 0.001 * len(text)
