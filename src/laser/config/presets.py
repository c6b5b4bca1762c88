"""Named sets of defaults that apply where the user sets nothing.

`paper` is empty: the schema's defaults are the paper's. `recommended` departs from the paper where measurements speak
against its choice; docs/design.md has the evidence for each field.
"""

from __future__ import annotations

from laser.config.patch import Table

PRESETS: dict[str, Table] = {
    "paper": {},
    "recommended": {
        "context": {"normalization": "unit"},
        # An arm that a probe has taught counts as pulled; without a probe each one is tried once, because the bound of
        # an untried arm is lower than that of the arm that happened to come first.
        "selector": {"type": "linucb", "alpha": 0.1, "ridge": 0.05, "forced_pulls": 1},
        "feedback": {"type": "quantile", "window": 50},
        "signal": {"type": "probe"},
    },
}

UNLEARNING = ("fixed", "random", "sequential", "classifier", "frozen", "ensemble")
"""Selectors that do not learn, for which a signal has no effect."""


def apply_preset(table: Table) -> Table:
    """Return the user's table with its preset's values where the user set none.

    A preset's section applies only to the same `type`: choosing another selector drops the preset's LinUCB settings.
    Validation reports an unknown preset.
    """
    name = table.get("preset", "paper")
    preset = PRESETS.get(name, {}) if isinstance(name, str) else {}
    merged = dict(table)
    selector = table.get("selector", {})
    learns = not (isinstance(selector, dict) and selector.get("type") in UNLEARNING)
    for section, defaults in preset.items():
        given = table.get(section, {})
        if section == "signal" and not given and not learns:
            continue
        if isinstance(given, dict) and given.get("type", defaults.get("type")) == defaults.get("type"):
            merged[section] = {**defaults, **given}
    return merged
