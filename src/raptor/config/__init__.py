"""Settings: frozen dataclasses as the schema, YAML files that inherit, dotted overrides, telling errors."""

from raptor.config.load import differences, from_dict, load_config, to_dict, to_yaml
from raptor.config.schema import describe, group_of_entries, groups_in
from raptor.config.sources import presets

__all__ = [
    "describe",
    "differences",
    "from_dict",
    "group_of_entries",
    "groups_in",
    "load_config",
    "presets",
    "to_dict",
    "to_yaml",
]
