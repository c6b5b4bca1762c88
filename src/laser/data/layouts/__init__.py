"""Readers of the layouts in which the tasks' files come."""

from laser.data.layouts.chats import alpaca_eval, flask, mt_bench, own, self_instruct, wildchat
from laser.data.layouts.documents import bamboo, leval, longbench
from laser.data.layouts.example import Example, LeftOut, Reader, Row
from laser.data.layouts.pairs import hh_rlhf, llmbar, rewardbench, rm_bench
from laser.data.layouts.questions import bigbench_yes_no, commonsenseqa, gsm8k, math, mmlu, strategyqa
from laser.data.tasks.task import Layout

__all__ = ["READERS", "Example", "LeftOut", "Reader", "Row"]

READERS: dict[Layout, Reader] = {
    "own": own,
    "gsm8k": gsm8k,
    "strategyqa": strategyqa,
    "bigbench_yes_no": bigbench_yes_no,
    "mmlu": mmlu,
    "commonsenseqa": commonsenseqa,
    "math": math,
    "wildchat": wildchat,
    "longbench": longbench,
    "leval": leval,
    "bamboo": bamboo,
    "alpaca_eval": alpaca_eval,
    "mt_bench": mt_bench,
    "flask": flask,
    "self_instruct": self_instruct,
    "rewardbench": rewardbench,
    "llmbar": llmbar,
    "rm_bench": rm_bench,
    "hh_rlhf": hh_rlhf,
}
