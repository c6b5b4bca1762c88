"""Readers of the preference tasks: a prompt with a better and a worse response."""

from __future__ import annotations

from collections.abc import Iterator

from laser.core.errors import DataError
from laser.data.conversations import read_dialogue
from laser.data.layouts.example import Example, Row
from laser.data.tasks import REWARDBENCH_SECTIONS

RM_BENCH_STYLES = ("concise", "plain", "markdown")
"""Styles of RM-Bench's three responses, in its order, from the least to the most adorned."""

_ASSISTANT = "\n\nAssistant:"


def rewardbench(row: Row) -> Iterator[Example]:
    """RewardBench: the category is the section of the subset."""
    subset = row.need("subset")
    yield Example(
        row.id,
        row.need("prompt"),
        REWARDBENCH_SECTIONS.get(subset, subset),
        chosen=row.need("chosen"),
        rejected=row.need("rejected"),
        extra={"subset": subset},
    )


def llmbar(row: Row) -> Iterator[Example]:
    """LLMBar: `label` names the better of two outputs, as text or number."""
    outputs, label = (row.need("output_1"), row.need("output_2")), str(row.get("label"))
    if label not in ("1", "2"):
        raise DataError(f"{row.where}: the label is {row.get('label')!r}, not 1 or 2; fix or remove the row")
    chosen, rejected = outputs if label == "1" else (outputs[1], outputs[0])
    yield Example(row.id, row.need("input"), row.source, chosen=chosen, rejected=rejected)


def rm_bench(row: Row) -> Iterator[Example]:
    """RM-Bench: three styles of the correct answer against three of the wrong one, nine pairs a prompt."""
    chosen, rejected = row.need("chosen", list), row.need("rejected", list)
    if len(chosen) != 3 or len(rejected) != 3:
        raise DataError(
            f"{row.where} has {len(chosen)} chosen and {len(rejected)} rejected responses, not 3 of each; "
            "the row may be cut off, get the file again"
        )
    domain = str(row.get("domain") or row.source.removesuffix("_filtered"))
    for i, better in enumerate(RM_BENCH_STYLES):
        for j, worse in enumerate(RM_BENCH_STYLES):
            yield Example(
                f"{row.id}-{i}{j}",
                row.need("prompt"),
                f"{better} > {worse}",
                chosen=chosen[i],
                rejected=rejected[j],
                extra={"domain": domain, "difficulty": "easy" if i > j else "normal" if i == j else "hard"},
            )


def hh_rlhf(row: Row) -> Iterator[Example]:
    """HH-RLHF: two dialogues that diverge in a turn of the assistant; the prompt is what precedes it."""
    chosen, rejected = row.need("chosen"), row.need("rejected")
    shared = _common_prefix(chosen, rejected)
    cut = shared.rfind(_ASSISTANT)
    messages = tuple(read_dialogue(shared[:cut])) if cut >= 0 else ()
    if not messages or messages[-1]["role"] != "user":
        raise DataError(
            f"{row.where}: chosen and rejected do not share a dialogue up to a turn of the assistant; "
            "check that this is HH-RLHF"
        )
    start = cut + len(_ASSISTANT)
    category = row.source.removesuffix("_train").removesuffix("_test")
    yield Example(row.id, messages, category, chosen=chosen[start:].strip(), rejected=rejected[start:].strip())


def _common_prefix(first: str, second: str) -> str:
    parts = (position for position, (a, b) in enumerate(zip(first, second, strict=False)) if a != b)
    return first[: next(parts, min(len(first), len(second)))]
