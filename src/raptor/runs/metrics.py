"""The figures of a run, step by step: a file of lines of JSON, and TensorBoard."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from raptor.core.atomic import PathLike, explained, write_atomically


class Metrics:
    """Records figures; names are `group/name`.

    Args:
        file: lines of JSON.
        tensorboard: folder of the scalars.
    """

    def __init__(self, file: Path, tensorboard: Path) -> None:
        self.file, self.tensorboard = file, tensorboard
        self._closing = contextlib.ExitStack()
        self._lines: IO[str] | None = None
        self._writer: Any = None

    def begin(self, keep: Callable[[Mapping[str, float]], bool]) -> None:
        """Begin recording behind those lines of an earlier session that are to be kept, in both places."""
        from torch.utils.tensorboard import SummaryWriter

        with explained(self.file):
            kept = [line for line in read_metrics(self.file) if keep(line)]
            write_atomically(self.file, "".join(f"{json.dumps(line)}\n" for line in kept))
            for events in self.tensorboard.glob("events.out.tfevents.*"):
                events.unlink()
            self._lines = self._closing.enter_context(self.file.open("a", encoding="utf-8"))
            self._writer = SummaryWriter(self.tensorboard, flush_secs=10)
            self._closing.callback(self._writer.close)
            for line in kept:
                self._to_tensorboard(int(line["update"]), line)

    def record(self, step: int, values: Mapping[str, float]) -> None:
        """Append the figures of a step."""
        assert self._lines is not None
        with explained(self.file):
            self._lines.write(f"{json.dumps({'update': step, **values})}\n")
            self._lines.flush()
            self._to_tensorboard(step, values)

    def _to_tensorboard(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            if name != "update":
                self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write what is buffered."""
        with explained(self.file):
            self._closing.close()


def read_metrics(path: PathLike) -> list[dict[str, float]]:
    """The lines of a `metrics.jsonl`, up to the first one that a killed process left incomplete."""
    lines: list[dict[str, float]] = []
    if not Path(path).exists():
        return lines
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            break
    return lines


def read_curve(run: PathLike) -> dict[str, list[tuple[float, float]]]:
    """The learning curve of a run: for each name, (step, value) in the order of steps."""
    curve: dict[str, list[tuple[float, float]]] = {}
    for line in read_metrics(Path(run) / "metrics.jsonl"):
        for name, value in line.items():
            if name != "update":
                curve.setdefault(name, []).append((line["update"], value))
    return curve


def is_validation(line: Mapping[str, float]) -> bool:
    """Whether a line holds the figures of a validation."""
    return any(name.startswith("evaluation/") for name in line)
