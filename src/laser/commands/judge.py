"""``laser eval --judge``: win rates between policies by a judge who sees each pair of responses in both orders."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from laser.commands.evaluate import (
    Note,
    SplitName,
    Target,
    Targets,
    answer_targets,
    listed,
    resolve_targets,
    unique_labels,
)
from laser.config.judge import JudgeConfig
from laser.config.load import Overrides
from laser.core.errors import ConfigError, DataError, RunDirectoryError, ServerError
from laser.core.files import atomic_write, check_regular, to_json
from laser.core.outputs import JUDGED, MEASURED, results_file, write_results
from laser.core.types import FloatArray
from laser.data.responses import Answered, load_responses, shared_prompts
from laser.data.rows import SourceFile, read_rows
from laser.evaluation.comparison import Compared, compare
from laser.rewards.pairwise_judge import Bill, PairwiseJudge, Question, Verdict
from laser.wiring.judge import build_pairwise_judge

_FILES = (".jsonl", ".json", ".parquet")
_Both = tuple[Verdict, Verdict]
_IDENTICAL = Verdict(math.nan, "the responses are the same")


@dataclass(frozen=True, slots=True)
class Judged:
    """One policy against the baseline.

    Attributes:
        compared: Win rates.
        unmatched: Prompts that only one of the two answered, left out.
        nonsense: Replies without a verdict.
        failed: Requests without a usable reply.
        skipped: Requests that were not made because the server kept failing.
        reason: The most frequent reason of a failure, "" without any.
    """

    compared: Compared
    unmatched: int
    nonsense: int
    failed: int
    skipped: int
    reason: str


@dataclass(frozen=True, slots=True)
class WinRates:
    """What came out.

    Attributes:
        baseline: Label of the first policy.
        judge: Model that judged.
        judged: The other policies against it, by label.
        bill: What was asked and billed.
    """

    baseline: str
    judge: str
    judged: dict[str, Judged]
    bill: Bill

    def as_record(self) -> dict[str, Any]:
        """JSON-able form, the content of the results file."""
        return asdict(self)


def win_rates(
    targets: Targets,
    judge: JudgeConfig,
    *,
    split: SplitName = "dev",
    base: bool = False,
    overrides: Overrides = (),
    difficulty: str | Path | None = None,
    out: str | Path | None = None,
    trust: bool = False,
    note: Note = lambda _: None,
) -> WinRates:
    """Compare policies with the first by a judge; raw, and at equal length (`laser.evaluation.winrates`).

    Args:
        targets: At least two (one with `base`): run directories, TOML configurations or files of responses (`id`,
            `prompt`, `response`). Runs are asked as `laser.evaluate` asks them; gold answers are not needed.
        judge: The judge.
        split: Prompts that runs are asked.
        base: Take the model that the first run started from as the baseline.
        overrides: Strings ``key=value`` laid over the configurations of runs.
        difficulty: A JSON Lines file with `id` and `difficulty` of each prompt, for the regression on length.
        out: A JSON file for the results, which may hold earlier ones; responses, verdicts and replies are kept next
            to it.
        trust: Act on the configuration of a run although this user's laser has not signed it.
        note: Told what happens.

    Raises:
        ServerError: The judge judged nothing.
        LaserError: Something cannot be used, which is found before anything is sampled, or two policies share no
            prompt.
    """
    targets = listed(targets)
    out = results_file(out, inputs=[*targets, difficulty], replaces=(JUDGED, MEASURED))
    given = _gather(targets, base=base, overrides=overrides, trust=trust)
    gamma = _load_difficulty(Path(difficulty)) if difficulty is not None else None
    pairwise = build_pairwise_judge(judge, _replies_file(out))
    try:
        responses, seed = _respond(given, split, out, note)
        baseline, *others = responses
        judged = {}
        for label in others:
            note(f"judging {label} against {baseline}")
            target = out.with_name(f"{out.stem}.{label}.verdicts.jsonl") if out is not None else None
            judged[label] = _judge(pairwise, responses[label], responses[baseline], gamma, seed, target)
    finally:
        pairwise.close()
    result = WinRates(baseline, judge.model, judged, pairwise.bill)
    if out is not None:
        write_results(out, result.as_record())
    return result


def _replies_file(out: Path | None) -> Path | None:
    """The file of replies next to the results; refuses one that someone else may have put there."""
    if out is None:
        return None
    path = out.with_name(f"{out.stem}.replies.sqlite")
    for one in (path, *(path.with_name(path.name + ending) for ending in ("-journal", "-wal", "-shm"))):
        try:
            check_regular(one, writes=True)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise RunDirectoryError(
                f"cannot use {one} ({error.strerror}); remove it or choose another --out"
            ) from error
    return path


@dataclass(frozen=True, slots=True)
class _Given:
    """What is compared.

    Attributes:
        order: Labels, the baseline's first.
        kept: Responses that were given as files, by label.
        targets: The policies that are yet to be asked.
    """

    order: list[str]
    kept: dict[str, list[Answered]]
    targets: list[Target]


def _gather(targets: Sequence[str | Path], *, base: bool, overrides: Overrides, trust: bool) -> _Given:
    """Read files of responses and the configurations of runs; nothing is sampled."""
    labels = unique_labels(targets)
    files = {
        label: Path(path)
        for label, path in zip(labels, targets, strict=True)
        if Path(path).suffix in _FILES and not Path(path).is_dir()
    }
    runs = {label: path for label, path in zip(labels, targets, strict=True) if label not in files}
    if base and not runs:
        raise ConfigError("--base needs a run; files of responses have no untrained model")
    asked = (
        resolve_targets(
            list(runs.values()), base=base, overrides=overrides, trust=trust, labels=list(runs), taken=labels
        )
        if runs
        else []
    )
    order = [*(target.label for target in asked if target.label not in labels), *labels]  # a base model first
    if len(order) < 2:
        raise ConfigError("a judge compares two policies; name another run or file of responses, or add --base")
    return _Given(order, {label: load_responses(path) for label, path in files.items()}, asked)


def _respond(given: _Given, split: SplitName, out: Path | None, note: Note) -> tuple[dict[str, list[Answered]], int]:
    """Responses by label, the baseline's first, and the seed."""
    sampled, seed = {}, 0
    if given.targets:
        answers = answer_targets(given.targets, split=split, out=out, note=note)
        sampled, seed = answers.responses, answers.config.seed
    found = {**given.kept, **sampled}
    return {label: found[label] for label in given.order}, seed


def _judge(
    judge: PairwiseJudge,
    ours: Sequence[Answered],
    baseline: Sequence[Answered],
    gamma: dict[str, float] | None,
    seed: int,
    target: Path | None,
) -> Judged:
    pairs = shared_prompts(ours, baseline)
    if not pairs:
        raise DataError("the policies share no prompt; compare responses to the same prompts")
    difficulty_N = np.array([_difficulty(gamma, mine) for mine, _ in pairs]) if gamma is not None else None
    verdicts = _both_orders(judge, pairs)
    if target is not None:
        atomic_write(target, "".join(map(_row, pairs, verdicts)).encode())
    shown_N2: FloatArray = np.array([[one.first for one in both] for both in verdicts])
    texts, baseline_texts = ([one.text for one in column] for column in zip(*pairs, strict=True))
    categories = [mine.prompt.category for mine, _ in pairs]
    compared = compare(shown_N2, texts, baseline_texts, categories, difficulty_N=difficulty_N, seed=seed)
    problems = Counter(one.problem for both in verdicts for one in both)
    reasons = Counter(one.said for both in verdicts for one in both if one.problem == "failed")
    reason = reasons.most_common(1)[0][0] if reasons else ""
    if compared is None or (compared.first_shown is None and compared.num_identical < len(pairs)):
        unread = (
            f"{problems['nonsense']} replies name neither response; raise max_tokens for a judge that thinks first, or "
            "try another model or template"
        )
        raise ServerError(f"the judge gave no verdict on any of {len(pairs)} prompts: {reason or unread}")
    return Judged(
        compared=compared,
        unmatched=len(ours) + len(baseline) - 2 * len(pairs),
        nonsense=problems["nonsense"],
        failed=problems["failed"],
        skipped=problems["skipped"],
        reason=reason,
    )


def _both_orders(judge: PairwiseJudge, pairs: Sequence[tuple[Answered, Answered]]) -> list[_Both]:
    """Verdicts with ours shown first, and with the baseline's shown first; identical responses are not asked about."""
    differing = [(mine, theirs) for mine, theirs in pairs if mine.text != theirs.text]
    answers = iter(
        judge.compare(
            [
                Question(mine.prompt, *order)
                for mine, theirs in differing
                for order in ((mine.text, theirs.text), (theirs.text, mine.text))
            ]
        )
    )
    return [
        (_IDENTICAL, _IDENTICAL) if mine.text == theirs.text else (next(answers), next(answers))
        for mine, theirs in pairs
    ]


def _row(pair: tuple[Answered, Answered], both: _Both) -> str:
    """One line of the file of verdicts."""
    row = {
        "id": pair[0].prompt.id,
        "category": pair[0].prompt.category,
        "first_shown": ["ours", "baseline"],
        "preference_for_first": [one.first for one in both],
        "said": [one.said for one in both],
        "problem": [one.problem for one in both],
    }
    return json.dumps(to_json(row), allow_nan=False) + "\n"


def _load_difficulty(path: Path) -> dict[str, float]:
    if not path.exists():
        raise DataError(f"{path} does not exist; check the path given to --difficulty")
    found = {}
    for where, row in read_rows(SourceFile(path)):
        try:
            found[str(row["id"])] = float(row["difficulty"])
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{where} needs an id and a number as difficulty; fix the line") from error
    return found


def _difficulty(gamma: dict[str, float], answered: Answered) -> float:
    value = gamma.get(answered.prompt.id)
    if value is None or not math.isfinite(value):
        raise DataError(f"prompt {answered.prompt.id!r} has no difficulty; add it, or drop --difficulty")
    return value
