"""One self-contained HTML page about a run: which reward model was useful where, and how sure that is.

Reads the run directory alone. Pictures are inline SVG whose text takes the page's colour, so that the page reads in
light and dark; everything a model or a data set wrote is escaped. Colours are those of Okabe and Ito, told apart
without red-green vision.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from html import escape
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

from laser.analysis.summary import RunSummary, summarize
from laser.errors import RunDirectoryError
from laser.types import FloatArray

Record = Mapping[str, Any]

_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#999999", "#F0E442")
_TEXT = "#010203"  # stands for the page's text colour until the SVG is written
_EXAMPLES = 8


def write_report(run: Path, out: Path | None = None) -> Path:
    """Write the report of a run, finished or not.

    Args:
        run: The run directory.
        out: The page; None: ``report.html`` in the run directory.

    Raises:
        RunDirectoryError: There is no run, or it has not finished a batch.
    """
    if not (run / "config.json").is_file():
        raise RunDirectoryError(f"{run} holds no run (config.json is missing); give a directory that laser train wrote")
    config = json.loads((run / "config.json").read_text(encoding="utf-8"))
    steps, evaluations = _records(run / "steps.jsonl"), _records(run / "evaluations.jsonl")
    if not steps:
        raise RunDirectoryError(f"{run} has not finished a batch yet; there is nothing to report")
    names = [model["name"] for model in config["rewards"]["models"]]
    summary = summarize(steps, evaluations, names)
    sections = [
        ("Dev metric and loss", _picture(lambda axes: _progress(axes, steps, evaluations), columns=2)),
        ("Who was chosen for what", _picture(lambda axes: _utilization(axes, summary, names))),
        ("Who was chosen when", _picture(lambda axes: _over_time(axes, steps, names))),
        ("Bandit reward by reward model", _picture(lambda axes: _rewards(axes, steps, names))),
        ("Where the time went", _picture(lambda axes: _time(axes, summary), height=2.2)),
        (
            "What was left out",
            _table(("reason", "count"), [(k.replace("_", " "), v) for k, v in summary.dropped.items()]),
        ),
        ("What reward models were asked", _table(("reward model", "responses scored"), list(summary.scored.items()))),
        ("Pairs as they were trained on", _examples(steps)),
        (
            "Configuration",
            f"<details><summary>resolved</summary><pre>{escape(json.dumps(config, indent=2))}</pre></details>",
        ),
    ]
    body = "".join(f"<section><h2>{escape(title)}</h2>{content}</section>" for title, content in sections)
    page = _PAGE.format(title=escape(run.name), words=escape(in_words(summary, evaluations)), body=body)
    out = out or run / "report.html"
    out.write_text(page, encoding="utf-8")
    return out


def in_words(summary: RunSummary, evaluations: Sequence[Record]) -> str:
    """What happened, in a paragraph."""
    sentences = [f"{summary.num_batches} batches, {summary.num_pairs} pairs."]
    if summary.metric_before is not None and summary.metric_after is not None:
        low, high = evaluations[-1]["interval"]
        sure = "more" if not low <= summary.metric_before <= high else "no more"
        sentences.append(
            f"Dev accuracy went from {summary.metric_before:.1%} to {summary.metric_after:.1%} "
            f"(95% interval {low:.1%} to {high:.1%} on {summary.num_evaluated} prompts: {sure} than chance explains)."
        )
    for category, counts in summary.utilization.items():
        total = sum(counts.values())
        best = max(counts, key=lambda name: counts[name])
        if total:
            sentences.append(
                f"For {category}, {best} was chosen most ({counts[best] / total:.0%} of {total:.0f} prompts)."
            )
    if summary.bandit_rewards:
        ranked = sorted(summary.bandit_rewards.items(), key=lambda item: -item[1])
        listed = ", ".join(f"{name} {value:.2f}" for name, value in ranked)
        sentences.append(f"Mean bandit reward: {listed}.")
    return " ".join(sentences)


def _records(path: Path) -> list[Record]:
    """Complete lines of a JSON Lines file; a half-written last one is left out."""
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def _picture(draw: Callable[[Any], None], *, columns: int = 1, height: float = 3.0) -> str:
    """Inline SVG of a matplotlib figure; its text takes the page's colour."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    style: dict[Any, Any] = dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), _TEXT
    )
    with matplotlib.rc_context({**style, "svg.fonttype": "none", "font.size": 9, "svg.hashsalt": "laser"}):
        figure, axes = pyplot.subplots(1, columns, figsize=(7.2, height), squeeze=False)
        draw(axes[0] if columns > 1 else axes[0][0])
        for axis in axes[0]:
            axis.spines[["top", "right"]].set_visible(False)
        figure.tight_layout()
        buffer = StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
        pyplot.close(figure)
    svg = buffer.getvalue()
    return svg[svg.index("<svg") :].replace(_TEXT, "currentColor")


def _progress(axes: Sequence[Any], steps: Sequence[Record], evaluations: Sequence[Record]) -> None:
    losses = [np.nan if step["loss"] is None else step["loss"] for step in steps]
    axes[0].plot(range(1, len(losses) + 1), losses, color=_COLOURS[0], linewidth=1)
    axes[0].set(xlabel="batch", ylabel="loss (nats)")
    if evaluations:
        batches = [row["batches"] for row in evaluations]
        values = np.array([100 * row["accuracy"] for row in evaluations])
        bounds = 100 * np.array([row["interval"] for row in evaluations]).T
        axes[1].errorbar(batches, values, yerr=np.abs(bounds - values), color=_COLOURS[1], marker="o", capsize=3)
        axes[1].set(xlabel="batch", ylabel="dev accuracy (%), 95% interval", ylim=(0, 100))
    else:
        axes[1].axis("off")


def _utilization(axis: Any, summary: RunSummary, names: Sequence[str]) -> None:
    left = np.zeros(len(summary.utilization))
    totals = np.array([max(sum(counts.values()), 1e-9) for counts in summary.utilization.values()])
    for index, name in enumerate(names):
        share = 100 * np.array([counts[name] for counts in summary.utilization.values()]) / totals
        axis.barh(list(summary.utilization), share, left=left, color=_colour(index), label=name)
        left = left + share
    axis.set(xlabel="share of prompts (%)", xlim=(0, 100))
    _legend(axis)


def _over_time(axis: Any, steps: Sequence[Record], names: Sequence[str]) -> None:
    shares_TK = np.array([np.mean(step["selection"]["weights"], axis=0) for step in steps])
    axis.stackplot(
        range(1, len(steps) + 1),
        100 * _smoothed(shares_TK).T,
        colors=[_colour(k) for k in range(len(names))],
        labels=names,
    )
    axis.set(xlabel="batch", ylabel="share (%), moving mean", ylim=(0, 100))
    _legend(axis)


def _rewards(axis: Any, steps: Sequence[Record], names: Sequence[str]) -> None:
    for index, name in enumerate(names):
        points = [
            (number, reward)
            for number, step in enumerate(steps, 1)
            for charged, reward in zip(step["selection"]["charged"], step["bandit_rewards"], strict=True)
            if charged == name and reward is not None
        ]
        if points:
            batches, rewards = np.array(points).T
            axis.scatter(batches, rewards, s=8, alpha=0.35, color=_colour(index))
            axis.plot(batches, _smoothed(rewards[:, None])[:, 0], color=_colour(index), label=name)
    axis.set(xlabel="batch", ylabel="bandit reward", ylim=(-0.03, 1.03))
    _legend(axis)


def _time(axis: Any, summary: RunSummary) -> None:
    spent = {phase: seconds for phase, seconds in summary.seconds.items() if seconds > 0}
    total = sum(spent.values()) or 1.0
    axis.barh(list(spent), [100 * seconds / total for seconds in spent.values()], color=_COLOURS[4])
    axis.set(xlabel=f"share of {total:.0f} s (%)")


def _smoothed(rows_TK: FloatArray, window: int = 9) -> FloatArray:
    """Mean over the latest rows."""
    sums = np.cumsum(np.vstack([np.zeros((1, rows_TK.shape[1])), rows_TK]), axis=0)
    ends = np.arange(1, len(rows_TK) + 1)
    begins = np.maximum(0, ends - window)
    means: FloatArray = (sums[ends] - sums[begins]) / (ends - begins)[:, None]
    return means


def _colour(index: int) -> str:
    return _COLOURS[index % len(_COLOURS)]


def _legend(axis: Any) -> None:
    if axis.get_legend_handles_labels()[1]:
        axis.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    cells = "".join(f"<tr>{''.join(f'<td>{escape(str(cell))}</td>' for cell in row)}</tr>" for row in rows)
    heads = "".join(f"<th>{escape(name)}</th>" for name in head)
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{cells}</tbody></table>"


def _examples(steps: Sequence[Record]) -> str:
    found = [step["example"] for step in steps if step.get("example")]
    chosen = [found[index] for index in np.linspace(0, len(found) - 1, min(_EXAMPLES, len(found))).astype(int)]
    rows = []
    for one in chosen:
        good, bad = (
            f"{one[side]} ({score:.3g})" for side, score in zip(("chosen", "rejected"), one["scores"], strict=True)
        )
        rows.append((one["prompt"], good, bad, one["reward_model"]))
    return _table(("prompt", "chosen (score)", "rejected (score)", "reward model"), rows) if rows else "<p>None.</p>"


_DETAILS = "<details><summary>resolved</summary><pre>{}</pre></details>"
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>laser: {title}</title><style>
:root {{ color-scheme: light dark; --text: #1a1a1a; --page: #ffffff; --line: #d0d0d0; }}
@media (prefers-color-scheme: dark) {{ :root {{ --text: #e8e8e8; --page: #16181c; --line: #3a3d44; }} }}
body {{ font: 16px/1.5 system-ui, sans-serif; color: var(--text); background: var(--page); margin: 0 auto;
  max-width: 60rem; padding: 1rem; }}
h1 {{ font-size: 1.5rem; }} h2 {{ font-size: 1.1rem; margin: 2rem 0 .5rem; }}
svg {{ max-width: 100%; height: auto; color: var(--text); }}
section {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-size: .9rem; }}
th, td {{ border-bottom: 1px solid var(--line); padding: .3rem .6rem; text-align: left; vertical-align: top;
  white-space: pre-wrap; overflow-wrap: anywhere; }}
pre {{ overflow-x: auto; font-size: .8rem; }}
</style></head><body><main><h1>{title}</h1><p>{words}</p>{body}</main></body></html>
"""
