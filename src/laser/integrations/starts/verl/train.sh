#!/bin/sh
# First, in laser's environment: laser serve-rewards run.toml
# Then, in verl's, after pip install of clients/laser-client: sh train.sh MODEL [further settings of verl]
set -e
model=$1
shift
python prepare.py
LASER_REWARDS_URL="${LASER_REWARDS_URL:-http://127.0.0.1:8100}" python -m verl.trainer.main_ppo \
    actor_rollout_ref.model.path="$model" \
    actor_rollout_ref.rollout.n=8 \
    algorithm.adv_estimator=grpo \
    data.train_files=train.parquet \
    data.val_files=val.parquet \
    reward.reward_manager.name=laser \
    trainer.checkpoint_callback_class=laser_client.verl.LaserCheckpoint \
    "$@"
