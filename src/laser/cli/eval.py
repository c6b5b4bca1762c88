"""``laser eval``: measure or judge, and print the tables."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from laser.cli.environment import prepare
from laser.cli.options import Overrides, Trust
from laser.cli.terminal import make_console
from laser.core.errors import ConfigError

if TYPE_CHECKING:
    from laser.commands.evaluate import Evaluation
    from laser.commands.judge import Judged, WinRates
    from laser.config.judge import JudgeConfig
    from laser.core.statistics import Share


class _Split(StrEnum):
    dev = "dev"
    test = "test"


def evaluate(
    targets: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN_OR_CONFIG...",
            help="Run directories, or TOML files for their untrained model; with --judge, files of responses too.",
            show_default=False,
        ),
    ],
    split: Annotated[_Split, typer.Option(help="Prompts of the first one's data to ask.")] = _Split.dev,
    base: Annotated[bool, typer.Option("--base", help="Compare with the untrained model of the first.")] = False,
    overrides: Overrides = None,
    out: Annotated[
        Path | None,
        typer.Option(help="JSON file of the results; responses are kept next to it.", show_default=False),
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option(
            metavar="FILE_OR_URL",
            help="Win rates against the first, by a judge: its TOML file or address.",
            show_default=False,
        ),
    ] = None,
    judge_overrides: Annotated[
        list[str] | None,
        typer.Option("--judge-set", metavar="KEY=VALUE", help="One of the judge's fields, such as model. Repeatable."),
    ] = None,
    difficulty: Annotated[
        Path | None,
        typer.Option(help="With --judge: JSON Lines of id and difficulty of the prompts.", show_default=False),
    ] = None,
    trust: Trust = False,
) -> None:
    """Measure trained and untrained policies on held-out prompts, against gold answers or by a judge.

    Example: laser eval runs/mine --base --split test --out results.json
    """

    def note(message: str) -> None:
        _line(console, escape(message))

    if judge is None and (judge_overrides or difficulty is not None):
        raise ConfigError("--judge-set and --difficulty are for a judge; add --judge")
    judged_by = _load_judge(judge, judge_overrides or []) if judge is not None else None
    prepare()
    console = make_console()
    if judged_by is None:
        from laser.commands import evaluate as api

        evaluation = api.evaluate(
            targets, split=split.value, base=base, overrides=overrides or [], out=out, trust=trust, note=note
        )
        _print_measured(evaluation, console)
    else:
        from laser.commands.judge import win_rates

        result = win_rates(
            targets,
            judged_by,
            split=split.value,
            base=base,
            overrides=overrides or [],
            difficulty=difficulty,
            out=out,
            trust=trust,
            note=note,
        )
        _print_win_rates(result, console)
        for label, judged in result.judged.items():
            _print_caveats(label, judged, console)
        _print_bill(result, console)
    if out is not None:
        _line(console, f"written: {escape(str(out))}")


def _load_judge(source: str, overrides: list[str]) -> JudgeConfig:
    from laser.config.judge import load_judge

    if re.fullmatch(r"[\w.-]+:\d+(/\S*)?", source) and not Path(source).exists():
        raise ConfigError(f"--judge {source} is not a file; write http://{source} for a server there")
    return load_judge(source, overrides)


def _print_measured(evaluation: Evaluation, console: Console) -> None:
    from laser.analysis.shown import visible
    from laser.evaluation.unreadable import unreadable_lines

    measured = evaluation.measured
    first, *others = measured
    num = measured[first].overall.num_prompts
    table = Table(
        "policy", evaluation.metric, "95% interval", "no answer", "cut", title=f"{num} {evaluation.split} prompts"
    )
    for label, one in measured.items():
        counts = (str(one.unreadable.num), str(one.num_truncated))
        table.add_row(escape(label), f"{one.overall.value:.3f}", _interval(one.overall), *counts)
    console.print(table)
    _print_categories({label: one.by_category for label, one in measured.items()}, console)
    for label in others:
        change = evaluation.differences[label]
        between = f"95% interval {change.low:+.3f} to {change.high:+.3f}, paired"
        moved = f"{change.num_gained} prompts better, {change.num_lost} worse"
        _line(console, f"{escape(label)} - {escape(first)}: {change.value:+.3f} ({between}); {moved}")
    for label, one in measured.items():
        for line in unreadable_lines(one.unreadable.as_record(), num):
            _line(console, escape(visible(line if line.startswith(" ") else f"{label}: {line}")))
    for label, seen in evaluation.answers.seen.items():
        if seen is None:
            _line(console, f"warning: the training data of {escape(label)} are gone; it may have seen these prompts")
        elif seen:
            _line(console, f"warning: {escape(label)} was trained on {seen} of these prompts")


def _print_categories(by_category: Mapping[str, Mapping[str, Share]], console: Console) -> None:
    """One row for each category, one column for each policy; nothing where there is a single category."""
    first = next(iter(by_category.values()))
    if len(first) < 2:
        return
    table = Table("category", "prompts", *map(escape, by_category))
    for category, share in first.items():
        cells = (shares[category] for shares in by_category.values() if category in shares)
        values = (f"{one.value:.3f} ({_interval(one)})" for one in cells)
        table.add_row(escape(category), str(share.num_prompts), *values)
    console.print(table)


def _print_win_rates(result: WinRates, console: Console) -> None:
    table = Table("policy", "win rate", "at equal length", "win/tie/loss", "judged")
    table.title = f"Against {escape(result.baseline)}, by {escape(result.judge)}, both orders"
    for label, judged in result.judged.items():
        one = judged.compared
        equal = _percent(one.length_controlled.win_rate) if one.length_controlled is not None else "-"
        counts = f"{one.wins}/{one.ties}/{one.losses}"
        table.add_row(escape(label), _percent(one.win_rate), equal, counts, f"{one.num_judged} of {one.num_prompts}")
    console.print(table)


def _print_caveats(label: str, judged: Judged, console: Console) -> None:
    """Print the caveats of a win rate."""
    one = judged.compared
    _line(
        console,
        f"{escape(label)}: mean length {one.mean_length:.0f} characters against {one.baseline_length:.0f}; "
        f"{one.num_identical} identical, {one.num_inconsistent} contradictory between the orders"
        + (f"; what was shown first is preferred by {one.first_shown:.1%}" if one.first_shown is not None else ""),
    )
    _print_categories({label: one.by_category}, console)
    left_out = {
        "prompts answered by only one of the two": judged.unmatched,
        "prompts with a verdict in one order only": one.num_one_sided,
        "replies without a verdict": judged.nonsense,
        "failed requests": judged.failed,
        "requests not made": judged.skipped,
    }
    counted = "; ".join(f"{count} {what}" for what, count in left_out.items() if count)
    if counted:
        _line(console, f"  left out: {counted}")
    if judged.failed:
        _line(console, f"  the server said: {escape(judged.reason)}")
        _line(console, "  the same command again asks only for what is missing, if replies are kept (--out, or cache)")
    if one.length_controlled is None:
        _line(console, "  no win rate at equal length: the difference of lengths is the same everywhere")
    elif one.length_controlled.extrapolated:
        _line(console, "  warning: one side is nearly always the longer; its win rate at equal length is extrapolated")


def _print_bill(result: WinRates, console: Console) -> None:
    bill = result.bill
    unbilled = f", {bill.unbilled} replies without a count" if bill.unbilled else ""
    _line(
        console,
        f"asked: {bill.requests - bill.cached} requests ({bill.cached} more from the cache); tokens in "
        f"{bill.prompt_tokens}, out {bill.completion_tokens}{unbilled}",
    )


def _line(console: Console, text: str) -> None:
    """A line that stays one, however narrow the terminal."""
    console.print(text, soft_wrap=True)


def _percent(share: Share) -> str:
    return f"{share.value:.1%} ({100 * share.low:.1f}–{100 * share.high:.1f})"


def _interval(share: Share) -> str:
    return f"{share.low:.3f} to {share.high:.3f}"
