"""What a configuration for accelerate asks for has effect or is refused, as its launcher really passes it on."""

import os
from contextlib import nullcontext
from pathlib import Path

import pytest
import yaml
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env

import laser
from laser.config import parse_config
from laser.core.errors import ConfigError
from laser.wiring.accelerate import as_launched, check_layers
from runs import make_table
from tiny import make_model

CONFIGS = Path(__file__).parents[2] / "configs" / "accelerate"
RAM = {"fsdp_cpu_ram_efficient_loading": False}  # without it the launcher itself refuses to leave weights unsynced
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
        ({"fsdp_config": FSDP | {"fsdp_auto_wrap_policy": "NO_WRAP"}}, "TRANSFORMER_BASED_WRAP"),
        ({"fsdp_config": FSDP | {"fsdp_sharding_strategy": "HYBRID_SHARD"}}, "set parallelism_config_dp_shard_size"),
        ({"fsdp_config": FSDP | {"fsdp_sharding_strategy": "NO_SHARD"}}, "NO_SHARD belongs to FSDP 1; remove it"),
        ({"fsdp_config": FSDP | {"fsdp_backward_prefetch": "NO_PREFETCH"}}, "fsdp_backward_prefetch: BACKWARD_PRE"),
        ({"fsdp_config": FSDP | {"fsdp_state_dict_type": "SHARDED_STATE_DICT"}}, "saves whole adapters"),
        ({"fsdp_config": FSDP | {"fsdp_use_orig_params": False}}, "set fsdp_use_orig_params: true"),
        ({"fsdp_config": FSDP | {"fsdp_cpu_ram_efficient_loading": False}}, "cpu_ram_efficient_loading: true"),
        ({"fsdp_config": FSDP | RAM | {"fsdp_sync_module_states": False}}, "only the main process reads"),
        ({"fsdp_config": FSDP | {"fsdp_ignored_modules": "lm_head"}}, "remove fsdp_ignored_modules"),
        ({"fsdp_config": FSDP | {"fsdp_activation_checkpointing_offload": True}}, "does not offload activations"),
        ({"debug": True}, "set debug: false"),
        ({"mixed_precision": "fp16"}, "mixed_precision: fp16 is not available"),
        ({"dynamo_config": {"dynamo_backend": "INDUCTOR"}}, "set dynamo_config to none"),
    ],
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
        ({"ACCELERATE_CPU_AFFINITY": "1"}, "set enable_cpu_affinity: false"),
    ],
    ids=["deepspeed", "megatron", "tensor-parallel", "affinity"],
)
def test_other_engines_are_refused(config, environment, message):
    with pytest.raises(ConfigError, match=message):
        as_launched(config, environment)


def test_a_contradiction_of_precisions_is_refused(tmp_path):
    table = make_table(tmp_path)
    table["policy"]["precision"] = "fp32"
    with pytest.raises(ConfigError, match=r"contradicts policy\.precision = 'fp32'"):
        as_launched(parse_config(table), {"ACCELERATE_MIXED_PRECISION": "bf16"})


def parallel(folder, monkeypatch, processes, **sizes):
    fields = {f"parallelism_config_{name}": size for name, size in sizes.items()}
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    return launched(folder, monkeypatch, parallelism_config=fields)


def test_hybrid_sharding_sets_the_group(config, tmp_path, monkeypatch):
    made = as_launched(config, parallel(tmp_path, monkeypatch, 8, dp_shard_size=4, dp_replicate_size=2))
    assert made.policy.shard
    assert made.policy.shard_group == 4


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"dp_shard_size": 4}, "dp_replicate_size: 1 and parallelism_config_dp_shard_size: 4 do not make 8 processes"),
        ({"dp_shard_size": -1}, "dp_shard_size: -1 do not make 8 processes"),
        ({"dp_replicate_size": 8}, "dp_shard_size: 1 shards nothing"),
        ({"dp_shard_size": 4, "cp_size": 2}, "parallelism_config_cp_size has no effect"),
    ],
)
def test_groups_that_the_processes_cannot_form_are_refused(config, tmp_path, monkeypatch, sizes, message):
    with pytest.raises(ConfigError, match=message):
        as_launched(config, parallel(tmp_path, monkeypatch, 8, **sizes))


def test_layers_named_for_sharding_are_those_of_the_policy(tmp_path, monkeypatch):
    for name in ("LlamaDecoderLayer", "LlamaDecoderLayer, LlamaMLP"):
        wrap = {"fsdp_transformer_layer_cls_to_wrap": name}
        environment = launched(tmp_path, monkeypatch, fsdp_config=FSDP | wrap)
        refused = pytest.raises(ConfigError, match=r"does not name the layers of the policy \(LlamaDecoderLayer\)")
        with refused if "MLP" in name else nullcontext():
            check_layers(make_model(), environment)


@pytest.mark.parametrize("command", [laser.train, laser.sft])
def test_one_process_and_fine_tuning_heed_the_launcher(tmp_path, monkeypatch, command):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    with pytest.raises(ConfigError, match="mixed_precision: fp16 is not available"):
        command(make_table(tmp_path), tmp_path / "run")


def test_a_launcher_for_cpus_that_hides_no_gpu_is_refused(config, monkeypatch):
    environment = {"ACCELERATE_USE_CPU": "True"}
    assert as_launched(config, environment) == config
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    with pytest.raises(ConfigError, match="set the variable CUDA_VISIBLE_DEVICES to nothing"):
        as_launched(config, environment)
