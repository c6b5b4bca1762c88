"""The real data next to the repository, where they exist."""

from pathlib import Path

import pytest

DATA = Path(__file__).parents[2] / "shared" / "data"
PAPER = Path(__file__).parents[2] / "shared" / "paper" / "laser.txt"

needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the real data sets are not in ../shared/data")
needs_paper = pytest.mark.skipif(not PAPER.is_file(), reason="the text of the paper is not in ../shared/paper")

FOLDERS = {
    "gsm8k": "gsm8k",
    "strategyqa": "strategyqa",
    "mmlu": "mmlu",
    "commonsenseqa": "commonsenseqa",
    "math500": "math500",
    "strategyqa_bigbench": "strategyqa_bigbench",
    "alpaca_eval": "alpaca_eval",
    "mt_bench": "mt_bench",
    "flask": "flask",
    "self_instruct": "self_instruct",
    "leval_single_doc_qa": "leval",
    "leval_multi_doc_qa": "leval",
    "leval_summarization": "leval",
    "leval_few_shot": "leval",
    "leval_exam": "leval",
    "bamboo": "bamboo",
    "llmbar": "llmbar",
    "rm_bench": "rm_bench",
    "hh_rlhf": "hh_rlhf",
}
"""Folder of each task whose real files there are."""
