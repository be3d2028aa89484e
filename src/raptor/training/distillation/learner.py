"""Imitation: one student learns what many teachers do, epoch by epoch; the learner, without files.

In the first epochs the teachers fly (behaviour cloning), then the student does and its vehicle's own teacher says what
it would have done (DAgger, Ross et al. 2011). Source: RAPTOR's post-training.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from raptor.core.distributed import ALONE, Parts, World
from raptor.environments.collectors import Episodes
from raptor.environments.controllers import StudentParameters
from raptor.formats.checkpoint import StudentPolicy
from raptor.nn.mlp_policy import MLPPolicy
from raptor.nn.policy import RaptorPolicy
from raptor.nn.teachers import TeacherPopulation
from raptor.rl.demonstrations import DemonstrationFlights, Demonstrations
from raptor.training.direct.config import TRAINING_SEEDS
from raptor.training.distillation.config import PostTrainConfig, StudentConfig
from raptor.training.distillation.imitation import Imitation, weights_of


class _Recipe(NamedTuple):
    """All that is needed to fly the data of an epoch once more."""

    student: StudentParameters | None  # None: the teachers fly
    generator: Tensor  # state before the flights
    active: Tensor  # (A,) which teachers


class Distiller:
    """Teaches a student.

    Args:
        config: the settings.
        policy: the student, improved in place.
        teachers: T of them, with their vehicles.
        world: the processes that share flights and batches; every one of them holds all data.
    """

    def __init__(
        self, config: PostTrainConfig, policy: StudentPolicy, teachers: TeacherPopulation, world: World = ALONE
    ) -> None:
        self.config, self.device = config, torch.device(config.device)
        self.policy, self.teachers = policy.to(self.device), teachers.to(self.device)
        self.generator = torch.Generator(self.device).manual_seed(TRAINING_SEEDS + config.seed)
        self.imitation = Imitation(config, self.policy, Parts(world, config.accumulation), config.precision)
        self.flown = self._copy()
        self.student_returns = torch.full((len(teachers),), -math.inf, device=self.device)
        self._recipes: list[_Recipe] = []
        self._flights: DemonstrationFlights | None = None
        num_stored = num_slots(config) * episodes_per_epoch(config, len(teachers))
        self.data = Demonstrations.empty(num_stored, config.task.episode_steps, self.imitation.weights[0])

    @property
    def epoch_count(self) -> int:
        """Epochs so far."""
        return self.imitation.epoch_count

    def epoch(self) -> dict[str, float]:
        """Fly, then train on what was flown; returns what happened, as numbers.

        `flown` is then the student as it was in the flights, before it was trained on them.
        """
        config = self.config
        forced = self.epoch_count < config.epoch_teacher_forcing
        self.flown = self._copy()
        recipe = _Recipe(None if forced else self.flown, self.generator.get_state(), self._active(forced))
        outcome = self._collect(recipe, self.epoch_count)
        returns = outcome.returns.mean(1)
        if not forced:
            # What is no number is worst, but after those who never flew.
            self.student_returns[recipe.active] = returns.nan_to_num(nan=torch.finfo(returns.dtype).min)
        self._recipes = [*self._recipes, recipe][-num_slots(config) :]
        trained = self.imitation.epoch(self.data, self.generator)
        return {
            "data_collection/mean_return": returns.mean().item(),
            "data_collection/std_return": returns.std(correction=0).item(),
            "data_collection/mean_length": outcome.lengths.mean().item(),
            "data_collection/share_terminated": outcome.terminated.float().mean().item(),
            "data_collection/num_steps": outcome.lengths.sum().item(),
            **trained.metrics(),
        }

    def _copy(self) -> StudentParameters:
        return pytree.tree_map(torch.clone, weights_of(self.policy))

    def _active(self, forced: bool) -> Tensor:
        """Whom to fly with: those with whom the student is worst, or has not flown yet; in turn where teachers fly."""
        num = num_active(self.config, len(self.teachers))
        if forced:
            turn = torch.arange(num, device=self.device) + self.epoch_count * num
            return (turn % len(self.teachers)).sort().values
        return self.student_returns.argsort(stable=True)[:num].sort().values

    def _collect(self, recipe: _Recipe, epoch: int) -> Episodes:
        """Fly the data of an epoch into its place in the store."""
        config = self.config
        if self._flights is None or len(recipe.active) < len(self.teachers):
            self._flights = self._flights_of(self.teachers[recipe.active])
        num = len(recipe.active) * config.num_episodes
        first = epoch % num_slots(config) * num
        place = Demonstrations(*(tensor[first : first + num] for tensor in self.data))
        self.generator.set_state(recipe.generator)
        outcome = self._flights.collect(recipe.student, self.generator, place)
        assert outcome is not None
        return outcome

    def _flights_of(self, teachers: TeacherPopulation) -> DemonstrationFlights:
        config = self.config
        assert teachers.quadrotors is not None
        offset = teachers.position_offset
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
            world=self.imitation.parts.world,
        )

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next epoch depends on; data that is kept is flown again, not stored."""
        return {
            "imitation": self.imitation.state_dict(),
            "generator": self.generator.get_state(),
            "student_returns": self.student_returns,
            "recipes": [[list(student or ()), state, active] for student, state, active in self._recipes],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go back to a state that `state_dict` gave."""
        self.imitation.load_state_dict(state["imitation"])
        kind = type(self.imitation.weights)
        self.student_returns = state["student_returns"].to(self.device)
        self._recipes = [
            _Recipe(kind(*(w.to(self.device) for w in student)) if student else None, seed, active.to(self.device))
            for student, seed, active in state["recipes"]
        ]
        if not self.config.on_policy:
            for epoch, recipe in enumerate(self._recipes, start=self.epoch_count - len(self._recipes)):
                self._collect(recipe, epoch)
        self.generator.set_state(state["generator"])


def num_active(config: PostTrainConfig, num_teachers: int) -> int:
    """How many teachers an epoch flies with."""
    return min(config.num_active_teachers or num_teachers, num_teachers)


def episodes_per_epoch(config: PostTrainConfig, num_teachers: int) -> int:
    """How many episodes an epoch flies."""
    return num_active(config, num_teachers) * config.num_episodes


def num_slots(config: PostTrainConfig) -> int:
    """How many epochs' flights are kept."""
    return 1 if config.on_policy else config.num_data_epochs


def first_student(config: StudentConfig, seed: int) -> StudentPolicy:
    """A student that knows nothing, drawn as `torch.nn` does."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return (RaptorPolicy if config.kind == "gru" else MLPPolicy)(hidden_dim=config.hidden_dim)
