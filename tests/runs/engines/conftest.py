"""The toy work where other processes can import it, and what a run leaves behind."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

HERE = str(Path(__file__).parent)
sys.path.insert(0, HERE)


class Reports:
    """What tasks reported, in its order; counts as a request to stop once every number in `stop_at` was reported."""

    def __init__(self) -> None:
        self.all: list[tuple[str, Mapping[str, Any]]] = []
        self.stop_at: set[tuple[str, int]] = set()

    def __call__(self, name: str, values: Mapping[str, Any]) -> None:
        self.all.append((name, values))

    def of(self, name: str, key: str) -> list[Any]:
        return [values[key] for task, values in self.all if task == name and key in values]

    def stop(self) -> bool:
        seen = {(name, values.get("number")) for name, values in self.all}
        return bool(self.stop_at) and self.stop_at <= seen


@pytest.fixture
def reports() -> Reports:
    return Reports()


@pytest.fixture
def checkpoint(tmp_path: Path) -> Callable[[str], dict[str, Any]]:
    """Reads the checkpoint of a task."""
    return lambda name: json.loads((tmp_path / name / "checkpoint.json").read_text())


@pytest.fixture(scope="session")
def ray_settings() -> Iterator[None]:
    """Ray for tests: without tokens and statistics, and not behind whatever else the machine does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", HERE, prepend=os.pathsep)
        patch.setenv("RAY_worker_niceness", "0")
        patch.delenv("RAY_ADDRESS", raising=False)
        yield
