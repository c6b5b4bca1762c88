"""What `accelerate launch` asks of a run: it has effect, or it is refused with the reason.

The launcher hands its configuration file to the processes as environment variables.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from transformers import PreTrainedModel

from laser.config import RunConfig
from laser.core.errors import ConfigError
from laser.parallel.gpus import visible_gpus

_OFF, _ON = ("false", "0", "no"), ("true", "1", "yes")

Allowed = Mapping[str, tuple[Collection[str], str]]
"""Of each variable the values that ask for what laser does anyway, and what to say of others."""

_ANY: Allowed = {
    "ACCELERATE_USE_DEEPSPEED": (
        _OFF,
        "deepspeed_config has no effect on laser, whose adapters leave no optimizer state to spread; use fsdp_config "
        "with fsdp_version: 2, or policy.shard = true, to spread the weights",
    ),
    "ACCELERATE_USE_MEGATRON_LM": (
        _OFF,
        "megatron_lm_config has no effect on laser; use fsdp_config with fsdp_version: 2",
    ),
    "ACCELERATE_DYNAMO_BACKEND": (_OFF, "laser does not compile models; set dynamo_config to none"),
    "ACCELERATE_CPU_AFFINITY": (
        _OFF,
        "laser does not bind processes to cores; set enable_cpu_affinity: false, and bind them with numactl",
    ),
    "ACCELERATE_DEBUG_MODE": (
        _OFF,
        "debug checks only accelerate's own operations; set debug: false, and TORCH_DISTRIBUTED_DEBUG=DETAIL for those "
        "of torch",
    ),
}

_FSDP: Allowed = {
    "FSDP_VERSION": (("2",), "fsdp_version: {value} is not available; set fsdp_version: 2"),
    "FSDP_SHARDING_STRATEGY": (
        ("full_shard", "1"),
        "fsdp_sharding_strategy: {value} belongs to FSDP 1; remove it, and set parallelism_config_dp_shard_size for "
        "hybrid sharding",
    ),
    "FSDP_RESHARD_AFTER_FORWARD": (
        ("full_shard", *_ON),
        "laser frees every layer after it has computed; set fsdp_reshard_after_forward: true",
    ),
    "FSDP_AUTO_WRAP_POLICY": (
        ("transformer_based_wrap",),
        "laser shards the layers that the architecture names; set fsdp_auto_wrap_policy: TRANSFORMER_BASED_WRAP",
    ),
    "FSDP_BACKWARD_PREFETCH": (
        ("backward_pre", "1"),
        "laser gathers the next layer before one computes; set fsdp_backward_prefetch: BACKWARD_PRE",
    ),
    "FSDP_STATE_DICT_TYPE": (
        ("full_state_dict",),
        "laser saves whole adapters; set fsdp_state_dict_type: FULL_STATE_DICT",
    ),
    "FSDP_USE_ORIG_PARAMS": (_ON, "FSDP 2 has no flat parameters; set fsdp_use_orig_params: true"),
    "FSDP_CPU_RAM_EFFICIENT_LOADING": (
        _ON,
        "only the main process reads the weights; set fsdp_cpu_ram_efficient_loading: true",
    ),
    "FSDP_SYNC_MODULE_STATES": (
        _ON,
        "all processes get the main process's weights; set fsdp_sync_module_states: true",
    ),
    "FSDP_IGNORED_MODULES": ((), "laser shards every layer; remove fsdp_ignored_modules"),
    "FSDP_ACTIVATION_CHECKPOINTING_OFFLOAD": (
        _OFF,
        "laser does not offload activations; set fsdp_activation_checkpointing_offload: false",
    ),
}


def as_launched(config: RunConfig, environment: Mapping[str, str]) -> RunConfig:
    """The configuration with what accelerate's own asks for.

    Raises:
        ConfigError: accelerate's configuration asks for something that laser does not do, or for something else than
            the configuration of the run.
    """
    _check(environment, _ANY)
    if _is_on(environment, "ACCELERATE_USE_CPU") and visible_gpus():
        raise _refused("use_cpu: true hides no GPU from laser; set the variable CUDA_VISIBLE_DEVICES to nothing")
    policy: dict[str, Any] = _precision(config, environment)
    training: dict[str, Any] = {}
    if _is_on(environment, "ACCELERATE_USE_FSDP"):
        _check({"FSDP_VERSION": "1", **environment}, _FSDP)
        policy |= {"shard": True}
        policy |= {"shard_offload": True} if _is_on(environment, "FSDP_OFFLOAD_PARAMS") else {}
        training = {"gradient_checkpointing": True} if _is_on(environment, "FSDP_ACTIVATION_CHECKPOINTING") else {}
    if _is_on(environment, "ACCELERATE_USE_PARALLELISM_CONFIG"):
        policy |= {"shard": True, "shard_group": _shard_group(environment)}
    return config.model_copy(
        update={
            "policy": config.policy.model_copy(update=policy),
            "training": config.training.model_copy(update=training),
        }
    )


def check_layers(model: PreTrainedModel, environment: Mapping[str, str]) -> None:
    """Make sure that the layers which accelerate's configuration names are those that laser shards; raises ConfigError.

    Args:
        model: The policy.
        environment: Of the process.
    """
    asked = environment.get("FSDP_TRANSFORMER_CLS_TO_WRAP") if _is_on(environment, "ACCELERATE_USE_FSDP") else None
    layers = set(model._no_split_modules or ())
    if asked and not {name.strip() for name in asked.split(",")} <= layers:
        raise _refused(
            f"fsdp_transformer_layer_cls_to_wrap: {asked} does not name the layers of the policy "
            f"({', '.join(sorted(layers)) or 'unknown'}), which laser shards; remove it"
        )


def _refused(reason: str) -> ConfigError:
    return ConfigError(f"accelerate launch: {reason}")


def _check(environment: Mapping[str, str], allowed: Allowed) -> None:
    for name, (values, reason) in allowed.items():
        value = environment.get(name, "")
        if value.lower() not in ("", "none", *values):
            raise _refused(reason.format(value=value))


def _is_on(environment: Mapping[str, str], name: str) -> bool:
    return environment.get(name, "false").lower() in _ON


def _precision(config: RunConfig, environment: Mapping[str, str]) -> dict[str, Any]:
    asked = environment.get("ACCELERATE_MIXED_PRECISION", "no").lower()
    if asked == "no":
        return {}
    if asked != "bf16":
        raise _refused(
            f"mixed_precision: {asked} is not available; set it to 'no' or bf16, or set policy.precision alone"
        )
    if config.policy.precision == "fp32":
        raise _refused("mixed_precision: bf16 contradicts policy.precision = 'fp32'; set mixed_precision: 'no'")
    return {"precision": "bf16"}


def _shard_group(environment: Mapping[str, str]) -> int:
    """How many processes hold a copy of the policy between them."""
    for name in ("TP_SIZE", "CP_SIZE", "SP_SIZE"):
        if environment.get(f"PARALLELISM_CONFIG_{name}", "1") != "1":
            raise _refused(f"parallelism_config_{name.lower()} has no effect on laser; remove it")
    copies, group = (environment.get(f"PARALLELISM_CONFIG_DP_{name}_SIZE", "1") for name in ("REPLICATE", "SHARD"))
    processes = environment.get("WORLD_SIZE", "1")
    if not (copies.isdecimal() and group.isdecimal() and int(copies) * int(group) == int(processes)):
        raise _refused(
            f"parallelism_config_dp_replicate_size: {copies} and parallelism_config_dp_shard_size: {group} do not make "
            f"{processes} processes; their product must"
        )
    if group == "1" != processes:
        raise _refused("parallelism_config_dp_shard_size: 1 shards nothing; use distributed_type: MULTI_GPU instead")
    return int(group)
