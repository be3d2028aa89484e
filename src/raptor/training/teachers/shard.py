"""Shards: how a population is cut into them, and the training of one as one program, which an engine runs."""

from __future__ import annotations

import dataclasses
import functools
import io
import json
import math
import warnings
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils import _pytree as pytree

from raptor.config import from_dict
from raptor.core.atomic import Store, write_atomically
from raptor.core.devices import gpu_use, memory_explained
from raptor.core.errors import UserError
from raptor.environments.episode import begin_episode
from raptor.quadrotor.parameters import NUM_ROTORS, Quadrotors
from raptor.quadrotor.population import sample_quadrotors
from raptor.rl.curriculum import Curriculum
from raptor.rl.sac import sac_start
from raptor.rl.teacher_test import TeacherEpisodes, TeacherTest
from raptor.runs.checkpoints import Checkpoints, RunWarning
from raptor.runs.engines import Report, Stop
from raptor.runs.stopping import Abandoned, interruptible
from raptor.runs.trainer import Phase, Trainer
from raptor.tasks.observation import TEACHER_DIM
from raptor.tasks.task import Task
from raptor.tasks.terms import extend
from raptor.tasks.trajectory_files import remember
from raptor.training.memory import BASE_BYTES, GIB, budget_bytes, nbytes, step_bytes
from raptor.training.teachers.config import PreTrainConfig
from raptor.training.teachers.gradient import APGTeachers
from raptor.training.teachers.learner import TeacherLearner
from raptor.training.teachers.sac import SACTeachers, make_replay

WEIGHTS, CURVE = "weights.pt", "curve.json"

VALIDATION_SEED, TEST_SEED, TEACHER_SEEDS = 2_000_000, 3_000_000, 10_000_000
"""Seeds of validation and test, and where those of shards begin, apart from those of the vehicles."""

CPU_EPISODES = 1024  # that a core computes best at once: enough to fill its vectors, few enough for its cache
CPU_AGENTS = 16  # of soft actor-critic per shard on a processor, where more together are no faster


class Plan(NamedTuple):
    """How a population is cut into shards."""

    names: tuple[str, ...]  # of the vehicles
    shard_size: int  # teachers of a shard, at most
    bytes_per_teacher: int
    at_once: int  # shards that share the memory
    budget: float  # bytes

    @property
    def num_shards(self) -> int:
        """How many shards there are; they differ in size by at most one."""
        return math.ceil(len(self.names) / self.shard_size)

    def describe(self) -> str:
        """What will be used, in words."""
        together = f", {self.at_once} at once" if self.at_once > 1 else ""
        taken = self.at_once * (BASE_BYTES + self.shard_size * self.bytes_per_teacher)
        return (
            f"{len(self.names)} teachers in {self.num_shards} shards of at most {self.shard_size}{together}: "
            f"{self.bytes_per_teacher / 2**20:.3g} MiB a teacher, {taken / GIB:.2g} GiB at a time "
            f"of {self.budget / GIB:.3g} GiB"
        )

    def cut(self, members: Sequence[int], attempt: int) -> dict[str, list[int]]:
        """The shards of an attempt at these teachers, of nearly equal size, by name."""
        num = math.ceil(len(members) / self.shard_size)
        bounds = [round(i * len(members) / num) for i in range(num + 1)]
        return {f"{attempt}-{i:04d}": list(members[bounds[i] : bounds[i + 1]]) for i in range(num)}

    def write(self, path: Path) -> None:
        """Write it for later sessions and other parts."""
        write_atomically(path, f"{json.dumps(self._asdict())}\n")


def make_plan(config: PreTrainConfig, names: Sequence[str], at_once: int, num_parts: int = 1) -> Plan:
    """Cut a population of vehicles into shards, `at_once` of which share the memory.

    Where no `shard_size` is asked for, there are at least `num_parts` of them. Where not even one teacher fits,
    or not as many as `shard_size` asks for, a `UserError` names the setting to change.
    """
    num, least, at_once = len(names), config.shard_size or 1, min(at_once, len(names))
    budget, each = budget_bytes(config.memory_gib, config.device), bytes_per_teacher(config)
    fitting = int((budget / at_once - BASE_BYTES) // each)
    if fitting < least:
        setting = "apg.num_envs" if config.algorithm == "apg" else "sac.replay.capacity"
        workers = ", engine.num_workers" if at_once > 1 else ""
        raise UserError(
            f"{least} teachers of {each / GIB:.3g} GiB each and {BASE_BYTES / GIB:.2g} GiB of libraries do not fit "
            f"into {budget / at_once / GIB:.3g} GiB: lower {setting}{workers} or shard_size, or raise memory_gib"
        )
    fastest = num  # as one program: on a GPU as many as there is room for
    if torch.device(config.device).type == "cpu":
        fastest = max(1, CPU_EPISODES // config.apg.num_envs) if config.algorithm == "apg" else CPU_AGENTS
    size = min(config.shard_size or min(fastest, math.ceil(num / num_parts)), fitting, num)
    even = math.ceil(num / math.ceil(num / size))
    return Plan(tuple(names), even, each, min(at_once, math.ceil(num / even)), budget)


def read_plan(path: Path, config: PreTrainConfig, at_once: int) -> Plan:
    """The plan with which a run began, because rounding depends on it; `UserError` where that does not fit any more."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        names, size = [str(name) for name in document["names"]], int(document["shard_size"])
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path} cannot be read: start anew with --overwrite") from error
    return make_plan(dataclasses.replace(config, shard_size=size), names, at_once)


def bytes_per_teacher(config: PreTrainConfig) -> int:
    """Memory that each teacher of a shard takes: the tensors of a single one are measured."""
    vehicle, generator = sample_quadrotors(1, seed=0), torch.Generator().manual_seed(0)
    rollout = nbytes((vehicle, begin_episode(config.task, vehicle, generator)))  # of one environment
    tests = 2 * max(config.num_validation, config.num_evaluation) * rollout
    if config.algorithm == "apg":
        single: Any = make_learner(dataclasses.replace(config, compile=False), vehicle, seed=0)
        step = step_bytes(config.task, single)
        networks = 3 * nbytes((single.layers, single.adam))
        return config.apg.segment_steps * step + 3 * config.apg.num_envs * rollout + networks + tests
    sac = config.sac
    replay = make_replay(sac, 1, config.task, device="meta").nbytes
    agents = 2 * nbytes(sac_start(sac, 1, TEACHER_DIM, NUM_ROTORS, generator))
    widths = TEACHER_DIM + NUM_ROTORS + sum(sac.critic_widths)
    activations = 4 * 16 * sac.batch_size * widths  # of two critics and their targets, forward and backward
    return replay + agents + activations + sac.block_steps * sac.num_envs * rollout + tests


class ShardFiles(Checkpoints):
    """Checkpoints of a shard. Nothing else is recorded here: the curve and the best snapshots are part of the state."""

    def write(self, step: int, training: Mapping[str, Any]) -> str:
        """Write a checkpoint; returns its name."""
        return super().write(step, {"training": dict(training)})

    def newest_first(self, device: torch.device | str = "cpu") -> Iterator[tuple[str, dict[str, Any]]]:
        """The states that were written, the newest first; none where all are damaged, with a warning."""
        try:
            yield from super().newest_first(device)
        except UserError:
            warnings.warn("the shard begins from the start, because none of its checkpoints is good", RunWarning, 2)

    def _nothing(self, *arguments: Any) -> None: ...

    write_best = record_from = record = _nothing


def train_shard(
    task: dict[str, Any], store: Store, device: str, stop: Stop
) -> Generator[Report, None, dict[str, Any] | None]:
    """Train the teachers of one shard; see `raptor.runs.engines.Work`.

    The task holds `config` (the settings), `quadrotors` (their documents), `seed`, and the text of the `trajectory`, if
    there is one. Reports say how far it is, with the points of the learning curve that are new; the result is a record
    of each teacher, and sums.
    """
    for file in task.get("extensions", ()):
        extend(file)
    if (text := task.get("trajectory")) is not None:
        remember(text)
    config = from_dict(PreTrainConfig, task["config"])
    quadrotors = Quadrotors.from_dicts(task["quadrotors"], device=device).component_major()
    num, files, num_reported = len(quadrotors), ShardFiles(store, "checkpoint_", keep=2), 0
    num_steps, interval = config.apg.num_updates, config.apg.validation_interval
    if config.algorithm == "sac":
        num_steps, interval = config.sac.num_blocks, config.sac.blocks_between_validations
    begin = functools.partial(make_learner, config, quadrotors, task["seed"])
    seconds, is_small = config.checkpoint_interval_s, config.algorithm == "apg"
    phase = Phase("training", num_steps, begin, interval, checkpoint_interval_s=seconds, cheap_state=is_small)
    with memory_explained(f"a shard of {num} teachers: shard_size {num}"):
        trainer = Trainer([phase], files, stop, compiles=config.compile)
        for _ in trainer:
            learner: Any = trainer.learner
            done = num * (learner.step_count + learner.fraction) / num_steps
            points = [point | gpu_use(device) for point in learner.curve[num_reported:]]
            num_reported = len(learner.curve)
            yield {"teachers_done": done, "env_steps": num * learner.env_steps, "points": points}
        if not trainer.finished:
            return None
        try:
            with interruptible(stop):
                flights = evaluation(config, quadrotors, config.num_evaluation, TEST_SEED)(learner.best)
        except Abandoned:
            return None
    buffer = io.BytesIO()
    torch.save({"layers": [tensor.cpu() for tensor in pytree.tree_leaves(learner.best)]}, buffer)
    store[WEIGHTS], store[CURVE] = buffer.getvalue(), json.dumps(learner.curve).encode()
    records = _records(config, learner, flights)
    return {"records": records, "env_steps": num * learner.env_steps, "elapsed_s": learner.clock.elapsed_s}


def evaluation(config: PreTrainConfig, quadrotors: Quadrotors, num: int, seed: int) -> TeacherTest:
    """What teachers are validated and tested on, whatever they were trained on.

    RAPTOR's starts within 0.5 m, half of the episodes holding the origin, half following a Langevin walk.
    """
    return TeacherTest(Task(episode_steps=config.validation_steps), quadrotors, num, seed, config.compile)


def make_learner(config: PreTrainConfig, quadrotors: Quadrotors, seed: int) -> TeacherLearner:
    """Teachers that learn by the algorithm that the settings name."""
    cls: type[TeacherLearner] = APGTeachers if config.algorithm == "apg" else SACTeachers
    curriculum = Curriculum(config.curriculum_in_use(), config.task, len(quadrotors), quadrotors.device)
    test = evaluation(config, quadrotors, config.num_validation, VALIDATION_SEED)
    return cls(getattr(config, config.algorithm), config.task, quadrotors, curriculum, seed, config.compile, test)


def _records(config: PreTrainConfig, learner: TeacherLearner, flights: TeacherEpisodes) -> list[dict[str, Any]]:
    """What is known of each teacher after its test; intervals are of the mean, 95 %, by the normal distribution."""
    returns = flights.returns.double()
    mean, half = returns.mean(1), 1.96 * returns.std(1) / math.sqrt(returns.shape[1])
    columns = {
        "return": mean,
        "return_low": mean - half,
        "return_high": mean + half,
        "termination_rate": flights.terminated.float().mean(1),
        "position_offset": flights.position_offset,
        "validation_return": learner.best_return,
        "steps": learner.best_steps,
        "diverged": learner.diverged,
        "skipped": learner.skipped,
    }
    common = {"algorithm": config.algorithm, "seed": learner.seed}
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    return [dict(zip(columns, row, strict=True)) | common for row in rows]
