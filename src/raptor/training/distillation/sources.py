"""Sources of demonstrations: teachers in our simulator, or one teacher in any environment."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from raptor.core.distributed import ALONE, Parts, World
from raptor.core.errors import UserError
from raptor.core.pool import Pool
from raptor.environments.rollout import StudentParameters
from raptor.environments.vec_env import CheckedVecEnv
from raptor.formats.checkpoint import StudentPolicy
from raptor.nn.teachers import TeacherPopulation
from raptor.quadrotor.parameters import NUM_ROTORS
from raptor.rl import demonstrations
from raptor.rl.demonstrations import (
    DemonstrationFlight,
    Demonstrations,
    Observations,
    SimulatedDemonstrations,
    VecStudent,
)
from raptor.rl.imitation import weights_of
from raptor.training.distillation.config import EnvDistillConfig, PostTrainConfig
from raptor.training.validation import TRAINING_SEEDS

WEIGHTS, FLIGHTS, ORDER, EVALUATION = range(4)
"""Streams of random numbers of a source in any environment."""

TEACHER_GROUPS = ("teacher", "privileged", "critic", "policy")
"""Groups of observations that a teacher may see, in the order of preference."""

PROBES = 8
"""Observations whose actions identify a teacher."""

Expert = Callable[[Tensor], Tensor]
"""From observations (N, D) to actions (N, A): a `raptor.nn.ExpertNetwork`, or any function."""


@dataclasses.dataclass
class SimulatorSource:
    """T teachers, or those of them with which the student is worst, each with its own vehicle in our simulator."""

    config: PostTrainConfig
    teachers: TeacherPopulation  # with their vehicles
    world: World = ALONE  # the processes that share rollouts and batches; every one of them holds all data
    pool: Pool = dataclasses.field(default_factory=Pool)  # that flies, where `world` is one process

    def __post_init__(self) -> None:
        config, self.device = self.config, torch.device(self.config.device)
        self.teachers = self.teachers.to(self.device)
        self.parts = Parts(self.world, config.block_size)
        self.generator = torch.Generator(self.device).manual_seed(TRAINING_SEEDS + config.seed)
        self.student_returns = torch.full((len(self.teachers),), -math.inf, device=self.device)
        self.num_active = config.num_active(len(self.teachers))
        self.num_episodes = self.num_active * config.num_episodes
        self.shape = (
            config.task.episode_steps,
            config.task.observation_dim,
            NUM_ROTORS,
        )  # of the demonstrations of an episode
        self._demonstrations: SimulatedDemonstrations | None = None

    def plan(self, epoch: int, forced: bool) -> list[Tensor]:
        """The state of the generator, and the active teachers: in turn where they act, else those of the worst returns.

        A teacher whose vehicle the student has not flown yet comes first.
        """
        num, total = self.num_active, len(self.teachers)
        in_turn = (torch.arange(num, device=self.device) + epoch * num) % total
        active = in_turn if forced else self.student_returns.argsort(stable=True)[:num]
        return [self.generator.get_state(), active.sort().values]

    def collect(self, plan: Any, student: StudentParameters | None, out: Demonstrations) -> dict[str, float]:
        """Collect demonstrations into `out`: the student acts, or the teachers where it is None; their figures."""
        state, active = plan
        if self._demonstrations is None or len(active) < len(self.teachers):
            self._demonstrations = self._demonstrations_of(self.teachers[active])
        self.generator.set_state(state)
        found = self._demonstrations.collect(student, self.generator, out)
        returns = found.returns.mean(1)  # by teacher
        if student is not None:
            # A return that is not a number is the worst, but after those that were never flown.
            self.student_returns[active] = returns.nan_to_num(nan=torch.finfo(returns.dtype).min)
        over_teachers = {"mean_return": returns.mean().item(), "std_return": returns.std(correction=0).item()}
        return {**found.figures(), **over_teachers, "num_steps": found.lengths.sum().item()}

    def order(self, epoch: int) -> torch.Generator:
        """Of the order in which an epoch learns; goes on where the rollouts ended."""
        return self.generator

    def _demonstrations_of(self, teachers: TeacherPopulation) -> SimulatedDemonstrations:
        config, offset = self.config, teachers.position_offset
        offset = offset if config.steady_state_position_correction else torch.zeros_like(offset)
        noise = 0.0 if config.teacher_deterministic else config.teacher_noise
        assert teachers.quadrotors is not None
        how = config.compile, noise, config.method, teachers.activations
        flight, who = DemonstrationFlight(config.flown_task, config.num_episodes, *how), teachers.quadrotors
        return SimulatedDemonstrations(flight, who, teachers.layers, offset, world=self.world, pool=self.pool)

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next plan depends on."""
        return {"generator": self.generator.get_state(), "student_returns": self.student_returns.clone()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go back to a state that `state_dict` gave."""
        self.generator.set_state(state["generator"])
        self.student_returns = state["student_returns"].to(self.device)


class EnvSource:
    """One teacher in any vector environment.

    It sees the groups of observations that the settings name, joined by `+`; by default the first of `TEACHER_GROUPS`
    whose width is its own. Where it has an `observation_dim` and an `action_dim`, these are checked; where it has a
    `sample(observation, generator)`, it can act with noise.
    """

    def __init__(self, config: EnvDistillConfig, env: CheckedVecEnv, expert: Expert) -> None:
        self.config, self.env = config, env
        self.expert: Any = expert.to(env.device) if hasattr(expert, "to") else expert
        self.observes, self.acts = (getattr(expert, name, None) for name in ("observation_dim", "action_dim"))
        self.device, self.parts = torch.device(env.device), Parts()
        self.num_episodes = math.ceil(config.num_episodes / env.num_envs) * env.num_envs
        env.watch(config.student_group)
        self.shape = env.episode_steps, env.widths[config.student_group], env.num_actions
        self.groups = config.teacher_group.split("+") if config.teacher_group is not None else [self._fitting_group()]
        env.watch(*dict.fromkeys((config.student_group, *self.groups)))
        self.width = sum(env.widths[name] for name in self.groups)
        if self.observes not in (None, self.width):
            raise self._misfit(f"group {' + '.join(self.groups)} has {self.width} numbers")
        if self.acts not in (None, env.num_actions):
            raise self._misfit(f"the environment takes {env.num_actions} actions")
        self.act(env.observe())

    @torch.no_grad()
    def act(self, observations: Observations) -> Tensor:
        """Actions (N, A) of the teacher, without noise."""
        return self._checked(self.expert(self._seen(observations)))

    def probe(self) -> Tensor:
        """Actions (PROBES, A) that identify the teacher."""
        observation = torch.randn(PROBES, self.width, generator=torch.Generator().manual_seed(0))
        action: Tensor = self.expert(observation.to(self.device))
        return action.detach().float().cpu()

    def plan(self, epoch: int, forced: bool) -> int:
        """The epoch, from which the seed of the episodes follows."""
        return epoch

    def collect(self, plan: Any, student: StudentParameters | None, out: Demonstrations) -> dict[str, float]:
        """Collect demonstrations into `out`: the student acts, or the teachers where it is None; their figures."""
        generator, group = self._generator(FLIGHTS, plan), self.config.student_group
        self.env.begin(generator.initial_seed())

        def teacher_acts(observations: Observations, begins: Tensor) -> Tensor:
            if self.config.teacher_deterministic:
                return self.act(observations)
            if not hasattr(self.expert, "sample"):
                raise UserError("this teacher has no method `sample` for noise: set teacher_deterministic=true")
            return self._checked(self.expert.sample(self._seen(observations), generator))

        controller = teacher_acts if student is None else VecStudent(student, group)
        each = self.num_episodes // self.env.num_envs
        record = demonstrations.Record(out, group, self.act)
        found = demonstrations.rollout_vec_env(self.env, controller, each, record)
        return {**found.figures(), "num_steps": float(found.lengths.sum())}

    def evaluate(self, policy: StudentPolicy | None = None) -> dict[str, float]:
        """Figures of a policy, or of the teacher, in episodes that are always the same and that nothing learns from."""
        config = self.config
        self.env.begin(draw_seed(config.seed, EVALUATION, 0))
        student = None if policy is None else VecStudent(weights_of(policy), config.student_group)
        controller = student or (lambda observations, begins: self.act(observations))
        num_each = math.ceil(config.num_validation_episodes / self.env.num_envs)
        return demonstrations.rollout_vec_env(self.env, controller, num_each).figures()

    def order(self, epoch: int) -> torch.Generator:
        """Of the order in which an epoch learns."""
        return self._generator(ORDER, epoch)

    def state_dict(self) -> dict[str, Any]:
        """Nothing: everything follows from the epoch."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go back to a state that `state_dict` gave."""

    def _generator(self, stream: int, number: int) -> torch.Generator:
        return torch.Generator(self.device).manual_seed(draw_seed(self.config.seed, stream, number))

    def _seen(self, observations: Observations) -> Tensor:
        groups = [observations[name] for name in self.groups]
        return groups[0] if len(groups) == 1 else torch.cat(groups, -1)

    def _checked(self, action: Tensor) -> Tensor:
        expected = (self.env.num_envs, self.env.num_actions)
        if not isinstance(action, Tensor) or tuple(action.shape) != expected:
            got = tuple(action.shape) if isinstance(action, Tensor) else type(action).__name__
            raise UserError(f"the teacher must give actions of shape {expected}, got {got}")
        return action.float()

    def _fitting_group(self) -> str:
        """The first group that a teacher may see and that is as wide as what it observes."""
        for name in TEACHER_GROUPS:
            if name in self.env.widths and self.observes in (None, self.env.widths[name]):
                return name
        raise self._misfit(f"the environment shows {self.env.layout()}")

    def _misfit(self, instead: str) -> UserError:
        says = f"{self.observes or 'any'} numbers" + (f" and gives {self.acts} actions" if self.acts else "")
        shows = f"groups: {self.env.layout()}; actions: {self.env.num_actions}"
        remedy = "give teacher_group (two groups are joined by +), or a teacher of this environment"
        return UserError(f"the teacher observes {says}, but {instead}; {shows}: {remedy}")


Source = SimulatorSource | EnvSource
"""Where a student and its teachers act. An epoch is planned, as plain data, and collected again from its plan."""


def draw_seed(seed: int, stream: int, number: int) -> int:
    """A seed of its own for each purpose; environments that count up from it do not meet."""
    return int(np.random.SeedSequence([seed, stream, number]).generate_state(1)[0]) >> 1
