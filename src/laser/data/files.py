"""Prompts of rows, and of local files of rows."""

from __future__ import annotations

import difflib
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from laser.core.errors import DataError, DataWarning
from laser.core.types import Message, Prompt
from laser.data.conversations import check_media, kind_of, read_text, read_tools
from laser.data.gold import check_answer_type, check_letter, options_field, read_gold, read_options, solution_of
from laser.data.looks import PROMPT, has_field, lookup, read_prompt
from laser.data.rows import SUFFIXES, SourceFile, read_rows, saved_rows
from laser.data.store import Digests, StoredPrompts

AUTO = "auto"

_PLACE = "{prompt}"
_ANSWERS = ("answer", "reward_model.ground_truth", "answers")  # where AUTO looks for gold answers, in this order


@dataclass(frozen=True, slots=True)
class Fields:
    """Which fields of a row hold what; dots lead into objects.

    Attributes:
        prompt: Text, or a list of chat messages; see `laser.data.looks` for the forms of rows without `prompt`.
        answer: Gold answer; "auto": `answer`, verl's `reward_model.ground_truth` or `answers`; None: there is none.
        category: Category; "auto": `category`; None: none. A row without one is in "default".
        template: Text around the last message of the user, with {prompt} where it goes.
        answer_type: Written into each prompt's metadata, for `laser.evaluation.answers`; None: nothing is.
        check: A clause that says which gold answer of a prompt is not what its `answer_type` says.
    """

    prompt: str = PROMPT
    answer: str | None = AUTO
    category: str | None = AUTO
    template: str | None = None
    answer_type: str | None = None
    check: Callable[[Prompt], str | None] | None = None

    def __post_init__(self) -> None:
        if self.template is not None and _PLACE not in self.template:
            raise DataError(f"data.template has no {_PLACE}; put {_PLACE} where the prompt goes")


@dataclass(slots=True)
class Census:
    """What the rows of a data set have and lack, over all of its files."""

    fields: Fields
    num_rows: int = 0
    num_null_ids: int = 0
    num_unread_tools: int = 0
    num_with_answer: int = 0
    num_with: dict[str, int] = field(default_factory=dict)
    names: dict[str, None] = field(default_factory=dict)
    conversations: list[Digests] = field(default_factory=list)
    golds: bytearray = field(default_factory=bytearray)
    named: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        """Keep the fields that the user named, and the settings that do."""
        settings = {self.fields.answer: "answer_field", self.fields.category: "category_field"}
        self.named = {name: setting for name, setting in settings.items() if name is not None and name != AUTO}

    def count(self, row: Mapping[str, Any], prompt: Prompt) -> None:
        """Count one row and the prompt that it made."""
        self.num_rows += 1
        self.num_null_ids += "id" in row and _is_null(row["id"])
        self.num_unread_tools += bool(prompt.metadata.get("tools")) and not prompt.tools
        self.num_with_answer += prompt.answer is not None
        for name in self.named:
            self.num_with[name] = self.num_with.get(name, 0) + has_field(row, name)
        if len(self.names) < 100 and not self.names.keys() >= row.keys():
            self.names |= dict.fromkeys(row)
        self.golds += gold_key(prompt)

    def check(self) -> None:
        """Refuse a named field that no row has, and warn of what some rows lack.

        Raises:
            DataError: The field of the answer or category is in no row.
        """
        for name, setting in self.named.items():
            number = self.num_with.get(name, 0)
            if number == 0 and self.num_rows:
                near = difflib.get_close_matches(name, list(self.names), 1)
                hint = f"did you mean {near[0]!r:.80}?" if near else f"there are {', '.join(self.names)[:300]}"
                raise DataError(f"data.{setting} = {name!r}, but no row has this field; {hint}")
            if number < self.num_rows:
                _warn(f"{self.num_rows - number} of {self.num_rows} rows have no field {name!r} (data.{setting})")
        all_have_it = self.num_with.get(str(self.fields.answer), self.num_rows) == self.num_rows
        if all_have_it and 0 < self.num_with_answer < self.num_rows:
            _warn(f"{self.num_rows - self.num_with_answer} of {self.num_rows} prompts have no gold answer")
        if self.num_null_ids:
            _warn(f"{self.num_null_ids} of {self.num_rows} rows have the id null; their id is the number of the row")
        if self.num_unread_tools:
            _warn(
                f"{self.num_unread_tools} of {self.num_rows} rows have 'tools' that are not a list of objects; no chat "
                "template shows them"
            )
        if self.conversations:
            warn_of_conflicts(np.concatenate(self.conversations), self.golds)


def load_file(path: str | Path, fields: Fields | None = None, census: Census | None = None) -> StoredPrompts:
    """Read prompts, one a row, into a temporary file.

    Args:
        path: JSON Lines, a JSON list, CSV or TSV with a header, or Parquet, gzipped or not; or a folder that
            `datasets.Dataset.save_to_disk` wrote.
        fields: Which fields hold what.
        census: Counts the rows together with those of other files, and is checked by the caller.

    Raises:
        DataError: The file is missing, of another kind or malformed, or a row lacks its prompt; names file and row.
    """
    prompts = make_prompts(table_rows(path), fields or Fields(), census)
    if not prompts:
        raise DataError(f"file {path} holds no rows; add some")
    return prompts


def table_rows(path: str | Path) -> Iterator[tuple[str, Any]]:
    """Rows of a file or a saved data set: a place for error messages, and a mapping.

    Raises:
        DataError: The file is missing, of another kind or malformed.
    """
    path = Path(path)
    if path.is_dir():
        return saved_rows(path)
    if not path.exists():
        raise DataError(f"file {path} does not exist; check the path")
    source = SourceFile(path)
    if source.suffix not in SUFFIXES:
        raise DataError(f"file {path} is none of {', '.join(SUFFIXES)}; convert it to one of them")
    return read_rows(source, header=True)


def make_prompts(rows: Iterable[tuple[str, Any]], fields: Fields, census: Census | None = None) -> StoredPrompts:
    """Turn rows into prompts, in memory that does not grow with their text.

    Args:
        rows: (where, row): a place for error messages, and a mapping.
        fields: Which fields hold what.
        census: As in `load_file`.

    Raises:
        DataError: A row is not a mapping, lacks its prompt, or repeats an id.
    """
    counted = census or Census(fields)

    def made() -> Iterator[Prompt]:
        for number, (where, row) in enumerate(rows):
            prompt = make_prompt(where, row, number, fields)
            counted.count(row, prompt)
            yield prompt

    prompts = StoredPrompts.write(made())
    _, first, count = np.unique(prompts.ids, return_index=True, return_counts=True)
    if (count > 1).any():
        twice = prompts[int(first[count > 1].min())]
        raise DataError(f"two prompts have the id {twice.id!r:.100}; make the field 'id' unique or remove it")
    counted.conversations.append(prompts.conversations)
    if census is None:
        counted.check()
    return prompts


def make_prompt(where: str, row: Any, number: int, fields: Fields) -> Prompt:
    """Turn one row into a prompt.

    Args:
        where: A place for error messages.
        row: A mapping.
        number: The row's, its id unless it has one.
        fields: Which fields hold what.

    Raises:
        DataError: It is not a mapping, lacks its prompt, or a field is not understood.
    """
    row = check_row(where, row)
    messages, used = read_prompt(where, row, fields.prompt)
    if fields.template is not None:
        messages = _in_template(messages, fields.template)
    prompt = describe_prompt(where, row, number, fields, messages, used)
    problem = fields.check(prompt) if fields.check is not None else None
    if problem is not None:
        raise DataError(
            f"{where}: the gold answer {problem}, and its answer_type is {prompt.metadata['answer_type']!r}; correct "
            "the answer, or set data.answer_type"
        )
    return prompt


def check_row(where: str, row: Any) -> Mapping[str, Any]:
    """The row, if it is a mapping without images, audio or video.

    Raises:
        DataError: It is not.
    """
    if not isinstance(row, Mapping):
        raise DataError(f"{where} holds {kind_of(row)}, not an object with fields; write one JSON object a line")
    check_media(where, row)
    return row


def describe_prompt(
    where: str,
    row: Mapping[str, Any],
    number: int,
    fields: Fields,
    messages: tuple[Message, ...],
    used: frozenset[str] = frozenset(),
) -> Prompt:
    """A prompt with id, category, gold answers and whatever else its row has.

    Raises:
        DataError: One of these fields is not understood.
    """
    answer_field = _answer_field(row, fields.answer)
    gold_value = lookup(row, answer_field) if answer_field is not None else None
    category_field = "category" if fields.category == AUTO else fields.category
    category = lookup(row, category_field) if category_field is not None else None
    rest = {name: value for name, value in row.items() if name not in {*used, answer_field, category_field, "id"}}
    metadata, golds = _checked(where, rest, gold_value, fields.answer_type)
    return Prompt(
        id=read_text(where, number if _is_null(row.get("id")) else row["id"]),
        messages=messages,
        category="default" if _is_null(category) or category == "" else read_text(where, category),
        answer=golds[0] if golds else None,
        metadata=metadata,
        conversational=any(isinstance(row.get(name), list | tuple) for name in used),
    )


def gold_key(prompt: Prompt) -> bytes:
    """A digest of the gold answers, 16 bytes."""
    golds = prompt.metadata.get("answers") or [prompt.answer]
    return blake2b("\0".join(map(str, golds)).encode(), digest_size=16).digest()


def warn_of_conflicts(conversations: Digests, golds: bytes | bytearray) -> None:
    """Warn of conversations that occur with different gold answers.

    Args:
        conversations: A digest of the messages of each prompt.
        golds: The `gold_key` of each, one after the other.
    """
    both = np.stack([conversations, np.frombuffer(bytes(golds), dtype="S16")], axis=1).copy()
    distinct = np.unique(both.view("S32")).view("S16")[::2]
    _, answers = np.unique(distinct, return_counts=True)
    if number := int((answers > 1).sum()):
        _warn(f"prompts that occur with different gold answers: {number}; only the first of each counts")


def _checked(
    where: str, metadata: dict[str, Any], gold_value: Any, answer_type: str | None
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The metadata with answer type, options, several gold answers and tools as others read them; the gold answers."""
    golds = read_gold(where, gold_value)
    if isinstance(metadata.get("answers"), list | tuple):
        golds = tuple(dict.fromkeys([*golds, *read_gold(where, metadata["answers"])]))
    if len(golds) > 1:
        metadata["answers"] = list(golds)
    if (solution := solution_of(gold_value)) is not None:
        metadata.setdefault("solution", solution)
    if options := read_options(where, metadata.pop(options_field(metadata), None)):
        check_letter(where, gold_value, options)
        metadata["options"] = options
    if "tools" in metadata:
        metadata["tools"] = read_tools(metadata["tools"])
    named = metadata.pop("answer_type", None)
    if answer_type is None:
        check_answer_type(where, named)
    if kind := answer_type or named:
        metadata["answer_type"] = kind
    return metadata, golds


def _answer_field(row: Mapping[str, Any], name: str | None) -> str | None:
    if name != AUTO:
        return name
    several = row.get("answers")
    is_gold = isinstance(several, list | tuple) or (
        isinstance(several, Mapping) and isinstance(several.get("text"), list)
    )
    candidates = _ANSWERS if is_gold else _ANSWERS[:-1]
    return next((candidate for candidate in candidates if lookup(row, candidate) is not None), None)


def _in_template(messages: tuple[Message, ...], template: str) -> tuple[Message, ...]:
    """The conversation with the template around the last message of the user."""
    last = max((place for place, message in enumerate(messages) if message["role"] == "user"), default=None)
    if last is None:
        return messages
    filled = {**messages[last], "content": template.replace(_PLACE, messages[last]["content"])}
    return (*messages[:last], filled, *messages[last + 1 :])


def _is_null(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _warn(message: str) -> None:
    warnings.warn(message, DataWarning, stacklevel=3)
