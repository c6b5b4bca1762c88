"""Defaults that a task gives to a configuration, so that the resolved configuration shows them."""

from __future__ import annotations

from typing import Any

from laser.config.patch import Table
from laser.data.tasks import TASKS, Task


def apply_task(table: Table) -> Table:
    """The table with the defaults of the task that its data section names.

    These are split sizes (per category if the task's are), batching, answers, metric, and whether long prompts are cut.
    Sizes shrink in proportion if prompts are too few, unless the user set one. Validation reports an unknown task.
    The embedded set, which needs no name, has its own place of an answer.
    """
    data = table.get("data", {})
    if isinstance(data, dict) and data.get("type", "embedded") == "embedded":  # its examples end with "Final answer:"
        return {**table, "evaluation": _filled(table, "evaluation", {"answer": "final_answer"})}
    if not isinstance(data, dict) or data.get("type") != "task" or not isinstance(data.get("name"), str):
        return table
    if data["name"] not in TASKS:
        return table
    task = TASKS[data["name"]]
    defaults: Table = {
        "categories": list(task.categories) or None,
        "limit": task.limit,
        "answer_type": task.answer_type,
    }
    if data.get("path") is None and data.get("category_field") is None:
        defaults["classifier"] = task.classifier
    data = {**defaults, **data}
    return {
        **table,
        "data": data,
        "split": _filled(table, "split", _split(task, data, table.get("split"))),
        "evaluation": _filled(table, "evaluation", _evaluation(task)),
        "policy": _filled(table, "policy", {"overlong": "cut_middle"} if task.cut else {}),
    }


def _split(task: Task, data: Table, given: Any) -> Table:
    categories = data["categories"]
    factor = len(categories) if task.sizes.per_category and isinstance(categories, list | tuple) else 1
    sizes = {"train": task.sizes.train, "dev": task.sizes.dev, "test": task.sizes.test}
    return {
        **{name: size * factor if size is not None else None for name, size in sizes.items()},
        "shrink": not (isinstance(given, dict) and sizes.keys() & given.keys()),
        **({"batching": "by_category"} if task.by_category else {}),
    }


def _evaluation(task: Task) -> Table:
    return {"answer": task.answer, "metric": task.metric} if task.metric is not None else {}


def _filled(table: Table, section: str, defaults: Table) -> Any:
    given = table.get(section, {})
    return {**defaults, **given} if isinstance(given, dict) else given
