"""One session of a pre-training: shards are handed to an engine, and what comes back is gathered."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from raptor.config import to_dict
from raptor.core.atomic import explained, write_atomically
from raptor.core.devices import host
from raptor.core.errors import UserError
from raptor.core.plotting import to_png
from raptor.formats.teacher_files import save_teachers
from raptor.formats.torch_files import load_torch
from raptor.nn.stacked_mlp import Layer
from raptor.nn.teachers import TeacherPopulation
from raptor.quadrotor.parameters import Quadrotors
from raptor.runs.engines import Engine
from raptor.runs.folder import RunFolder
from raptor.runs.progress import Clock
from raptor.training.teachers.config import PreTrainConfig
from raptor.training.teachers.curves import point_of, population_curve
from raptor.training.teachers.memory import Plan
from raptor.training.teachers.pictures import curves_picture, teachers_picture
from raptor.training.teachers.shards import CURVE, WEIGHTS, train_shard

JOB = "pre-train"
SHARDS, QUADROTORS, CURVES, PLAN = "shards", "quadrotors", "curves.json", "plan.json"
OWN = (SHARDS, QUADROTORS, CURVES, PLAN, "teachers.safetensors", "teachers.json", "teachers.png", "curves.png")
"""What a pre-training writes besides what every run does."""

TEACHER_SEEDS = 10_000_000
"""Seeds of shards begin here, apart from those of the vehicles and of validation and test."""


@dataclasses.dataclass(frozen=True)
class PreTrainProgress:
    """Where the whole population stands."""

    attempt: int  # from 1
    done: float  # teachers trained, in fractions of one
    num_teachers: int  # that are trained in this attempt
    elapsed_s: float
    remaining_s: float  # NaN where unknown
    env_steps_per_s: float  # over all shards of this session
    mean_return: float | None  # of the last validation of every shard


@dataclasses.dataclass(frozen=True)
class PreTrainSummary:
    """What came of a pre-training."""

    output: Path
    finished: bool  # False where it was asked to stop
    num_teachers: int
    num_solved: int
    unsolved: tuple[str, ...]  # names of vehicles
    mean_return: float
    worst_return: float
    share_terminated: float
    wall_clock_s: float  # of this session
    env_steps: int  # over all teachers and attempts
    diverged: int  # flights that were begun anew because they left their bounds
    skipped: int  # updates of single teachers that came to nothing because they were not finite


ProgressFunction = Callable[[PreTrainProgress], None]


@dataclasses.dataclass
class _Candidate:
    """What an attempt made of a teacher."""

    record: dict[str, Any]
    layers: list[torch.Tensor]  # of one network


class PopulationRun:
    """One session of a pre-training.

    Args:
        folder: of the run, open.
        config: the settings.
        quadrotors: the vehicles, with names.
        cut: how they are cut into shards.
        engine: who trains the shards.
        progress: called whenever a shard has something to tell.
        stop: whether someone asked to stop.
    """

    def __init__(
        self,
        folder: RunFolder,
        config: PreTrainConfig,
        quadrotors: Quadrotors,
        cut: Plan,
        engine: Engine,
        progress: ProgressFunction | None,
        stop: Callable[[], bool],
    ) -> None:
        self.folder, self.config, self.quadrotors, self.cut = folder, config, quadrotors, cut
        self.engine, self.progress, self.stop = engine, progress, stop
        self.names = quadrotors.names or tuple(f"{i:04d}" for i in range(len(quadrotors)))
        self.clock = Clock()
        self.standing: dict[str, Mapping[str, Any]] = {}  # last report of each shard
        self.first_steps: dict[str, int] = {}
        self.returns: dict[str, float] = {}
        self.attempt = 0
        self.shards: dict[str, list[int]] = {}
        self.before = 0  # teachers of this attempt that an earlier session finished
        self.begun: tuple[float, float] | None = None  # teachers done and seconds, at an attempt's first report

    def run(self) -> PreTrainSummary:
        """Train, train the weak ones again, and write what came of it."""
        best: dict[int, _Candidate] = {}
        results: dict[str, dict[str, Any]] = {}
        waiting = list(range(len(self.quadrotors)))
        self.folder.log(self.cut.describe())
        for attempt in range(self.config.max_attempts):
            self.attempt = attempt
            self.shards = self._cut(waiting, attempt)
            tasks = {name: self._task(members) for name, members in self.shards.items()}
            self.standing, self.returns, self.begun = {}, {}, None
            self.before = sum(len(members) for name, members in self.shards.items() if self._is_finished(name))
            done = self.engine.run(train_shard, tasks, self.folder.path / SHARDS, self._note, self.stop)
            if len(done) < len(tasks):
                return self._summarise(best, results, finished=False)
            results |= done
            for name, members in self.shards.items():
                self._keep_better(best, name, members, done[name])
            waiting = [i for i in waiting if self._is_weak(best[i].record)]
            self.folder.log(f"attempt {self.attempt + 1}: {len(best) - len(waiting)} of {len(best)} teachers are good")
            if not waiting:
                break
        self._write(best)
        return self._summarise(best, results, finished=True)

    def _is_weak(self, record: Mapping[str, Any]) -> bool:
        return not record["validation_return"] >= max(self.config.solved_return, self.config.retrain_below)

    def _cut(self, members: Sequence[int], attempt: int) -> dict[str, list[int]]:
        """Shards of nearly equal size, by name."""
        num = math.ceil(len(members) / self.cut.shard_size)
        bounds = [round(i * len(members) / num) for i in range(num + 1)]
        return {f"{attempt}-{i:04d}": list(members[bounds[i] : bounds[i + 1]]) for i in range(num)}

    def _task(self, members: Sequence[int]) -> dict[str, Any]:
        return {
            "config": to_dict(self._settings()),
            "quadrotors": self.quadrotors[list(members)].to_dicts(),
            "seed": TEACHER_SEEDS + 1_000_003 * self.config.seed + 100_003 * self.attempt + members[0],
        }

    def _settings(self) -> PreTrainConfig:
        """Those of this attempt: longer each time, and through the stages of the curriculum from the second one on."""
        config, longer = self.config, self.config.retry_factor**self.attempt
        if self.attempt == 0:
            return config
        return dataclasses.replace(
            config,
            apg=dataclasses.replace(config.apg, num_updates=math.ceil(longer * config.apg.num_updates)),
            sac=dataclasses.replace(config.sac, num_steps=math.ceil(longer * config.sac.num_steps)),
            curriculum=dataclasses.replace(config.curriculum, enabled=True),
        )

    def _keep_better(
        self, best: dict[int, _Candidate], name: str, members: Sequence[int], result: Mapping[str, Any]
    ) -> None:
        layers = self._weights(name)
        for place, member in enumerate(members):
            record = {
                "name": self.names[member],
                "quadrotor": f"{QUADROTORS}/{member:04d}.json",
                **result["records"][place],
                "attempts": self.attempt + 1,
                "diverged": result["diverged"][place],
                "skipped": result["skipped"][place],
            }
            record["solved"] = record["validation_return"] >= self.config.solved_return
            before = best.get(member)
            if before is None or record["validation_return"] > before.record["validation_return"]:
                best[member] = _Candidate(record, [tensor[place] for tensor in layers])
            else:
                before.record["attempts"] = self.attempt + 1

    def _weights(self, name: str) -> list[torch.Tensor]:
        path = self.folder.path / SHARDS / name / WEIGHTS
        try:
            return list(load_torch(path.read_bytes(), str(path), "cpu")["layers"])
        except (OSError, KeyError, UserError) as error:
            raise UserError(
                f"{path} cannot be read: delete the folder {path.parent} to train this shard again, then --resume"
            ) from error

    def _note(self, name: str, values: Mapping[str, Any]) -> None:
        """Take in what a shard reports."""
        self.standing[name] = values
        self.first_steps.setdefault(name, values["env_steps"] * values["num_teachers"])
        point = values["validation"]
        if point:
            returns = [value for value in point["returns"] if value is not None]
            self.returns[name] = sum(returns) / len(returns) if returns else math.nan
            others = {k: v for k, v in point.items() if isinstance(v, float) and k != "elapsed_s"}
            scalars = {
                f"shard_{name}/return": self.returns[name],
                f"shard_{name}/worst": min(returns, default=math.nan),
            }
            self.folder.record(values["env_steps"], scalars | {f"shard_{name}/{k}": v for k, v in others.items()})
        self._tell()

    def _tell(self) -> None:
        if self.progress is None:
            return
        total = sum(len(members) for members in self.shards.values())
        done = self.before + sum(
            v["num_teachers"] * v["round"] / max(v["num_rounds"], 1) for v in self.standing.values()
        )
        elapsed = self.clock.elapsed_s
        self.begun = self.begun or (done, elapsed)
        duration = max(elapsed - self.begun[1], 1e-9)
        rate = (done - self.begun[0]) / duration
        steps = sum(v["env_steps"] * v["num_teachers"] - self.first_steps[n] for n, v in self.standing.items())
        returns = [value for value in self.returns.values() if math.isfinite(value)]
        self.progress(
            PreTrainProgress(
                attempt=self.attempt + 1,
                done=done,
                num_teachers=total,
                elapsed_s=elapsed,
                remaining_s=(total - done) / rate if rate > 0 else math.nan,
                env_steps_per_s=steps / duration,
                mean_return=sum(returns) / len(returns) if returns else None,
            )
        )

    def _is_finished(self, name: str) -> bool:
        return (self.folder.path / SHARDS / name / "result.json").exists()

    def _write(self, best: Mapping[int, _Candidate]) -> None:
        stacked = [torch.stack(column) for column in zip(*(best[i].layers for i in sorted(best)), strict=True)]
        layers = tuple(Layer(*pair) for pair in zip(stacked[::2], stacked[1::2], strict=True))
        teachers = TeacherPopulation(layers, self.quadrotors, tuple(best[i].record for i in sorted(best)))
        save_teachers(teachers, self.folder.path, overwrite=True)
        curves = self._curves()
        with explained(self.folder.path):
            write_atomically(self.folder.path / CURVES, json.dumps(curves))
        population = population_curve(curves)
        for point in () if self.folder.summary.exists() else population:  # once, however often it is resumed
            values = {f"population/{k}": v for k, v in point.items() if k != "env_steps"}
            own = {f"teacher_{i:04d}/return": point_of(curves, i, point["env_steps"]) for i in self._shown()}
            self.folder.record(int(point["env_steps"]), values | {k: v for k, v in own.items() if v is not None})
        write_atomically(
            self.folder.path / "teachers.png", to_png(teachers_picture(teachers, self.config.solved_return))
        )
        if population:
            write_atomically(
                self.folder.path / "curves.png", to_png(curves_picture({self.config.algorithm: population}))
            )

    def _shown(self) -> list[int]:
        return [i for i in self.config.tensorboard_teachers if i < len(self.quadrotors)]

    def _curves(self) -> list[dict[str, Any]]:
        """The learning curves of the first attempt, shard by shard."""
        curves = []
        for name, members in self._cut(range(len(self.quadrotors)), attempt=0).items():
            path = self.folder.path / SHARDS / name / CURVE
            try:
                curves.append({"teachers": members, "points": json.loads(path.read_text(encoding="utf-8"))})
            except (OSError, ValueError):
                self.folder.log(f"warning: {path} cannot be read, its curve is left out")
        return curves

    def _summarise(
        self, best: Mapping[int, _Candidate], results: Mapping[str, Mapping[str, Any]], finished: bool
    ) -> PreTrainSummary:
        records = [candidate.record for candidate in best.values()]
        returns = [record["return"] for record in records]
        summary = PreTrainSummary(
            output=self.folder.path,
            finished=finished,
            num_teachers=len(self.quadrotors),
            num_solved=sum(record["solved"] for record in records),
            unsolved=tuple(record["name"] for record in records if not record["solved"]),
            mean_return=sum(returns) / len(returns) if returns else math.nan,
            worst_return=min(returns, default=math.nan),
            share_terminated=sum(r["share_terminated"] for r in records) / len(records) if records else math.nan,
            wall_clock_s=self.clock.elapsed_s,
            env_steps=sum(r["env_steps"] * r["num_teachers"] for r in results.values()),
            diverged=sum(sum(r["diverged"]) for r in results.values()),
            skipped=sum(sum(r["skipped"]) for r in results.values()),
        )
        if finished:
            document = {**dataclasses.asdict(summary), "output": str(summary.output), "host": host(self.config.device)}
            document["training_s"] = {name: result["elapsed_s"] for name, result in results.items()}
            write_atomically(self.folder.summary, f"{json.dumps(document, indent=2)}\n")
        self.folder.note_status("finished" if finished else "stopped")
        self.folder.log(f"{'finished' if finished else 'stopped'} after {summary.wall_clock_s:.1f} s of this session")
        return summary
