"""GRPO of TRL with two reward models, of which laser chooses one per prompt: python trl_grpo.py MODEL FOLDER STEPS."""

import sys

import torch
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from laser.integrations.trl import AdaptiveReward

model, folder, steps = sys.argv[1:]
config = {
    "context": {"source": "none"},
    "selector": {"type": "linucb", "forced_pulls": 1},
    "signal": {"type": "probe", "labels": "auto"},
    "rewards": {
        "models": [
            {"name": "polite", "type": "function", "function": "examples/polite_reward.py:polite"},
            {"name": "brief", "type": "text_metric", "metric": "length", "prefer": "shorter"},
        ]
    },
}
sums = [(a, b) for a in range(2, 10) for b in range(2, 10)]
rows = [{"prompt": [{"role": "user", "content": f"{a} + {b}?"}], "answer": str(a + b)} for a, b in sums]
adaptive = AdaptiveReward(config)
options = {"report_to": [], "use_cpu": not torch.cuda.is_available()}
trainer = GRPOTrainer(
    model=model,
    reward_funcs=adaptive.functions(),
    callbacks=[adaptive],
    train_dataset=Dataset.from_list(rows),
    args=GRPOConfig(
        folder, max_steps=int(steps), num_generations=4, max_completion_length=8, logging_steps=1, **options
    ),
)
trainer.train()
print({name: usage["responses"] for name, usage in adaptive.router.usage().items()})
