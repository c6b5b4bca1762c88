"""Runs inside verl's environment, without laser: the client in verl's reward loop, in Ray actors on this CPU.

Prints one JSON object; tests/verl_env/test_verl.py starts it and compares.
"""

import json
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import ray
import torch
import verl
from omegaconf import OmegaConf
from tensordict import TensorDict
from transformers import AutoTokenizer
from verl.experimental.reward_loop.reward_loop import RewardLoopManager
from verl.trainer.ppo.checkpoint_callback import build_checkpoint_callback

TEXTS = ["1", "22", "three", "4444"]


def make_config(model, checkpoint):
    return OmegaConf.create(
        {
            "actor_rollout_ref": {"model": {"path": model, "tokenizer_path": None}},
            "reward": {
                "num_workers": 2,
                "custom_reward_function": {"path": None, "name": "compute_score"},
                "reward_manager": {"source": "register", "name": "laser", "module": None},
                "reward_model": {"enable": False, "enable_resource_pool": False, "model_path": None},
                "sandbox_fusion": {"url": None},
            },
            "trainer": {
                "checkpoint_callback_class": "laser_client.verl.LaserCheckpoint" if checkpoint else None,
                "resume_mode": "auto",
            },
        }
    )


def make_data(tokenizer, step, uids):
    """Trajectories as verl's agent loop hands them to a reward worker: responses padded at the right."""
    rows = [(uid, text) for uid in uids for text in TEXTS]
    ids = [tokenizer(text, add_special_tokens=False).input_ids for _, text in rows]
    width = max(map(len, ids))
    responses = torch.tensor([row + [0] * (width - len(row)) for row in ids])
    attention = torch.tensor([[1, 1] + [1] * len(row) + [0] * (width - len(row)) for row in ids])
    prompts = torch.ones(len(rows), 2, dtype=torch.long)
    batch = TensorDict({"prompts": prompts, "responses": responses, "attention_mask": attention}, batch_size=len(rows))

    def column(values):
        made = np.empty(len(rows), dtype=object)
        made[:] = values
        return made

    fields = {
        "raw_prompt": column([[{"role": "user", "content": f"question {uid}"}] for uid, _ in rows]),
        "uid": column([uid for uid, _ in rows]),
        "reward_model": column([{"style": "rule", "ground_truth": "22"}] * len(rows)),
        "data_source": column(["sums"] * len(rows)),
        "extra_info": column([{"index": number, "split": "train"} for number in range(len(rows))]),
        "global_steps": np.array([step] * len(rows)),
    }
    return verl.DataProto(batch=batch, non_tensor_batch=fields)


def main(model):
    config = make_config(model, checkpoint=True)
    tokenizer = AutoTokenizer.from_pretrained(model)
    callback = build_checkpoint_callback(config)
    from verl.trainer.ppo.v1.trainer_base import PPOTrainer

    from laser_client.verl import learn_from, restore

    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    loop = RewardLoopManager(config)
    scored = loop.compute_rm_score(make_data(tokenizer, 1, ["u1", "u2"]))
    lengths = make_data(tokenizer, 1, ["u1", "u2"]).batch["attention_mask"][:, 2:].sum(dim=1) - 1
    rewards = scored.batch["rm_scores"][torch.arange(len(lengths)), lengths].tolist()
    keys = [f"u1_{number}_0" for number in range(len(TEXTS))] + ["u9_0_0"]
    tags = [{}] * len(TEXTS) + [{"is_padding": True}]
    metrics = {}
    learn_from(SimpleNamespace(keys=keys, tags=tags), metrics)
    with tempfile.TemporaryDirectory() as folder:
        callback.on_save(trainer=None, global_step=1, checkpoint_dir=f"{folder}/global_step_1")
        saved = Path(folder, "global_step_1", "laser", "state.safetensors").stat().st_size
        config.trainer.default_local_dir = folder
        restore(SimpleNamespace(global_steps=1, config=config))
    ray.shutdown()
    print(
        json.dumps(
            {
                "version": verl.__version__,
                "rewards": rewards,
                "models": scored.non_tensor_batch["laser_reward_model"].tolist(),
                "metrics": metrics,
                "saved": saved,
                "hooked": [PPOTrainer._compute_advantage.__module__, PPOTrainer._load_checkpoint.__module__],
                "wrapped": hasattr(PPOTrainer._compute_advantage, "__wrapped__"),
            }
        )
    )


if __name__ == "__main__":
    main(sys.argv[1])
