"""The settings of a third-party environment, of any types, as a document."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import yaml

DEEPEST = 20
"""Groups within groups; what is deeper becomes text."""


def document_of(settings: Any) -> str:
    """YAML that says what the settings are; plain data, whatever they were."""
    text: str = yaml.safe_dump(plain(settings), sort_keys=False, allow_unicode=True, width=120)
    return text


def plain(value: Any, depth: int = 0) -> Any:
    """Settings as nested dictionaries, lists, numbers and text; functions and classes by their names."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (np.ndarray, np.generic, torch.Tensor)):
        return value.tolist()
    if isinstance(value, type) or (callable(value) and hasattr(value, "__qualname__")):
        return f"{value.__module__}:{value.__qualname__}"
    if depth < DEEPEST:
        if isinstance(value, Mapping):
            return {str(key): plain(inner, depth + 1) for key, inner in value.items()}
        if isinstance(value, (list, tuple, set, frozenset)):
            return [plain(inner, depth + 1) for inner in value]
        if dataclasses.is_dataclass(value):
            names = [field.name for field in dataclasses.fields(value)]
            return {name: plain(getattr(value, name), depth + 1) for name in names if hasattr(value, name)}
        if type(value).__module__ != "builtins" and getattr(value, "__dict__", None):
            return {name: plain(inner, depth + 1) for name, inner in vars(value).items() if name[:1] != "_"}
    return str(value)
