"""Prompts from Hugging Face data sets: a hub id, or a local folder of the same layout."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from laser.core.errors import DataError, first_line
from laser.data.files import Census, Fields, make_prompts
from laser.data.rows import is_saved
from laser.data.store import StoredPrompts


def load_hub(
    name: str,
    split: str,
    fields: Fields | None = None,
    *,
    config: str | None = None,
    revision: str | None = None,
    census: Census | None = None,
) -> StoredPrompts:
    """Load one split of a data set.

    Args:
        name: Hub id, a local folder that `datasets.load_dataset` reads, or one that `save_to_disk` wrote.
        split: Name of the split; slices such as ``train[:100]`` work for hub ids and plain folders.
        fields: Which columns hold what.
        config: Configuration (subset).
        revision: Hub revision.
        census: As in `load_file`.

    Raises:
        DataError: The data set or split cannot be loaded, or a row lacks its prompt.
    """
    rows = _load(name, split, config, revision)
    where = f"data set {name} split {split}"
    named = ((f"{where} row {number}", row) for number, row in enumerate(rows))
    prompts = make_prompts(named, fields or Fields(), census)
    if not prompts:
        raise DataError(f"{where} holds no rows; choose another split")
    return prompts


def stream_hub(
    name: str,
    split: str,
    *,
    config: str | None = None,
    revision: str | None = None,
    files: str | None = None,
) -> Iterator[tuple[str, Any]]:
    """Read one split of a data set row by row, without downloading or holding it whole.

    Args:
        name: Hub id or local folder, as for `load_hub`.
        split: Name of the split.
        config: Configuration (subset).
        revision: Hub revision.
        files: Pattern of the split's files in the repository, for one whose own loader is a script; `datasets` no
            longer runs those.

    Returns:
        (where, row) pairs: a place for error messages, and a mapping.

    Raises:
        DataError: The data set or split cannot be loaded, or breaks off.
    """
    where = f"data set {name}{f' ({config})' if config else ''} split {split}"
    rows = _load(name, split, config if files is None else None, revision, files=files, streaming=True)
    try:
        yield from ((f"{where} row {number}", row) for number, row in enumerate(rows))
    except OSError as error:
        raise DataError(
            f"the download of {where} was interrupted ({error}); try again, or give a local copy as data.path"
        ) from error


def _load(
    name: str,
    split: str,
    config: str | None,
    revision: str | None,
    *,
    files: str | None = None,
    streaming: bool = False,
) -> Any:
    import datasets

    folder = Path(name)
    try:
        if files is not None:
            kind = "parquet" if files.endswith(".parquet") else "json"
            return datasets.load_dataset(
                kind, data_files={split: _place(folder, revision, files)}, split=split, streaming=streaming
            )
        if not is_saved(folder):
            return datasets.load_dataset(name, config, split=split, revision=revision, streaming=streaming)
        loaded = datasets.load_from_disk(str(folder))
        return loaded[split] if isinstance(loaded, datasets.DatasetDict) else loaded
    except KeyError as error:
        raise DataError(f"data set {name} has no split {split!r}; it has {', '.join(loaded)}") from error
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise DataError(
            f"cannot load split {split!r} of data set {name} ({first_line(error)}); check the id and split, or give a "
            "local folder"
        ) from error


def _place(repository: Path, revision: str | None, files: str) -> str:
    """Path of a repository's files, in a local copy or on the hub."""
    if repository.is_dir():
        return str(repository / files)
    return f"hf://datasets/{repository}@{quote(revision or 'main', safe='')}/{files}"
