"""Run directories written by hand, for tests of what reads them: any reward models, categories and texts."""

import json

import numpy as np

NAMES = ("good", "bad")


def step(number, names=NAMES, *, chosen=0, category="maths", reward=0.5, text="words", **changed):
    """A line of steps.jsonl in which one reward model was chosen for four prompts of one category."""
    weights = [[float(index == chosen) for index in range(len(names))]]
    record = {
        "iteration": number // 4,
        "step": number % 4,
        "category": category,
        "selection": {
            "weights": weights,
            "categories": [{category: 4}],
            "charged": [names[chosen]],
            "reward_models": [names[chosen]],
        },
        "loss": 0.7 - 0.01 * number,
        "bandit_rewards": [reward],
        "pairs": 10,
        "dropped": {"ties": 1, "empty_responses": 0},
        "unfinished_responses": 2,
        "distributions": {
            "scores": [{"reward_model": names[chosen], "count": 8, "deciles": np.linspace(-1, 1, 11).tolist()}],
            "margins": [{"reward_model": names[chosen], "count": 4, "deciles": np.linspace(0, 2, 11).tolist()}],
            "logp_margins": {"count": 4, "deciles": np.linspace(-3, 3, 11).tolist()},
        },
        "agreement": [],
        "disagreement": None,
        "example": {
            "prompt": text,
            "chosen": text,
            "rejected": "no",
            "scores": [1.0 + number, 0.5],
            "reward_model": names[chosen],
        },
        "scored": {name: 5 if index == chosen else 0 for index, name in enumerate(names)},
        "quarantined": {},
        "tokens": {"sampled": 100, "trained": 300},
        "seconds": {"sample": 1.0, "train": 2.0},
    }
    return {**record, **changed}


def evaluation(batches, right, total=40, category="maths", *, correct=None):
    """A line of evaluations.jsonl; `correct` are the prompts answered correctly, where their outcomes are kept."""
    from laser.core.statistics import wilson_interval

    share = right / total
    return {
        "batches": batches,
        "accuracy": share,
        "by_category": {category: share},
        "num_prompts": total,
        "interval": list(wilson_interval(share * total, total)),
        **({} if correct is None else {"correct": {f"p{number}": int(number in correct) for number in range(total)}}),
    }


def write_run(folder, steps, evaluations=(), *, names=NAMES, tail="", config=None):
    """Write a run directory; `tail` is what a process that is writing has written so far of the next line."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = {
        "rewards": {"models": [{"name": name} for name in names]},
        "selector": {"type": "linucb"},
        **(config or {}),
    }
    (folder / "config.json").write_text(json.dumps(whole))
    (folder / "steps.jsonl").write_text("".join(json.dumps(one) + "\n" for one in steps) + tail)
    (folder / "evaluations.jsonl").write_text("".join(json.dumps(one) + "\n" for one in evaluations))
    return folder


def typical(number=12, names=NAMES, **options):
    """Steps that take turns; the first reward model earns 0.8, the second 0.2, with a little spread."""
    return [
        step(one, names, chosen=one % 2, reward=(0.8, 0.2)[one % 2] + 0.01 * (one % 5), **options)
        for one in range(number)
    ]
