"""The record of a task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Role = Literal["train", "dev", "test"]
"""The original split that a row comes from; a set without splits is all "train"."""

Kind = Literal["reasoning", "instructions", "long context", "preferences", "own"]

AnswerFormat = Literal["auto", "final_answer", "whole"]
"""Where in a response its answer is; `laser.evaluation.places` says how each is found."""

AnswerType = Literal["auto", "text", "number", "yes_no", "option", "math"]
"""Type of an answer; "auto" infers it from the gold answer. A prompt has it as `metadata["answer_type"]`."""

MetricName = Literal["accuracy", "f1", "rouge_l"]

Layout = Literal[
    "own",
    "gsm8k",
    "strategyqa",
    "bigbench_yes_no",
    "mmlu",
    "commonsenseqa",
    "math",
    "wildchat",
    "longbench",
    "leval",
    "bamboo",
    "alpaca_eval",
    "mt_bench",
    "flask",
    "self_instruct",
    "rewardbench",
    "llmbar",
    "rm_bench",
    "hh_rlhf",
]
"""Layout of the rows of a task; `laser.data.layouts` has a reader for each."""


@dataclass(frozen=True, slots=True)
class Hub:
    """Where to find a task on the Hugging Face hub.

    Attributes:
        name: Data set id.
        configs: Configurations (subsets) to read; empty: the set has none.
        splits: (role, name of the split) pairs.
        files: Pattern of the files in the repository, with {config} and {split}, for a set whose loader is a script,
            which current versions of `datasets` do not run; None: the set loads without one.
        revision: Revision to read; None: the main one.
    """

    name: str
    splits: tuple[tuple[Role, str], ...]
    configs: tuple[str, ...] = ()
    files: str | None = None
    revision: str | None = None


@dataclass(frozen=True, slots=True)
class Sizes:
    """Split sizes.

    Attributes:
        train: Training prompts; None: all that remain.
        dev: Development prompts.
        test: Test prompts.
        per_category: Whether the numbers are for each category.
        source: Origin of the numbers.
    """

    train: int | None
    dev: int
    test: int
    per_category: bool = False
    source: str = "ours"


@dataclass(frozen=True, slots=True)
class Task:
    """A task: prompts or labeled pairs, and how to read and evaluate them.

    Attributes:
        name: What the configuration calls it.
        title: What people call it.
        kind: Its group in the list of tasks.
        layout: Layout of its rows.
        files: (role, pattern) pairs of the original files, looked for anywhere below the folder given as `path`;
            a pattern also matches inside a .zip.
        columns: One sentence about those files, for people.
        counts: How many rows the original has, for people.
        sizes: Split sizes.
        template: Text around a prompt, with {input} and {context}.
        metric: Metric against gold answers; None: there are no gold answers.
        answer: Where the answer is in a response.
        answer_type: Type of the answers.
        hub: Where to find it on the hub; None: it is not there.
        categories: Categories read by default; empty: all.
        classifier: Model that labels prompts of a set without categories; None: it has categories.
        limit: Largest number of prompts kept per category; None: all.
        by_category: Whether batches hold one category each.
        cut: Whether prompts beyond the policy's window are cut in the middle rather than refused.
        has_pairs: Whether rows can hold a preferred and another response.
        stands_in_for: The task of the paper that it replaces; None: it is in the paper, or independent.
        license: Of the data.
        citation: One line.
        notes: Anything else that a user should know.
    """

    name: str
    title: str
    kind: Kind
    layout: Layout
    files: tuple[tuple[Role, str], ...]
    columns: str
    counts: str
    sizes: Sizes
    template: str
    license: str
    citation: str
    metric: MetricName | None = None
    answer: AnswerFormat = "final_answer"
    answer_type: AnswerType = "auto"
    hub: Hub | None = None
    categories: tuple[str, ...] = ()
    classifier: str | None = None
    limit: int | None = None
    by_category: bool = False
    cut: bool = False
    has_pairs: bool = False
    stands_in_for: str | None = None
    notes: str = ""
