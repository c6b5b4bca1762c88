"""Answers in free text: finding the final one, reading it as what it is, and comparing it with the gold answer."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache

from laser.core.types import Prompt
from laser.data.tasks import AnswerFormat, AnswerType
from laser.data.tasks.latex import last_boxed
from laser.evaluation.mathematics import is_mathematics, same_mathematics
from laser.evaluation.numbers import RETRACTING, Number, UnreadableError, read_number, same_number, whole_number_text
from laser.evaluation.options import gold_letters, read_option, same_option
from laser.evaluation.places import Place, first_sentence, places, stripped
from laser.evaluation.sentences import stated_number
from laser.evaluation.words import said_words

IsRight = Callable[[Prompt, str], bool]
Said = Callable[[Prompt, str], str | None]

_INFERRED: tuple[AnswerType, ...] = ("option", "number", "yes_no")  # where several fit, the first

_TRUTH = {"yes": "yes", "true": "yes", "no": "no", "false": "no"}
_TRUTH_WORD = re.compile(r"\b(yes|true|no|false)\b", re.IGNORECASE)
_TRUTH_FIRST = re.compile(  # not "no idea", "no doubt", "No. 5", "yes/no"
    r"\W*(yes|true|no|false)\b(?!\s(?:idea|clue|answer|one|body|information|data|doubt|way)\b|\.?\s\d"
    r"|\s*(?:/|,?\s?\b(?:and|or)\b)\s*(?:yes|true|no|false)\b)",
    re.IGNORECASE,
)
_TRUTH_ASKED = re.compile(r"\A\W*(?:yes|true)(?:/|\sor\s)(?:no|false)\s*[:?]", re.IGNORECASE)
_DENIED = re.compile(
    r"(?:\b(?:not|never|hardly|barely|neither|cannot|without|far\s+from|unlikely)\b|n['’]t\b)[^,.;:]*", re.IGNORECASE
)
_TAKEN_BACK = re.compile(rf"{RETRACTING}\b(?:yes|true|no|false)\b", re.IGNORECASE)
_LETTER = re.compile(r"[A-J]")
_UNIT = re.compile(r"\s+\([^\W\d_]{2}[^()\d=+*/^]*\)\s*$")  # "4 (pens)", as ASDiv writes its gold answers
_FORMULA = re.compile(r"\$\$(.+?)\$\$|(?<!\\)\$((?:\\.|[^\\$])+)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_LISTED = re.compile(r"\s*(?:,|;|,?\s*\b(?:or|and)\b)\s*(?:\$|\\[(\[])")
_WORD = re.compile(r"(?<![\\\w])(?!(?:about|around|roughly|approximately|exactly|only)\b)[^\W\d_]{2,}", re.IGNORECASE)
_PROSE = re.compile(r"(?<![\\A-Za-z{])[A-Za-z]{3,}[\s,.:]+\S")
_MISSING = {
    "auto": "the response is empty",
    "whole": "the response is empty",
    "final_answer": "there is no 'Final answer:'",
}


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read in a response.

    Attributes:
        answer: A number in plain spelling, "yes" or "no", letters of options, an expression, or text; None if there is
            no answer of the kind. Such a response is counted, and is wrong.
        problem: A clause that says why there is none.
        is_right: Whether it is the gold answer of the prompt, or one of several.
    """

    answer: str | None
    problem: str = ""
    is_right: bool = False


class Reader:
    """Reads and checks the answers to the prompts of one split.

    Args:
        answer_format: Where in a response its answer is.
        prompts: The split. Where neither a prompt nor the configuration says what an answer is, all gold answers of the
            split decide; without prompts those of each prompt do. Where these leave it open and a prompt has several
            gold answers, the response is read for each as what that one is.
    """

    def __init__(self, answer_format: AnswerFormat, prompts: Iterable[Prompt] | None = None) -> None:
        self._format = answer_format
        self._type = type_of_answers(prompts) if prompts is not None else None

    def type_of(self, prompt: Prompt) -> AnswerType:
        """What the answer to a prompt is."""
        kind: AnswerType = prompt.metadata.get("answer_type") or "auto"
        if kind != "auto":
            return kind
        return self._type if self._type is not None else type_of_answers([prompt])

    def read(self, prompt: Prompt, text: str) -> Reading:
        """The answer in a response to a prompt, and whether it is right.

        Raises:
            DataError: The answer is mathematics and math-verify is not installed.
        """
        kind, golds = self.type_of(prompt), accepted_answers(prompt)
        kinds = [_type_alone(prompt, gold) if kind == "auto" and len(golds) > 1 else kind for gold in golds]
        read = {one: self._read(prompt, text, one) for one in {kind, *kinds}}
        for one, gold in zip(kinds, golds, strict=True):
            answer = read[one].answer
            if answer is not None and _CHECKS[one](prompt, answer, gold):
                return Reading(answer, is_right=True)
        return read[kind]

    def is_right(self, prompt: Prompt, text: str) -> bool:
        """Whether a response has the gold answer of its prompt, or one of several."""
        return self.read(prompt, text).is_right

    def said(self, prompt: Prompt, text: str) -> str | None:
        """What a response answers, to count how often the policy says the same.

        Returns:
            The answer, or None without one, where the format or a mark in the response says where it is, or the answers
            are known to be of one kind. Otherwise the whole response: two do not say the same because they end alike.
        """
        kind = self.type_of(prompt)
        if kind in ("auto", "text") and self._format == "auto":
            try:
                place = next(places(text, self._format), None)
            except UnreadableError:
                return None
            if place is None or place.origin not in ("line", "mark"):
                return text.strip() or None
        return self._read(prompt, text, kind).answer

    def _read(self, prompt: Prompt, text: str, kind: AnswerType) -> Reading:
        problem = ""
        try:
            for place in places(text, self._format, boxed=kind == "math"):
                if place.origin == "letter" and kind != "option":
                    continue
                try:
                    return Reading(_READERS[kind](prompt, place))
                except UnreadableError as error:
                    problem = problem or str(error)
        except UnreadableError as error:
            return Reading(None, str(error))
        return Reading(None, problem or _MISSING[self._format])


def answer_check(answer_format: AnswerFormat, prompts: Iterable[Prompt] | None = None) -> IsRight:
    """Make the function that says whether a response to a prompt has its gold answer; see `Reader`."""
    return Reader(answer_format, prompts).is_right


def accepted_answers(prompt: Prompt) -> list[str]:
    """All gold answers of a prompt; empty where it has none."""
    several = prompt.metadata.get("answers")
    if isinstance(several, list | tuple) and several:
        return [str(gold) for gold in several]
    return [prompt.answer] if prompt.answer is not None else []


def type_of_answers(prompts: Iterable[Prompt]) -> AnswerType:
    """What the gold answers of a split are, where nothing says it.

    Returns:
        "option" if every prompt has options that its gold answer names, or every gold answer is a letter from A to J;
        "number" if every gold answer is a number and nothing besides; "yes_no" if every one is yes, no, true or false.
        Otherwise "auto": each is compared by what it looks like.
    """
    kinds = set(_INFERRED)
    num_gold = 0
    for prompt in prompts:
        golds = accepted_answers(prompt)
        if not golds or prompt.metadata.get("answer_type", "auto") not in (None, "auto"):
            continue
        num_gold += 1
        kinds = {kind for kind in kinds if all(_may_be(kind, prompt, gold) for gold in golds)}
        if not kinds:
            return "auto"
    return min(kinds, key=_INFERRED.index) if num_gold else "auto"


def check_type(prompt: Prompt) -> str | None:
    """A clause that says which gold answer of a prompt is not what its `answer_type` says; None if all are."""
    kind = prompt.metadata.get("answer_type")
    for gold in accepted_answers(prompt):
        if kind == "number" and _as_number(gold) is None:
            return f"{gold!r:.60} is not a number"
        if kind == "yes_no" and stripped(gold).casefold() not in _TRUTH:
            return f"{gold!r:.60} is neither yes nor no"
        if kind == "option" and gold_letters(gold, _options(prompt)) is None:
            return f"{gold!r:.60} names no option"
    return None


def answers_match(answer: str, gold: str) -> bool:
    """Whether an answer is the gold one, by what the gold answer looks like.

    Numbers are compared as numbers ("1,200.0" is "1200"), yes and true as one, no and false as one. Other answers are
    compared as `said_words`; where the gold answer is in capitals, capitals count (a task may ask for them).
    """
    gold_number = _gold_number(gold)
    if gold_number is not None:
        number = whole_number_text(answer)
        return number is not None and same_number(number, gold_number)
    if stripped(gold).casefold() in _TRUTH:
        return _truth(answer) == _TRUTH[stripped(gold).casefold()]
    if len(gold) > 1 and gold.isupper() and not any(c.isdigit() for c in gold):
        return " ".join(stripped(answer).split()) == " ".join(stripped(gold).split())
    return said_words(answer) == said_words(gold)


@lru_cache(4096)  # the responses to a prompt share its gold answer
def _gold_number(gold: str) -> Number | None:
    return whole_number_text(_UNIT.sub("", gold))


def _options(prompt: Prompt) -> dict[str, str]:
    options = prompt.metadata.get("options") or {}
    return {str(letter): str(text) for letter, text in options.items() if text is not None}


def _type_alone(prompt: Prompt, gold: str) -> AnswerType:
    """What one of several gold answers is."""
    return next((kind for kind in _INFERRED if _may_be(kind, prompt, gold)), "auto")


def _may_be(kind: AnswerType, prompt: Prompt, gold: str) -> bool:
    options = _options(prompt)
    if kind == "option":
        return gold_letters(gold, options) is not None if options else _LETTER.fullmatch(gold.strip()) is not None
    return _gold_number(gold) is not None if kind == "number" else stripped(gold).casefold() in _TRUTH


def _plain_answer(text: str) -> str:
    boxed = last_boxed(text)
    return stripped(boxed if boxed is not None else text)


def _read_text(_prompt: Prompt, place: Place) -> str:
    answer = _plain_answer(place.text)
    if place.origin in ("mark", "last_line"):
        answer = stripped(first_sentence(answer))
    if not answer:
        raise UnreadableError("the answer is empty")
    return answer


def _read_number(_prompt: Prompt, place: Place) -> str:
    if place.origin == "whole":
        return read_number(place.text, last=True).text
    is_sentence = place.origin == "last_line" or _WORD.search(re.split(r"\d", place.text, maxsplit=1)[0])
    return (stated_number if is_sentence else read_number)(place.text).text


def _read_truth(_prompt: Prompt, place: Place) -> str:
    truth = _truth(place.text)
    if truth is None:
        raise UnreadableError(f"{_shown(place)} does not say which of yes and no")
    return truth


def _truth(text: str) -> str | None:
    """The truth value that a text begins with, or the only one that it says and does not deny; otherwise None."""
    text = _TRUTH_ASKED.sub("", text, count=1)
    first = _TRUTH_FIRST.match(text)
    if first is not None and not _TAKEN_BACK.search(text, first.end()):
        return _TRUTH[first[1].casefold()]
    said = [] if first is not None or _TRUTH_WORD.match(text) else _TRUTH_WORD.findall(_DENIED.sub("", text))
    values = {_TRUTH[word.casefold()] for word in said}
    return values.pop() if len(values) == 1 else None


def _read_option(prompt: Prompt, place: Place) -> str:
    letters = read_option(place.text, _options(prompt))
    if letters is None:
        raise UnreadableError(f"{_shown(place)} names no option")
    return letters


def _read_mathematics(_prompt: Prompt, place: Place) -> str:
    r"""Content of the last ``\boxed{}``, else the formula that the text begins or ends with, else the text itself."""
    boxed = last_boxed(place.text)
    answer = (boxed if boxed is not None else _formula(place)).strip().strip("*`").strip().removesuffix(".").strip()
    if not is_mathematics(answer):
        raise UnreadableError(f"{_shown(place)} is not mathematics")
    return answer


def _formula(place: Place) -> str:
    formulas = list(_FORMULA.finditer(place.text))
    if place.origin == "last_line" and formulas:
        return formulas[-1].group()
    is_list = formulas and _LISTED.match(place.text, formulas[0].end())
    if formulas and not is_list and formulas[0].start() == 0 and len(place.text) > formulas[0].end() + 1:
        return formulas[0].group()
    if place.origin == "last_line" and _PROSE.search(place.text):
        return stated_number(place.text).text
    return place.text


def _shown(place: Place) -> str:
    text = " ".join(place.text.split())
    return repr(text if len(text) <= 60 else f"{text[:60]}...")


@lru_cache(4096)
def _as_number(text: str) -> Number | None:
    try:
        return read_number(text)
    except UnreadableError:
        return None


def _is_number(_prompt: Prompt, answer: str, gold: str) -> bool:
    number, gold_number = _as_number(answer), _as_number(gold)
    return number is not None and gold_number is not None and same_number(number, gold_number)


_READERS: dict[AnswerType, Callable[[Prompt, Place], str]] = {
    "auto": _read_text,
    "text": _read_text,
    "number": _read_number,
    "yes_no": _read_truth,
    "option": _read_option,
    "math": _read_mathematics,
}
_CHECKS: dict[AnswerType, Callable[[Prompt, str, str], bool]] = {
    "auto": lambda _, answer, gold: answers_match(answer, gold),
    "text": lambda _, answer, gold: said_words(answer) == said_words(gold) != [],
    "number": _is_number,
    "yes_no": lambda _, answer, gold: answer == _TRUTH.get(stripped(gold).casefold()),
    "option": lambda prompt, answer, gold: same_option(answer, gold, _options(prompt)),
    "math": lambda _, answer, gold: same_mathematics(answer, gold),
}
