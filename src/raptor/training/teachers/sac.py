"""Teachers trained by soft actor-critic: the learner, without files."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from raptor.config.settings import at_least, not_negative, setting
from raptor.core.capture import CapturedGraph
from raptor.environments.episode import Episode
from raptor.nn.stacked_mlp import Layers
from raptor.quadrotor.parameters import Quadrotors
from raptor.rl.collection import BLOCK_STEPS, ExperienceCollector
from raptor.rl.curriculum import Curriculum
from raptor.rl.replay import Replay, ReplayConfig, ReplaySizes
from raptor.rl.sac import SAC, Metrics, SACConfig
from raptor.tasks.observation import TEACHER_DIM
from raptor.tasks.task import Task
from raptor.training.teachers.hover import hover_bias

NUM_ACTIONS = 4
INITIAL_SCALE = 0.3
"""Factor on the usual initial weights of the mean actions where they start at hover."""

STEPS_PER_ROUND = 10 * BLOCK_STEPS
"""Steps of every environment between two looks at what came of them."""


@dataclasses.dataclass(frozen=True)
class SACTeachersConfig(SACConfig):
    """Settings of teachers that are trained by soft actor-critic, tuned for time; the preset `paper` has RAPTOR's."""

    num_steps: int = setting(200_000, "of each teacher, over all its environments", at_least(1))
    num_envs: int = setting(8, "environments of each teacher", at_least(1))
    start_steps: int = setting(2_000, "steps of each teacher before the first update", not_negative)
    updates_per_step: int = setting(8, "updates after a step of all environments", at_least(1))
    validation_interval: int = setting(8_000, "steps of each teacher between two validations", at_least(1))
    start_at_hover: bool = setting(True, "whether the first mean action is the throttle at which the vehicle hovers")
    actor_learning_rate: float = setting(5e-4, "of Adam")
    critic_learning_rate: float = setting(1e-3, "of Adam")
    temperature_learning_rate: float = setting(1e-3, "of Adam, on the logarithm of the temperature")
    final_learning_rate: float = setting(
        0.1, "share of the learning rates that is left at the end; they fall linearly to it"
    )
    polyak: float = setting(0.02, "share of the critics that goes into their targets at each update")
    reward_scale: float = setting(0.1, "factor on the rewards that the critics learn from")
    initial_temperature: float = setting(0.05, "weight of the entropy at the start")
    critic_widths: tuple[int, ...] = setting((128, 128), "of the hidden layers")
    replay: ReplayConfig = ReplayConfig(capacity=200_000)


class SACTeachers:
    """T teachers that learn by soft actor-critic, each from its own experience with its own vehicle.

    Args:
        config: the settings.
        task: what is asked.
        quadrotors: T vehicles.
        curriculum: draws the episodes.
        seed: of the weights and of everything else that is drawn.
        compile: False runs eagerly.
    """

    def __init__(
        self,
        config: SACTeachersConfig,
        task: Task,
        quadrotors: Quadrotors,
        curriculum: Curriculum,
        seed: int,
        compile: bool = True,
    ) -> None:
        self.config, self.curriculum = config, curriculum
        device, num = quadrotors.device, len(quadrotors)
        self.generator = torch.Generator(device).manual_seed(seed)
        if config.precision == "tf32":
            torch.backends.cuda.matmul.allow_tf32 = True
        self.agents = SAC(config, num, TEACHER_DIM, NUM_ACTIONS, generator=self.generator, compile=compile)
        if config.start_at_hover:
            self._start_at_hover(quadrotors)
        self.block_steps = math.gcd(BLOCK_STEPS, STEPS_PER_ROUND)
        self.collector = ExperienceCollector(
            task,
            quadrotors,
            config.num_envs,
            begin=self._begin,
            generator=self.generator,
            compile=compile,
            block_steps=self.block_steps,
        )
        sizes = replay_sizes(config, num, task)
        self.replay = Replay(config.replay, sizes, gamma=config.gamma, device=device, compile=compile)
        self.step_count = 0  # of every environment
        self.diverged = torch.zeros(num, dtype=torch.long, device=device)
        self.skipped = torch.zeros(num, dtype=torch.long, device=device)
        self._progress = torch.zeros((), device=device)  # share of the training that is done
        self._metrics: Metrics | None = None
        self._ended: list[tuple[Tensor, Tensor]] = []  # of each step of a block: finished, success
        # A block is recorded as a whole, so all blocks must update the actor in the same places.
        alike = self.block_steps * config.updates_per_step % config.actor_interval == 0
        self._collect = CapturedGraph(self._collecting_block, device, (self.generator,), alike)
        self._learn = CapturedGraph(self._learning_block, device, (self.generator,), alike)

    @torch.no_grad()
    def _start_at_hover(self, quadrotors: Quadrotors) -> None:
        last = self.agents.state.actor[-1]
        last.weight[:, :NUM_ACTIONS] *= INITIAL_SCALE
        last.bias[:, :NUM_ACTIONS] = hover_bias(quadrotors).unsqueeze(-1)

    def _begin(self, quadrotors: Quadrotors, generator: torch.Generator) -> Episode:
        return self.curriculum.begin(quadrotors, generator)

    @property
    def num_rounds(self) -> int:
        """Rounds until the end; a round is `STEPS_PER_ROUND` steps of every environment."""
        return math.ceil(self.config.num_steps / (self.config.num_envs * STEPS_PER_ROUND))

    @property
    def round_count(self) -> int:
        """Rounds so far."""
        return self.step_count // STEPS_PER_ROUND

    @property
    def validation_interval(self) -> int:
        """Rounds between two validations."""
        return max(1, self.config.validation_interval // (self.config.num_envs * STEPS_PER_ROUND))

    @property
    def env_steps(self) -> int:
        """Steps flown so far for each teacher."""
        return self.step_count * self.config.num_envs

    def teachers(self) -> Layers:
        """The deterministic part of the actors as they are."""
        return self.agents.teachers()

    @torch.no_grad()
    def round(self) -> dict[str, Tensor]:
        """Step and update; returns what the last update saw of each teacher, (T,) each."""
        config, agents = self.config, self.agents
        for _ in range(STEPS_PER_ROUND // self.block_steps):
            self.collector.draw()
            self._progress.fill_(min(1.0, self.env_steps / config.num_steps))
            if self.env_steps < config.start_steps:
                self._collect()
            else:
                count = agents.update_count + self.block_steps * config.updates_per_step
                self._learn()
                agents.update_count = count  # what is replayed does not count
            self.step_count += self.block_steps
            if self.curriculum.config.enabled:
                for finished, success in self._ended:
                    self.curriculum.record(finished, success)
        return {} if self._metrics is None else self._metrics._asdict()

    def _collecting_block(self) -> None:
        self._ended = [self._step() for _ in range(self.block_steps)]

    def _learning_block(self) -> None:
        ended = []
        for _ in range(self.block_steps):
            ended.append(self._step())
            for _ in range(self.config.updates_per_step):
                self._metrics = self._update() or self._metrics
        self._ended = ended

    def _step(self) -> tuple[Tensor, Tensor]:
        """Act once in every environment; which episodes ended (T, E), and which of them well."""
        experience, lost = self.collector.step(self.agents.state.actor)
        self.replay.add(experience)
        self.diverged += lost.sum(1)
        if not self.curriculum.config.enabled:
            return experience.truncated, experience.truncated
        error = torch.linalg.vector_norm(experience.next_observation[..., :3], dim=-1)
        success = experience.truncated & (error <= self.curriculum.config.max_position_error)
        return experience.terminated | experience.truncated, success

    def _update(self) -> Metrics | None:
        batch, index = self.replay.sample(self.config.batch_size, self.generator, self._progress)
        error, metrics = self.agents.update(batch, self._progress)
        self.replay.update_priorities(index, error)
        self.skipped += ~error.isfinite().all(1)
        return metrics

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next round depends on."""
        return {
            "agents": self.agents.state_dict(),
            "collector": self.collector.state_dict(),
            "replay": self.replay.state_dict(),
            "curriculum": self.curriculum.state_dict(),
            "generator": self.generator.get_state(),
            "counts": [self.step_count, self.diverged.clone(), self.skipped.clone()],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go back to a state that `state_dict` gave."""
        self.agents.load_state_dict(state["agents"])
        self.collector.load_state_dict(state["collector"])
        self.replay.load_state_dict(state["replay"])
        self.curriculum.load_state_dict(state["curriculum"])
        self.generator.set_state(state["generator"].cpu())
        self.step_count, diverged, skipped = state["counts"]
        self.diverged.copy_(diverged)
        self.skipped.copy_(skipped)


def replay_sizes(config: SACTeachersConfig, num_teachers: int, task: Task) -> ReplaySizes:
    """Extents of the replay of so many teachers."""
    return ReplaySizes.of(
        config.replay,
        num_teachers=num_teachers,
        num_envs=config.num_envs,
        observation_dim=TEACHER_DIM,
        action_dim=NUM_ACTIONS,
        episode_steps=task.episode_steps,
    )
