"""Settings: frozen dataclasses as the schema, YAML files that inherit, dotted overrides, errors that name all."""

from raptor.config.files import parse_overrides, presets
from raptor.config.load import differences, from_dict, load_config, to_dict, to_yaml

__all__ = ["differences", "from_dict", "load_config", "parse_overrides", "presets", "to_dict", "to_yaml"]
