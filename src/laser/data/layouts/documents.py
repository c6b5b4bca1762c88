"""Readers of the long-context tasks: a document, then a question about it."""

from __future__ import annotations

import re
from collections.abc import Iterator

from laser.core.errors import DataError
from laser.data.layouts.example import Example, LeftOut, Row, with_options
from laser.data.tasks import AnswerType

_OPTION = re.compile(r"^\s*\(?([A-Z])[.)]\s*(.*)$", re.MULTILINE)
_BAMBOO_OPTION = re.compile(r"^\s*([A-E])\s*[.:)]\s*(.*)$", re.MULTILINE)
_GOLD_LETTER = re.compile(r"\(?([A-Z])\)?(?:[.)\s]|$)")
_ALTQA = re.compile(
    r"[^\n]*\n\n(?:Document:\n(?P<before>.*)\n\s*Question:\n(?P<last>.*)|Question:\n(?P<first>.*?)\n\s*Document:\n(?P<after>.*))",
    re.DOTALL,
)


def longbench(row: Row) -> Iterator[Example]:
    """LongBench's rows; the first of several gold answers is the answer, and all are kept."""
    answers = [str(answer) for answer in row.need("answers", list)]
    if not answers:
        raise DataError(f"{row.where} has an empty list of answers; fix or remove the row")
    yield Example(
        row.id, row.need("input"), row.source, context=row.need("context"), answer=answers[0], answers=answers
    )


def leval(row: Row) -> Iterator[Example]:
    """L-Eval's rows: one example for each instruction of a document."""
    instructions, outputs = row.need("instructions", list), row.need("outputs", list)
    if len(instructions) != len(outputs):
        raise DataError(
            f"{row.where} has {len(instructions)} instructions but {len(outputs)} outputs; the row may be cut off"
        )
    document = row.need("input")
    for number, (instruction, output) in enumerate(zip(instructions, outputs, strict=True)):
        yield _leval_example(row, f"{row.id}-{number}", document, instruction, str(output).strip())


def _leval_example(row: Row, id: str, document: str, instruction: str, output: str) -> Example:
    question = instruction.strip()
    if row.source == "sci_fi":
        by_document, _, fact = output.partition("[fact:")
        answer = "yes" if by_document.strip().lower() == "true" else "no"
        extra = {"fact": fact.strip(" ]")}
        return Example(id, question, row.source, context=document, answer=answer, answer_type="yes_no", extra=extra)
    if row.source in ("coursera", "tpo", "quality"):
        options = {letter: text.strip() for letter, text in _OPTION.findall(question)}
        letter = _GOLD_LETTER.match(output) if row.source == "quality" else None
        answer = letter.group(1) if letter else output
        return Example(id, question, row.source, context=document, answer=answer, answer_type="option", options=options)
    kind: AnswerType | None = "text" if row.source == "topic_retrieval_longchat" else None
    return Example(id, question, row.source, context=document, answer=output, answer_type=kind)


def bamboo(row: Row) -> Iterator[Example | LeftOut]:
    """BAMBOO's rows: with options, with a hypothesis, or with the question inside the content.

    In some rows, passages of the document are among the options or replace them. The first entry of each letter counts;
    a row whose answer is not among the options is left out.
    """
    content = row.need("content").strip()
    category = re.sub(r"_(4k|16k)$", "", row.source)
    if row.get("options") is not None:
        options = _bamboo_options(row)
        question, answer = with_options(row.need("question"), options), row.need("answer")
        if answer not in options or len(options) < 2:
            yield LeftOut("options missing in the file")
            return
        yield Example(row.id, question, category, context=content, answer=answer, answer_type="option", options=options)
    elif row.get("hypothesis") is not None:
        question = (
            "Is the following hypothesis entailed by the document, without contradiction and without anything made "
            f"up? Answer yes or no.\nHypothesis: {row.need('hypothesis').strip()}"
        )
        answer = "yes" if row.need("answer", bool) else "no"
        yield Example(row.id, question, category, context=content, answer=answer, answer_type="yes_no")
    else:
        found = _ALTQA.fullmatch(content)
        if found is None:
            raise DataError(
                f"{row.where}: the content has no 'Question:' and 'Document:' parts; the row may be cut off"
            )
        question = (found["last"] or found["first"]).strip()
        yield Example(
            row.id,
            f"{question}\nThe answer is a number.",
            category,
            context=(found["before"] or found["after"]).strip(),
            answer=row.need("answer"),
            answer_type="number",
        )


def _bamboo_options(row: Row) -> dict[str, str]:
    options: dict[str, str] = {}
    for letter, text in _BAMBOO_OPTION.findall("\n".join(map(str, row.need("options", list)))):
        options.setdefault(letter, text.strip())
    return options
