"""Teachers trained by soft actor-critic."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import torch
from torch import Tensor

from raptor.config.settings import at_least, not_negative, setting
from raptor.core.devices import CapturedGraph
from raptor.nn.stacked_mlp import Layers
from raptor.quadrotor.parameters import NUM_ROTORS
from raptor.rl.collection import BLOCK_STEPS, ExperienceCollector
from raptor.rl.replay import Replay, ReplayConfig, ReplaySizes
from raptor.rl.sac import SAC, SACConfig
from raptor.tasks.observation import TEACHER_DIM
from raptor.tasks.task import Task
from raptor.training.teachers.learner import TeacherLearner, hover_bias

INITIAL_SCALE = 0.3  # factor on the usual initial weights of the mean actions where they start at hover


@dataclasses.dataclass(frozen=True)
class SACTeachersConfig(SACConfig):
    """Settings of teachers that are trained by soft actor-critic, tuned for time; the preset `paper` has RAPTOR's."""

    num_steps: int = setting(200_000, "of each teacher, over all its environments", at_least(1))
    num_envs: int = setting(8, "environments of each teacher", at_least(1))
    start_steps: int = setting(2_000, "steps of each teacher before the first update", not_negative)
    updates_per_step: int = setting(8, "updates after a step of all environments", at_least(1))
    block_steps: int = setting(BLOCK_STEPS, "steps of all environments drawn, on a GPU recorded, as one", at_least(1))
    validation_interval: int = setting(8_000, "steps of each teacher between two validations", at_least(1))
    start_at_hover: bool = setting(True, "whether the first mean action is the throttle at which the vehicle hovers")
    actor_learning_rate: float = setting(5e-4, "of Adam")
    critic_learning_rate: float = setting(1e-3, "of Adam")
    temperature_learning_rate: float = setting(1e-3, "of Adam, on the logarithm of the temperature")
    final_learning_rate: float = setting(0.1, "fraction of the learning rates at the end; they fall linearly to it")
    polyak: float = setting(0.02, "fraction of the critics that goes into their targets at each update")
    reward_scale: float = setting(0.1, "factor on the rewards that the critics learn from")
    initial_temperature: float = setting(0.05, "weight of the entropy at the start")
    critic_widths: tuple[int, ...] = setting((128, 128), "of the hidden layers")
    replay: ReplayConfig = ReplayConfig(capacity=200_000)

    @property
    def num_blocks(self) -> int:
        """Blocks of the whole training."""
        return math.ceil(self.num_steps / (self.num_envs * self.block_steps))

    @property
    def blocks_between_validations(self) -> int:
        """Blocks that come next to `validation_interval`."""
        return max(1, self.validation_interval // (self.num_envs * self.block_steps))


@dataclasses.dataclass(eq=False)
class SACTeachers(TeacherLearner):
    """T teachers that learn by soft actor-critic, each from its own experience with its own vehicle.

    A step is a block of steps of all environments.
    """

    STATE = ("agents", "collector", "replay")

    config: SACTeachersConfig

    def _begin(self) -> None:
        config, device, num = self.config, self.quadrotors.device, len(self.quadrotors)
        self.steps_per_part, self.num_parts = config.num_envs, config.block_steps
        if config.precision == "tf32":
            torch.backends.cuda.matmul.allow_tf32 = True
        drawn: dict[str, Any] = {"generator": self.generator, "compile": self.compile}
        self.agents = SAC(config, num, TEACHER_DIM, NUM_ROTORS, **drawn)
        if config.start_at_hover:
            weight, bias = self.agents.state.actor[-1]
            with torch.no_grad():
                weight[:, :NUM_ROTORS] *= INITIAL_SCALE
                bias[:, :NUM_ROTORS] = hover_bias(self.quadrotors).unsqueeze(-1)
        drawn |= {"begin": self.curriculum.begin, "block_steps": config.block_steps}
        self.collector = ExperienceCollector(self.task, self.quadrotors, config.num_envs, **drawn)
        self.replay = make_replay(config, num, self.task, device=device, compile=self.compile)
        self._progress = torch.zeros((), device=device)  # fraction of the training that is done
        self._ended: list[tuple[Tensor, Tensor]] = []  # in the last update, with a curriculum: finished, success
        # A block is recorded as a whole, so all blocks must update the actor in the same places.
        alike = config.block_steps * config.updates_per_step % config.actor_interval == 0
        self._recorded = device.type == "cuda" and alike
        self._collect, self._learn = (
            CapturedGraph(functools.partial(self._advance, learns), device, (self.generator,), alike)
            for learns in (False, True)
        )

    def teachers(self) -> Layers:
        """The deterministic part of the actors as they are."""
        return self.agents.teachers()

    @torch.no_grad()
    def update(self) -> dict[str, Any] | None:
        """Fly and learn for a step of all environments, or for a whole block where it can be recorded."""
        config, agents = self.config, self.agents
        if self.part_count == 0:
            self.collector.draw()
        before = self.step_count * config.block_steps * config.num_envs  # steps of each teacher in whole blocks
        self._progress.fill_(min(1.0, before / config.num_steps))
        steps, learns = config.block_steps if self._recorded else 1, before >= config.start_steps
        count = agents.update_count + (steps * config.updates_per_step if learns else 0)
        (self._learn if learns else self._collect)()
        agents.update_count = count  # what is replayed does not count
        for finished, success in self._ended:
            self.curriculum.record(finished, success)
        self.part_count += steps
        if self.part_count < config.block_steps:
            return None
        self.part_count, self.step_count = 0, self.step_count + 1
        return self.figures

    def _advance(self, learns: bool) -> None:
        config, curriculum, self._ended = self.config, self.curriculum.config, []
        for _ in range(config.block_steps if self._recorded else 1):
            experience, lost = self.collector.step(self.agents.state.actor)
            self.replay.add(experience)
            self.diverged += lost.sum(1)
            if curriculum.enabled:
                error = torch.linalg.vector_norm(experience.next_observation[..., :3], dim=-1)
                success = experience.truncated & (error <= curriculum.max_position_error)
                self._ended.append((experience.terminated | experience.truncated, success))
            for _ in range(config.updates_per_step if learns else 0):
                batch, index = self.replay.sample(config.batch_size, self.generator, self._progress)
                priority, metrics = self.agents.update(batch, self._progress)
                self.replay.update_priorities(index, priority)
                self.skipped += ~priority.isfinite().all(1)
                if metrics is not None:  # the actors were changed
                    self.figures = metrics._asdict()


def make_replay(config: SACTeachersConfig, num_teachers: int, task: Task, **options: Any) -> Replay:
    """The replay of so many teachers; `options` as of `Replay`."""
    dims = {"observation_dim": TEACHER_DIM, "action_dim": NUM_ROTORS, "episode_steps": task.episode_steps}
    sizes = ReplaySizes.of(config.replay, num_teachers=num_teachers, num_envs=config.num_envs, **dims)
    return Replay(config.replay, sizes, gamma=config.gamma, **options)
