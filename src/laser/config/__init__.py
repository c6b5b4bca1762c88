"""Configuration: the schema, and reading it from TOML with overrides."""

from laser.config.load import demo_config_path, load_config, parse_config
from laser.config.schema import RunConfig

__all__ = ["RunConfig", "demo_config_path", "load_config", "parse_config"]
