r"""Where in a response its answer is.

The format "final_answer" is the paper's (arXiv 2410.01735, appendix E): what follows the last "Final answer:". The
format "auto" also knows how other data sets and models end: `\boxed{X}`, "#### X", "Answer: X", "The answer is X.",
`<answer>X</answer>`, JSON, the word for it in other languages, and otherwise the last line. "whole" is the whole
response. What a model thinks before its answer is never the answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from laser.core.thoughts import without_thoughts
from laser.data.tasks import AnswerFormat
from laser.data.tasks.latex import last_boxed
from laser.evaluation.numbers import UnreadableError

_FINAL = re.compile(r"final\s+answer[\s*_]*(?:is)?[\s*_]*[:=：]\s*(.*)", re.IGNORECASE)
_HEADING = re.compile(r"^[ \t#*_]*final[ \t]+answer[ \t*_]*()$", re.IGNORECASE | re.MULTILINE)
_OPENING = re.compile(r"\s*(?:\\\[|\\\(|\$\$|```\w*)?\s*")  # a line that only opens a formula or a block
_CLOSING = re.compile(r"\s*(?:\\\]|\\\)|\$\$|```)?\s*")

_MARKED = re.compile(r"\banswer[\s*_]*(?:is)?[\s*_]*[:=：]\s*(.*)", re.IGNORECASE)
_ANSWER_HEADING = re.compile(r"^[ \t#*_]*(?:final[ \t]+)?answer[ \t*_]*()$", re.IGNORECASE | re.MULTILINE)
_HASHES = re.compile(r"^[ \t]*#{4}[ \t]*([^#\s].*)", re.MULTILINE)
_FINAL_IS = re.compile(r"\bfinal\s+answer\s+is\b(?!\s+not\b|\s*[\s*_]*[:=：])[\s*_]*(.*)", re.IGNORECASE)
_ANSWER_IS = re.compile(
    r"(?<!final )\banswer[\s*_]+(?:to\s[^.:\n]{1,120}?\s)?(?:is|equals|(?:should|must|would|will)\s+be)\b"
    r"(?!\s+not\b|\s*[\s*_]*[:=：])[\s*_]*(.*)",
    re.IGNORECASE,
)

_TAGGED = re.compile(r"<answer>\s*(\S.*?)\s*(?:</answer>|\Z)", re.IGNORECASE | re.DOTALL)
_KEYED = re.compile(r"""["'](?:final[_ ]?)?answer["']\s*:\s*["']?((?:[^"'\\}\n]|\\.)+)""", re.IGNORECASE)
_TRANSLATED = re.compile(
    r"(?:\b(?:réponse|respuesta|resposta|risposta|antwort|antwoord|odpowiedź|ответ|đáp án|jawaban)"
    r"|答案|答え|正解|정답|الإجابة|الجواب)(?:[ *_]+\w+)?[ *_]*"
    r"(?:[:=：]|\b(?:est|es|é|è|ist|lautet|is|to)\b[ :]*|(?:应该?|應該?)?[是為为選选は][：: ]*)[ *_]*(.*)",
    re.IGNORECASE,
)

_BULLET = re.compile(r"^[ \t]*[-–][ \t]+(?=[^-\s])", re.MULTILINE)
_ITEM = re.compile(r"^\s*[-–]\s+(?=[\d$€£][\d.,]*%?\s?[^\W\d_]{2}|[^\W\d_])")  # "- 51 apples", where "- 51" is a number
_LETTER = re.compile(r"[\s*_(\[]*[A-J][\s*_)\].:]*")
_WRAPPING = " \t*_`\"'$“”‘’"
_SENTENCE = re.compile(r"(?<=\w{3})[.!?]\s+(?=[A-Z\u00C0-\u00DE])")


@dataclass(frozen=True, slots=True)
class Place:
    """A part of a response that may be its answer.

    Attributes:
        text: The part.
        origin: "line" is what follows the paper's "Final answer:"; "mark" what follows another mark; "letter" a first
            line that is a letter, before an explanation without a mark; "last_line" the end of a response without any
            mark; "whole" the whole response.
    """

    text: str
    origin: Literal["line", "mark", "letter", "last_line", "whole"]


def spoken(text: str) -> str:
    """The response with blanks in place of what the model thought.

    Raises:
        UnreadableError: The model thought until its tokens were used up.
    """
    said, is_thinking = without_thoughts(text)
    if is_thinking and not said.strip():
        raise UnreadableError("the response ends inside its thoughts")
    return said


def places(text: str, answer_format: AnswerFormat, *, boxed: bool = False) -> Iterator[Place]:
    r"""The parts of a response that may be its answer, the most likely first; none if it has no answer.

    Args:
        text: The response.
        answer_format: See the module.
        boxed: In a response without "Final answer:" the last `\boxed{}` counts.

    Raises:
        UnreadableError: The response has no end of its thoughts.
    """
    text = spoken(text)
    if answer_format == "whole":
        if text.strip():
            yield Place(text.strip(), "whole")
    elif answer_format == "final_answer":
        line = _final_line(text)
        if line is None and boxed:
            line = last_boxed(text)
        if line is not None:
            yield Place(line, "line")
    else:
        yield from _marked_places(text)


def _final_line(text: str) -> str | None:
    """What follows the last "Final answer:", unstripped; of the next line if nothing does on its own."""
    found = [*_FINAL.finditer(text), *_HEADING.finditer(text)]
    return _line(max(found, key=lambda match: match.start()), text) if found else None


def stripped(text: str) -> str:
    """The text without markup, quotes, `$` and a final period around it."""
    text = text.strip().strip(_WRAPPING)
    return text.removesuffix(".").strip(_WRAPPING) if not re.fullmatch(r"[-+]?\d+\.", text) else text[:-1]


def first_sentence(text: str) -> str:
    """The text up to the end of its first sentence, if another sentence follows."""
    return _SENTENCE.split(text, maxsplit=1)[0]


def _marked_places(text: str) -> Iterator[Place]:
    marked = [(match.start(1), _line(match, text)) for match in _matches(text, _MARKED, _ANSWER_HEADING, _FINAL_IS)]
    marked += [(match.start(1), match[1]) for match in _matches(text, _HASHES)]
    marked += [(match.start(1), match[1].splitlines()[-1]) for match in _matches(text, _TAGGED)]
    marked += [(match.start(1), match[1].replace("\\\\", "\\")) for match in _matches(text, _KEYED)]
    boxed = last_boxed(text)
    if boxed is not None:
        marked.append((text.rfind(f"{{{boxed}}}"), boxed))
    certain = max((one for one in marked if one[1] is not None), default=(-1, None))
    for match in sorted(_matches(text, _ANSWER_IS, _TRANSLATED), key=lambda match: -match.start()):
        line = _line(match, text)
        if match.start(1) > certain[0] and line is not None:
            yield Place(line, "mark")
    if certain[1] is not None:
        yield Place(certain[1], "mark")
        return
    lines = [line for line in text.splitlines() if line.strip() and not _CLOSING.fullmatch(line)]
    if len(lines) > 1 and _LETTER.fullmatch(lines[0]):
        yield Place(lines[0], "letter")
    if lines:
        is_list = len(_BULLET.findall(text)) > 1
        yield Place((_BULLET if is_list else _ITEM).sub("", lines[-1], count=1), "last_line")


def _matches(text: str, *patterns: re.Pattern[str]) -> list[re.Match[str]]:
    return [match for pattern in patterns for match in pattern.finditer(text)]


def _line(match: re.Match[str], text: str) -> str | None:
    """What a marker is followed by on its line, or on the next line with content."""
    same = [] if "\n" in text[match.start() : match.start(1)] else [match[1]]
    rest = text[match.end() if same else match.start(1) :]
    lines = same + [_ITEM.sub("", line, count=1) for line in rest.splitlines()]
    return next((line for line in lines if stripped(line) and not _OPENING.fullmatch(line)), None)
