"""Whole tiny runs for tests: a configuration, and what must be the same whatever happened in between."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from laser.training.progress import Progress
from tiny import save_model

FUNCTIONS = """
def vowels(prompts, responses):
    return [sum(c in "aeiou" for c in text) - 0.01 * len(text) for text in responses]

def short(prompts, responses):
    return [-len(text) for text in responses]

def silent(prompts, responses):
    return [None] * len(responses)

def constant(prompts, responses):
    return [1.0] * len(responses)

def broken(prompts, responses):
    return [float("nan") if i % 2 else float("inf") for i, _ in enumerate(responses)]
"""


def make_table(folder, *names, **sections):
    if not (folder / "base").exists():
        save_model(folder / "base", scale=0.15)
        (folder / "scores.py").write_text(FUNCTIONS)
    base = {"type": "loglik", "name": "likelihood", "model": str(folder / "base")}
    functions = [{"type": "function", "name": name, "function": f"{folder}/scores.py:{name}"} for name in names]
    table = {
        "seed": 3,
        "policy": {"model": str(folder / "base"), "lora": {"rank": 4}, "max_context": 450},
        "generation": {"num_responses": 4, "max_new_tokens": 6, "temperature": 1.0},
        "data": {"type": "embedded"},
        "split": {"train": 12, "dev": 4},
        "rewards": {"models": [base, *functions]},
        "training": {
            "iterations": 2,
            "batches_per_iteration": 3,
            "batch_size": 2,
            "pairs_per_prompt": 3,
            "learning_rate": 1e-3,
            "convergence_threshold": 0,
        },
        "checkpoint": {"every": 2},
    }
    for name, section in sections.items():
        table[name] = {**table.get(name, {}), **section}
    return table


class Notes(Progress):
    """Keeps what a run says."""

    def __init__(self):
        self.notes = []

    def note(self, message):
        self.notes.append(message)


def steps(path):
    return [json.loads(line) for line in (Path(path) / "steps.jsonl").read_text().splitlines()]


def essence(path):
    """What must be the same whatever happened in between: everything but the clock."""
    keep = (
        "iteration",
        "step",
        "loss",
        "loss_parts",
        "bandit_rewards",
        "selection",
        "pairs",
        "dropped",
        "tokens",
        "grad_norm",
    )
    return [{name: step[name] for name in keep} for step in steps(path)]


def adapter(path):
    return load_file(Path(path) / "adapter" / "adapter_model.safetensors")


def same_adapter(first, second):
    a, b = adapter(first), adapter(second)
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)
