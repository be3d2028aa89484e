"""Distillation in an environment from elsewhere, epoch by epoch; the learner, without files.

In the first epochs the teacher flies (behaviour cloning), then the student does and the teacher says what it would have
done (DAgger, Ross et al. 2011).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from raptor.environments.collectors import Episodes
from raptor.environments.controllers import StudentParameters
from raptor.environments.vec_env import CheckedVecEnv
from raptor.formats.checkpoint import StudentPolicy
from raptor.nn.mlp_policy import MLPPolicy
from raptor.nn.policy import RaptorPolicy
from raptor.rl.demonstrations import Demonstrations
from raptor.rl.observation_scale import ObservationScale
from raptor.rl.vec_demonstrations import VecDemonstrations, VecStudent, rollout_vec_env
from raptor.training.distillation.env_config import EnvDistillConfig
from raptor.training.distillation.env_teacher import EnvTeacher
from raptor.training.distillation.imitation import Imitation, weights_of
from raptor.training.validation import figures

WEIGHTS, FLIGHTS, ORDER, EVALUATION = range(4)
"""Streams of random numbers."""


class _Recipe(NamedTuple):
    """All that is needed to fly the data of an epoch once more, as far as the environment repeats itself."""

    epoch: int
    student: StudentParameters | None  # None: the teacher flies


class EnvDistiller:
    """Teaches a student what a teacher does in an environment.

    Args:
        config: the settings.
        policy: the student, improved in place.
        env: where both fly.
        teacher: that fits it.
    """

    def __init__(
        self, config: EnvDistillConfig, policy: StudentPolicy, env: CheckedVecEnv, teacher: EnvTeacher
    ) -> None:
        self.config, self.env, self.teacher = config, env, teacher
        self.policy = policy.to(env.device)
        self.imitation = Imitation(config, self.policy)
        noisy = None if config.teacher_deterministic else teacher.sample
        self.source = VecDemonstrations(env, teacher, config.student_group, config.num_episodes, noisy)
        env.watch(*dict.fromkeys((config.student_group, *teacher.groups)))
        self._recipes: list[_Recipe] = []
        self.data = self.source.empty(config.num_slots)

    @property
    def epoch_count(self) -> int:
        """Epochs so far."""
        return self.imitation.epoch_count

    def epoch(self, stopping: Callable[[], bool] = lambda: False) -> dict[str, float] | None:
        """Fly, then train on what was flown; what happened, as numbers, or None where the flights were given up."""
        config, number = self.config, self.epoch_count
        forced = number < config.epoch_teacher_forcing
        student = None if forced else pytree.tree_map(torch.clone, weights_of(self.policy))
        recipe = _Recipe(number, student)
        episodes = self._collect(recipe, stopping)
        if episodes is None:
            return None
        self._recipes = [*self._recipes, recipe][-config.num_slots :]
        if number == 0 and config.normalize_observations:
            self.imitation.rescale(ObservationScale.of(*self._flown_in(0)))
        trained = self.imitation.epoch(self.data, self._generator(ORDER, number))
        collected = {f"data_collection/{name}": value for name, value in figures(episodes).items()}
        return {
            **collected,
            "data_collection/num_steps": float(episodes.lengths.sum()),
            **trained.metrics(),
        }

    def evaluate(self, teacher: bool = False) -> dict[str, float]:
        """Fly the student, or the teacher, through episodes that nobody trains on; the same ones at each call."""
        config, env = self.config, self.env
        env.begin(draw_seed(config.seed, EVALUATION, 0))
        student = VecStudent(weights_of(self.policy), config.student_group)
        acts = (lambda observations, begins: self.teacher(observations)) if teacher else student
        episodes = rollout_vec_env(env, acts, episodes_each(config.num_validation_episodes, env))
        assert episodes is not None
        return figures(episodes)

    def _collect(self, recipe: _Recipe, stopping: Callable[[], bool] = lambda: False) -> Episodes | None:
        """Collect the data of an epoch into its place in the store."""
        generator = self._generator(FLIGHTS, recipe.epoch)
        return self.source.collect(recipe.student, generator, self._place(recipe.epoch), stopping)

    def _place(self, epoch: int) -> Demonstrations:
        num = self.source.num_episodes * self.env.num_envs
        first = epoch % self.config.num_slots * num
        return Demonstrations(*(tensor[first : first + num] for tensor in self.data))

    def _flown_in(self, epoch: int) -> tuple[Tensor, Tensor]:
        place = self._place(epoch)
        return place.observation, place.length

    def _generator(self, stream: int, number: int) -> torch.Generator:
        return torch.Generator(self.env.device).manual_seed(draw_seed(self.config.seed, stream, number))

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next epoch depends on; data that is kept is flown again, not stored."""
        recipes = [[epoch, list(student or ())] for epoch, student in self._recipes]
        return {"imitation": self.imitation.state_dict(), "recipes": recipes}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go back to a state that `state_dict` gave."""
        self.imitation.load_state_dict(state["imitation"])
        kind, device = type(self.imitation.weights), self.env.device
        self._recipes = [
            _Recipe(epoch, kind(*(weight.to(device) for weight in student)) if student else None)
            for epoch, student in state["recipes"]
        ]
        for recipe in self._recipes[max(0, len(self._recipes) + 1 - self.config.num_slots) :]:
            self._collect(recipe)  # all but what the next epoch replaces


def episodes_each(num_episodes: int, env: CheckedVecEnv) -> int:
    """Whole episodes of each environment, so that there are at least so many in all."""
    return math.ceil(num_episodes / env.num_envs)


def draw_seed(seed: int, stream: int, number: int) -> int:
    """A seed of its own for each purpose; environments that count up from it do not meet."""
    return int(np.random.SeedSequence([seed, stream, number]).generate_state(1)[0]) >> 1


def first_student(config: EnvDistillConfig, observation_dim: int, action_dim: int) -> StudentPolicy:
    """A student that knows nothing, drawn as `torch.nn` does."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(draw_seed(config.seed, WEIGHTS, 0))
        kind = RaptorPolicy if config.student.kind == "gru" else MLPPolicy
        return kind(observation_dim, config.student.hidden_dim, action_dim)
