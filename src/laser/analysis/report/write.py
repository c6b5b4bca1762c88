"""``laser report``: from a directory to a page and pictures on disk."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from laser.analysis.records import Damage, is_run, read_run
from laser.analysis.report.blocks import Page
from laser.analysis.report.figure import as_png
from laser.analysis.report.render import document
from laser.analysis.report.run import run_page
from laser.analysis.report.suite import suite_page
from laser.analysis.suites import is_suite, read_suite
from laser.core.errors import DataError, RunDirectoryError
from laser.core.files import atomic_write, is_folder, open_regular, read_bytes

PAGE = "report.html"
PICTURES = "report"
_BEGINNING = b"<!doctype html"  # of every report, and of nothing else in a run directory


class _Bench(TypedDict):
    num_pairs: Annotated[int, Field(ge=1)]
    accuracy: Annotated[dict[str, float], Field(min_length=1)]
    interval: dict[str, tuple[float, float]]
    by_category: dict[str, dict[str, float]]
    counts: dict[str, int]
    agreement: dict[str, dict[str, float | None]]
    failed: dict[str, str]


@dataclass(frozen=True, slots=True)
class Written:
    """What a report left behind.

    Attributes:
        page: The page.
        pictures: The PNGs.
        damage: Lines of the records that could not be read and were left out.
    """

    page: Path
    pictures: tuple[Path, ...]
    damage: tuple[Damage, ...]


def write_report(
    path: Path, out: Path | None = None, *, pictures: Path | None = None, bench: Path | None = None
) -> Written:
    """Write the report of a run, finished or not, or of a suite of runs.

    Args:
        path: The run directory, or the directory of a suite.
        out: The page; None: ``report.html`` in the directory. An earlier page is replaced, no other file.
        pictures: Folder for the pictures as PNG; None: no PNGs.
        bench: What ``laser rewardbench --out`` wrote; the page shows its numbers too.

    Raises:
        RunDirectoryError: There is no run, it has not finished a batch, or the page cannot be written.
        DataError: `bench` is not what it should be.
    """
    out = out or path / PAGE
    with _writing("--out", out):
        _check_replaceable(out)
    page, damage = _page(path, read_bench(bench) if bench is not None else None)
    with _writing("--out", out):
        out.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(out, document(page).encode())
    with _writing("--png", pictures or out):
        written = _write_pictures(page, pictures) if pictures is not None else ()
    return Written(out, written, damage)


@contextmanager
def _writing(option: str, path: Path) -> Iterator[None]:
    """Turn what the disk refuses into a sentence with the option to change."""
    try:
        yield
    except OSError as error:
        reason = "there is a file of that name" if isinstance(error, FileExistsError) else error.strerror
        raise RunDirectoryError(f"cannot write {error.filename or path} ({reason}); choose another {option}") from error


def _check_replaceable(out: Path) -> None:
    """Check that only an earlier page would be lost."""
    if not out.exists():
        return
    with open_regular(out, follow=True) as file:
        beginning = file.read(len(_BEGINNING))
    if beginning.lower() != _BEGINNING:
        raise RunDirectoryError(f"{out} exists and is not a report, so laser does not replace it; choose another --out")


def _page(path: Path, bench: Mapping[str, Any] | None) -> tuple[Page, tuple[Damage, ...]]:
    if is_run(path):
        run = read_run(path)
        if (path / "losses.jsonl").is_file():
            raise RunDirectoryError(
                f"{path} is of laser sft, which has no report; read its losses.jsonl and summary.json"
            )
        if not run.steps:
            damaged = f" ({len(run.damage)} damaged lines)" if run.damage else ""
            raise RunDirectoryError(f"{path} has not finished a batch yet{damaged}; there is nothing to report")
        return run_page(run, bench), run.damage
    if is_suite(path):
        suite = read_suite(path)
        return suite_page(suite, bench), suite.damage
    raise RunDirectoryError(
        f"{path} holds neither a run (config.json is missing) nor a suite; give a directory that laser train or laser "
        "compare wrote"
    )


def read_bench(path: Path) -> Mapping[str, Any]:
    """What ``laser rewardbench --out`` wrote.

    Raises:
        DataError: It cannot be read, or is something else.
    """
    try:
        value = json.loads(read_bytes(path, follow=True))
        return TypeAdapter(_Bench).validate_python(value)
    except OSError as error:
        raise DataError(f"cannot read {path} ({error.strerror}); check the path given to --bench") from error
    except (ValueError, ValidationError, RecursionError) as error:
        raise DataError(
            f"{path} is not what laser rewardbench --out writes; check the path given to --bench"
        ) from error


def _write_pictures(page: Page, folder: Path) -> tuple[Path, ...]:
    if folder.name == PICTURES:  # inside a directory that may come from someone else
        is_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for picture in page.pictures():
        path = folder / f"{picture.name}.png"
        if path in written:
            path = folder / f"{picture.name}-{len(written)}.png"
        atomic_write(path, as_png(picture))
        written.append(path)
    return tuple(written)
