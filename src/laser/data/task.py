"""Prompts and labeled pairs of a task, from its original files or from the hub."""

from __future__ import annotations

import difflib
import hashlib
import heapq
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from laser.core.errors import DataError
from laser.core.types import Message, Prompt
from laser.data.files import gold_key, warn_of_conflicts
from laser.data.hub import stream_hub
from laser.data.layouts import READERS, Example, LeftOut, Row
from laser.data.preferences import Preference
from laser.data.rows import SourceFile, read_rows
from laser.data.store import digest
from laser.data.tasks import AnswerType, Hub, Role, Task

Classify = Callable[[Sequence[str]], Sequence[str]]
"""Labels of texts."""

ROLES: tuple[Role, ...] = ("train", "dev", "test")

_CHUNK = 256  # prompts classified at a time
_PLACES = re.compile(r"\{(input|context)\}")


@dataclass(frozen=True, slots=True)
class Selection:
    """Which of a task's prompts are read, and how.

    Attributes:
        path: The original files, a folder with them anywhere below, or a local folder of the hub's layout; None: the
            hub.
        revision: Hub revision; None: the task's.
        categories: Categories to keep; empty: all.
        category_field: Field of a row, or of a prompt's metadata, that is the category; None: the task's own.
        classify: Returns the category of prompts that have none.
        template: Text around a prompt; None: the task's.
        answer_type: Type of every answer; "auto": as the row or the task says.
        limit: Most prompts of a category and original split, drawn uniformly by a seeded hash of the conversation:
            the same whatever the order of the rows, in memory that does not grow with them. None: all.
        max_rows: Read only the first rows of each original split; None: all.
        seed: The run's seed.
    """

    path: Path | None = None
    revision: str | None = None
    categories: Sequence[str] = ()
    category_field: str | None = None
    classify: Classify | None = None
    template: str | None = None
    answer_type: AnswerType = "auto"
    limit: int | None = None
    max_rows: int | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Loaded:
    """Prompts of a task.

    Attributes:
        pools: Prompts by original split, in the order of the rows.
        left_out: How many examples were left out, by reason.
    """

    pools: dict[Role, list[Prompt]]
    left_out: dict[str, int] = field(default_factory=dict)

    @property
    def prompts(self) -> list[Prompt]:
        """All of them."""
        return [prompt for role in ROLES for prompt in self.pools.get(role, [])]


def load_task(task: Task, selection: Selection | None = None) -> Loaded:
    """Read the prompts of a task.

    A prompt's metadata has its original `split` and, where there are any, `options`, several `answers`, its
    `answer_type`, `chosen`, `rejected` and other fields of the row.

    Raises:
        DataError: Files are missing, damaged or of another layout, a category is unknown, or nothing is left.
    """
    selection = selection or Selection()
    left_out: Counter[str] = Counter()
    pools: dict[Role, list[Prompt]] = {}
    seen: set[str] = set()
    for role in ROLES:
        rows = islice(_rows(task, role, selection), selection.max_rows)
        prompts = _chosen(_categorised(_examples(task, rows, left_out), task, selection), selection, left_out, seen)
        pool = _drawn(prompts, selection) if selection.limit is not None else list(prompts)
        if pool:
            pools[role] = [_prompt(example, task, selection, role) for example in pool]
    _check_categories(task, selection, pools, seen)
    loaded = Loaded(pools, dict(left_out))
    conversations = b"".join(digest(prompt.messages) for prompt in loaded.prompts)
    warn_of_conflicts(np.frombuffer(conversations, dtype="S16"), b"".join(map(gold_key, loaded.prompts)))
    return loaded


def load_task_preferences(task: Task, selection: Selection | None = None) -> tuple[list[Preference], int]:
    """Read the labeled pairs of a task, prompts unchanged, without a template.

    Returns:
        The pairs, and the number of examples without a pair: a tie, an empty response, or two equal ones.

    Raises:
        DataError: As for `load_task`, or there are no pairs.
    """
    loaded = load_task(task, replace(selection or Selection(), template="{input}"))
    pairs = [
        Preference(prompt, str(prompt.metadata["chosen"]), str(prompt.metadata["rejected"]))
        for prompt in loaded.prompts
        if _is_pair(prompt.metadata.get("chosen"), prompt.metadata.get("rejected"))
    ]
    if not pairs:
        raise DataError(f"task {task.name} has no labeled pairs in these files; see `laser tasks show {task.name}`")
    return pairs, len(loaded.prompts) - len(pairs)


def find_files(task: Task, path: Path) -> list[tuple[Role, SourceFile]]:
    """The task's original files at a path, in the order of its patterns and then of their names.

    A path to a file is that file, with the role of the pattern that it matches, else "train".

    Raises:
        DataError: The path does not exist.
    """
    if not path.exists():
        raise DataError(
            f"{path} does not exist; check data.path, or leave it out to read task {task.name} from the hub"
        )
    if path.is_file() and path.suffix != ".zip":
        matching = [role for role, pattern in task.files if path.match(pattern)]
        return [(matching[0] if matching else "train", SourceFile(path))]
    candidates = _members(path) if path.is_file() else [SourceFile(file) for file in _walk(path)]
    found = _matching(task, candidates)
    if not found and path.is_dir():
        archives = [member for archive in sorted(path.rglob("*.zip")) for member in _members(archive)]
        found = _matching(task, archives)
    return found


def _rows(task: Task, role: Role, selection: Selection) -> Iterator[Row]:
    """Rows of one original split: from files of the original layout if there are any, else as on the hub."""
    path, field_name = selection.path, selection.category_field
    files = find_files(task, path) if path is not None else []
    ids = _distinct_names([source for _, source in files])
    for _, source in (item for item in files if item[0] == role):
        name = _source_name(source)
        if not _wanted(name, task, selection):
            continue
        for number, (where, fields) in enumerate(read_rows(source)):
            yield Row(where, f"{ids[source]}-{number}", role, name, fields, field_name)
    if files:
        return
    if task.hub is None or (path is not None and not path.is_dir()):
        _refuse_missing(task, path)
    assert task.hub is not None
    yield from _hub_rows(task.hub, task, role, selection)


def _hub_rows(hub: Hub, task: Task, role: Role, selection: Selection) -> Iterator[Row]:
    local = selection.path is not None
    if local and not _is_hub_folder(selection.path):
        _refuse_missing(task, selection.path)
    plain = selection.path is not None and not (selection.path / "README.md").is_file()  # names no configurations
    for split in (name for of_role, name in hub.splits if of_role == role):
        for config in hub.configs or (None,):
            if config is not None and not _wanted(config, task, selection):
                continue
            rows = stream_hub(
                str(selection.path) if local else hub.name,
                split,
                config=config if not plain else None,
                revision=None if local else selection.revision or hub.revision,
                files=hub.files.format(config=config, split=split) if hub.files is not None else None,
            )
            for number, (where, fields) in enumerate(rows):
                parts = [part for part in (config, split, str(number)) if part is not None]
                yield Row(where, "-".join(parts), role, config or task.name, fields, selection.category_field)


def _examples(task: Task, rows: Iterable[Row], left_out: Counter[str]) -> Iterator[tuple[Row, Example]]:
    read = READERS[task.layout]
    for row in rows:
        for example in read(row):
            if isinstance(example, LeftOut):
                left_out[example.reason] += 1
            elif not _is_text(example):
                left_out["half of a surrogate pair"] += 1
            else:
                yield row, example


def _categorised(examples: Iterable[tuple[Row, Example]], task: Task, selection: Selection) -> Iterator[Example]:
    """Give every example its category: from the named field, else the set's, else the classifier's label."""
    iterator = iter(examples)
    while chunk := list(islice(iterator, _CHUNK if selection.classify is not None else 1)):
        named = [_with_field(row, example, selection.category_field) for row, example in chunk]
        missing = [position for position, example in enumerate(named) if not example.category]
        if missing:
            if selection.classify is None:
                raise DataError(
                    f"{chunk[missing[0]][0].where} has no category, and task {task.name} needs one; set "
                    "data.category_field to a column of labels, or data.classifier to a prompt classifier"
                )
            labels = selection.classify([_text(named[position]) for position in missing])
            for position, label in zip(missing, labels, strict=True):
                named[position] = replace(named[position], category=label)
        yield from named


def _with_field(row: Row, example: Example, name: str | None) -> Example:
    if name is None:
        return example
    value = example.extra.get(name, row.get(name))
    if isinstance(value, list | tuple) and value:
        value = value[0]
    if value is None or value == []:
        near = difflib.get_close_matches(
            name, [*example.extra, *(row.fields if isinstance(row.fields, dict) else ())], 1
        )
        hint = f"did you mean {near[0]!r}?" if near else "check data.category_field"
        raise DataError(f"{row.where} has no field {name!r} for the category; {hint}")
    return replace(example, category=str(value))


def _chosen(
    examples: Iterable[Example], selection: Selection, left_out: Counter[str], seen: set[str]
) -> Iterator[Example]:
    """Keep the requested categories; a label that contains exactly one of their names counts for it."""
    wanted = selection.categories
    for example in examples:
        seen.add(example.category)
        if not wanted or example.category in wanted:
            yield example
            continue
        within = [name for name in wanted if name.lower() in example.category.lower()]
        if len(within) == 1:
            yield replace(example, category=within[0])
        else:
            left_out["other categories"] += 1


def _drawn(examples: Iterable[Example], selection: Selection) -> list[Example]:
    """Bottom-k sampling by category: the examples with the smallest hashes, in the order of the rows."""
    assert selection.limit is not None
    kept: dict[str, list[tuple[int, int, Example]]] = {}
    keys: dict[str, set[int]] = {}
    for number, example in enumerate(examples):
        heap, known = kept.setdefault(example.category, []), keys.setdefault(example.category, set())
        key = -_hash(example, selection.seed)  # heapq keeps the smallest on top: the largest hash leaves first
        if key in known:
            continue
        if len(heap) < selection.limit:
            heapq.heappush(heap, (key, -number, example))
            known.add(key)
        elif key > heap[0][0]:
            known.add(key)
            known.discard(heapq.heapreplace(heap, (key, -number, example))[0])
    return [example for _, _, example in sorted((item for heap in kept.values() for item in heap), key=lambda x: -x[1])]


def _hash(example: Example, seed: int) -> int:
    content = "\0".join(map(str, (seed, example.context, example.input, example.chosen, example.rejected)))
    return int.from_bytes(hashlib.blake2b(content.encode(), digest_size=8).digest(), "big")


def _prompt(example: Example, task: Task, selection: Selection, role: Role) -> Prompt:
    metadata: dict[str, Any] = {"split": role, **example.extra}
    if example.options:
        metadata["options"] = dict(example.options)
    if len(example.answers) > 1:
        metadata["answers"] = list(example.answers)
    kind = example.answer_type or task.answer_type if selection.answer_type == "auto" else selection.answer_type
    if example.answer is not None and kind != "auto":
        metadata["answer_type"] = kind
    if example.chosen is not None and example.rejected is not None:
        metadata |= {"chosen": example.chosen, "rejected": example.rejected}
    template = selection.template or task.template
    return Prompt(
        example.id,
        _messages(example, template),
        example.category,
        example.answer,
        metadata,
        not isinstance(example.input, str),
    )


def _messages(example: Example, template: str) -> tuple[Message, ...]:
    """The prompt inside its template; a conversation stays as it is."""
    if not isinstance(example.input, str):
        return example.input
    parts = {"input": example.input, "context": example.context}
    return ({"role": "user", "content": _PLACES.sub(lambda place: parts[place[1]], template)},)


def _is_text(example: Example) -> bool:
    """Whether its texts can be written and tokenized."""
    try:
        f"{example.context}{example.input}{example.chosen}{example.rejected}".encode()
    except UnicodeEncodeError:
        return False
    return True


def _text(example: Example) -> str:
    return example.input if isinstance(example.input, str) else example.input[-1]["content"]


def _is_pair(chosen: Any, rejected: Any) -> bool:
    texts = [value.strip() if isinstance(value, str) else "" for value in (chosen, rejected)]
    return bool(texts[0]) and bool(texts[1]) and texts[0] != texts[1]


def _matching(task: Task, candidates: Sequence[SourceFile]) -> list[tuple[Role, SourceFile]]:
    found: dict[SourceFile, Role] = {}
    for role, pattern in task.files:
        for source in candidates:
            if source.name.match(pattern):
                found.setdefault(source, role)
    return [(role, source) for source, role in found.items()]


def _walk(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file())


def _members(archive: Path) -> list[SourceFile]:
    try:
        with zipfile.ZipFile(archive) as opened:
            return [SourceFile(archive, name) for name in sorted(opened.namelist()) if not name.endswith("/")]
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(f"{archive} is damaged or cut off ({error}); get it again") from error


def _source_name(source: SourceFile) -> str:
    """Name of a file among those of its task: its stem, or the folder of files that are all called dataset.json."""
    stem = source.name.name.partition(".")[0]
    return source.name.parent.name if stem == "dataset" else stem


def _distinct_names(sources: Sequence[SourceFile]) -> dict[SourceFile, str]:
    """Names for ids: the fewest last parts of the paths that distinguish the files, wherever the folder is."""
    names: dict[SourceFile, str] = {}
    for depth in range(max((len(source.name.parts) for source in sources), default=0)):
        above = {one: one.name.parts[:-1][len(one.name.parts) - 1 - depth :] for one in sources}
        names = {one: "/".join([*above[one], _source_name(one)]) for one in sources}
        if len(set(names.values())) == len(sources):
            break
    return names


def _wanted(name: str, task: Task, selection: Selection) -> bool:
    """Whether to open a file or configuration: not if it is a category that was not requested."""
    is_category = task.layout in ("longbench", "leval", "bamboo") and selection.category_field is None
    return not is_category or not selection.categories or any(name.startswith(one) for one in selection.categories)


def _is_hub_folder(path: Path | None) -> bool:
    return path is not None and path.is_dir() and any(file.suffix in (".parquet", ".arrow") for file in _walk(path))


def _refuse_missing(task: Task, path: Path | None) -> None:
    patterns = ", ".join(dict.fromkeys(pattern for _, pattern in task.files))
    if path is None:
        raise DataError(f"task {task.name} is not on the hub; set data.path to a folder with {patterns}")
    raise DataError(f"{path} holds none of {patterns}; task {task.name} reads {task.columns}")


def _check_categories(task: Task, selection: Selection, pools: Mapping[Role, Sequence[Prompt]], seen: set[str]) -> None:
    """Make sure that every requested category has prompts."""
    if not seen:
        raise DataError(f"task {task.name} has no rows here; see `laser tasks show {task.name}` for the files it reads")
    found = {prompt.category for pool in pools.values() for prompt in pool}
    for name in selection.categories:
        if name not in found:
            near = difflib.get_close_matches(name, seen, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(sorted(seen)[:20])}"
            raise DataError(f"task {task.name} has no prompts of category {name!r} here; {hint}")
