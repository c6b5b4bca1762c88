"""Rows, which readers of layouts take, and examples, which they return."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from laser.core.errors import DataError
from laser.core.types import Message
from laser.data.conversations import kind_of
from laser.data.tasks import AnswerType, Role


@dataclass(frozen=True, slots=True)
class Row:
    """One row of an original file.

    Attributes:
        where: File and line or row, for error messages.
        id: Unique within the task.
        role: The original split.
        source: Name of the file without suffix, or configuration on the hub.
        fields: A mapping, or a list of cells for CSV.
        category_field: Column that holds the category, for sets without categories.
    """

    where: str
    id: str
    role: Role
    source: str
    fields: Any
    category_field: str | None = None

    def get(self, name: str) -> Any:
        """A field that may be absent."""
        return self.fields.get(name) if isinstance(self.fields, Mapping) else None

    def need(self, name: str, kind: type = str) -> Any:
        """A required field.

        Raises:
            DataError: It is missing or of another kind.
        """
        if not isinstance(self.fields, Mapping):
            raise DataError(
                f"{self.where} holds {kind_of(self.fields)}, not an object with fields; check which file it is"
            )
        value = self.fields.get(name)
        if isinstance(value, kind):
            return value
        if value is not None:
            raise DataError(
                f"{self.where}: field {name!r} holds {kind_of(value)}, not {kind_of(kind())}; fix or remove the row"
            )
        near = difflib.get_close_matches(name, list(self.fields), n=1)
        has = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(map(repr, self.fields))[:300] or 'none'}"
        raise DataError(f"{self.where} has no field {name!r} ({has}); check that data.path names this task's files")


@dataclass(frozen=True, slots=True)
class Example:
    """A question, whatever its layout was.

    Attributes:
        id: Unique within the task.
        input: The question or instruction, or a whole conversation ending with the user's message.
        category: Topic or part of the set.
        context: The document before the question.
        answer: Gold answer.
        answers: All accepted gold answers, if there may be several.
        answer_type: Type of the answer, if it differs within a task.
        options: Letter to text of a multiple-choice question.
        chosen: Preferred response.
        rejected: The other response.
        extra: Other fields of the row, JSON-able.
    """

    id: str
    input: str | tuple[Message, ...]
    category: str
    context: str = ""
    answer: str | None = None
    answers: Sequence[str] = ()
    answer_type: AnswerType | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    chosen: str | None = None
    rejected: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A row, or a part of one, that is skipped; counted by reason."""

    reason: str


Reader = Callable[[Row], Iterator[Example | LeftOut]]
"""Examples of one row."""


def with_options(question: str, options: Mapping[str, str]) -> str:
    """The question with its options below, a line each."""
    return "\n".join([question, *(f"{letter}. {text}" for letter, text in options.items())])
