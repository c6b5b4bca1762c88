"""A router over reward functions, and rows of a made-up trainer, for tests."""

import numpy as np

FUNCTIONS = """
def right(prompts, responses):
    golds = [prompt.metadata.get("gold", prompt.answer) for prompt in prompts]
    return [float(text.split()[-1] == gold) for gold, text in zip(golds, responses)]

def wrong(prompts, responses):
    return [-score for score in right(prompts, responses)]

def length(prompts, responses):
    return [20.0 * len(text) for text in responses]

def silent(prompts, responses):
    return [None] * len(responses)

def failing(prompts, responses):
    raise OSError("the server is down")
"""


def router_table(folder, *names, **sections):
    """The configuration of a router over functions of this module."""
    (folder / "rewards.py").write_text(FUNCTIONS)
    names = names or ("right", "wrong", "length")
    models = [{"type": "function", "name": name, "function": f"{folder}/rewards.py:{name}"} for name in names]
    table = {"seed": 5, "context": {"source": "none"}, "rewards": {"models": models}}
    for name, section in sections.items():
        table[name] = {**table.get(name, {}), **section}
    return table


def same_state(first, second):
    """Equal states, but for what the pool has measured of time."""
    assert first.keys() == second.keys()
    for name, value in first.items():
        if not name.startswith("pool.cost_"):
            equal = np.array_equal(value, second[name]) if isinstance(value, np.ndarray) else value == second[name]
            assert equal, name


def rollouts(step, *, groups=4, size=4, seed=0):
    """Prompts, responses and gold answers of one step: sums, of which about half are answered correctly."""
    draws = np.random.default_rng([seed, step])
    prompts, responses, gold = [], [], []
    for number in range(groups):
        a, b = draws.integers(1, 9, size=2)
        for index in range(size):
            said = a + b if index % 2 == 0 else a + b + 1 + draws.integers(3)
            prompts.append(f"step {step}, question {number}: {a} + {b}?")
            responses.append(f"I say {said}")
            gold.append(str(a + b))
    return prompts, responses, gold
