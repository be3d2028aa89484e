"""A shard: teachers that are trained together, as one program. What an engine carries out."""

from __future__ import annotations

import io
import json
import math
import time
import warnings
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from raptor.config import from_dict
from raptor.core.devices import gpu_use, memory_explained
from raptor.core.errors import UserError
from raptor.formats.torch_files import load_torch
from raptor.nn.stacked_mlp import Layers
from raptor.quadrotor.parameters import Quadrotors
from raptor.rl.curriculum import Curriculum
from raptor.rl.teacher_test import TeacherEpisodes, TeacherTest
from raptor.runs.engines import Workplace
from raptor.tasks.task import Task
from raptor.training.teachers.config import PreTrainConfig
from raptor.training.teachers.gradient import APGTeachers
from raptor.training.teachers.sac import SACTeachers

CHECKPOINTS = ("checkpoint_0.pt", "checkpoint_1.pt")
"""Written in turn, so that there is always a complete one."""

WEIGHTS, CURVE = "weights.pt", "curve.json"

VALIDATION_SEED = 2_000_000
TEST_SEED = 3_000_000

EVALUATION = Task()
"""What teachers are validated and tested on, whatever they were trained on: RAPTOR's starts within 0.5 m, half of the
episodes holding the origin, half following a Langevin walk."""


class Learner(Protocol):
    """Teachers that learn, in rounds."""

    diverged: Tensor  # (T,) flights that left their bounds and were begun anew
    skipped: Tensor  # (T,) updates that came to nothing because they were not finite

    @property
    def round_count(self) -> int:
        """Rounds so far."""
        ...

    @property
    def num_rounds(self) -> int:
        """Rounds until the end."""
        ...

    @property
    def validation_interval(self) -> int:
        """Rounds between two validations."""
        ...

    @property
    def env_steps(self) -> int:
        """Steps flown so far for each teacher."""
        ...

    def teachers(self) -> Layers:
        """The networks as they are."""
        ...

    def round(self) -> dict[str, Tensor]:
        """Learn a little; what happened to each teacher, (T,) each."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next round depends on."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go back to a state that `state_dict` gave."""
        ...


def train_shard(task: dict[str, Any], workplace: Workplace) -> dict[str, Any] | None:
    """Train the teachers of one shard, from where an earlier attempt left off.

    Args:
        task: `config` (the settings), `quadrotors` (their documents), `seed`.
        workplace: where the files go.

    Returns:
        One record per teacher, and counts; None where it was asked to stop.
    """
    config = from_dict(PreTrainConfig, task["config"])
    quadrotors = Quadrotors.from_dicts(task["quadrotors"], device=workplace.device).component_major()
    with memory_explained(f"a shard of {len(quadrotors)} teachers: shard_size {len(quadrotors)}"):
        return Shard(config, quadrotors, task["seed"], workplace).run()


class Shard:
    """The teachers of one shard, their best snapshots, and their learning curves."""

    def __init__(self, config: PreTrainConfig, quadrotors: Quadrotors, seed: int, workplace: Workplace) -> None:
        self.config, self.seed, self.workplace = config, seed, workplace
        self.quadrotors = quadrotors
        curriculum = Curriculum(config.curriculum_in_use(), config.task, len(quadrotors), quadrotors.device)
        learner = APGTeachers if config.algorithm == "apg" else SACTeachers
        settings: Any = config.apg if config.algorithm == "apg" else config.sac
        self.learner: Learner = learner(settings, config.task, quadrotors, curriculum, seed, config.compile)
        self.curriculum = curriculum
        self.validate = TeacherTest(EVALUATION, quadrotors, config.num_validation, VALIDATION_SEED, config.compile)
        self.best = pytree.tree_map(torch.clone, self.learner.teachers())
        self.best_return = torch.full((len(quadrotors),), -math.inf, device=quadrotors.device)
        self.best_steps = torch.zeros(len(quadrotors), dtype=torch.long)
        self.curve: list[dict[str, Any]] = []
        self.written = 0
        self.started = time.perf_counter()

    def run(self) -> dict[str, Any] | None:
        """Go on until the last round, or until someone asks to stop."""
        self._restore()
        learner = self.learner
        saved_at = time.perf_counter()
        self._report({})
        while learner.round_count < learner.num_rounds:
            values = learner.round()
            last = learner.round_count == learner.num_rounds
            if learner.round_count % learner.validation_interval == 0 or last:
                self._validate(values)
            stop = self.workplace.stop_requested()
            if stop or time.perf_counter() - saved_at > self.config.checkpoint_interval_s:
                self._save()
                saved_at = time.perf_counter()
            if stop:
                return None
            self._report({})
        return self._finish()

    @property
    def _elapsed_s(self) -> float:
        return time.perf_counter() - self.started

    def _validate(self, values: Mapping[str, Tensor]) -> None:
        flights = self.validate(self.learner.teachers())
        returns = torch.nan_to_num(flights.returns.mean(1), nan=-math.inf)
        weights = [leaf.isfinite().flatten(1).all(1) for leaf in pytree.tree_leaves(self.learner.teachers())]
        better = (returns > self.best_return) & torch.stack(weights).all(0)

        def snapshot(best: Tensor, now: Tensor) -> Tensor:
            return torch.where(better.view(-1, *[1] * (best.ndim - 1)), now, best)

        self.best = pytree.tree_map(snapshot, self.best, self.learner.teachers())
        self.best_return = torch.where(better, returns, self.best_return)
        self.best_steps = torch.where(better.cpu(), self.learner.env_steps, self.best_steps)
        point = {
            "round": self.learner.round_count,
            "env_steps": self.learner.env_steps,
            "elapsed_s": self._elapsed_s,
            "returns": _rounded(returns),
            "terminated": _rounded(flights.terminated.float().mean(1)),
            **{name: _rounded(value.float().nanmean()[None])[0] for name, value in values.items()},
        }
        if self.config.curriculum.enabled:
            point |= {f"curriculum/{name}": value for name, value in self.curriculum.summary().items()}
        self.curve.append(point)
        self._report(point | gpu_use(str(self.quadrotors.device)))

    def _report(self, point: Mapping[str, Any]) -> None:
        learner = self.learner
        done = {"round": learner.round_count, "num_rounds": learner.num_rounds, "env_steps": learner.env_steps}
        self.workplace.report({**done, "num_teachers": len(self.quadrotors), "validation": dict(point)})

    def _save(self) -> None:
        state = {
            "learner": self.learner.state_dict(),
            "best": pytree.tree_leaves(self.best),
            "best_return": self.best_return,
            "best_steps": self.best_steps,
            "curve": json.dumps(self.curve),
            "elapsed_s": self._elapsed_s,
            "number": self.written,
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)
        self.workplace.write(CHECKPOINTS[self.written % len(CHECKPOINTS)], buffer.getvalue())
        self.written += 1

    def _restore(self) -> None:
        found, damage = [], []
        for name in CHECKPOINTS:
            content = self.workplace.read(name)
            try:
                found += [] if content is None else [load_torch(content, name, self.quadrotors.device)]
            except UserError as error:
                damage.append(str(error))
        if damage:
            what = "goes on from an older checkpoint" if found else "begins from the start"
            warnings.warn(f"the shard {what}, because {'; '.join(damage)}", stacklevel=2)
        if not found:
            return
        state = max(found, key=lambda one: one["number"])
        self.learner.load_state_dict(state["learner"])
        leaves, structure = pytree.tree_flatten(self.best)
        stored = [torch.empty_like(old).copy_(new) for old, new in zip(leaves, state["best"], strict=True)]
        self.best = pytree.tree_unflatten(stored, structure)
        self.best_return, self.best_steps = state["best_return"], state["best_steps"].cpu()
        self.curve, self.written = json.loads(state["curve"]), state["number"] + 1
        self.started = time.perf_counter() - state["elapsed_s"]

    def _finish(self) -> dict[str, Any]:
        config, num = self.config, len(self.quadrotors)
        test = TeacherTest(EVALUATION, self.quadrotors, config.num_evaluation, TEST_SEED, config.compile)
        flights = test(self.best)
        buffer = io.BytesIO()
        torch.save({"layers": [tensor.cpu() for tensor in pytree.tree_leaves(self.best)]}, buffer)
        self.workplace.write(WEIGHTS, buffer.getvalue())
        self.workplace.write(CURVE, json.dumps(self.curve).encode())
        records = _records(flights, self.best_return.tolist(), self.best_steps.tolist())
        for record in records:
            record |= {"algorithm": config.algorithm, "seed": self.seed}
        return {
            "records": records,
            "num_teachers": num,
            "env_steps": self.learner.env_steps,
            "elapsed_s": self._elapsed_s,
            "diverged": self.learner.diverged.tolist(),
            "skipped": self.learner.skipped.tolist(),
        }


def _records(flights: TeacherEpisodes, validation: list[float], steps: list[int]) -> list[dict[str, Any]]:
    """What is known of each teacher after its test; intervals are of the mean, 95 %, by the normal distribution."""
    returns = flights.returns.double()
    mean = returns.mean(1)
    half = (
        1.96 * returns.std(1) / math.sqrt(returns.shape[1]) if returns.shape[1] > 1 else torch.full_like(mean, math.nan)
    )
    columns = zip(
        *(column.tolist() for column in (mean, mean - half, mean + half, flights.terminated.float().mean(1))),
        flights.position_offset.tolist(),
        validation,
        steps,
        strict=True,
    )
    return [
        {
            "return": value,
            "return_low": low,
            "return_high": high,
            "share_terminated": terminated,
            "position_offset": offset,
            "validation_return": validated,
            "steps": step,
        }
        for value, low, high, terminated, offset, validated, step in columns
    ]


def _rounded(values: Tensor) -> list[float | None]:
    return [round(value, 4) if math.isfinite(value) else None for value in values.double().tolist()]
