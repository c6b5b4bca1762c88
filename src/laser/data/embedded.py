"""A generated task set: four categories of short questions, each with a computed gold answer.

Every prompt is a short conversation: a solved example of its kind, then the question, so that a small instruct model
sees the format of an answer. Of the answers that SmolLM2-135M-Instruct samples at temperature 0.8, 28% to 43% of a
category are right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from laser.core.errors import DataError
from laser.core.seeding import stream
from laser.core.types import Message, Prompt


@dataclass(frozen=True, slots=True)
class Question:
    """A question, the reasoning line of a model answer, and the gold answer."""

    text: str
    reasoning: str
    answer: str


Draw = Callable[[np.random.Generator], Question]

_WORDS = tuple(
    """
    acorn almond amber anchor apple arrow autumn badge bamboo banana barrel basket beacon beetle belt berry
    blanket blossom bonnet border bottle branch bridge bronze bucket bundle butter button cabin cactus camera
    candle canvas canyon carpet castle cavern cedar cellar chapel cherry chimney cinema circle cloud clover
    coffee compass cookie copper coral corner cotton cradle crayon crystal cushion daisy desert diamond dinner
    dolphin donkey dragon eagle easel echo ember engine fabric falcon farmer feather fiddle finger flame flower
    forest fountain fox galaxy garden gate ginger glacier globe glove goat grape gravel guitar hammer harbor
    hazel helmet hill honey horse hotel igloo insect iron island ivory jacket jelly jewel juice jungle kennel
    kettle kitchen kitten knight ladder lagoon lamp lantern leaf lemon lizard lobster lotus magnet mango maple
    marble market meadow melon mint mirror mitten monkey mountain museum napkin needle nest nickel noodle ocean
    olive onion orange orchid otter oven owl oyster palace panda paper parrot peach pearl pebble pencil penguin
    pepper piano pigeon pillar pillow pirate planet plaza plum pocket pony potato prairie pumpkin puzzle quail
    quartz queen rabbit radish raven rhythm ribbon river robin rocket rose ruby saddle sailor salmon sandal
    scarf shadow shovel signal silver sofa sparrow spider spoon spring squirrel station stone storm sugar summer
    sunset swan table tailor temple thistle thunder ticket tiger timber toast tomato torch tower tulip tunic
    tunnel turtle umbrella valley vase velvet village vine violin wagon walnut walrus water wheat whistle willow
    window winter wolf wood yarn yellow zebra
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


def _swap(generator: np.random.Generator) -> Question:
    first, second = (str(word) for word in generator.choice(_WORDS, size=2, replace=False))
    swapped = f"{second} {first}"
    return Question(f'Swap the words in "{first} {second}".', f"The swapped words are {swapped}.", swapped)


_KINDS: dict[str, tuple[Draw, ...]] = {
    "arithmetic": (_addition, _subtraction, _multiplication),
    "comparison": (_comparison,),
    "position": (_word_at,),
    "transformation": (_capitals, _swap),
}
CATEGORIES = tuple(_KINDS)

NUM_EXAMPLES = 1
"""Solved examples before every question."""

_MAX_DRAWS = 1000  # repeated questions in a row after which a category counts as exhausted


def generate(num_prompts: int, *, categories: Sequence[str] | None = None, seed: int = 0) -> list[Prompt]:
    """Generate prompts, the categories in turn, no question twice.

    Args:
        num_prompts: Number of prompts.
        categories: Some of `CATEGORIES`; None: all.
        seed: The run's seed; a shorter list is a prefix of a longer one.

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
    for _ in range(_MAX_DRAWS):
        draw = kinds[int(generator.integers(len(kinds)))]
        question = draw(generator)
        if question.text not in seen:
            seen.add(question.text)
            return Prompt(
                id=f"{category}-{number}",
                messages=(*_examples(draw, question, generator), {"role": "user", "content": question.text}),
                category=category,
                answer=question.answer,
            )
    raise DataError(
        f"the embedded category {category!r} has no further distinct questions; lower split.train, dev or test"
    )


def _examples(draw: Draw, question: Question, generator: np.random.Generator) -> Iterator[Message]:
    """Other questions of the same kind, solved, as the first turns of the conversation."""
    shown = {question.text}
    while len(shown) <= NUM_EXAMPLES:
        example = draw(generator)
        if example.text not in shown:
            shown.add(example.text)
            yield {"role": "user", "content": example.text}
            yield {"role": "assistant", "content": f"{example.reasoning}\nFinal answer: {example.answer}"}
