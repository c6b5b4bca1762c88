"""The steps of a run, counted before it starts: a table of ``laser train --dry-run``."""

from __future__ import annotations

import math

from rich.table import Table

from laser.config import schema
from laser.config.selection import AgreementSignal, ProbeSignal
from laser.data.split import Splits
from laser.training.batch import num_candidates
from laser.training.loop import draw_batches
from laser.training.probe_items import ProbeData


def steps_table(config: schema.RunConfig, splits: Splits, probe: ProbeData) -> Table:
    """How many batches, steps, responses and pairs a run has, and what scoring costs where prices are given."""
    training = config.training
    drawn = draw_batches(config, splits.train, 0)
    batches, prompts = len(drawn), training.iterations * sum(map(len, drawn))
    steps = training.iterations * batches * training.epochs * training.optimizer_steps
    possible = math.comb(config.generation.num_responses, 2)
    table = Table("what", "how many", title="Plan")
    scored = prompts * min(2 * num_candidates(config), config.generation.num_responses)
    for name, value in (
        ("prompts: train / dev / test", f"{len(splits.train)} / {len(splits.dev)} / {len(splits.test)}"),
        ("iterations x batches", f"{training.iterations} x {batches}"),
        ("optimizer steps, at most", str(steps)),
        ("responses sampled, at most", str(prompts * config.generation.num_responses)),
        ("pairs scored, at most", str(prompts * min(num_candidates(config), possible))),
        ("pairs trained on, at most", str(prompts * training.pairs_per_prompt)),
        *_cost_rows(config, scored),
        *_probe_rows(config, probe),
    ):
        table.add_row(name, value)
    return table


def _cost_rows(config: schema.RunConfig, scored: int) -> list[tuple[str, str]]:
    """The cost of scoring batches, where costs are given: of all reward models together, or of one of them."""
    costs = [model.cost for model in config.rewards.models if model.cost is not None]
    if not costs:
        return []
    if is_ensemble(config) or isinstance(config.signal, AgreementSignal):
        return [("cost of scoring, at most", f"{scored * sum(costs):g}")]
    return [("cost of scoring, at most", f"{scored * max(costs):g}; by the cheapest {scored * min(costs):g}")]


def _probe_rows(config: schema.RunConfig, probe: ProbeData) -> list[tuple[str, str]]:
    """Size and cost of a probe: each time the policy answers its prompts, all reward models may score the answers."""
    section, costs = config.signal, [model.cost or 0.0 for model in config.rewards.models]
    if not isinstance(section, ProbeSignal):
        return []
    pairs = [pair for of in probe.pairs.values() for pair in of]
    prompts = [prompt for of in probe.prompts.values() for prompt in of]
    times = 1 + (config.training.iterations - 1) // section.refresh if section.refresh else 1
    sampled = times * len(prompts) * section.num_responses
    scored = (
        sampled + times * sum(prompt.answer is not None for prompt in prompts) + sum(len(one.texts) for one in pairs)
    )
    rows = [
        ("probe: prompts / labeled pairs", f"{len(prompts)} / {len(pairs)}"),
        ("probe: responses sampled, at most", str(sampled)),
        ("probe: scored by each RM, at most", str(scored)),
    ]
    return rows + ([("probe: cost, at most", f"{scored * sum(costs):g}")] if any(costs) else [])


def is_ensemble(config: schema.RunConfig) -> bool:
    """Whether every reward model scores every response."""
    return config.selector.type in ("ensemble", "online_ensemble")
