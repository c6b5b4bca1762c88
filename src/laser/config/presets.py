"""Named sets of defaults, laid under what the user writes.

`paper` is empty: the schema's defaults are the paper's. `recommended` departs from it where measurements speak against
the paper's choice; docs/design.md has the evidence for each field.
"""

from __future__ import annotations

from typing import Any

Table = dict[str, Any]

PRESETS: dict[str, Table] = {
    "paper": {},
    "recommended": {
        "context": {"normalization": "unit"},
        "selector": {"type": "linucb", "alpha": 0.1, "ridge": 0.05},
        "feedback": {"type": "quantile", "window": 50},
        "signal": {"type": "probe"},
    },
}

UNLEARNING = ("fixed", "random", "sequential", "classifier", "frozen", "ensemble")
"""Selectors that learn nothing, and so have no use for a signal."""


def apply_preset(table: Table) -> Table:
    """Return the user's table with its preset's values where the user wrote none.

    A preset's section applies only to the same `type`: choosing another selector drops the preset's LinUCB settings.
    An unknown preset is left for validation to report.
    """
    name = table.get("preset", "paper")
    preset = PRESETS.get(name, {}) if isinstance(name, str) else {}
    merged = dict(table)
    selector = table.get("selector", {})
    learns = not (isinstance(selector, dict) and selector.get("type") in UNLEARNING)
    for section, defaults in preset.items():
        given = table.get(section, {})
        if section == "signal" and not learns:
            continue
        if isinstance(given, dict) and given.get("type", defaults.get("type")) == defaults.get("type"):
            merged[section] = {**defaults, **given}
    return merged
