"""How good each reward model of a pool is, by category, without training anything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from laser.config import RunConfig
from laser.config.selection import ProbeSignal
from laser.core.errors import RewardModelError
from laser.training.findings import Findings
from laser.wiring import build_generator, build_policy, build_pool, build_splits
from laser.wiring.fitting import make_room
from laser.wiring.probe import split_off_probe
from laser.wiring.selection import build_probe


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What a probe found, and what it cost.

    Attributes:
        findings: Accuracy by category and reward model.
        responses: Responses that each reward model scored.
        tokens: Tokens that servers billed for each reward model.
        seconds: How long each reward model took to load and to score them.
        cost: What the responses cost, in the unit of `rewards.models.*.cost`; empty where none is given.
        failed: Reward models that could not score, and the reason.
    """

    findings: Findings
    responses: dict[str, int]
    tokens: dict[str, int]
    seconds: dict[str, float]
    cost: dict[str, float]
    failed: dict[str, str]

    def as_record(self) -> dict[str, Any]:
        """JSON-able form: the `probe` of summary.json, with the costs of each reward model."""
        costs: dict[str, dict[str, float]] = {
            name: {"responses": count, "tokens": self.tokens[name], "seconds": round(self.seconds[name], 3)}
            for name, count in self.responses.items()
        }
        for name, cost in self.cost.items():
            costs[name]["cost"] = cost
        return {**self.findings.as_record(), "reward_models": costs, "failed": self.failed}


def probe(
    config: RunConfig, *, pairs: str | Path | None = None, on_tokens: Callable[[int], None] | None = None
) -> ProbeResult:
    """Measure every reward model of the pool on labeled pairs or on the policy's answers, by category.

    The configuration's `signal` says how if it is a probe; otherwise its defaults hold: gold answers where prompts have
    them, else a consensus of the pool. Nothing is trained and nothing is written.

    Args:
        config: The pool, the prompts and the policy.
        pairs: File of labeled pairs that takes the place of the policy's answers; see `load_candidates`.
        on_tokens: Called with the number of tokens sampled, while sampling.

    Raises:
        LaserError: A file, the policy or the prompts cannot be used, or no reward model could score.
    """
    section = config.signal if isinstance(config.signal, ProbeSignal) else ProbeSignal()
    if pairs is not None:
        section = section.model_copy(update={"labels": "pairs", "pairs": str(pairs)})
    splits, data = split_off_probe(build_splits(config), section, config.data)
    pool, generator = build_pool(config), None
    if data.prompts:
        policy = build_policy(config)
        data = make_room(config, policy, splits, data).probe
        generator = build_generator(config.generation, policy, on_tokens)
    probe = build_probe(config, section, pool, generator, data)
    findings = probe.test_all()
    failed = dict.fromkeys(findings.unscored, "it gave no score") | pool.quarantine.fresh(pool.names)
    if not any(one.num_pairs for one in findings.found):
        reasons = [*(line.removeprefix("probe: ") for line in findings.problems()), *failed.values()]
        raise RewardModelError(f"the probe measured nothing: {'; '.join(reasons)}")
    usage = pool.usage()
    pool.release_all()
    return ProbeResult(
        findings,
        responses={name: used["responses"] for name, used in usage.items()},
        tokens={name: used["tokens"] for name, used in usage.items()},
        seconds=dict(zip(pool.names, probe.seconds_K.tolist(), strict=True)),
        cost={} if pool.costs.measured else dict(zip(pool.names, pool.costs.take_latest_K().tolist(), strict=True)),
        failed=failed,
    )
