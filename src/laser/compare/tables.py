"""The results as terminal table, Markdown, CSV, LaTeX and JSON, also of unfinished suites."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from laser.compare.results import AVERAGE, Entry, Results, count_states
from laser.core.files import atomic_write, write_json

_LEVEL = 0.05
_MINUS = "\N{MINUS SIGN}"
_NAMED = 6
_COSTS = ("time", "RM calls", "tokens")
_METRICS = {
    "dev": "last dev metric",
    "test": "metric on the test prompts",
    "win_rate": "win rate against {reference} (50 by definition),",
    "lc_win_rate": "length-controlled win rate against {reference} (50 by definition),",
}


def write_results(results: Results, out: Path) -> list[Path]:
    """Write ``results.md``, ``.csv``, ``.tex`` and ``.json`` into the suite's directory and return their paths."""
    texts = {"md": markdown(results), "csv": long_csv(results), "tex": latex(results)}
    for suffix, text in texts.items():
        atomic_write(out / f"results.{suffix}", text.encode())
    write_json(out / "results.json", as_record(results))
    return [out / f"results.{suffix}" for suffix in (*texts, "json")]


def terminal(results: Results) -> list[Table]:
    """Return the tables for rich: values, tests and choices; the latter two where they have rows."""
    tables = []
    for title, (head, rows) in ((_caption(results), _main(results)), ("", _tests(results)), ("", _choices(results))):
        if rows:
            table = Table(title=escape(title) or None, title_justify="left")
            for index, name in enumerate(head):
                table.add_column(escape(name), justify="left" if index == 0 else "right")
            for row in rows:
                table.add_row(*map(escape, row))
            tables.append(table)
    return tables


def markdown(results: Results) -> str:
    """Return a page with all tables and the reasons of unfinished cells."""
    parts = [f"# {_plain(_caption(results))}", "", *_markdown_table(*_main(results)), "", _plain(legend(results)), ""]
    head, rows = _tests(results)
    if rows:
        parts += [
            f"## Against {_plain(_label(results, results.suite.compared_with))}",
            "",
            *_markdown_table(head, rows),
            "",
        ]
    head, rows = _choices(results)
    if rows:
        parts += ["## Categories and choices", "", *_markdown_table(head, rows), ""]
    problems = [cell for cell in results.cells if cell.reason]
    if problems:
        parts += ["## Not finished", "", *(f"- {_plain(str(c.key))}: {_plain(c.reason)}" for c in problems), ""]
    return "\n".join(parts)


def latex(results: Results) -> str:
    r"""Return a ``table`` environment for the package booktabs; the best mean of each column is bold."""
    head, rows = _main(results, best=lambda text: f"\\textbf{{{text}}}", quote=_latex_text)
    lines = [
        "% needs \\usepackage{booktabs}",
        "\\begin{table}",
        "\\centering",
        f"\\caption{{{_latex_text(_caption(results))}. {_latex_text(legend(results))}}}",
        f"\\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}",
        "\\toprule",
        " & ".join(_latex_text(name) for name in head) + " \\\\",
        "\\midrule",
        *(" & ".join(row) + " \\\\" for row in rows),
        "\\bottomrule",
        "\\end{tabular}",
        "\\end{table}",
        "",
    ]
    return "\n".join(lines)


_CSV = (
    "task method label seeds seeds_wanted mean sd interval_low interval_high reference difference difference_low "
    "difference_high shared_seeds p p_holm seconds seconds_ratio rm_calls rm_calls_ratio tokens "
    "best_choice oracle_regret"
).split()


def long_csv(results: Results) -> str:
    """Return one row per task and method; shares are between 0 and 1, unknown numbers empty."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, _CSV, lineterminator="\n")
    writer.writeheader()
    for row in as_record(results)["rows"]:
        writer.writerow({key: "" if value is None else value for key, value in row.items() if key in _CSV})
    return buffer.getvalue()


def as_record(results: Results) -> dict[str, Any]:
    """Return a JSON-able form: the suite, one row per task and method with its values by seed, and every cell."""
    suite = results.suite
    return {
        "name": suite.name,
        "title": suite.title,
        "mode": suite.mode,
        "metric": suite.metric,
        "reference": suite.compared_with,
        "seeds": list(suite.seeds),
        "methods": {name: _label(results, name) for name in suite.shown_methods},
        "tasks": {name: _task_label(results, name) for name in results.tasks},
        "rows": [_row(results, entry) for entry in results.entries.values() if entry.wanted],
        "cells": [
            {
                **asdict(cell.key),
                "folder": str(cell.key.folder(Path())),
                "state": cell.state.value,
                "reason": cell.reason,
            }
            for cell in results.cells
        ],
    }


def _row(results: Results, entry: Entry) -> dict[str, Any]:
    value, against = entry.value, entry.against
    difference = against.difference if against is not None else None
    return {
        "task": entry.task,
        "method": entry.method,
        "label": _label(results, entry.method),
        "seeds": value.num,
        "seeds_wanted": entry.wanted,
        "mean": _known(value.mean),
        "sd": _known(value.sd),
        "interval_low": _known(value.mean - value.half),
        "interval_high": _known(value.mean + value.half),
        "reference": results.suite.compared_with,
        "difference": _known(difference.mean) if difference else None,
        "difference_low": _known(difference.mean - difference.half) if difference else None,
        "difference_high": _known(difference.mean + difference.half) if difference else None,
        "shared_seeds": difference.num if difference else None,
        "p": against.p if against is not None else None,
        "p_holm": entry.p_holm,
        "seconds": entry.seconds,
        "seconds_ratio": entry.seconds_ratio,
        "rm_calls": entry.calls,
        "rm_calls_ratio": entry.calls_ratio,
        "tokens": entry.tokens,
        "best_choice": entry.best_choice,
        "oracle_regret": entry.regret,
        "by_category": dict(entry.by_category),
        "values": {str(seed): one.value for seed, one in entry.by_seed.items()},
    }


def legend(results: Results) -> str:
    """Return sentences that explain the numbers."""
    suite = results.suite
    what = _METRICS[suite.metric].format(reference=_label(results, suite.compared_with))
    if suite.mode == "best-of-n":
        what = "metric of the chosen responses"
    sentences = [
        f"{what[0].upper()}{what[1:]} x 100: mean and half-width of the 95% t-interval over {len(suite.seeds)} seeds.",
        f"* differs from {_label(results, suite.compared_with)}: paired t-test over seeds, p < {_LEVEL} after Holm's "
        "correction over methods.",
        "Time, RM calls (responses scored, once per reward model) and tokens: means per run.",
    ]
    if suite.oracle is not None:
        sentences.append(
            "Best choice: share of prompts whose chosen reward model has the highest pair accuracy in their category. "
            "Regret: pair accuracy lost to it. A dash: the oracle lacks a reward model."
        )
    if results.num_missing:
        counts = ", ".join(f"{count} {state}" for state, count in count_states(results.cells).items())
        sentences.append(f"Unfinished: of {len(results.cells)} cells {counts}; (a/b) means a of b seeds.")
    if absent := _absent(results):
        sentences.append(f"Without a result, and not shown: {absent}.")
    return " ".join(sentences)


def _absent(results: Results) -> str:
    """Return the methods and tasks that the tables leave out; those of a long list as their number."""
    methods, tasks = results.measured
    parts = []
    for kind, names in (
        ("methods", [_label(results, name) for name in results.suite.shown_methods if name not in methods]),
        ("tasks", [_task_label(results, name) for name in results.tasks if name not in (*tasks, AVERAGE)]),
    ):
        if names:
            parts.append(f"{kind} {', '.join(names)}" if len(names) <= _NAMED else f"{len(names)} {kind}")
    return "; ".join(parts)


def _main(
    results: Results, *, best: Any = lambda text: text, quote: Any = lambda text: text
) -> tuple[list[str], list[list[str]]]:
    """Return head and rows of the main table: methods by tasks, those with a result, then costs."""
    methods, tasks = results.measured
    last = AVERAGE if AVERAGE in tasks else tasks[-1]
    highest = {task: _highest(results, task) for task in tasks}
    rows = []
    for name in methods:
        cells = [quote(_label(results, name))]
        for task in tasks:
            text = quote(_value(results.entries[name, task]))
            cells.append(best(text) if name == highest[task] else text)
        entry = results.entries[name, last]
        rows.append([*cells, *map(quote, _costs(entry))])
    return ["method", *(_task_label(results, task) for task in tasks), *_COSTS], rows


def _tests(results: Results) -> tuple[list[str], list[list[str]]]:
    """Return head and rows of the tests against the reference."""
    head = ["method", "task", "sd", "difference", "p", "p (Holm)", "shared seeds"]
    rows = []
    for entry in results.entries.values():
        if entry.against is None or entry.value.num == 0:
            continue
        difference = entry.against.difference
        rows.append(
            [
                _label(results, entry.method),
                _task_label(results, entry.task),
                _percent(entry.value.sd),
                _with_half(difference.mean, difference.half, signed=True),
                _p(entry.against.p),
                _p(entry.p_holm),
                str(difference.num),
            ]
        )
    return head, rows


def _choices(results: Results) -> tuple[list[str], list[list[str]]]:
    """Return head and rows of metrics by category and of choices against the oracle; no rows where there are none."""
    entries = [entry for (_, task), entry in results.entries.items() if task != AVERAGE and entry.value.num]
    categories = sorted({name for entry in entries for name in entry.by_category})
    has_oracle = results.suite.oracle is not None
    if len(categories) < 2 and not has_oracle:
        return [], []
    rows = []
    for entry in entries:
        row = [_label(results, entry.method), _task_label(results, entry.task)]
        row += [_percent(entry.by_category[name]) if name in entry.by_category else "–" for name in categories]
        if has_oracle:
            row.append("–" if entry.best_choice is None else _percent(entry.best_choice))
            row.append("–" if entry.regret is None else f"{entry.regret:.3f}")
        rows.append(row)
    return ["method", "task", *categories, *(("best choice", "regret") if has_oracle else ())], rows


def _highest(results: Results, task: str) -> str | None:
    means = {name: results.entries[name, task].value.mean for name in results.suite.shown_methods}
    known = {name: mean for name, mean in means.items() if not math.isnan(mean)}
    return max(known, key=known.__getitem__) if len(known) > 1 else None


def _value(entry: Entry) -> str:
    if entry.wanted == 0:
        return ""
    star = "*" if entry.p_holm is not None and entry.p_holm < _LEVEL else ""
    text = _with_half(entry.value.mean, entry.value.half) + star
    return text if entry.value.num == entry.wanted else f"{text} ({entry.value.num}/{entry.wanted})"


def _costs(entry: Entry) -> list[str]:
    return [
        _amount(entry.seconds, _time(entry.seconds), entry.seconds_ratio),
        _amount(entry.calls, _count(entry.calls), entry.calls_ratio),
        _count(entry.tokens),
    ]


def _amount(value: float | None, text: str, ratio: float | None) -> str:
    return text if value is None or ratio is None else f"{text} ({ratio:.2f}x)"


def _with_half(mean: float, half: float, *, signed: bool = False) -> str:
    text = _percent(mean, signed=signed)
    return text if math.isnan(half) or math.isnan(mean) else f"{text} ± {_percent(half)}"


def _percent(share: float, *, signed: bool = False) -> str:
    if math.isnan(share):
        return "–"
    text = f"{100 * share:+.2f}" if signed else f"{100 * share:.2f}"
    return text.replace("-", _MINUS)


def _p(value: float | None) -> str:
    return "–" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    return (
        f"{seconds:.0f} s"
        if seconds < 600
        else f"{seconds / 60:.0f} min"
        if seconds < 36000
        else f"{seconds / 3600:.1f} h"
    )


def _count(number: float | None) -> str:
    return "–" if number is None else f"{number:,.0f}"


def _known(number: float) -> float | None:
    return None if math.isnan(number) else number


def _caption(results: Results) -> str:
    return results.suite.title or results.suite.name


def _label(results: Results, method: str) -> str:
    return results.suite.methods[method].label or method


def _task_label(results: Results, task: str) -> str:
    return results.suite.all_columns[task].label if task in results.suite.all_columns else task


def _markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(map(_plain, head)) + " |", "|---|" + "---:|" * (len(head) - 1)]
    return [*lines, *("| " + " | ".join(map(_plain, row)) + " |" for row in rows)]


def _plain(text: str) -> str:
    """Escape Markdown."""
    for mark in "\\`*_{}[]<>#|":
        text = text.replace(mark, f"\\{mark}")
    return " ".join(text.split())


_LATEX = {
    "\\": "\\textbackslash{}",
    "&": "\\&",
    "%": "\\%",
    "$": "\\$",
    "#": "\\#",
    "_": "\\_",
    "{": "\\{",
    "}": "\\}",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "<": "\\textless{}",
    ">": "\\textgreater{}",
    "±": "$\\pm$",
    _MINUS: "$-$",
    "–": "--",
}


def _latex_text(text: str) -> str:
    """Escape LaTeX."""
    return "".join(_LATEX.get(character, character) for character in text)
