"""Configuration: the schema, and reading it from TOML with overrides."""

from laser.config.load import (
    demo_config_path,
    load_config,
    load_router_config,
    parse_config,
    parse_router_config,
)
from laser.config.router import RouterConfig
from laser.config.schema import RunConfig

__all__ = [
    "RouterConfig",
    "RunConfig",
    "demo_config_path",
    "load_config",
    "load_router_config",
    "parse_config",
    "parse_router_config",
]
