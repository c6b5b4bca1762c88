#!/bin/sh
# First, in laser's environment: laser serve-rewards run.toml --samples 8
# Then, in OpenRLHF's: sh train.sh MODEL [further options of OpenRLHF]
set -e
model=$1
shift
python -m openrlhf.cli.train_ppo_ray \
    --actor.model_name_or_path "$model" \
    --data.prompt_dataset prompts.jsonl \
    --data.input_key prompt \
    --data.label_key answer \
    --data.apply_chat_template \
    --rollout.n_samples_per_prompt 8 \
    --algo.advantage.estimator group_norm \
    --reward.remote_url "${LASER_REWARDS_URL:-http://127.0.0.1:8100}/get_reward" \
    "$@"
