"""All tasks by name."""

from __future__ import annotations

import difflib

from laser.core.errors import ConfigError
from laser.data.tasks.instructions import ALPACA_EVAL, FLASK, JSONL, MT_BENCH, SELF_INSTRUCT, WILDCHAT
from laser.data.tasks.long_context import (
    BAMBOO,
    LEVAL_EXAM,
    LEVAL_FEW_SHOT,
    LEVAL_MULTI_DOC_QA,
    LEVAL_SINGLE_DOC_QA,
    LEVAL_SUMMARIZATION,
    LONGBENCH_FEW_SHOT,
    LONGBENCH_MULTI_DOC_QA,
    LONGBENCH_SINGLE_DOC_QA,
    LONGBENCH_SUMMARIZATION,
)
from laser.data.tasks.preferences import HH_RLHF, LLMBAR, REWARDBENCH, RM_BENCH
from laser.data.tasks.reasoning import COMMONSENSEQA, GSM8K, MATH, MATH500, MMLU, STRATEGYQA, STRATEGYQA_BIGBENCH
from laser.data.tasks.task import Task

TASKS: dict[str, Task] = {
    "gsm8k": GSM8K,
    "strategyqa": STRATEGYQA,
    "mmlu": MMLU,
    "commonsenseqa": COMMONSENSEQA,
    "math": MATH,
    "math500": MATH500,
    "strategyqa_bigbench": STRATEGYQA_BIGBENCH,
    "wildchat": WILDCHAT,
    "alpaca_eval": ALPACA_EVAL,
    "mt_bench": MT_BENCH,
    "flask": FLASK,
    "self_instruct": SELF_INSTRUCT,
    "longbench_single_doc_qa": LONGBENCH_SINGLE_DOC_QA,
    "longbench_multi_doc_qa": LONGBENCH_MULTI_DOC_QA,
    "longbench_summarization": LONGBENCH_SUMMARIZATION,
    "longbench_few_shot": LONGBENCH_FEW_SHOT,
    "leval_single_doc_qa": LEVAL_SINGLE_DOC_QA,
    "leval_multi_doc_qa": LEVAL_MULTI_DOC_QA,
    "leval_summarization": LEVAL_SUMMARIZATION,
    "leval_few_shot": LEVAL_FEW_SHOT,
    "leval_exam": LEVAL_EXAM,
    "bamboo": BAMBOO,
    "rewardbench": REWARDBENCH,
    "llmbar": LLMBAR,
    "rm_bench": RM_BENCH,
    "hh_rlhf": HH_RLHF,
    "jsonl": JSONL,
}


def find_task(name: str) -> Task:
    """Return the task of a name.

    Raises:
        ConfigError: There is none; names the nearest.
    """
    if name in TASKS:
        return TASKS[name]
    near = [known for known in TASKS if known.startswith(f"{name}_")] or difflib.get_close_matches(name, TASKS, n=1)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"known tasks: {', '.join(TASKS)}"
    raise ConfigError(f"there is no task {name!r}; {hint} `laser tasks` lists them")
