"""What `accelerate launch` asks of a run: it has effect, or it is refused with the reason.

The launcher hands its configuration file to the processes as environment variables.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from laser.config import RunConfig
from laser.core.errors import ConfigError

_REFUSED = {
    "ACCELERATE_USE_DEEPSPEED": "deepspeed_config has no effect on laser, whose adapters leave no optimizer state to "
    "spread; use fsdp_config with fsdp_version: 2, or policy.shard = true, to spread the weights",
    "ACCELERATE_USE_MEGATRON_LM": "megatron_lm_config has no effect on laser; use fsdp_config with fsdp_version: 2",
    "FSDP_ACTIVATION_CHECKPOINTING_OFFLOAD": "laser does not offload activations; set "
    "fsdp_activation_checkpointing_offload: false",
}


def as_launched(config: RunConfig, environment: Mapping[str, str]) -> RunConfig:
    """The configuration with what accelerate's own asks for.

    Raises:
        ConfigError: accelerate's configuration asks for something that laser does not do, or for something else than
            the configuration of the run.
    """
    for name, reason in _REFUSED.items():
        if _is_on(environment, name):
            raise ConfigError(f"accelerate launch: {reason}")
    policy: dict[str, Any] = _precision(config, environment)
    training: dict[str, Any] = {}
    if environment.get("ACCELERATE_DYNAMO_BACKEND", "no").lower() != "no":
        raise ConfigError("accelerate launch: laser does not compile models; set dynamo_config to none")
    if _is_on(environment, "ACCELERATE_USE_FSDP"):
        policy |= _fsdp(environment)
        training = {"gradient_checkpointing": True} if _is_on(environment, "FSDP_ACTIVATION_CHECKPOINTING") else {}
    if _is_on(environment, "ACCELERATE_USE_PARALLELISM_CONFIG"):
        policy |= _parallelism(environment)
    return config.model_copy(
        update={
            "policy": config.policy.model_copy(update=policy),
            "training": config.training.model_copy(update=training),
        }
    )


def _is_on(environment: Mapping[str, str], name: str) -> bool:
    return environment.get(name, "false").lower() in ("true", "1", "yes")


def _precision(config: RunConfig, environment: Mapping[str, str]) -> dict[str, Any]:
    asked = environment.get("ACCELERATE_MIXED_PRECISION", "no").lower()
    if asked == "no":
        return {}
    if asked != "bf16":
        raise ConfigError(
            f"accelerate launch: mixed_precision: {asked} is not available; set it to 'no' or bf16, or set "
            "policy.precision alone"
        )
    if config.policy.precision == "fp32":
        raise ConfigError(
            "accelerate launch: mixed_precision: bf16 contradicts policy.precision = 'fp32'; set mixed_precision: 'no'"
        )
    return {"precision": "bf16"}


def _fsdp(environment: Mapping[str, str]) -> dict[str, Any]:
    version = environment.get("FSDP_VERSION", "1")
    if version != "2":
        raise ConfigError(f"accelerate launch: fsdp_version: {version} is not available; set fsdp_version: 2")
    if environment.get("FSDP_RESHARD_AFTER_FORWARD", "true").lower() in ("false", "no_shard", "shard_grad_op"):
        raise ConfigError(
            "accelerate launch: laser frees every layer after it has computed; set fsdp_reshard_after_forward: true"
        )
    if environment.get("FSDP_AUTO_WRAP_POLICY", "").upper() == "SIZE_BASED_WRAP":
        raise ConfigError(
            "accelerate launch: laser shards the layers that the architecture names; set fsdp_auto_wrap_policy: "
            "TRANSFORMER_BASED_WRAP"
        )
    offload = {"shard_offload": True} if _is_on(environment, "FSDP_OFFLOAD_PARAMS") else {}
    return {"shard": True, **offload}


def _parallelism(environment: Mapping[str, str]) -> dict[str, Any]:
    sizes = {
        name: int(environment.get(f"PARALLELISM_CONFIG_{name}", "1"))
        for name in ("DP_REPLICATE_SIZE", "DP_SHARD_SIZE", "TP_SIZE", "CP_SIZE", "SP_SIZE")
    }
    if others := [name for name in ("TP_SIZE", "CP_SIZE", "SP_SIZE") if sizes[name] > 1]:
        raise ConfigError(
            f"accelerate launch: parallelism_config_{others[0].lower()} has no effect on laser; leave it out"
        )
    return {"shard": True, "shard_group": sizes["DP_SHARD_SIZE"]} if sizes["DP_SHARD_SIZE"] > 1 else {}
