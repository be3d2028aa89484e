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

from raptor.nn.checkpoint import StudentPolicy
from raptor.nn.mlp_policy import MLPPolicy
from raptor.nn.policy import PolicyParameters, RaptorPolicy
from raptor.nn.teachers import TeacherPopulation
from raptor.rl.adam import adam_start, adam_step
from raptor.rl.demonstrations import DemonstrationFlights, Demonstrations, Outcome
from raptor.rl.packing import Batch, pack
from raptor.rl.sequence_gradient import SequenceGradient, TransitionGradient
from raptor.rl.student_flights import StudentParameters
from raptor.training.direct import TRAINING_SEEDS
from raptor.training.post_training_config import PostTrainConfig, StudentConfig


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
    """

    def __init__(self, config: PostTrainConfig, policy: StudentPolicy, teachers: TeacherPopulation) -> None:
        self.config, self.device = config, torch.device(config.device)
        self.policy, self.teachers = policy.to(self.device), teachers.to(self.device)
        self.generator = torch.Generator(self.device).manual_seed(TRAINING_SEEDS + config.seed)
        self.epoch_count, self.batch_count, self.skipped_count = 0, 0, 0
        self.adam = adam_start(weights_of(self.policy))
        self.flown = self._copy()
        self.student_returns = torch.full((len(teachers),), -math.inf, device=self.device)
        self._recipes: list[_Recipe] = []
        self._flights: DemonstrationFlights | None = None
        self._sequences, self._transitions = SequenceGradient(config.compile), TransitionGradient(config.compile)
        num_stored = num_slots(config) * episodes_per_epoch(config, len(teachers))
        self.data = Demonstrations.empty(num_stored, config.task.episode_steps, self.adam.remains)

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
        losses = self._train()
        self.epoch_count += 1
        return {
            "data_collection/mean_return": returns.mean().item(),
            "data_collection/std_return": returns.std(correction=0).item(),
            "data_collection/mean_length": outcome.lengths.mean().item(),
            "data_collection/share_terminated": outcome.terminated.float().mean().item(),
            "data_collection/num_steps": outcome.lengths.sum().item(),
            "training/loss": torch.stack(losses).mean().item(),
            "training/num_batches": float(len(losses)),
            "training/num_skipped": float(self.skipped_count),
            "training/learning_rate": self._learning_rate(0.0),
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

    def _collect(self, recipe: _Recipe, epoch: int) -> Outcome:
        """Fly the data of an epoch into its place in the store."""
        config = self.config
        if self._flights is None or len(recipe.active) < len(self.teachers):
            self._flights = self._flights_of(self.teachers[recipe.active])
        num = len(recipe.active) * config.num_episodes
        first = epoch % num_slots(config) * num
        place = Demonstrations(*(tensor[first : first + num] for tensor in self.data))
        self.generator.set_state(recipe.generator)
        return self._flights(recipe.student, self.generator, place)[1]

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
        )

    def _train(self) -> list[Tensor]:
        """One pass over the store; the error of each batch."""
        skipped = torch.zeros((), dtype=torch.int64, device=self.device)
        batches = self._packed() if isinstance(self.policy, RaptorPolicy) else self._shuffled()
        losses = []
        stored = self.data.observation.flatten(0, 1), self.data.label.flatten(0, 1)
        for i, (row, reset) in enumerate(batches):
            parameters = weights_of(self.policy)
            given, wanted = (rows.index_select(0, row.flatten()).unflatten(0, row.shape) for rows in stored)
            gradient: StudentParameters
            if isinstance(parameters, PolicyParameters):
                gradient, loss = self._sequences(parameters, given, wanted, reset)
            else:
                gradient, loss = self._transitions(parameters, given, wanted)
            skipped += ~self._descend(parameters, gradient, i / len(batches))
            losses.append(loss)
        self.skipped_count += int(skipped)
        return losses

    def _packed(self) -> list[Batch]:
        """Sequences of whole episodes. Flights too short for one batch are gone around as often as it takes."""
        config, length = self.config, self.data.length
        size = config.sequence_length * config.batch_size
        rounds = max(1, math.ceil((size + 1) / max(int(length.sum()), 1)))
        order = self.generator if config.shuffle else None
        steps = config.task.episode_steps
        batches = pack(length.repeat(rounds), steps, config.sequence_length, config.batch_size, order)
        return [batch._replace(row=batch.row % (len(length) * steps)) for batch in batches]

    def _shuffled(self) -> list[Batch]:
        """As many single steps at a time as a batch of sequences has."""
        config, length = self.config, self.data.length
        size = config.sequence_length * config.batch_size
        flown = torch.arange(config.task.episode_steps, device=self.device) < length.unsqueeze(-1)
        rows = flown.flatten().nonzero().squeeze(-1)
        rows = rows.repeat(math.ceil(size / len(rows)))
        if config.shuffle:
            rows = rows[torch.randperm(len(rows), generator=self.generator, device=self.device)]
        nothing = flown.new_zeros(0)
        return [Batch(row, nothing) for row in rows[: len(rows) // size * size].split(size)]

    def _descend(self, parameters: StudentParameters, gradient: StudentParameters, progress: float) -> Tensor:
        """One step of the optimiser, where the gradient is finite; () whether it is, left on the device."""
        config = self.config
        rate = self._learning_rate(progress)
        self.batch_count += 1
        norm = torch.stack([(g * g).sum() for g in gradient]).sum().sqrt()
        finite = norm.isfinite()
        if config.gradient_norm is not None:
            scale = (config.gradient_norm / norm).clamp(max=1)
            gradient = type(gradient)(*(g * scale for g in gradient))
        before = parameters, self.adam
        after = adam_step(
            parameters, gradient, self.adam, rate, epsilon=config.epsilon, variance_floor=config.variance_floor
        )
        moved, self.adam = pytree.tree_map(lambda new, old: torch.where(finite, new, old), after, before)
        with torch.no_grad():
            for weight, new in zip(self.policy.tensors(), moved, strict=True):
                weight.copy_(new)
        return finite

    def _learning_rate(self, progress: float) -> float:
        """After `progress` of the present epoch: a warm-up over batches, a cosine over epochs."""
        config = self.config
        done = (self.epoch_count + progress) / max(config.num_epochs, 1)
        cosine = 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
        share = config.final_learning_rate + (1 - config.final_learning_rate) * cosine
        return config.learning_rate * share * min(1.0, (self.batch_count + 1) / max(config.warm_up_batches, 1))

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next epoch depends on; data that is kept is flown again, not stored."""
        return {
            "policy": self.policy.state_dict(),
            "adam": [*pytree.tree_leaves(self.adam)],
            "generator": self.generator.get_state(),
            "student_returns": self.student_returns,
            "counts": [self.epoch_count, self.batch_count, self.skipped_count],
            "recipes": [[list(student or ()), state, active] for student, state, active in self._recipes],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go back to a state that `state_dict` gave."""
        self.policy.load_state_dict(state["policy"])
        kind = type(self.policy.tensors())
        leaves = [leaf.to(self.device) for leaf in state["adam"]]
        self.adam = pytree.tree_unflatten(leaves, pytree.tree_structure(self.adam))
        self.epoch_count, self.batch_count, self.skipped_count = state["counts"]
        self.student_returns = state["student_returns"].to(self.device)
        self._recipes = [
            _Recipe(kind(*(w.to(self.device) for w in student)) if student else None, seed, active.to(self.device))
            for student, seed, active in state["recipes"]
        ]
        if not self.config.on_policy:
            for epoch, recipe in enumerate(self._recipes, start=self.epoch_count - len(self._recipes)):
                self._collect(recipe, epoch)
        self.generator.set_state(state["generator"])


def weights_of(policy: StudentPolicy) -> StudentParameters:
    """The trainable tensors, without their gradients."""
    weights = policy.tensors()
    return type(weights)(*(tensor.detach() for tensor in weights))


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
