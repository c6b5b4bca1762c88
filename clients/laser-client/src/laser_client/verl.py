"""verl 0.9: a reward manager, a learning hook and a checkpoint hook.

verl finds this module through its plug-ins, so these settings suffice::

    reward.reward_manager.name=laser
    trainer.checkpoint_callback_class=laser_client.verl.LaserCheckpoint

The reward manager runs in verl's reward workers, the hooks in its driver.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import logging
import os
import warnings
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, wraps
from pathlib import Path
from typing import Any

_VERSION = importlib.metadata.version("verl")
if not _VERSION.startswith("0.9.") and "LASER_UNTESTED_VERL" not in os.environ:
    _PROBLEM = (
        f"laser-client was tested with verl 0.9, and this is {_VERSION}; install verl==0.9.*, or set "
        "LASER_UNTESTED_VERL=1 and compare the first steps"
    )
    warnings.warn(_PROBLEM, stacklevel=2)  # verl does not say why it leaves out a plug-in
    raise ImportError(_PROBLEM)

from verl.experimental.reward_loop.reward_manager import register  # noqa: E402
from verl.experimental.reward_loop.reward_manager.base import RewardManagerBase  # noqa: E402
from verl.trainer.ppo.checkpoint_callback import CheckpointCallback  # noqa: E402

from laser_client.client import Client, RewardServerError  # noqa: E402

logger = logging.getLogger(__name__)

_THREADS = 64  # requests under way at once, in each reward worker
_STATE = "laser/state.safetensors"


@register("laser")
class LaserManager(RewardManagerBase):  # type: ignore[misc]
    """Scores each trajectory with the reward server.

    All trajectories of a prompt in a step are scored by one reward model. With `LaserCheckpoint`, the server learns of
    the groups that verl trains on; without it, of all that are complete, validation included.
    """

    def __init__(
        self,
        config: Any,
        tokenizer: Any,
        compute_score: Any,
        reward_router_address: Any = None,
        reward_model_tokenizer: Any = None,
    ) -> None:
        super().__init__(config, tokenizer, compute_score)
        self._learn = "later" if _has_hooks(config) else "auto"

    async def run_single(self, data: Any) -> dict[str, Any]:
        """The score of the last sequence of a trajectory."""
        item = data[-1:][0]
        fields = item.non_tensor_batch
        responses = item.batch["responses"]
        count = int(item.batch["attention_mask"][-responses.shape[-1] :].sum())
        client, threads = _client()

        def score() -> Any:
            text = self.tokenizer.decode(responses[:count], skip_special_tokens=True)
            (scored,) = client.score(
                [[dict(message) for message in fields["raw_prompt"]]],
                [text],
                labels=[_plain(fields["reward_model"].get("ground_truth"))],
                categories=[str(fields.get("data_source", "default"))],
                columns=[_columns(fields.get("extra_info"))],
                groups=[str(fields["uid"])] if "uid" in fields else None,
                step=int(fields["global_steps"]) if "global_steps" in fields else None,
                learn=self._learn,
            )
            return scored

        scored = await asyncio.get_running_loop().run_in_executor(threads, score)
        extra = {
            "laser_reward_model": scored.reward_model,
            "laser_probability": scored.probability,
            "laser_scored": float(scored.score is not None),
        }
        return {"reward_score": scored.filled, "reward_extra_info": extra}


class LaserCheckpoint(CheckpointCallback):  # type: ignore[misc]
    """Saves the server's state with verl's checkpoints, restores it, and lets the server learn after each step."""

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        _install_hooks()

    def on_save(self, trainer: Any, global_step: int, checkpoint_dir: str, async_save: bool = False, **_: Any) -> None:
        """Write the server's state into the checkpoint, completely or not at all."""
        path = Path(checkpoint_dir) / _STATE
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp")
        temporary.write_bytes(_client()[0].read_state())
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)


def learn_from(batch: Any, metrics: dict[str, Any]) -> None:
    """Let the server learn from the groups of a batch, and add its metrics."""
    names = {
        key.rsplit("_", 2)[0]  # keys are UID_SESSION_INDEX
        for key, tag in zip(batch.keys, batch.tags, strict=True)
        if not tag.get("is_padding", False)
    }
    metrics.update(_client()[0].learn(groups=sorted(names)))


def restore(trainer: Any) -> None:
    """Send the state that belongs to the checkpoint that verl has loaded; nothing for a fresh start."""
    if trainer.global_steps == 0:
        return
    section = trainer.config.trainer
    if section.resume_mode == "resume_path":
        folder = Path(section.resume_from_path)
    else:
        folder = Path(section.default_local_dir) / f"global_step_{trainer.global_steps}"
    path = folder.absolute() / _STATE
    if not path.is_file():
        raise RewardServerError(
            f"{path} is missing, so the reward server cannot continue from step {trainer.global_steps}; restore it, or "
            "resume without trainer.checkpoint_callback_class"
        )
    _client()[0].write_state(path.read_bytes())


@lru_cache(maxsize=1)
def _client() -> tuple[Client, ThreadPoolExecutor]:
    return Client(), ThreadPoolExecutor(_THREADS)


@lru_cache(maxsize=1)
def _install_hooks() -> None:
    """Call `learn_from` after each computation of advantages and `restore` after a checkpoint is loaded.

    verl has a callback for saving only, and a trainer under another name would lose what verl does for its modes.
    """
    from verl.trainer.ppo.v1.trainer_base import PPOTrainer

    compute, load = PPOTrainer._compute_advantage, PPOTrainer._load_checkpoint

    @wraps(compute)
    def _compute_advantage(self: Any, batch: Any, metrics: dict[str, Any]) -> Any:
        batch = compute(self, batch, metrics)
        learn_from(batch, metrics)
        return batch

    @wraps(load)
    def _load_checkpoint(self: Any) -> None:
        load(self)
        restore(self)

    PPOTrainer._compute_advantage = _compute_advantage
    PPOTrainer._load_checkpoint = _load_checkpoint


def _has_hooks(config: Any) -> bool:
    named = config.trainer.get("checkpoint_callback_class", None)
    return isinstance(named, str) and named.startswith("laser_client.")


def _columns(extra: Any) -> dict[str, Any]:
    """The fields of `extra_info` that JSON can carry."""
    given = extra if isinstance(extra, Mapping) else {}
    plain = {str(name): _plain(value) for name, value in given.items()}
    return {name: value for name, value in plain.items() if isinstance(value, (str, int, float, bool, list))}


def _plain(value: Any) -> Any:
    """A value of numpy as one of Python."""
    return value.tolist() if hasattr(value, "tolist") else value
