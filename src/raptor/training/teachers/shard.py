"""A shard: teachers that are trained together, as one program. The work that an engine runs."""

from __future__ import annotations

import io
import json
import math
import warnings
from collections.abc import Generator, Iterator, Mapping
from typing import Any

import torch
from torch.utils import _pytree as pytree

from raptor.config import from_dict
from raptor.core.devices import gpu_use, memory_explained
from raptor.core.errors import UserError
from raptor.quadrotor.parameters import Quadrotors
from raptor.rl.curriculum import Curriculum
from raptor.rl.teacher_test import TeacherTest
from raptor.runs.checkpoints import Checkpoints, RunWarning
from raptor.runs.engines import Report, Stop
from raptor.runs.stopping import Abandoned, interruptible
from raptor.runs.store import Store
from raptor.runs.trainer import Phase, Trainer
from raptor.tasks.task import Task
from raptor.training.teachers.config import PreTrainConfig
from raptor.training.teachers.gradient import APGTeachers
from raptor.training.teachers.learner import Algorithm, TeacherLearner
from raptor.training.teachers.sac import SACTeachers

WEIGHTS, CURVE = "weights.pt", "curve.json"

VALIDATION_SEED = 2_000_000
TEST_SEED = 3_000_000


class ShardFiles:
    """Checkpoints of a shard in its store; see `Checkpointing` and `Record` of `raptor.runs.learner`.

    Nothing is recorded here: the curve and the best snapshots are part of the state.

    Args:
        store: of the shard.
        device: of the tensors that are read.
    """

    def __init__(self, store: Store, device: str) -> None:
        self.checkpoints, self.device = Checkpoints(store, "checkpoint_", keep=2), device
        self.pass_over = self.checkpoints.pass_over

    def write(self, step: int, training: Mapping[str, Any]) -> str:
        """Write a checkpoint; returns its name."""
        return self.checkpoints.write(step, {"training": dict(training)})

    def newest_first(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """The states that were written, the newest first; none where all are damaged, with a warning."""
        try:
            yield from self.checkpoints.newest_first(self.device)
        except UserError:
            warnings.warn("the shard begins from the start, because none of its checkpoints is good", RunWarning, 2)

    def _nothing(self, *arguments: Any) -> None: ...

    write_best = log = record_from = record = _nothing


def train_shard(
    task: dict[str, Any], store: Store, device: str, stop: Stop
) -> Generator[Report, None, dict[str, Any] | None]:
    """Train the teachers of one shard, from where an earlier attempt left off.

    Args:
        task: `config` (the settings), `quadrotors` (their documents), `seed`.
        store: of its files.
        device: to train on.
        stop: whether a stop was requested.

    Yields:
        How far it is, and those points of the learning curve that this session has not yielded before.

    Returns:
        A record of each teacher, and sums; None where it was asked to stop.
    """
    config = from_dict(PreTrainConfig, task["config"])
    quadrotors = Quadrotors.from_dicts(task["quadrotors"], device=device).component_major()
    files, num_reported = ShardFiles(store, device), 0
    with memory_explained(f"a shard of {len(quadrotors)} teachers: shard_size {len(quadrotors)}"):
        trainer = Trainer([_phase(config, quadrotors, task["seed"])], files, files, stop, compiles=config.compile)
        for progress in trainer:
            learner: Any = trainer.learner
            done = len(quadrotors) * (learner.step_count + learner.fraction) / progress.num_steps
            points = [point | gpu_use(device) for point in learner.curve[num_reported:]]
            num_reported = len(learner.curve)
            yield {"teachers_done": done, "env_steps": learner.env_steps, "points": points}
        if not trainer.finished:
            return None
        try:
            with interruptible(stop):
                records = _records(config, quadrotors, task["seed"], learner)
        except Abandoned:
            return None
        buffer = io.BytesIO()
        torch.save({"layers": [tensor.cpu() for tensor in pytree.tree_leaves(learner.best)]}, buffer)
        store.write(WEIGHTS, buffer.getvalue())
        store.write(CURVE, json.dumps(learner.curve).encode())
        return {"records": records, "env_steps": learner.env_steps, "elapsed_s": learner.clock.elapsed_s}


def evaluation(config: PreTrainConfig, quadrotors: Quadrotors, num: int, seed: int) -> TeacherTest:
    """What teachers are validated and tested on, whatever they were trained on.

    RAPTOR's starts within 0.5 m, half of the episodes holding the origin, half following a Langevin walk.
    """
    return TeacherTest(Task(episode_steps=config.validation_steps), quadrotors, num, seed, config.compile)


def make_algorithm(config: PreTrainConfig, quadrotors: Quadrotors, seed: int) -> Algorithm:
    """The algorithm that the settings name."""
    curriculum = Curriculum(config.curriculum_in_use(), config.task, len(quadrotors), quadrotors.device)
    if config.algorithm == "apg":
        return APGTeachers(config.apg, config.task, quadrotors, curriculum, seed, config.compile)
    return SACTeachers(config.sac, config.task, quadrotors, curriculum, seed, config.compile)


def _phase(config: PreTrainConfig, quadrotors: Quadrotors, seed: int) -> Phase:
    test = evaluation(config, quadrotors, config.num_validation, VALIDATION_SEED)
    if config.algorithm == "apg":
        num_steps, interval = config.apg.num_updates, config.apg.validation_interval
    else:
        num_steps, interval = config.sac.num_blocks, config.sac.blocks_between_validations
    return Phase(
        "training",
        num_steps,
        lambda: TeacherLearner(make_algorithm(config, quadrotors, seed), test),
        interval,
        checkpoint_interval_s=config.checkpoint_interval_s,
        cheap_state=config.algorithm == "apg",
    )


def _records(
    config: PreTrainConfig, quadrotors: Quadrotors, seed: int, learner: TeacherLearner
) -> list[dict[str, Any]]:
    """What is known of each teacher after its test; intervals are of the mean, 95 %, by the normal distribution."""
    flights = evaluation(config, quadrotors, config.num_evaluation, TEST_SEED)(learner.best)
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
        "diverged": learner.algorithm.diverged,
        "skipped": learner.algorithm.skipped,
    }
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    return [dict(zip(columns, row, strict=True)) | {"algorithm": config.algorithm, "seed": seed} for row in rows]
