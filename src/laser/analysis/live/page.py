"""The page of ``laser watch --web``: the report's parts, and what a run that is under way adds."""

from __future__ import annotations

import base64
import hashlib
from importlib import resources

from laser.analysis.live.follow import State, View
from laser.analysis.records import Run, StepRecord
from laser.analysis.report.blocks import Cell, Section, table
from laser.analysis.report.charts import duration
from laser.analysis.report.html import paragraphs, section, style
from laser.analysis.report.run import chosen, left_out, progress, time, useful
from laser.analysis.report.words import lead
from laser.analysis.shown import markup
from laser.analysis.usefulness import Category, by_category

_LATEST = 8
_STILL = 120.0  # seconds without a record that are worth a word


def script() -> str:
    """The page's script, the same for every run."""
    return resources.files("laser.analysis.live").joinpath("live.js").read_text(encoding="utf-8")


def policy() -> str:
    """Content-Security-Policy of the page: its own script by its hash, updates from its own server, nothing else."""
    digest = base64.b64encode(hashlib.sha256(script().encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def live_document(view: View, changing: str) -> str:
    """The whole page; `changing` is its `words_part` and `pictures_part`."""
    name = markup(view.path.resolve().name)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        '<noscript><meta http-equiv="refresh" content="10"></noscript>'
        f'<title>laser: {name}</title><link rel="icon" href="data:,"><style>{style()}</style></head>'
        f'<body><a class="skip" href="#main">Skip to content</a>'
        f'<header><h1>{name}</h1><p><span id="word" role="status">{markup(view.state.value)}</span> '
        '<button id="pause" type="button">Pause updates</button></p></header>'
        f'<main id="main" tabindex="-1"><div id="live">{changing}</div></main>'
        "<footer><p>laser watch: served to this machine only, from the run directory.</p></footer>"
        f"<script>{script()}</script></body></html>\n"
    )


def words_part(view: View) -> str:
    """How far the run is, what came out so far, and the latest batches: quick to write."""
    state = f'<div data-state="{markup(view.state.value)}">{_standing(view)}</div>'
    if view.run is None or not view.run.steps:
        return state
    newest = Section("latest", "Latest batches", (table("Newest first", LATEST_HEAD, latest(view.run)),))
    return f'{state}<div class="lead">{paragraphs(lead(view.run, by_category(view.run)))}</div>{section(newest)}'


def pictures_part(view: View) -> str:
    """The report's parts with pictures: a second's work."""
    if view.run is None or not view.run.steps:
        return ""
    return "".join(section(one) for one in _sections(view.run, by_category(view.run)))


def standing(view: View) -> list[str]:
    """How far the run is, in short clauses."""
    clauses = [f"{view.num_done}{f' of {view.num_planned}' if view.num_planned else ''} batches"]
    if view.pace is not None:
        clauses.append(f"{view.pace:.1f} s per batch")
    if view.remaining is not None:
        clauses.append(f"about {duration(view.remaining)} left")
    if view.age is not None and view.age >= _STILL and view.state is not State.finished:
        clauses.append(f"nothing new for {view.age // 60:.0f} min")
    return clauses


def latest(run: Run) -> list[tuple[Cell, ...]]:
    """The latest batches, newest first: number, category, who was chosen, pairs, loss, bandit reward, seconds."""
    rows: list[tuple[Cell, ...]] = []
    for batch, step in list(zip(run.batches, run.steps, strict=True))[: -_LATEST - 1 : -1]:
        rewards = [reward for reward in step["bandit_rewards"] if reward is not None]
        rows.append(
            (
                batch,
                step["category"],
                who(run, step),
                step["pairs"],
                step["loss"],
                sum(rewards) / len(rewards) if rewards else None,
                f"{sum(step['seconds'].values()):.1f}",
            )
        )
    return rows


LATEST_HEAD = ("batch", "category", "chosen", "pairs", "loss", "bandit reward", "seconds")


def who(run: Run, step: StepRecord) -> str:
    """Who was chosen in a batch, with counts where rows differ; several at once have no name."""
    names = [
        run.names[weights.index(max(weights))] if max(weights) == 1 else "several"
        for weights in step["selection"]["weights"]
    ]
    counts = {name: names.count(name) for name in dict.fromkeys(names)}
    return names[0] if len(names) == 1 else ", ".join(f"{name} {count}" for name, count in counts.items())


def _standing(view: View) -> str:
    if view.problem:
        return paragraphs([view.problem])
    if view.run is None:
        return paragraphs([f"There is no run at {view.path} yet; this page shows it as soon as it starts."])
    bar = ""
    if view.num_planned:
        bar = f'<progress max="{view.num_planned}" value="{view.num_done}" aria-label="batches"></progress>'
    return bar + paragraphs([", ".join(standing(view)) + "."])


def _sections(run: Run, categories: list[Category]) -> tuple[Section, ...]:
    return (
        Section("progress", "Loss and dev metric", progress(run)),
        Section("chosen", "Who was chosen", chosen(run, categories)),
        Section("useful", "Who was useful where", useful(run, categories)),
        Section("left-out", "What was left out, and what failed", left_out(run)),
        Section("time", "Where the time went", time(run)),
    )
