"""``laser tasks``: list the tasks, show one, export one. Light to import."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="The tasks that configurations can name: list, show, export.",
    invoke_without_command=True,
    add_completion=False,
)

_NAME = Annotated[str, typer.Argument(help="Name of the task.", show_default=False)]
_PATH = Annotated[
    Path | None, typer.Option("--path", help="The original files, or a folder with them; default: the hub.")
]


@app.callback()
def list_tasks(context: typer.Context) -> None:
    """List the tasks if no subcommand is given.

    Example: laser tasks
    """
    if context.invoked_subcommand is None:
        list_all()


@app.command("list")
def list_all() -> None:
    """List the tasks: kind, metric, split sizes, license and source.

    Example: laser tasks list
    """
    from laser.cli.task_tables import print_list

    print_list()


@app.command()
def show(name: _NAME, path: _PATH = None) -> None:
    """Show one task: prompt, sizes, source, file layout, license, citation; with --path also an example.

    Example: laser tasks show gsm8k --path ~/data/gsm8k
    """
    from laser.cli.task_tables import print_task

    print_task(name, path)


@app.command()
def export(
    name: _NAME,
    out: Annotated[Path, typer.Option(help="JSON Lines file to write.", show_default=False)],
    path: _PATH = None,
    pairs: Annotated[
        bool | None,
        typer.Option("--pairs/--prompts", help="Labeled pairs or prompts; default: by the kind of task."),
    ] = None,
    categories: Annotated[
        list[str] | None, typer.Option("--category", help="Keep only this category. Repeatable.")
    ] = None,
    category_field: Annotated[
        str | None, typer.Option(help="Column or metadata field with the category, e.g. difficulty.")
    ] = None,
    classifier: Annotated[str | None, typer.Option(help="Prompt classifier for tasks without categories.")] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Largest number of rows kept per category and original split.")
    ] = None,
    max_rows: Annotated[int | None, typer.Option(min=1, help="Read only the first rows of each split.")] = None,
    revision: Annotated[str | None, typer.Option(help="Hub revision.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the draw under --limit.")] = 0,
) -> None:
    """Write a task as JSON Lines that every command reads: prompts, or labeled pairs for `laser rewardbench`.

    Example: laser tasks export llmbar --path ~/data/llmbar --out pairs.jsonl && laser rewardbench pairs.jsonl
    """
    from laser.cli.task_tables import export_task
    from laser.config.data import TaskData

    data = TaskData(
        name=_known(name),
        path=str(path.expanduser()) if path is not None else None,
        revision=revision,
        categories=tuple(categories) if categories else None,
        category_field=category_field,
        classifier=classifier,
        limit=limit,
        max_rows=max_rows,
    )
    export_task(data, out, seed, pairs)


def _known(name: str) -> str:
    from laser.data.tasks import find_task

    return find_task(name).name
