"""GRPO with an adaptive reward: python train.py MODEL; --resume continues from the last checkpoint."""

import sys

import torch
from datasets import load_dataset
from trl import GRPOConfig, GRPOTrainer

from laser.integrations.trl import AdaptiveReward

adaptive = AdaptiveReward("run.toml")
options = {"report_to": [], "use_cpu": not torch.cuda.is_available()}
trainer = GRPOTrainer(
    model=sys.argv[1],
    reward_funcs=adaptive.functions(),
    callbacks=[adaptive],
    train_dataset=load_dataset("json", data_files="prompts.jsonl", split="train"),
    args=GRPOConfig(
        "checkpoints", max_steps=100, num_generations=8, max_completion_length=64, save_steps=20, **options
    ),
)
trainer.train(resume_from_checkpoint="--resume" in sys.argv)
