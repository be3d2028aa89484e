"""One session of a pre-training: shards are given to an engine, and what comes back is gathered."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from raptor.config import to_dict
from raptor.core.atomic import write_atomically
from raptor.core.devices import host
from raptor.core.errors import UserError
from raptor.core.plotting import to_png
from raptor.formats.teacher_files import save_teachers
from raptor.formats.torch_files import load_torch
from raptor.nn.stacked_mlp import Layer
from raptor.nn.teachers import TeacherPopulation
from raptor.quadrotor.parameters import Quadrotors
from raptor.runs.callbacks import Callbacks
from raptor.runs.engines import Engine, Report, Stop, read_result
from raptor.runs.folder import RunFolder
from raptor.runs.progress import Clock, Progress, ProgressFunction, read_metrics
from raptor.tasks.terms import extensions
from raptor.tasks.trajectory_files import text_of
from raptor.training.teachers.config import PreTrainConfig
from raptor.training.teachers.plots import plot_curves, plot_teachers, population_curve
from raptor.training.teachers.shard import CURVE, TEACHER_SEEDS, WEIGHTS, Plan, train_shard

SHARDS, QUADROTORS, CURVES = "shards", "quadrotors", "curves.json"


@dataclasses.dataclass(frozen=True)
class PreTrainSummary:
    """What came of a pre-training, or of one part of it."""

    output: Path
    finished: bool  # False where it was asked to stop, or shards of other parts are missing
    stopped: bool  # whether it was asked to stop
    num_missing: int  # shards of the last attempt that are not trained yet
    num_teachers: int
    num_solved: int
    unsolved: tuple[str, ...]  # names of vehicles
    mean_return: float
    worst_return: float
    termination_rate: float
    wall_clock_s: float  # of this session
    env_steps: int  # over all teachers and attempts
    diverged: int  # episodes that were begun anew because they left their bounds
    skipped: int  # updates of single teachers that came to nothing because they were not finite


@dataclasses.dataclass
class Session:
    """One session of a pre-training."""

    folder: RunFolder  # of the run, open
    config: PreTrainConfig
    quadrotors: Quadrotors
    plan: Plan  # how they are cut into shards, with their names
    engine: Engine
    progress: ProgressFunction | None  # called with each report of a shard
    stop: Stop
    callbacks: Callbacks
    part: tuple[int, int] | None = None  # (i, n): trains only the i-th of n parts, from 1, and writes no teachers

    def __post_init__(self) -> None:
        self.shards, self.clock, self.attempt = self.folder.path / SHARDS, Clock(), 0
        self.records: dict[int, dict[str, Any]] = {}  # of the best attempt at each teacher
        self.layers: dict[int, list[torch.Tensor]] = {}
        self.results: dict[str, dict[str, Any]] = {}  # of all shards that are finished
        self.curves: list[dict[str, Any]] = []  # of the shards of the first attempt
        self.standing = Progress("teachers", 0, len(self.quadrotors), "teacher")  # at the last report
        self.flown: dict[str, float] = {}  # steps of simulation of each shard
        # A validation return from which a teacher is not trained again.
        self.good = max(self.config.solved_return, self.config.retrain_below)
        lines = read_metrics(self.folder.metrics) if self.folder.writes else []
        self.recorded = {(name.split("/")[0], int(line["update"])) for line in lines for name in line if "/" in name}

    def run(self) -> PreTrainSummary:
        """Train, train the weak ones again, and write what came of it; raises where a callback failed."""
        summary = self._attempts()
        self._call("on_end", finished=summary.finished)
        self.callbacks.raise_failure()
        return summary

    def _attempts(self) -> PreTrainSummary:
        waiting = list(range(len(self.quadrotors)))
        self.folder.log(self.plan.describe())
        for attempt in range(self.config.max_attempts):
            self.attempt, shards = attempt, self.plan.cut(waiting, attempt)
            self._train(shards)
            self.results |= {name: result for name in shards if (result := read_result(self.shards / name)) is not None}
            self.flown |= {name: result["env_steps"] for name, result in self.results.items()}
            if missing := len(shards.keys() - self.results.keys()):
                return self._summarise(missing)
            for name, members in shards.items():
                self._gather(name, members)
                self._call("on_checkpoint", shard=name, path=self.shards / name)
            waiting = [i for i in waiting if not self.records[i]["validation_return"] >= self.good]
            num = len(self.records)
            self.folder.log(f"attempt {attempt + 1}: {num - len(waiting)} of {num} teachers are good")
            if not waiting:
                break
        if self.part is None:
            self._write()
        return self._summarise()

    def _train(self, shards: Mapping[str, list[int]]) -> None:
        """Train the shards, or those of this part: longer at each attempt, and from the second one on in stages."""
        index, num = self.part or (1, 1)
        own = {name: shards[name] for name in list(shards)[index - 1 :: num]}
        done = sum(len(members) for name, members in own.items() if read_result(self.shards / name))
        config, longer = self.config, self.config.retry_factor**self.attempt
        if self.attempt:
            apg = dataclasses.replace(config.apg, num_updates=math.ceil(longer * config.apg.num_updates))
            sac = dataclasses.replace(config.sac, num_steps=math.ceil(longer * config.sac.num_steps))
            staged = dataclasses.replace(config.curriculum, enabled=True)
            config = dataclasses.replace(config, apg=apg, sac=sac, curriculum=staged)
        settings, seed = to_dict(config), TEACHER_SEEDS + 1_000_003 * config.seed + 100_003 * self.attempt
        known = {
            "config": settings,
            "trajectory": text_of(config.task.references.trajectory.source),
            "extensions": [str(file) for file in extensions()],
        }
        tasks = {
            name: {**known, "quadrotors": self.quadrotors[members].to_dicts(), "seed": seed + members[0]}
            for name, members in own.items()
        }
        note = self._reporter(sum(map(len, own.values())), done)
        self.engine.run(train_shard, tasks, self.shards, note, self._is_to_stop)

    def _is_to_stop(self) -> bool:
        return self.stop() or self.callbacks.asks_to_stop

    def _call(self, event: str, validation: Mapping[str, float] | None = None, **facts: Any) -> None:
        standing = dataclasses.replace(self.standing, validation=validation or self.standing.validation)
        self.callbacks.call(event, standing, env_steps=sum(self.flown.values()), **facts)

    def _reporter(self, num_teachers: int, done_before: int) -> Callable[[str, Report], None]:
        """What takes in the reports of an attempt at so many teachers, of which some were done before."""
        last: dict[str, Report] = {}  # of each shard
        returns: dict[str, list[float]] = {}  # of the last validation of each shard
        made, steps = 0.0, 0  # teachers and steps since the first report of each shard
        self.clock.restart_rates()
        again = f" (attempt {self.attempt + 1})" if self.attempt else ""

        def note(name: str, report: Report) -> None:
            nonlocal made, steps
            before = last.get(name, report)
            last[name], self.flown[name] = report, report["env_steps"]
            learned = report["teachers_done"] - before["teachers_done"]
            made, steps = made + learned, steps + report["env_steps"] - before["env_steps"]
            validations = [each for point in report["points"] if (each := self._record_point(name, point))]
            if report["points"]:
                returns[name] = [-math.inf if value is None else value for value in report["points"][-1]["returns"]]
            if made > 0:  # what the first step compiles does not count
                self.clock.tick(made, steps)
            done, rate = done_before + sum(each["teachers_done"] for each in last.values()), self.clock.rate
            found = [value for values in returns.values() for value in values]
            known, weak = [value for value in found if math.isfinite(value)], [value < self.good for value in found]
            further = self._further(num_teachers, _mean(weak) * done / num_teachers) if weak else 0.0
            self.standing = Progress(
                stage=f"teachers{again}" if done or not self.config.compile else "compiling",
                step=done,
                num_steps=num_teachers,
                unit=f"teacher{again}",
                elapsed_s=self.clock.elapsed_s,
                env_steps_per_s=self.clock.env_steps_per_s,
                remaining_s=(num_teachers - done + further) / rate if rate else math.nan,
                validation={"mean_return": _mean(known)} if known else {},
            )
            if self.progress is not None:
                self.progress(self.standing)
            if learned > 0:
                self._call("on_update", shard=name)
            for validation in validations:
                self._call("on_validation", shard=name, validation=validation)

        return note

    def _further(self, num: int, share: float) -> float:
        """What further attempts are worth, in teachers of this one, where such a share of `num` is still weak.

        Early validations say little of the end: the share that a caller gives grows with how far the attempt is.
        """
        return num * sum(
            (share * self.config.retry_factor) ** k for k in range(1, self.config.max_attempts - self.attempt)
        )

    def _record_point(self, shard: str, point: Mapping[str, Any]) -> dict[str, float]:
        """Record a validation of a shard; returns its figures where it is new."""
        known = [value for value in point["returns"] if value is not None]
        others = {name: value for name, value in point.items() if isinstance(value, float) and name != "elapsed_s"}
        figures = {"return": _mean(known), "worst": min(known, default=math.nan), **others}
        if not self._record(f"shard_{shard}", point["env_steps"], figures):
            return {}
        return {"mean_return": figures["return"], "worst_return": figures["worst"]}

    def _record(self, group: str, steps: float, figures: Mapping[str, float]) -> bool:
        """Record figures once, however often they are reported, as a worker may be lost; whether they are new."""
        if (group, int(steps)) in self.recorded:
            return False
        self.recorded.add((group, int(steps)))
        self.folder.record(int(steps), {f"{group}/{name}": value for name, value in figures.items()})
        return True

    def _gather(self, shard: str, members: Sequence[int]) -> None:
        """Keep the teachers of a finished shard that are better than before, and its learning curve."""
        weights, curve = self.shards / shard / WEIGHTS, self.shards / shard / CURVE
        try:
            layers = load_torch(weights.read_bytes(), str(weights))["layers"]
        except (OSError, KeyError, UserError) as error:
            advice = f"delete the folder {weights.parent} to train this shard again, then --resume"
            raise UserError(f"{weights} cannot be read: {advice}") from error
        for place, (member, record) in enumerate(zip(members, self.results[shard]["records"], strict=True)):
            found = record["validation_return"]
            if member not in self.records or found > self.records[member]["validation_return"]:
                own = {"name": self.plan.names[member], "quadrotor": f"{QUADROTORS}/{member:04d}.json"}
                self.records[member] = own | record | {"solved": found >= self.config.solved_return}
                self.layers[member] = [tensor[place] for tensor in layers]
            self.records[member]["attempts"] = self.attempt + 1
        try:
            points = json.loads(curve.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            self.folder.log(f"warning: {curve} cannot be read, it is left out")
            return
        for point in points:  # which another part of the run may have trained
            self._record_point(shard, point)
        if self.attempt == 0:
            self.curves.append({"teachers": members, "points": points})

    def _write(self) -> None:
        """Write the teachers, and how they learned."""
        members, folder = sorted(self.records), self.folder.path
        stacked = [torch.stack(column) for column in zip(*(self.layers[i] for i in members), strict=True)]
        layers = tuple(Layer(*pair) for pair in zip(stacked[::2], stacked[1::2], strict=True))
        teachers = TeacherPopulation(layers, self.quadrotors, tuple(self.records[i] for i in members))
        save_teachers(teachers, folder, overwrite=True)
        write_atomically(folder / CURVES, json.dumps(self.curves))
        population = population_curve(self.curves)
        for point in population:
            self._record("population", point["env_steps"], {k: v for k, v in point.items() if k != "env_steps"})
        for shard in self.curves:
            for point in shard["points"]:
                for i, value in zip(shard["teachers"], point["returns"], strict=True):
                    if i in self.config.tensorboard_teachers and value is not None:
                        self._record(f"teacher_{i:04d}", point["env_steps"], {"return": value})
        write_atomically(folder / "teachers.png", to_png(plot_teachers(teachers, self.config.solved_return)))
        if population:
            write_atomically(folder / "curves.png", to_png(plot_curves({self.config.algorithm: population})))

    def _summarise(self, num_missing: int = 0) -> PreTrainSummary:
        records, results = list(self.records.values()), list(self.results.values())
        returns = [record["return"] for record in records]
        trained = [record for result in results for record in result["records"]]
        summary = PreTrainSummary(
            output=self.folder.path,
            finished=num_missing == 0,
            stopped=num_missing > 0 and self._is_to_stop(),
            num_missing=num_missing,
            num_teachers=len(self.quadrotors),
            num_solved=sum(record["solved"] for record in records),
            unsolved=tuple(record["name"] for record in records if not record["solved"]),
            mean_return=_mean(returns),
            worst_return=min(returns, default=math.nan),
            termination_rate=_mean([record["termination_rate"] for record in records]),
            wall_clock_s=self.clock.elapsed_s,
            env_steps=sum(result["env_steps"] for result in results),
            diverged=sum(record["diverged"] for record in trained),
            skipped=sum(record["skipped"] for record in trained),
        )
        if summary.finished and self.part is None:
            document = {**dataclasses.asdict(summary), "output": str(summary.output), "host": host(self.config.device)}
            document["training_s"] = {name: result["elapsed_s"] for name, result in self.results.items()}
            write_atomically(self.folder.summary, f"{json.dumps(document, indent=2)}\n")
        status = "finished" if summary.finished else "stopped"
        self.folder.note_status(status)
        self.folder.log(f"{status} after {summary.wall_clock_s:.1f} s of this session")
        return summary


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan
