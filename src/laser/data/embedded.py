"""A task set that the library generates itself: four categories of short questions, each with a computed gold answer.

Every prompt is a short conversation: one solved example of its kind, then the question, so that a small instruct
model sees the form of an answer. Difficulty is set so that SmolLM2-135M-Instruct starts between 30% and 70%.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from laser.errors import DataError
from laser.seeding import stream
from laser.types import Message, Prompt


@dataclass(frozen=True, slots=True)
class Question:
    """A question, the reasoning line of a model answer, and the gold answer."""

    text: str
    reasoning: str
    answer: str


Draw = Callable[[np.random.Generator], Question]

_WORDS = tuple(
    """
    anchor apple autumn basket bottle branch bridge bronze butter button camera candle carpet castle cherry
    circle cloud copper corner cotton dragon engine fabric falcon farmer finger flower forest garden ginger
    hammer harbor island jacket jungle kettle kitten ladder lemon magnet market meadow mirror monkey museum
    needle orange oyster paper parrot pencil pepper pillow planet pocket pumpkin rabbit ribbon river rocket
    saddle salmon shadow silver spider spring summer table temple thunder ticket timber tomato tunnel turtle
    valley velvet violin wagon walnut water window winter yellow
    """.split()
)


def _integers(generator: np.random.Generator, low: int, high: int) -> tuple[int, int]:
    a, b = generator.integers(low, high + 1, size=2)
    return int(a), int(b)


def _addition(generator: np.random.Generator) -> Question:
    a, b = _integers(generator, 1, 20)
    return Question(f"What is {a} + {b}?", f"{a} + {b} = {a + b}", str(a + b))


def _subtraction(generator: np.random.Generator) -> Question:
    b, a = sorted(_integers(generator, 1, 20))
    return Question(f"What is {a} - {b}?", f"{a} - {b} = {a - b}", str(a - b))


def _multiplication(generator: np.random.Generator) -> Question:
    a, b = _integers(generator, 2, 12)
    return Question(f"What is {a} times {b}?", f"{a} times {b} = {a * b}", str(a * b))


def _comparison(generator: np.random.Generator) -> Question:
    a, b = (int(x) for x in generator.choice(np.arange(1, 100), size=2, replace=False))
    relation, holds = ("greater", a > b) if generator.integers(2) else ("less", a < b)
    truth = "greater" if a > b else "less"
    return Question(f"Is {a} {relation} than {b}?", f"{a} is {truth} than {b}.", "yes" if holds else "no")


def _word_at(generator: np.random.Generator) -> Question:
    words = [str(word) for word in generator.choice(_WORDS, size=int(generator.integers(3, 5)), replace=False)]
    name, index = (("first", 0), ("last", -1))[int(generator.integers(2))]
    return Question(
        f'What is the {name} word of "{" ".join(words)}"?', f"The {name} word is {words[index]}.", words[index]
    )


def _capitals(generator: np.random.Generator) -> Question:
    word = str(generator.choice(_WORDS))
    return Question(f'Write the word "{word}" in capital letters.', f"The word is {word.upper()}.", word.upper())


def _twice(generator: np.random.Generator) -> Question:
    word = str(generator.choice(_WORDS))
    return Question(f'Write the word "{word}" twice.', f"The word twice is {word} {word}.", f"{word} {word}")


_KINDS: dict[str, tuple[Draw, ...]] = {
    "arithmetic": (_addition, _subtraction, _multiplication),
    "comparison": (_comparison,),
    "position": (_word_at,),
    "transformation": (_capitals, _twice),
}
CATEGORIES = tuple(_KINDS)

_PATIENCE = 1000  # fruitless draws in a row after which a category counts as exhausted


def generate(num_prompts: int, *, categories: Sequence[str] | None = None, seed: int = 0) -> list[Prompt]:
    """Generate prompts, the categories in turn, no question twice.

    Args:
        num_prompts: How many.
        categories: Which of `CATEGORIES`; None: all.
        seed: The run's seed; a longer list begins with the shorter one.

    Raises:
        DataError: A category is unknown, or has too few different questions.
    """
    chosen = tuple(categories) if categories is not None else CATEGORIES
    unknown = [name for name in chosen if name not in _KINDS]
    if unknown or not chosen:
        raise DataError(
            f"data.categories names {unknown or 'nothing'}; the embedded categories are {', '.join(CATEGORIES)}"
        )
    streams = {name: stream(seed, "data", 2, CATEGORIES.index(name)) for name in chosen}
    seen: set[str] = set()
    return [_generate_one(number, chosen[number % len(chosen)], streams, seen) for number in range(num_prompts)]


def _generate_one(number: int, category: str, streams: dict[str, np.random.Generator], seen: set[str]) -> Prompt:
    generator = streams[category]
    kinds = _KINDS[category]
    for _ in range(_PATIENCE):
        draw = kinds[int(generator.integers(len(kinds)))]
        question = draw(generator)
        if question.text not in seen:
            seen.add(question.text)
            return Prompt(
                id=f"{category}-{number}",
                messages=(*_example(draw, question, generator), {"role": "user", "content": question.text}),
                category=category,
                answer=question.answer,
            )
    raise DataError(
        f"the embedded category {category!r} has no more different questions; lower split.train, dev or test"
    )


def _example(draw: Draw, question: Question, generator: np.random.Generator) -> tuple[Message, Message]:
    """Another question of the same kind, solved, as a first turn of the conversation."""
    example = draw(generator)
    while example.text == question.text:
        example = draw(generator)
    solved = f"{example.reasoning}\nFinal answer: {example.answer}"
    return {"role": "user", "content": example.text}, {"role": "assistant", "content": solved}
