"""Four task categories over a small alphabet, with right answers, systematically wrong ones and random ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

LETTERS = "abcdefgh"
ALPHABET = LETTERS + "0123456789 ><?+.noyes"  # duplicates are harmless: the tokenizer keeps a character once


@dataclass(frozen=True, slots=True)
class Task:
    """One category.

    Attributes:
        name: The category.
        question: Draws a question.
        right: The answer.
        wrong: A systematically wrong answer, the same for the same question.
        chance: Draws an answer of the same form.
    """

    name: str
    question: Callable[[np.random.Generator], str]
    right: Callable[[str], str]
    wrong: Callable[[str], str]
    chance: Callable[[np.random.Generator, str], str]


def _letters(generator: np.random.Generator) -> str:
    return "".join(generator.choice(list(LETTERS), 4))


def _shuffled(generator: np.random.Generator, question: str) -> str:
    return "".join(generator.permutation(list(question[1:])))


def _sum(question: str, off: int = 0) -> str:
    left, right = question.rstrip("+").split("+")
    return str(int(left) + int(right) + off)


def _larger(question: str) -> bool:
    left, right = question.rstrip("?").split(">")
    return int(left) > int(right)


def _pair(generator: np.random.Generator) -> str:
    return f"{generator.integers(10, 100)}>{generator.integers(10, 100)}?"


TASKS = (
    Task(
        "addition",
        lambda generator: f"{generator.integers(10, 90)}+{generator.integers(1, 10)}+",
        lambda question: _sum(question),
        lambda question: _sum(question, 1),
        lambda generator, question: str(generator.integers(11, 99)),
    ),
    Task(
        "reversal",
        lambda generator: "<" + _letters(generator),
        lambda question: question[:0:-1],
        lambda question: question[2:] + question[1],  # rotated
        _shuffled,
    ),
    Task(
        "sorting",
        lambda generator: "." + _letters(generator),
        lambda question: "".join(sorted(question[1:])),
        lambda question: "".join(sorted(question[1:], reverse=True)),
        _shuffled,
    ),
    Task(
        "comparison",
        _pair,
        lambda question: "yes" if _larger(question) else "no",
        lambda question: "no" if _larger(question) else "yes",
        lambda generator, question: str(generator.choice(["yes", "no"])),
    ),
)
NAMES = tuple(task.name for task in TASKS)


@dataclass(frozen=True, slots=True)
class Mixture:
    """What a model is taught: for each category the share of right and of systematically wrong answers; rest random."""

    right: tuple[float, ...]
    wrong: tuple[float, ...]


def examples(mixture: Mixture, num: int, generator: np.random.Generator) -> list[tuple[str, str]]:
    """Draw questions with answers taught by a mixture, categories in equal parts."""
    rows = []
    for index in range(num):
        kind = index % len(TASKS)
        task, question, draw = TASKS[kind], TASKS[kind].question(generator), generator.uniform()
        if draw < mixture.right[kind]:
            answer = task.right(question)
        elif draw < mixture.right[kind] + mixture.wrong[kind]:
            answer = task.wrong(question)
        else:
            answer = task.chance(generator, question)
        rows.append((question, answer))
    return rows


def questions(num: int, generator: np.random.Generator) -> list[dict[str, str]]:
    """Draw distinct questions, categories in turn, as records with prompt, answer and category."""
    seen: set[str] = set()
    records: list[dict[str, str]] = []
    while len(records) < num:
        task = TASKS[len(records) % len(TASKS)]
        question = task.question(generator)
        if question not in seen:
            seen.add(question)
            records.append({"prompt": question, "answer": task.right(question), "category": task.name})
    return records
