"""The catalog of tasks: content, origin, and use in the paper. Data only, no readers."""

from laser.data.tasks.catalog import TASKS, find_task
from laser.data.tasks.preferences import REWARDBENCH_SECTIONS
from laser.data.tasks.task import AnswerFormat, AnswerType, Hub, Kind, MetricName, Role, Sizes, Task

__all__ = [
    "REWARDBENCH_SECTIONS",
    "TASKS",
    "AnswerFormat",
    "AnswerType",
    "Hub",
    "Kind",
    "MetricName",
    "Role",
    "Sizes",
    "Task",
    "find_task",
]
