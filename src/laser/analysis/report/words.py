"""The results of a run in sentences that say how sure they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from laser.analysis.records import Run
from laser.analysis.shown import one_line
from laser.analysis.summary import metric_change, utilization
from laser.analysis.usefulness import MIXED, Category, spells, unpaired_change
from laser.core.statistics import PairedChange

_UNLEARNING = {
    "fixed": "always takes the same reward model",
    "random": "draws reward models at random",
    "sequential": "takes reward models in a fixed order",
    "classifier": "follows a classifier trained before",
    "frozen": "repeats what another run learned",
    "ensemble": "asks all reward models every time",
}
_LISTED = 5  # categories that a sentence lists


def lead(run: Run, categories: Sequence[Category]) -> tuple[str, ...]:
    """The first paragraphs of a report: what changed, which reward models were useful, what went wrong."""
    done = sum(step["pairs"] for step in run.steps)
    state = "" if run.finished else " The run is not finished."
    first = f"{len(run.steps)} batches, {done} pairs trained on.{state} {dev_metric(run)}"
    return tuple(filter(None, (first, usefulness(run, categories), choices(run, categories), trouble(run))))


def dev_metric(run: Run) -> str:
    """How the dev metric changed, and whether that is more than chance."""
    if not run.evaluations:
        return "No dev metric was measured."
    before, after = run.evaluations[0], run.evaluations[-1]
    if len(run.evaluations) == 1:
        low, high = after["interval"]
        return (
            f"Dev accuracy is {after['accuracy']:.1%} (95% interval {low:.1%} to {high:.1%}, {after['num_prompts']} "
            "prompts), measured once."
        )
    paired = metric_change(run.evaluations)
    if paired is not None:
        change = change_in_words(paired)
    else:
        gain, interval = unpaired_change(before, after)
        change = _change(gain, interval, f"not paired, {after['num_prompts']} prompts")
    return f"Dev accuracy: before {before['accuracy']:.1%}, after {after['accuracy']:.1%}, {change}."


def change_in_words(paired: PairedChange) -> str:
    """How a metric changed on the same prompts, in a clause with its interval and a verdict."""
    how = f"paired, {paired.num_prompts} prompts: {paired.num_gained} gained, {paired.num_lost} lost"
    return _change(paired.value, (paired.low, paired.high), how)


def fall_in_words(change: PairedChange | None, utilization: Mapping[str, Mapping[str, float]]) -> str | None:
    """That training has lowered the dev metric, and what to do; None where its interval does not say so.

    Args:
        change: Of the dev metric.
        utilization: By category, how many prompts each reward model was chosen for.
    """
    if change is None or change.high >= 0:
        return None
    chosen: Counter[str] = Counter()
    for of_category in utilization.values():
        chosen.update(of_category)
    most = max(chosen, key=lambda name: chosen[name], default="nothing")
    return (
        f"over-optimised: training lowered the dev accuracy, and {_name(most)} was chosen most; read some answers "
        "(laser chat RUN --before-after 3), then stop earlier, or bound or replace that reward model"
    )


def usefulness(run: Run, categories: Sequence[Category]) -> str:
    """Which reward model earned the most bandit reward in each category, and how sure that is."""
    if len(run.names) == 1:
        return f"The pool has one reward model, {_name(run.names[0])}; there was nothing to choose."
    clear = [category for category in categories if category.distinguishable]
    even = [category.name for category in categories if not category.distinguishable and category.p is not None]
    mixed = any(category.name == MIXED for category in categories)
    few = [] if mixed else [category.name for category in categories if category.p is None]
    sentences = [_best(category) for category in clear[:_LISTED]]
    if len(clear) > _LISTED:
        sentences.append(f"The same holds for {len(clear) - _LISTED} more categories, in the table below.")
    if even:
        sentences.append(
            f"For {listed(even)}, no reward model is distinguishable from the others by its bandit rewards."
        )
    if mixed and len(categories) > 1:
        sentences.append("Most batches mix categories, so that bandit rewards say little about single ones.")
    if few:
        sentences.append(
            f"For {listed(few)}, there are too few bandit rewards of more than one reward model to compare."
        )
    if clear and run.setting("signal.type", "none") == "none":
        sentences.append(
            "The bandit reward is the scaled loss alone: it shows whose rankings the policy fits easily, and cannot "
            "distinguish a reward model that is right from one that is consistently wrong."
        )
    return " ".join(sentences)


def choices(run: Run, categories: Sequence[Category]) -> str:
    """Which reward model was chosen most, against an even share."""
    kind = str(run.setting("selector.type", ""))
    if kind in _UNLEARNING:
        return f"The selector, {kind}, {_UNLEARNING[kind]}, so its choices do not show which reward model is useful."
    shown = [category for category in categories if category.choices]
    if len(run.names) == 1 or not shown:
        return ""
    some = "; ".join(_most(category) for category in shown[:_LISTED])
    more = f"; {len(shown) - _LISTED} more categories are below" if len(shown) > _LISTED else ""
    return f"Chosen most: {some}{more}. An even share would be {1 / len(run.names):.0%}."


def trouble(run: Run) -> str:
    """Quarantines, signs of over-optimization and damaged lines; nothing where there were none."""
    sentences = []
    for name in dict.fromkeys(spell.name for spell in spells(run)):
        of_name = [spell for spell in spells(run) if spell.name == name]
        back = of_name[-1].back
        state = f"it scored again from batch {back}" if back else "it has not scored since"
        times = "" if len(of_name) == 1 else f" {len(of_name)} times, last"
        sentences.append(f"{_name(name)} was put in quarantine{times} in batch {of_name[-1].batch}; {state}.")
    if run.probe is not None:
        sentences += [f"{sign['message']}." for sign in run.probe.get("over_optimised", [])]
    if fall := fall_in_words(metric_change(run.evaluations), utilization(run.steps, run.names)):
        sentences.append(f"{fall}.")
    if run.damage:
        lines = "1 line" if len(run.damage) == 1 else f"{len(run.damage)} lines"
        sentences.append(f"{lines} of the run's records could not be read and {_are(run)} left out of everything here.")
    return " ".join(sentences)


def listed(names: Iterable[str]) -> str:
    """Names in a sentence, the rest counted."""
    some = [_name(name) for name in names]
    if len(some) > _LISTED:
        some = [*some[:_LISTED], f"{len(some) - _LISTED} more"]
    return some[0] if len(some) == 1 else f"{', '.join(some[:-1])} and {some[-1]}"


def p_value(p: float) -> str:
    """A p-value for a sentence."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def _best(category: Category) -> str:
    best = category.best_rewarded
    assert best is not None
    assert category.p is not None
    one = category.rewards[best]
    return (
        f"For {_name(category.name)}, {_name(best)} earned the highest bandit rewards ({one.mean:.2f} ± "
        f"{one.half:.2f}, {one.num} of them; the reward models differ, {p_value(category.p)})."
    )


def _most(category: Category) -> str:
    name = category.most_chosen
    choice = category.choices[name]
    low, high = choice.interval
    return (
        f"{_name(name)} for {_name(category.name)} ({choice.share:.0%} of {category.num_prompts} prompts, 95% interval "
        f"{low:.0%} to {high:.0%})"
    )


def _change(gain: float, interval: tuple[float, float], how: str) -> str:
    low, high = interval
    verdict = "not distinguishable from no change"
    if low > 0 or high < 0:
        verdict = "a gain beyond chance" if low > 0 else "a loss beyond chance"
    return f"change {_signed(gain)} points, 95% interval {_signed(low)} to {_signed(high)} ({how}); {verdict}"


def _signed(share: float) -> str:
    return f"{100 * share:+.1f}".replace("-", "\u2212")


def _are(run: Run) -> str:
    return "is" if len(run.damage) == 1 else "are"


def _name(name: str) -> str:
    return one_line(name, 60)
