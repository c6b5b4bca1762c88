"""Responses whose answer cannot be read: how many, examples with the reason, and what to set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

NUM_EXAMPLES = 3
_MANY = 0.2  # share of responses above which a setting is wrong rather than a response
_SHOWN = 160  # characters of a response


@dataclass(frozen=True, slots=True)
class UnreadableExample:
    """A response without a readable answer.

    Attributes:
        id: Of its prompt.
        problem: A clause that says why it cannot be read.
        response: Its end.
    """

    id: str
    problem: str
    response: str


@dataclass(frozen=True, slots=True)
class Unreadable:
    """The unreadable ones among some responses; each counts as wrong.

    Attributes:
        num: Number of them.
        num_responses: Number of all responses.
        examples: The first ones.
    """

    num: int
    num_responses: int
    examples: tuple[UnreadableExample, ...]

    def as_record(self) -> dict[str, Any]:
        """JSON-able form: `num_unparseable` and `unparseable`."""
        return {"num_unparseable": self.num, "unparseable": [asdict(one) for one in self.examples]}


def collect_unreadable(problems: Iterable[tuple[str, str, str]]) -> Unreadable:
    """Count and keep examples.

    Args:
        problems: Of each response its prompt's id, the problem ("" for none) and its text.
    """
    rows = list(problems)
    found = [(id, problem, text) for id, problem, text in rows if problem]
    examples = (UnreadableExample(id, problem, _end(text)) for id, problem, text in found[:NUM_EXAMPLES])
    return Unreadable(len(found), len(rows), tuple(examples))


def unreadable_lines(record: Mapping[str, Any], num_responses: int) -> list[str]:
    """Lines for the terminal from `Unreadable.as_record`; none where everything was read."""
    num = record.get("num_unparseable", 0)
    if not num:
        return []
    lines = [f"{num} of {num_responses} answers cannot be read and count as wrong:"]
    for one in record.get("unparseable", ()):
        lines.append(f"  {one['id']}: {one['problem']}; the response ends: {one['response']!r}")
    if num > _MANY * num_responses:
        lines.append(
            "  set evaluation.answer to where answers are (auto, final_answer, whole), data.answer_type to what they "
            "are (number, text, yes_no, option, math), or raise evaluation.max_new_tokens if responses are cut"
        )
    return lines


def _end(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _SHOWN else f"...{text[-_SHOWN:]}"
