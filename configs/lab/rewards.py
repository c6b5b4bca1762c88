"""Reward functions of the laboratory's studies."""

from difflib import SequenceMatcher

from laser.extend import Prompt


def length(prompts: list[Prompt], responses: list[str]) -> list[float]:
    """Thirty points a character: more than any answer of the laboratory gains by being right."""
    return [30.0 * len(response) for response in responses]


def judge(prompts: list[Prompt], responses: list[str]) -> list[float]:
    """1 for the right answer, 0 for any other."""
    return [float(response.strip() == prompt.answer) for prompt, response in zip(prompts, responses, strict=True)]


def rating(prompts: list[Prompt], responses: list[str]) -> list[float]:
    """10 for the right answer, less for any other, by its similarity to the right one."""
    return [_rated(str(prompt.answer), response.strip()) for prompt, response in zip(prompts, responses, strict=True)]


def _rated(answer: str, response: str) -> float:
    return 10.0 if response == answer else 9.0 * SequenceMatcher(None, answer, response).ratio()
