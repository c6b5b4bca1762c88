"""Small files of tasks for tests."""

import json

from laser.data.task import Selection, load_task
from laser.data.tasks import TASKS


def lines(path, rows):
    """Write JSON Lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(name, path, **options):
    """Load a task from files."""
    return load_task(TASKS[name], Selection(path=path, **options))
