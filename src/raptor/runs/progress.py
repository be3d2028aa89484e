"""What a run reports: progress to its caller; figures of each step to a file of lines of JSON and to TensorBoard."""

from __future__ import annotations

import contextlib
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
    step: float  # whole ones, but where parts of a population are at different ones
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
        self.restart_rates()

    def restart_rates(self) -> None:
        """Count rates anew: something else begins."""
        self._first: tuple[float, float, float] | None = None  # time, steps and env-steps at the first tick
        self.rate = self.env_steps_per_s = 0.0  # steps, and steps of simulation, per second since then; 0: unknown

    @property
    def elapsed_s(self) -> float:
        """Seconds over all sessions."""
        return time.perf_counter() - self._start

    def tick(self, steps: float, env_steps: float) -> None:
        """Take note of how many steps, and steps of simulation, were made so far."""
        now = time.perf_counter(), steps, env_steps
        self._first = self._first or now
        duration, made, flown = (new - old for new, old in zip(now, self._first, strict=True))
        if made:
            self.rate, self.env_steps_per_s = made / duration, flown / duration


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
    with contextlib.suppress(FileNotFoundError, ValueError):
        for line in Path(path).read_text(encoding="utf-8", errors="replace").splitlines():
            lines.append(json.loads(line))
    return lines


def read_curve(run: PathLike) -> dict[str, list[tuple[float, float]]]:
    """The learning curve of a run: for each name, (step, value) in the order of steps."""
    curve: dict[str, list[tuple[float, float]]] = {}
    for line in read_metrics(Path(run) / "metrics.jsonl"):
        for name, value in line.items():
            if name != "update":
                curve.setdefault(name, []).append((line["update"], value))
    return curve
