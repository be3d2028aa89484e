"""Sources of demonstrations: teachers in our simulator, or one teacher in any environment."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from raptor.core.distributed import ALONE, Parts, World
from raptor.environments.vec_env import CheckedVecEnv
from raptor.formats.checkpoint import StudentPolicy
from raptor.nn.teachers import TeacherPopulation
from raptor.rl.demonstrations import DemonstrationFlights, Demonstrations
from raptor.rl.student_flights import StudentParameters
from raptor.rl.vec_demonstrations import Flights, Observations, Record, StudentPilot, fly
from raptor.training.distillation.config import PostTrainConfig
from raptor.training.distillation.env_config import EnvDistillConfig
from raptor.training.distillation.env_teacher import EnvTeacher
from raptor.training.validation import TRAINING_SEEDS

WEIGHTS, FLIGHTS, ORDER, EVALUATION = range(4)
"""Streams of random numbers of a source in any environment."""


class Source(Protocol):
    """Where a student and its teachers act."""

    device: torch.device
    parts: Parts  # how batches are cut
    num_episodes: int  # of an epoch

    def room(self, num_episodes: int, like: Tensor) -> Demonstrations:
        """Room for so many episodes."""
        ...

    def plan(self, epoch: int, forced: bool) -> Any:
        """What to collect in an epoch, as plain data; `forced` says that the teachers act."""
        ...

    def collect(self, plan: Any, student: StudentParameters | None, out: Demonstrations) -> dict[str, float]:
        """Collect demonstrations into `out`: the student acts, or the teachers where it is None; their figures."""
        ...

    def order(self, epoch: int) -> torch.Generator:
        """Of the order in which an epoch learns."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next plan depends on."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go back to a state that `state_dict` gave."""
        ...


class SimulatorSource:
    """T teachers, or those of them with which the student is worst, each with its own vehicle in our simulator.

    Args:
        config: the settings.
        teachers: with their vehicles.
        world: the processes that share rollouts and batches; every one of them holds all data.
    """

    def __init__(self, config: PostTrainConfig, teachers: TeacherPopulation, world: World = ALONE) -> None:
        self.config, self.device = config, torch.device(config.device)
        self.teachers = teachers.to(self.device)
        self.parts = Parts(world, config.accumulation)
        self.generator = torch.Generator(self.device).manual_seed(TRAINING_SEEDS + config.seed)
        self.student_returns = torch.full((len(teachers),), -math.inf, device=self.device)
        self.num_active = config.num_active(len(teachers))
        self.num_episodes = self.num_active * config.num_episodes
        self._flights: DemonstrationFlights | None = None

    def room(self, num_episodes: int, like: Tensor) -> Demonstrations:
        """See `Source`."""
        return Demonstrations.empty(num_episodes, self.config.task.episode_steps, like)

    def plan(self, epoch: int, forced: bool) -> list[Tensor]:
        """The state of the generator, and the active teachers: in turn where they act, else those of the worst returns.

        A teacher whose vehicle the student has not flown yet comes first.
        """
        num, total = self.num_active, len(self.teachers)
        if forced:
            active = ((torch.arange(num, device=self.device) + epoch * num) % total).sort().values
        else:
            active = self.student_returns.argsort(stable=True)[:num].sort().values
        return [self.generator.get_state(), active]

    def collect(self, plan: Any, student: StudentParameters | None, out: Demonstrations) -> dict[str, float]:
        """See `Source`."""
        state, active = plan
        if self._flights is None or len(active) < len(self.teachers):
            self._flights = self._flights_of(self.teachers[active])
        self.generator.set_state(state)
        _, found = self._flights(student, self.generator, out)
        returns = found.returns.mean(1)
        if student is not None:
            # A return that is not a number is the worst, but after those that were never flown.
            self.student_returns[active] = returns.nan_to_num(nan=torch.finfo(returns.dtype).min)
        return {
            "mean_return": returns.mean().item(),
            "std_return": returns.std(correction=0).item(),
            "mean_length": found.lengths.mean().item(),
            "termination_rate": found.terminated.float().mean().item(),
            "num_steps": found.lengths.sum().item(),
        }

    def order(self, epoch: int) -> torch.Generator:
        """See `Source`; goes on where the rollouts ended."""
        return self.generator

    def _flights_of(self, teachers: TeacherPopulation) -> DemonstrationFlights:
        config, offset = self.config, teachers.position_offset
        assert teachers.quadrotors is not None
        return DemonstrationFlights(
            config.flown_task,
            teachers.quadrotors,
            teachers.layers,
            config.num_episodes,
            offset if config.steady_state_position_correction else torch.zeros_like(offset),
            config.compile,
            0.0 if config.teacher_deterministic else config.teacher_noise,
            config.method,
            activations=teachers.activations,
            world=self.parts.world,
        )

    def state_dict(self) -> dict[str, Any]:
        """See `Source`."""
        return {"generator": self.generator.get_state(), "student_returns": self.student_returns.clone()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `Source`."""
        self.generator.set_state(state["generator"])
        self.student_returns = state["student_returns"].to(self.device)


class EnvSource:
    """One teacher in any vector environment.

    Args:
        config: the settings.
        env: where teacher and student act.
        teacher: that fits it.
        student: of the architecture that will act.
        stop: asked in each step whether to give up, by the exception that it raises.
    """

    def __init__(
        self, config: EnvDistillConfig, env: CheckedVecEnv, teacher: EnvTeacher, student: StudentPolicy
    ) -> None:
        self.config, self.env, self.teacher = config, env, teacher
        self.device, self.parts = torch.device(env.device), Parts()
        self.num_each = episodes_each(config.num_episodes, env)
        self.num_episodes = self.num_each * env.num_envs
        self._student = copy.deepcopy(student).to(self.device)
        env.watch(*dict.fromkeys((config.student_group, *teacher.groups)))

    def room(self, num_episodes: int, like: Tensor) -> Demonstrations:
        """See `Source`."""
        steps = self.env.episode_steps
        return Demonstrations(
            like.new_zeros(num_episodes, steps, self._student.observation_dim),
            like.new_zeros(num_episodes, steps, self._student.action_dim),
            torch.zeros(num_episodes, dtype=torch.long, device=like.device),
        )

    def plan(self, epoch: int, forced: bool) -> int:
        """The epoch, from which the seed of the episodes follows."""
        return epoch

    def collect(self, plan: Any, student: StudentParameters | None, out: Demonstrations) -> dict[str, float]:
        """See `Source`."""
        out.length.zero_()
        self.env.begin(draw_seed(self.config.seed, FLIGHTS, plan))
        found = fly(
            self.env,
            self._actor(plan, student),
            self.num_each,
            Record(out, self.config.student_group, self.teacher),
        )
        assert found is not None
        return {**figures(found), "num_steps": float(found.lengths.sum())}

    def evaluate(self, policy: StudentPolicy | None = None) -> dict[str, float]:
        """Figures of a policy, or of the teacher, in episodes that nobody learns from; the same ones at each call."""
        config = self.config
        self.env.begin(draw_seed(config.seed, EVALUATION, 0))
        actor = self._teach if policy is None else StudentPilot(policy, config.student_group)
        found = fly(self.env, actor, episodes_each(config.num_validation_episodes, self.env))
        assert found is not None
        return figures(found)

    def order(self, epoch: int) -> torch.Generator:
        """See `Source`."""
        return self._generator(ORDER, epoch)

    def state_dict(self) -> dict[str, Any]:
        """See `Source`; everything follows from the epoch."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `Source`."""

    def _actor(self, epoch: int, student: StudentParameters | None) -> Callable[[Observations, Tensor], Tensor]:
        if student is not None:
            with torch.no_grad():
                for weight, then in zip(self._student.tensors(), student, strict=True):
                    weight.copy_(then)
            return StudentPilot(self._student, self.config.student_group)
        if self.config.teacher_deterministic:
            return self._teach
        generator = self._generator(FLIGHTS, epoch)
        return lambda observations, begins: self.teacher.sample(observations, generator)

    def _teach(self, observations: Observations, begins: Tensor) -> Tensor:
        return self.teacher(observations)

    def _generator(self, stream: int, number: int) -> torch.Generator:
        return torch.Generator(self.device).manual_seed(draw_seed(self.config.seed, stream, number))


def episodes_each(num_episodes: int, env: CheckedVecEnv) -> int:
    """Whole episodes of each environment, so that there are at least so many in all."""
    return math.ceil(num_episodes / env.num_envs)


def figures(found: Flights) -> dict[str, float]:
    """Means over the episodes, and how much their returns vary."""
    return {
        "mean_return": found.returns.mean().item(),
        "std_return": found.returns.std(correction=0).item(),
        "mean_length": found.lengths.float().mean().item(),
        "termination_rate": found.terminated.float().mean().item(),
    }


def draw_seed(seed: int, stream: int, number: int) -> int:
    """A seed of its own for each purpose; environments that count up from it do not meet."""
    return int(np.random.SeedSequence([seed, stream, number]).generate_state(1)[0]) >> 1
