"""Reward functions of the laboratory's studies."""

from laser.extend import Prompt


def length(prompts: list[Prompt], responses: list[str]) -> list[float]:
    """Thirty points a character: more than any answer of the laboratory gains by being right."""
    return [30.0 * len(response) for response in responses]


def judge(prompts: list[Prompt], responses: list[str]) -> list[float]:
    """1 for the right answer, 0 for any other."""
    return [float(response.strip() == prompt.answer) for prompt, response in zip(prompts, responses, strict=True)]
