"""The page about one run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from laser.analysis.records import Damage, Run
from laser.analysis.report import charts, comparisons
from laser.analysis.report.blocks import Block, Cell, Code, Example, Examples, Page, Response, Section, table, words
from laser.analysis.report.words import lead, p_value
from laser.analysis.shapes import ExampleRecord, FoundRecord, ProbeRecord
from laser.analysis.shown import duration, percent
from laser.analysis.summary import RunSummary, summarize
from laser.analysis.usefulness import Category, by_category, spells, total_agreement
from laser.core.statistics import Estimate

_EXAMPLES = 8
_SHOWN_DAMAGE = 20
_REASONS = {
    "ties": "pairs whose two responses got the same score",
    "unscored": "pairs with a response that got no finite score",
    "doubtful": "pairs whose chosen response scores as wrong responses of the probe do",
    "empty_responses": "responses without text",
    "duplicate_responses": "responses that repeat another one to the same prompt",
    "missing_pairs": "pairs that were not made, because a prompt had too few distinct responses",
}
_NO_AGREEMENT = (
    "Not measured: no two reward models scored the same responses in this run, since laser asks only the chosen one. "
    "Ensembles, signal.type = 'agreement' and the probe compare them during training; laser rewardbench measures all "
    "of them on labeled pairs, and laser report --bench FILE shows the result here."
)


def run_page(run: Run, bench: Mapping[str, Any] | None = None) -> Page:
    """Everything about a run that has finished a batch.

    Args:
        run: The run.
        bench: The JSON that ``laser rewardbench --out`` wrote, for Fig. 3 and 8.
    """
    categories = by_category(run)
    return Page(
        title=run.path.resolve().name,
        lead=lead(run, categories),
        sections=(
            Section("useful", "Usefulness by category", useful(run, categories)),
            *([Section("probe", "What the probe found", probed(run.probe))] if run.probe is not None else []),
            Section("chosen", "Choices", chosen(run, categories)),
            Section("progress", "Loss and dev metric", progress(run)),
            Section("agreement", "Agreement between reward models", agreement(run, bench)),
            Section("scores", "Scores and margins", scores(run)),
            Section("examples", "Examples", examples(run)),
            Section("left-out", "Left out and failed", left_out(run)),
            Section("time", "Time", time(run)),
            Section("configuration", "Configuration", configuration(run)),
        ),
    )


def useful(run: Run, categories: Sequence[Category]) -> tuple[Block, ...]:
    """Bandit rewards by category, and over the run."""
    rows: list[tuple[Cell, ...]] = []
    for category in categories:
        for name in run.names:
            reward, choice = category.rewards.get(name), category.choices.get(name)
            if reward is None and (choice is None or choice.prompts == 0):
                continue
            rows.append(
                (
                    category.name,
                    name,
                    percent(choice.share) if choice else None,
                    f"{percent(choice.interval[0])} to {percent(choice.interval[1])}" if choice else None,
                    f"{reward.mean:.2f}" if reward else None,
                    _interval(reward) if reward else None,
                    reward.num if reward else 0,
                    _verdict(category, name),
                )
            )
    head = (
        "category",
        "reward model",
        "share of prompts",
        "95% interval",
        "bandit reward",
        "its interval",
        "rewards",
        "verdict",
    )
    about = (
        "A bandit reward is in [0, 1]. The verdict is a Kruskal-Wallis test over the reward models with at least "
        "five rewards in the category, corrected for the number of categories (Holm). Choices and rewards of one run "
        "depend on earlier ones, which the test and the intervals ignore: several seeds say more than a small p."
    )
    found: list[Block] = [words(about), table("By category and reward model", head, rows)]
    if any(reward is not None for step in run.steps for reward in step["bandit_rewards"]):
        found.append(charts.rewards(run))
    return tuple(found)


def chosen(run: Run, categories: Sequence[Category]) -> tuple[Block, ...]:
    """Utilization by category and over time."""
    return charts.utilization(categories, run.names), charts.over_time(run)


def progress(run: Run) -> tuple[Block, ...]:
    """Loss and dev metric."""
    dev: Block = charts.dev(run) if run.evaluations else words("No dev metric was measured.")
    return charts.loss(run), dev


def agreement(run: Run, bench: Mapping[str, Any] | None) -> tuple[Block, ...]:
    """Heat map from the run's own scores, and what laser rewardbench measured."""
    found: list[Block] = []
    totals = total_agreement(run.steps)
    if totals:
        text = (
            "Share of the pairs of responses that two reward models order alike, over the responses that both scored "
            "in this run and both order; 0.5 is chance, ? was not measured."
        )
        found.append(comparisons.agreement_in_runs(run.names, totals, text))
    elif len(run.names) > 1:
        found.append(words(_NO_AGREEMENT))
    else:
        found.append(words("There is one reward model."))
    return (*found, *bench_blocks(bench)) if bench is not None else tuple(found)


def bench_blocks(record: Mapping[str, Any]) -> tuple[Block, ...]:
    """What laser rewardbench measured."""
    names = list(record["agreement"])
    values = {
        (a, b): float(record["agreement"][a][b])
        for place, a in enumerate(names)
        for b in names[place + 1 :]
        if record["agreement"][a].get(b) is not None
    }
    text = (
        f"Macro F1 of one reward model's verdicts against another's, on {record['num_pairs']} labeled pairs (laser "
        "rewardbench)."
    )
    heat = comparisons.agreement(names, values, {}, text)
    failed = [f"{name} could not be used: {why}" for name, why in record.get("failed", {}).items()]
    return comparisons.bench(record), replace(heat, name="agreement-rewardbench"), words(*failed)


def scores(run: Run) -> tuple[Block, ...]:
    """Distributions, where the records have them."""
    picture = comparisons.distributions(run)
    return (picture,) if picture is not None else (words("The records of this run do not hold distributions."),)


def probed(probe: ProbeRecord) -> tuple[Block, ...]:
    """Accuracy of each reward model by category before training, and signs of over-optimization since."""
    sources = probe.get("sources", {})
    rows = [
        (category, name, _share(one["accuracy"]), _interval_of(one), one["pairs"], sources.get(category))
        for category, found in probe["accuracy"].items()
        for name, one in sorted(found.items(), key=lambda item: -(item[1]["accuracy"] or 0.0))
    ]
    head = ("category", "reward model", "accuracy", "95% interval", "pairs", "labels")
    about = (
        "Share of pairs of responses that a reward model orders as their labels do, before training. The intervals "
        "take pairs as independent."
    )
    signs = [words(sign["message"]) for sign in probe.get("over_optimised", [])]
    return words(about), table("Accuracy of the reward models", head, rows), *signs


def _share(value: float | None) -> str | None:
    return None if value is None else f"{value:.2f}"


def _interval_of(found: FoundRecord) -> str | None:
    return None if found["low"] is None else f"{found['low']:.2f} to {found['high']:.2f}"


def examples(run: Run) -> tuple[Block, ...]:
    """Pairs on which reward models disagree most; without any, the largest and smallest margins."""
    strongest = sorted(
        ((batch, one) for batch, step in _steps(run) if (one := step.get("disagreement"))),
        key=lambda found: -found[1]["strength"],
    )
    if strongest:
        shown = [
            Example(
                f"Batch {batch}: {' against '.join(one['scores'])}",
                one["prompt"],
                tuple(
                    Response(role, text, tuple((name, pair[side]) for name, pair in one["scores"].items()))
                    for side, (role, text) in enumerate(zip(("one response", "another"), one["responses"], strict=True))
                ),
            )
            for batch, one in strongest[:_EXAMPLES]
        ]
        about = "Of each batch the pair on which two reward models disagree most; of these the strongest."
        return words(about), Examples(tuple(shown))
    found = [(batch, one) for batch, step in _steps(run) if (one := step.get("example"))]
    if not found:
        return (words("The records do not hold any pair."),)
    about = (
        "No two reward models scored the same pair, so these are pairs with the largest and the smallest margins, in "
        "units of the reward model's mean margin, among the first pairs of all batches."
    )
    return words(about), Examples(tuple(_extremes(found)))


def left_out(run: Run) -> tuple[Block, ...]:
    """What was dropped or failed, and why."""
    summary = summarize(run.steps, run.evaluations, run.names)
    rows = [(_REASONS.get(name, name.replace("_", " ")), count) for name, count in summary.dropped.items()]
    unfinished = sum(step.get("unfinished_responses", 0) for step in run.steps)
    rows.append(("responses cut at the token limit (they are used)", unfinished))
    found: list[Block] = [table("Left out of training", ("what", "count"), rows)]
    if run.summary is not None and (usage := run.summary.get("reward_models")):
        found.append(_usage(usage))
    else:
        found.append(table("Responses scored", ("reward model", "responses"), list(summary.scored.items())))
    spelled = [
        (one.name, one.batch, duration(one.seconds), one.reason, one.back if one.back else "not yet")
        for one in spells(run)
    ]
    if spelled:
        head = ("reward model", "out in batch", "after", "reason", "scored again in batch")
        found.append(table("Quarantines", head, spelled))
    else:
        found.append(words("No reward model was put in quarantine."))
    if run.damage:
        found.append(damaged(run.damage))
    return tuple(found)


def damaged(lines: Sequence[Damage]) -> Block:
    """Lines of the records that could not be read."""
    rows = [(f"{one.file} line {one.line}", one.why) for one in lines[:_SHOWN_DAMAGE]]
    count = f"{len(lines)} damaged lines, left out" if len(lines) > 1 else "1 damaged line, left out"
    return table(count, ("line", "what is wrong"), rows)


def time(run: Run) -> tuple[Block, ...]:
    """Time by phase, tokens, and what scoring cost."""
    summary = summarize(run.steps, run.evaluations, run.names)
    tokens = ", ".join(f"{count} {name}" for name, count in summary.tokens.items())
    return (
        charts.time_by_phase(summary.seconds),
        words(f"Tokens: {tokens}." if tokens else ""),
        *(_costs(run, summary) if summary.cost else ()),
    )


def _costs(run: Run, summary: RunSummary) -> tuple[Block, ...]:
    """The cost of each reward model's scores, an ensemble's members each with their own."""
    total = sum(summary.cost.values())
    rows = [
        (
            name,
            summary.scored.get(name, 0),
            f"{cost / summary.scored[name]:.3g}" if summary.scored.get(name) else None,
            f"{cost:.4g}",
            percent(cost / total if total else None),
        )
        for name, cost in summary.cost.items()
    ]
    measured = all(model.get("cost") is None for model in run.setting("rewards.models"))
    unit = "in seconds, measured" if measured else "in the unit of rewards.models.*.cost"
    weight = run.setting("selector.cost_weight", 0.0)
    about = f"Costs have weight {weight:g} in the choices (selector.cost_weight)."
    return (
        table(f"Cost of scoring, {unit}", ("reward model", "responses", "each", "cost", "share"), rows),
        words(about),
    )


def configuration(run: Run, whose: str = "") -> tuple[Block, ...]:
    """The resolved configuration."""
    try:
        text = json.dumps(run.config, indent=2)
    except RecursionError:  # a reader of JSON nests deeper than a writer that indents
        text = "nested too deeply to show"
    return (Code(f"{whose}resolved, as JSON", text),)


def _interval(reward: Estimate) -> str | None:
    """The t-interval of a mean within [0, 1]; of two values it says nothing."""
    low, high = max(0.0, reward.mean - reward.half), min(1.0, reward.mean + reward.half)
    return f"{low:.2f} to {high:.2f}" if reward.num > 2 else None


def _verdict(category: Category, name: str) -> str:
    if category.p is None:
        return "too few to compare"
    if not category.distinguishable:
        return f"no difference beyond chance ({p_value(category.p)})"
    return f"highest; they differ ({p_value(category.p)})" if name == category.best_rewarded else ""


def _steps(run: Run) -> list[tuple[int, Any]]:
    return list(zip(run.batches, run.steps, strict=True))


def _extremes(found: Sequence[tuple[int, ExampleRecord]]) -> list[Example]:
    """Half of them with the largest relative margins, half with the smallest, largest first."""
    margins: dict[str, list[float]] = {}
    for _, one in found:
        margins.setdefault(one["reward_model"], []).append(abs(one["scores"][0] - one["scores"][1]))
    means = {name: float(np.mean(values)) or 1.0 for name, values in margins.items()}

    def relative(item: tuple[int, ExampleRecord]) -> float:
        return (item[1]["scores"][0] - item[1]["scores"][1]) / means[item[1]["reward_model"]]

    ranked = sorted(found, key=relative, reverse=True)
    half = _EXAMPLES // 2
    some = ranked if len(ranked) <= _EXAMPLES else [*ranked[:half], *ranked[-half:]]
    return [
        Example(
            f"Batch {batch}: {one['reward_model']}, {relative((batch, one)):.2f} times its mean margin",
            one["prompt"],
            tuple(
                Response(role, text, ((one["reward_model"], score),))
                for role, text, score in zip(
                    ("chosen", "rejected"), (one["chosen"], one["rejected"]), one["scores"], strict=True
                )
            ),
        )
        for batch, one in some
    ]


def _usage(usage: Mapping[str, Mapping[str, int]]) -> Block:
    columns = list(dict.fromkeys(key for one in usage.values() for key in one))
    rows = [(name, *(one.get(column) for column in columns)) for name, one in usage.items()]
    head = ("reward model", *(column.replace("_", " ") for column in columns))
    return table("What reward models did", head, rows)
