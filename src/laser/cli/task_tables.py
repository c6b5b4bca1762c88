"""Output of ``laser tasks``."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from laser.cli.environment import prepare
from laser.cli.terminal import make_console
from laser.config.data import TaskData
from laser.config.tasks import apply_task
from laser.core.types import Prompt
from laser.data.split import split_pools
from laser.data.task import ROLES, Loaded, Selection, load_task
from laser.data.tasks import TASKS, Sizes, Task, find_task

_SHOWN = 1200  # characters of an example's prompt


def print_list() -> None:
    """Print the table of all tasks, by kind."""
    console = make_console()
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in ("task", "metric", "train/dev/test", "license", "from"):
        table.add_column(heading, no_wrap=True)
    kind = None
    for task in TASKS.values():
        if task.kind != kind:
            table.add_section()
            table.add_row(f"[bold]{task.kind}[/bold]")
            kind = task.kind
        name = escape(task.name) + ("*" if task.stands_in_for else "")
        metric = "pairs" if task.kind == "preferences" else task.metric or "-"
        table.add_row(name, metric, _sizes(task.sizes), escape(re.split(r" \(| by |;", task.license)[0]), _needs(task))
    console.print(table)
    console.print("* a stand-in: a set that replaces one of the paper's", soft_wrap=True)
    console.print("each can be read from its original files: `laser tasks show NAME` lists them")
    console.print('in a configuration: data = {type = "task", name = "gsm8k"}', soft_wrap=True)


def print_task(name: str, path: Path | None) -> None:
    """Print a task's facts and, with a path, the prompts found there. Raises LaserError."""
    task = find_task(name)
    loaded = load_task(task, Selection(path=path.expanduser(), categories=task.categories)) if path else None
    console = make_console()
    for label, text in _facts(task).items():
        console.print(f"[bold]{label}[/bold]: {escape(text)}", soft_wrap=True)
    console.print("\n[bold]prompt[/bold]:")
    console.print(escape(task.template), soft_wrap=True)
    if loaded is not None:
        _print_found(console, task, loaded)


def export_task(data: TaskData, out: Path, seed: int, pairs: bool | None) -> None:
    """Write a task's prompts or pairs and print how many. Raises LaserError."""
    prepare()
    from laser.data.export import export_pairs, export_prompts
    from laser.data.task import load_task_preferences
    from laser.wiring.data import task_selection

    task = find_task(data.name)
    given = {key: value for key, value in data.model_dump().items() if value is not None}
    selection = task_selection(TaskData.model_validate(apply_task({"data": given})["data"]), seed)
    console = make_console()
    if pairs if pairs is not None else task.kind == "preferences":
        found, without = load_task_preferences(task, selection)
        number = export_pairs(found, out)
        console.print(
            f"{number} pairs of {task.name} in {escape(str(out))}; {without} rows without a pair", soft_wrap=True
        )
        return
    loaded = load_task(task, selection)
    number = export_prompts(loaded.prompts, out)
    console.print(f"{number} prompts of {task.name} in {escape(str(out))}{_left_out(loaded)}", soft_wrap=True)


def _facts(task: Task) -> dict[str, str]:
    answers = {"auto": "inferred from each gold answer", "text": "text", "number": "numbers", "yes_no": "yes or no"}
    answers |= {"option": "letters of options", "math": "mathematics"}
    places = {"auto": "at the end", "final_answer": "after 'Final answer:'", "whole": "the whole response"}
    where = places[task.answer]
    metric = f"{task.metric}; answers are {answers[task.answer_type]}, {where}" if task.metric == "accuracy" else ""
    facts = {
        "task": f"{task.name}: {task.title}",
        "kind": task.kind + (" (with labeled pairs)" if task.has_pairs and task.kind != "preferences" else ""),
        "replaces": task.stands_in_for or "",
        "metric": metric or task.metric or "none: there are no gold answers",
        "split sizes": f"{_sizes(task.sizes)} train/dev/test ({task.sizes.source})",
        "rows": task.counts,
        "hub": _hub(task),
        "local files": f"{task.columns} (looked for: {', '.join(dict.fromkeys(p for _, p in task.files))})",
        "categories": ", ".join(task.categories),
        "license": task.license,
        "citation": task.citation,
        "notes": task.notes,
    }
    return {label: text for label, text in facts.items() if text}


def _hub(task: Task) -> str:
    if task.hub is None:
        return "not available: set data.path"
    configs = f", {', '.join(task.hub.configs)}" if task.hub.configs else ""
    splits = ", ".join(f"{split} as {role}" for role, split in task.hub.splits)
    revision = f" at {task.hub.revision}" if task.hub.revision else ""
    return f"{task.hub.name}{revision}{configs} ({splits})"


def _needs(task: Task) -> str:
    return "hub" if task.hub is not None else "path"


def _sizes(sizes: Sizes) -> str:
    train = "rest" if sizes.train is None else f"{sizes.train}"
    return f"{train}/{sizes.dev}/{sizes.test}" + (" each" if sizes.per_category else "")


def _left_out(loaded: Loaded) -> str:
    reasons = ", ".join(f"{count} {reason}" for reason, count in loaded.left_out.items())
    return f"; left out: {reasons}" if reasons else ""


def _print_found(console: Console, task: Task, loaded: Loaded) -> None:
    counts = ", ".join(f"{len(loaded.pools[role])} {role}" for role in ROLES if role in loaded.pools)
    console.print(f"\n[bold]found[/bold]: {counts}{escape(_left_out(loaded))}", soft_wrap=True)
    sizes = task.sizes
    factor = len(task.categories) if sizes.per_category else 1
    train = sizes.train * factor if sizes.train is not None else None
    parts = split_pools(
        loaded.pools, train=train, dev=sizes.dev * factor, test=sizes.test * factor, shrink=True, seed=0
    )
    console.print(f"[bold]splits[/bold]: {len(parts.train)} train / {len(parts.dev)} dev / {len(parts.test)} test")
    table = Table("category", "prompts")
    for category, count in Counter(prompt.category for prompt in loaded.prompts).most_common():
        table.add_row(escape(category), str(count))
    console.print(table)
    _print_example(console, loaded.prompts[0])


def _print_example(console: Console, prompt: Prompt) -> None:
    console.print(f"[bold]example[/bold] {escape(prompt.id)}:")
    for message in prompt.messages:
        text = message["content"]
        if len(text) > _SHOWN:
            cut = len(text) - _SHOWN
            text = f"{text[: _SHOWN // 2]}\n[... {cut} characters ...]\n{text[-_SHOWN // 2 :]}"
        console.print(f"<{message['role']}> {text}", soft_wrap=True, markup=False)
    for name in ("chosen", "rejected", "answer_type"):
        if name in prompt.metadata:
            console.print(f"<{name}> {str(prompt.metadata[name])[:_SHOWN]}", soft_wrap=True, markup=False)
    if prompt.answer is not None:
        console.print(f"<gold answer> {prompt.answer}", soft_wrap=True, markup=False)
