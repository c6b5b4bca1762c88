"""Readers of the instruction tasks, and of the user's files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from laser.core.errors import DataError
from laser.data.conversations import is_conversation
from laser.data.files import Fields, make_prompt
from laser.data.layouts.example import Example, LeftOut, Row
from laser.data.looks import PROMPT, read_compared


def own(row: Row) -> Iterator[Example]:
    """The project's own format; see `laser.data.files` and `laser.data.looks`."""
    prompt = make_prompt(row.where, row.fields, 0, Fields())
    metadata = prompt.metadata
    messages, chosen, rejected = prompt.messages, metadata.get("chosen"), metadata.get("rejected")
    if chosen is not None and rejected is not None and (is_conversation(chosen) or is_conversation(rejected)):
        compared = read_compared(row.where, row.fields, PROMPT)
        messages, chosen, rejected = compared.messages, compared.correct[0], compared.incorrect[0]
    known = {"answers", "answer_type", "options", "chosen", "rejected"}
    yield Example(
        row.id if row.get("id") is None else prompt.id,
        messages[0]["content"] if len(messages) == 1 else messages,
        prompt.category,
        answer=prompt.answer,
        answers=tuple(metadata.get("answers") or ()),
        answer_type=metadata.get("answer_type"),
        options=metadata.get("options") or {},
        chosen=chosen if isinstance(chosen, str) else None,
        rejected=rejected if isinstance(rejected, str) else None,
        extra={name: value for name, value in metadata.items() if name not in known},
    )


def wildchat(row: Row) -> Iterator[Example | LeftOut]:
    """The first user message of an English conversation; the category is a label, or left to a classifier."""
    if row.get("language") not in (None, "English"):
        yield LeftOut("not English")
        return
    conversation = row.need("conversation", list)
    turns = [turn for turn in conversation if isinstance(turn, Mapping)]
    first = next((turn for turn in turns if turn.get("role") == "user"), None)
    if first is None or not str(first.get("content") or "").strip():
        yield LeftOut("no user message")
        return
    label = row.get(row.category_field or "category")
    extra = {"language": row.get("language")} if row.get("language") is not None else {}
    yield Example(row.id, str(first["content"]), "" if label is None else str(label), extra=extra)


def alpaca_eval(row: Row) -> Iterator[Example]:
    """Prompts with outputs, or with two outputs and a verdict; a tie or a missing verdict gives no pair."""
    pair: tuple[str | None, str | None] = (None, None)
    verdict = row.get("preference")
    if isinstance(verdict, int | float) and 1 <= verdict <= 2 and verdict != 1.5:
        outputs = row.need("output_1"), row.need("output_2")
        pair = outputs if verdict < 1.5 else (outputs[1], outputs[0])
    names = ("generator", "generator_1", "generator_2", "annotator", "preference")
    extra = {name: row.get(name) for name in names if row.get(name) is not None}
    category = row.get("dataset") or "alpaca_eval"
    yield Example(row.id, row.need("instruction"), str(category), chosen=pair[0], rejected=pair[1], extra=extra)


def mt_bench(row: Row) -> Iterator[Example]:
    """The first turn; the hub calls the list of turns `prompt`."""
    turns = row.need("turns" if row.get("turns") is not None else "prompt", list)
    if not turns or not isinstance(turns[0], str):
        raise DataError(f"{row.where} has no text as its first turn; fix or remove the row")
    yield Example(row.id, turns[0], row.need("category"), extra={"turns": list(turns)})


def flask(row: Row) -> Iterator[Example]:
    """FLASK: the category is the first domain; "-1" means none."""
    domains, skills = row.need("domain", list), row.need("skill", list)
    first = domains[0] if domains and domains[0] != "-1" else "other"
    extra = {
        "skill": skills,
        "domain": domains,
        "difficulty": row.get("difficulty"),
        "task": row.get("task"),
        "reference": row.get("answer"),
    }
    yield Example(row.id, row.need("instruction"), str(first), extra=extra)


def self_instruct(row: Row) -> Iterator[Example]:
    """The instruction, followed by the input of the first instance if there is one."""
    instances: list[Mapping[str, Any]] = row.need("instances", list)
    instance = instances[0] if instances else {}
    text = "\n\n".join(part for part in (row.need("instruction"), str(instance.get("input") or "")) if part.strip())
    category = row.get("motivation_app") or "self_instruct"
    yield Example(row.id, text, str(category), extra={"reference": instance.get("output")})
