"""What a configuration for accelerate asks for has effect or is refused, as its launcher really passes it on."""

import os
from pathlib import Path

import pytest
import yaml
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env

from laser.config import parse_config
from laser.core.errors import ConfigError
from laser.wiring.accelerate import as_launched
from runs import make_table

CONFIGS = Path(__file__).parents[2] / "configs" / "accelerate"
FSDP = {"fsdp_version": 2, "fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP", "fsdp_reshard_after_forward": True}


@pytest.fixture
def config(tmp_path):
    return parse_config(make_table(tmp_path))


def launched(folder, monkeypatch, **fields):
    """The environment that accelerate's launcher gives the processes of fsdp2.yaml with other fields."""
    plain = yaml.safe_load((CONFIGS / "fsdp2.yaml").read_text())
    (folder / "accelerate.yaml").write_text(yaml.safe_dump({**plain, **fields}))
    for name in list(os.environ):
        if name.startswith(("ACCELERATE_", "FSDP_")):
            monkeypatch.delenv(name)
    options = ["--config_file", str(folder / "accelerate.yaml"), "-m", "laser"]
    arguments, _, _ = _validate_launch_command(launch_command_parser().parse_args(options))
    return prepare_multi_gpu_env(arguments)


def test_fsdp2_shards(config, tmp_path, monkeypatch):
    made = as_launched(config, launched(tmp_path, monkeypatch))
    assert made.policy.shard
    assert not made.policy.shard_offload
    assert made.policy.precision == config.policy.precision
    assert made.training == config.training
    offload = FSDP | {"fsdp_offload_params": True, "fsdp_activation_checkpointing": True}
    made = as_launched(config, launched(tmp_path, monkeypatch, fsdp_config=offload, mixed_precision="bf16"))
    assert made.policy.shard_offload
    assert made.training.gradient_checkpointing
    assert made.policy.precision == "bf16"


def test_a_launcher_that_asks_for_nothing_changes_nothing(config):
    assert as_launched(config, {}) == config


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"fsdp_config": FSDP | {"fsdp_version": 1}}, "fsdp_version: 1 is not available; set fsdp_version: 2"),
        ({"fsdp_config": FSDP | {"fsdp_reshard_after_forward": False}}, "set fsdp_reshard_after_forward: true"),
        ({"fsdp_config": FSDP | {"fsdp_auto_wrap_policy": "SIZE_BASED_WRAP"}}, "TRANSFORMER_BASED_WRAP"),
        ({"mixed_precision": "fp16"}, "mixed_precision: fp16 is not available"),
        ({"dynamo_config": {"dynamo_backend": "INDUCTOR"}}, "set dynamo_config to none"),
    ],
    ids=["version", "reshard", "wrap", "fp16", "dynamo"],
)
def test_what_has_no_effect_is_refused(config, tmp_path, monkeypatch, fields, message):
    with pytest.raises(ConfigError, match=message):
        as_launched(config, launched(tmp_path, monkeypatch, **fields))


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, "deepspeed_config has no effect"),
        ({"ACCELERATE_USE_MEGATRON_LM": "true"}, "megatron_lm_config has no effect"),
        ({"ACCELERATE_USE_PARALLELISM_CONFIG": "true", "PARALLELISM_CONFIG_TP_SIZE": "2"}, "tp_size has no effect"),
    ],
    ids=["deepspeed", "megatron", "tensor-parallel"],
)
def test_other_engines_are_refused(config, environment, message):
    with pytest.raises(ConfigError, match=message):
        as_launched(config, environment)


def test_a_contradiction_of_precisions_is_refused(tmp_path):
    table = make_table(tmp_path)
    table["policy"]["precision"] = "fp32"
    with pytest.raises(ConfigError, match=r"contradicts policy\.precision = 'fp32'"):
        as_launched(parse_config(table), {"ACCELERATE_MIXED_PRECISION": "bf16"})


def test_hybrid_sharding_sets_the_group(config):
    sizes = {"PARALLELISM_CONFIG_DP_SHARD_SIZE": "4", "PARALLELISM_CONFIG_DP_REPLICATE_SIZE": "2"}
    made = as_launched(config, {"ACCELERATE_USE_PARALLELISM_CONFIG": "true", **sizes})
    assert made.policy.shard
    assert made.policy.shard_group == 4
