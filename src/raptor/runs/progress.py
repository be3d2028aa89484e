"""What a run reports: progress to its caller; figures of each step to a file of lines of JSON and to TensorBoard."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from raptor.core.atomic import PathLike, explained, write_atomically


@dataclasses.dataclass(frozen=True)
class Progress:
    """Where a job stands."""

    stage: str  # such as testing teachers, compiling, training, imitating, fine-tuning, validating
    step: int
    num_steps: int
    unit: str = "update"  # what a step is
    elapsed_s: float = 0.0  # since the run began, without the pauses between its sessions
    rate: float = 0.0  # steps per second of this session, without what the first one compiles; 0 where unknown
    env_steps_per_s: float = math.nan
    remaining_s: float = math.nan
    values: Mapping[str, float] = dataclasses.field(default_factory=dict)  # of the last step
    validation: Mapping[str, float] = dataclasses.field(default_factory=dict)  # the last one; empty before
    best_return: float | None = None


ProgressFunction = Callable[[Progress], None]


class Clock:
    """Elapsed time over the sessions of a run, `before_s` before this one; and the rates within this one."""

    def __init__(self, before_s: float = 0.0) -> None:
        self._start = time.perf_counter() - before_s
        self._ticks: list[tuple[float, float, float]] = []  # the first and the last: time, steps, env-steps

    @property
    def elapsed_s(self) -> float:
        """Seconds over all sessions."""
        return time.perf_counter() - self._start

    def tick(self, steps: float, env_steps: float) -> None:
        """Take note of how many steps, and steps of simulation, were made so far."""
        self._ticks = [*self._ticks[:1], (time.perf_counter(), steps, env_steps)]

    @property
    def rate(self) -> float:
        """Steps per second of this session after its first one; 0 where unknown."""
        return self._per_second(1)

    @property
    def env_steps_per_s(self) -> float:
        """Steps of simulation per second; 0 where unknown."""
        return self._per_second(2)

    def restart_rates(self) -> None:
        """Count rates anew: something else begins."""
        self._ticks = []

    def _per_second(self, what: int) -> float:
        if not self._ticks or self._ticks[-1][1] == self._ticks[0][1]:
            return 0.0
        first, last = self._ticks
        return (last[what] - first[what]) / (time.perf_counter() - first[0])


class Metrics:
    """Records figures named `group/name`, behind those lines of an earlier session that are to be kept."""

    def __init__(self, file: Path, tensorboard: Path, keep: Callable[[Mapping[str, float]], bool]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.file = file
        with explained(file):
            kept = [line for line in read_metrics(file) if keep(line)]
            write_atomically(file, "".join(f"{json.dumps(line)}\n" for line in kept))
            for events in tensorboard.glob("events.out.tfevents.*"):
                events.unlink()
            self._writer: Any = SummaryWriter(tensorboard, flush_secs=10)
            for line in kept:
                self._to_tensorboard(line)

    def record(self, step: int, values: Mapping[str, float]) -> None:
        """Append the figures of a step."""
        line = {"update": step, **values}
        with explained(self.file):
            with self.file.open("a", encoding="utf-8") as file:
                file.write(f"{json.dumps(line)}\n")
            self._to_tensorboard(line)

    def _to_tensorboard(self, line: Mapping[str, float]) -> None:
        for name, value in line.items():
            if name != "update":
                self._writer.add_scalar(name, value, int(line["update"]))

    def close(self) -> None:
        """Write what is buffered."""
        with explained(self.file):
            self._writer.close()


def read_metrics(path: PathLike) -> list[dict[str, float]]:
    """The lines of a `metrics.jsonl`, up to the first one that a killed process left incomplete."""
    lines: list[dict[str, float]] = []
    if Path(path).exists():
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
