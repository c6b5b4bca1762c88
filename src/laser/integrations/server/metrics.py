"""The counts of the reward server in the text format of Prometheus."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from laser.integrations.server.worker import Worker
from laser.router.router import Router

Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric.

    Attributes:
        name: Its name, without the prefix ``laser_``.
        kind: counter or gauge.
        help: What it counts.
        values: Values by labels.
    """

    name: str
    kind: str
    help: str
    values: Mapping[Labels, float]


def render(metrics: Iterable[Metric]) -> str:
    """The text that Prometheus reads."""
    lines = []
    for metric in metrics:
        lines += [f"# HELP laser_{metric.name} {metric.help}", f"# TYPE laser_{metric.name} {metric.kind}"]
        for labels, value in metric.values.items():
            inside = ",".join(f'{name}="{_escaped(text)}"' for name, text in labels)
            lines.append(f"laser_{metric.name}{{{inside}}} {value}" if inside else f"laser_{metric.name} {value}")
    return "\n".join(lines) + "\n"


def metrics_of(worker: Worker, requests: Mapping[int, int]) -> list[Metric]:
    """The metrics of a server."""
    ledger = worker.ledger
    counts: dict[str, dict[Labels, float]] = {}
    for (name, model), count in dict(ledger.counts).items():
        counts.setdefault(name, {})[(("reward_model", model),) if model else ()] = count
    none: dict[Labels, float] = {(): 0.0}
    rest: dict[Labels, float] = {
        (("reward_model", name),): float(not free) for name, free in _available(ledger.book.router)
    }
    sums: dict[Labels, float] = {(("reward_model", name),): value for name, value in dict(ledger.sums).items()}
    said: dict[Labels, float] = {(("metric", name),): value for name, value in ledger.book.metrics.items()}
    statuses: dict[Labels, float] = {(("status", str(status)),): count for status, count in dict(requests).items()}
    return [
        Metric("requests_total", "counter", "Answered requests.", statuses),
        Metric("samples_total", "counter", "Scored samples.", counts.get("samples", {})),
        Metric("unscored_total", "counter", "Samples without a score.", counts.get("unscored", {})),
        Metric("score_sum", "counter", "Sum of scores in the units of the reward model.", sums),
        Metric("choices_total", "counter", "Groups by chosen reward model.", counts.get("choices", {})),
        Metric("retries_total", "counter", "Samples that were sent again.", counts.get("retries", none)),
        Metric("groups_split_total", "counter", "Groups of two reward models.", counts.get("groups_split", none)),
        Metric("groups_learned_total", "counter", "Groups that were learned from.", {(): ledger.book.num_learned}),
        Metric("groups_open", "gauge", "Groups that may still get samples.", {(): ledger.book.groups.num_open}),
        Metric("samples_waiting", "gauge", "Samples that wait for their score.", {(): worker.num_waiting}),
        Metric("quarantined", "gauge", "Whether a reward model is in quarantine.", rest),
        Metric("bandit", "gauge", "What the router said when it last learned.", said),
    ]


def _available(router: Router) -> Iterator[tuple[str, bool]]:
    return zip(router.names, router.pool.quarantine.available_K.tolist(), strict=True)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
