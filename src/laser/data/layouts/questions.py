"""Readers of the reasoning tasks: questions with short gold answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from laser.core.errors import DataError
from laser.data.gold import read_options
from laser.data.layouts.example import Example, LeftOut, Row, with_options
from laser.data.tasks.latex import last_boxed

_LETTERS = "ABCDEFGHIJ"

_GROUPS = {
    "stem": """
        abstract_algebra anatomy astronomy college_biology college_chemistry college_computer_science
        college_mathematics college_physics computer_security conceptual_physics electrical_engineering
        elementary_mathematics high_school_biology high_school_chemistry high_school_computer_science
        high_school_mathematics high_school_physics high_school_statistics machine_learning
    """,
    "humanities": """
        formal_logic high_school_european_history high_school_us_history high_school_world_history international_law
        jurisprudence logical_fallacies moral_disputes moral_scenarios philosophy prehistory professional_law
        world_religions
    """,
    "social sciences": """
        econometrics high_school_geography high_school_government_and_politics high_school_macroeconomics
        high_school_microeconomics high_school_psychology human_sexuality professional_psychology public_relations
        security_studies sociology us_foreign_policy
    """,
}
MMLU_GROUPS = {subject: group for group, subjects in _GROUPS.items() for subject in subjects.split()}
"""Group of each MMLU subject (Hendrycks et al. 2021, Table 2); a subject that is not in it is "other"."""


def gsm8k(row: Row) -> Iterator[Example]:
    """The gold answer follows "####"; thousands separators are dropped."""
    solution, mark, answer = row.need("answer").rpartition("####")
    if not mark:
        raise DataError(f"{row.where}: the answer has no '####' before its number; check that this is GSM8K")
    yield Example(
        row.id,
        row.need("question"),
        "gsm8k",
        answer=answer.strip().replace(",", ""),
        extra={"solution": solution.strip()},
    )


def strategyqa(row: Row) -> Iterator[Example]:
    """A truth value is yes or no."""
    answer = "yes" if row.need("answer", bool) else "no"
    extra = {"qid": row.get("qid")} if row.get("qid") is not None else {}
    yield Example(row.id, row.need("question"), "strategyqa", answer=answer, extra=extra)


def bigbench_yes_no(row: Row) -> Iterator[Example]:
    """BIG-bench's own file, or its hub form with `inputs`, `multiple_choice_targets` and `multiple_choice_scores`."""
    if row.get("target_scores") is not None:
        question, scores = row.need("input"), row.need("target_scores", dict)
    else:
        question = row.need("inputs").removeprefix("Q:").removesuffix("A:").strip()
        scores = dict(
            zip(row.need("multiple_choice_targets", list), row.need("multiple_choice_scores", list), strict=True)
        )
    right = [name for name, score in scores.items() if score == 1]
    if len(right) != 1 or right[0].lower() not in ("yes", "no"):
        raise DataError(f"{row.where}: the target is not one of Yes and No; check that this is StrategyQA's task.json")
    yield Example(row.id, question, "strategyqa", answer=right[0].lower())


def mmlu(row: Row) -> Iterator[Example]:
    """A row of the original CSV files (question, A, B, C, D, letter), or of the hub's columns."""
    if isinstance(row.fields, Sequence) and not isinstance(row.fields, str):
        if len(row.fields) != 6:
            raise DataError(
                f"{row.where} has {len(row.fields)} cells, not 6 (question, A, B, C, D, letter); fix or remove the row"
            )
        question, *texts, letter = row.fields
        subject = row.source.rpartition("_")[0]
    else:
        question, texts, index = row.need("question"), row.need("choices", list), row.need("answer", int)
        letter = _LETTERS[index] if 0 <= index < len(texts) else "?"
        subject = row.need("subject")
    options = dict(zip(_LETTERS, map(str, texts), strict=False))
    _check_letter(row, letter, options)
    yield Example(
        row.id,
        with_options(question, options),
        MMLU_GROUPS.get(subject, "other"),
        answer=letter,
        options=options,
        extra={"subject": subject},
    )


def commonsenseqa(row: Row) -> Iterator[Example | LeftOut]:
    """The original nesting, or the hub's flat columns; rows without a key (the hub's test split) are left out."""
    if row.get("answerKey") == "":
        yield LeftOut("no gold answer")
        return
    question: Any = row.get("question")
    if isinstance(question, Mapping):
        stem, choices = question.get("stem"), question.get("choices")
    else:
        stem, choices = row.need("question"), row.need("choices", dict)
    options = read_options(row.where, choices)
    if not isinstance(stem, str) or not options:
        raise DataError(f"{row.where} has no question with stem and choices; check that this is CommonsenseQA")
    letter = row.need("answerKey")
    _check_letter(row, letter, options)
    yield Example(row.id, with_options(stem, options), "commonsenseqa", answer=letter, options=options)


def math(row: Row) -> Iterator[Example]:
    r"""MATH and MATH-500: the gold answer is `answer`, or the last ``\boxed{}`` of the solution."""
    answer = row.get("answer") or last_boxed(row.need("solution"))
    if not answer:
        raise DataError(f"{row.where}: the solution has no \\boxed{{}} answer; add a field 'answer' or remove the row")
    subject = row.get("subject") or row.get("type") or row.source.replace("_", " ")
    extra = {"level": row.get("level")} if row.get("level") is not None else {}
    yield Example(row.id, row.need("problem"), str(subject).lower(), answer=str(answer), extra=extra)


def _check_letter(row: Row, letter: str, options: Mapping[str, str]) -> None:
    if letter not in options:
        raise DataError(
            f"{row.where}: the answer {letter!r} is none of the options {', '.join(options)}; fix or remove the row"
        )
