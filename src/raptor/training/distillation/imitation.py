"""Regression of a student onto recorded demonstrations: batches, Adam, the learning rate; no flights and no files."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from raptor.core.distributed import Parts
from raptor.environments.controllers import StudentParameters
from raptor.formats.checkpoint import StudentPolicy
from raptor.nn.policy import PolicyParameters
from raptor.rl.adam import adam_start, adam_step
from raptor.rl.demonstrations import Demonstrations
from raptor.rl.observation_scale import ObservationScale
from raptor.rl.packing import Batch, pack
from raptor.rl.sequence_gradient import SequenceGradient, TransitionGradient
from raptor.training.distillation.config import PostTrainConfig
from raptor.training.distillation.env_config import EnvDistillConfig


class Trained(NamedTuple):
    """What came of one pass over the data."""

    loss: float  # mean squared error
    num_batches: int
    num_skipped: int  # batches of the whole training whose gradient was not finite
    learning_rate: float  # after it

    def metrics(self) -> dict[str, float]:
        """The same as numbers by name."""
        return {f"training/{name}": float(value) for name, value in self._asdict().items()}


class Imitation:
    """A student and the state of its regression.

    Args:
        config: the settings.
        policy: the student, recurrent or not; improved in place, at the end of each epoch.
        parts: how a batch is cut, among processes and in turn.
        precision: of the matrix products.
    """

    def __init__(
        self,
        config: PostTrainConfig | EnvDistillConfig,
        policy: StudentPolicy,
        parts: Parts | None = None,
        precision: str = "float32",
    ) -> None:
        self.config, self.policy, self.parts = config, policy, parts or Parts()
        self.weights: StudentParameters = pytree.tree_map(torch.clone, weights_of(policy))  # for scaled observations
        self.adam = adam_start(self.weights)
        self.scale = ObservationScale.none(policy.observation_dim, self.weights.input_weight)
        self.epoch_count, self.batch_count, self.skipped_count = 0, 0, 0
        self._sequences = SequenceGradient(config.compile, precision)
        self._transitions = TransitionGradient(config.compile, precision)

    def rescale(self, scale: ObservationScale) -> None:
        """Take the student's weights for those of observations of that scale."""
        self.scale = scale
        self._hand_over()

    def epoch(self, data: Demonstrations, generator: torch.Generator) -> Trained:
        """One pass over the demonstrations, in an order that the generator draws."""
        batches = self.batches(data, generator)
        skipped = torch.zeros((), dtype=torch.long, device=data.length.device)
        losses = []
        for number, batch in enumerate(batches):
            size, flown = batch.row.shape[-1], self.scale.fold(self.weights)
            parts = [Batch(*(tensor[..., own] for tensor in batch)) for own in self.parts.own(size)]
            *gradient, loss = self.parts.mean([self._differentiate(flown, data, part) for part in parts], size)
            pulled = self.scale.pull_back(type(flown)(*gradient))
            skipped += ~self._optimizer_step(pulled, number / len(batches))
            losses.append(loss)
        self.skipped_count += int(skipped)
        self.epoch_count += 1
        self._hand_over()
        return Trained(float(torch.stack(losses).mean()), len(losses), self.skipped_count, self._learning_rate(0.0))

    def batches(self, data: Demonstrations, generator: torch.Generator) -> list[Batch]:
        """What one pass is made of: sequences for a recurrent student, else single steps."""
        recurrent = isinstance(self.weights, PolicyParameters)
        return self._packed(data, generator) if recurrent else self._shuffled(data, generator)

    def _differentiate(self, flown: StudentParameters, data: Demonstrations, batch: Batch) -> list[Tensor]:
        """The gradient of the error of a batch, followed by the error."""
        row, reset = batch
        stored = data.observation.flatten(0, 1), data.label.flatten(0, 1)
        given, wanted = (rows.index_select(0, row.flatten()).unflatten(0, row.shape) for rows in stored)
        gradient: StudentParameters
        if isinstance(flown, PolicyParameters):
            gradient, loss = self._sequences(flown, given, wanted, reset)
        else:
            gradient, loss = self._transitions(flown, given, wanted)
        return [*gradient, loss]

    def _hand_over(self) -> None:
        """Give the policy the weights for observations as they are."""
        with torch.no_grad():
            for weight, new in zip(self.policy.tensors(), self.scale.fold(self.weights), strict=True):
                weight.copy_(new)

    def _packed(self, data: Demonstrations, generator: torch.Generator) -> list[Batch]:
        """Sequences of whole episodes. Flights too short for one batch are gone around as often as it takes."""
        config, length = self.config, data.length
        steps, rounds = data.observation.shape[1], math.ceil((self._size + 1) / max(int(length.sum()), 1))
        order = generator if config.shuffle else None
        batches = pack(length.repeat(rounds), steps, config.sequence_length, config.batch_size, order)
        return [batch._replace(row=batch.row % (len(length) * steps)) for batch in batches]

    def _shuffled(self, data: Demonstrations, generator: torch.Generator) -> list[Batch]:
        """As many single steps at a time as a batch of sequences has."""
        length = data.length
        flown = torch.arange(data.observation.shape[1], device=length.device) < length.unsqueeze(-1)
        rows = flown.flatten().nonzero().squeeze(-1)
        rows = rows.repeat(math.ceil(self._size / len(rows)))
        if self.config.shuffle:
            rows = rows[torch.randperm(len(rows), generator=generator, device=rows.device)]
        nothing = flown.new_zeros(0)
        return [Batch(row, nothing) for row in rows[: len(rows) // self._size * self._size].split(self._size)]

    @property
    def _size(self) -> int:
        """Steps of a batch."""
        return self.config.batch_size * self.config.sequence_length

    def _optimizer_step(self, gradient: StudentParameters, progress: float) -> Tensor:
        """One step of the optimiser, where the gradient is finite; () whether it is, left on the device."""
        config = self.config
        rate = self._learning_rate(progress)
        self.batch_count += 1
        norm = torch.stack([(g * g).sum() for g in gradient]).sum().sqrt()
        finite = norm.isfinite()
        if config.gradient_norm is not None:
            scale = (config.gradient_norm / norm).clamp(max=1)
            gradient = type(gradient)(*(g * scale for g in gradient))
        before = self.weights, self.adam
        after = adam_step(
            self.weights, gradient, self.adam, rate, epsilon=config.epsilon, variance_floor=config.variance_floor
        )
        self.weights, self.adam = pytree.tree_map(lambda new, old: torch.where(finite, new, old), after, before)
        return finite

    def _learning_rate(self, progress: float) -> float:
        """After `progress` of the present epoch: a warm-up over batches, a cosine over epochs."""
        config = self.config
        done = (self.epoch_count + progress) / max(config.num_epochs, 1)
        cosine = 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
        share = config.final_learning_rate + (1 - config.final_learning_rate) * cosine
        return config.learning_rate * share * min(1.0, (self.batch_count + 1) / max(config.warm_up_batches, 1))

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next epoch depends on, besides the data."""
        return {
            "weights": [*self.weights],
            "adam": [*pytree.tree_leaves(self.adam)],
            "scale": [*self.scale],
            "counts": [self.epoch_count, self.batch_count, self.skipped_count],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go back to a state that `state_dict` gave."""
        like = self.weights[0].device
        self.weights = type(self.weights)(*(weight.to(like) for weight in state["weights"]))
        leaves = [leaf.to(like) for leaf in state["adam"]]
        self.adam = pytree.tree_unflatten(leaves, pytree.tree_structure(self.adam))
        self.scale = ObservationScale(*(tensor.to(like) for tensor in state["scale"]))
        self.epoch_count, self.batch_count, self.skipped_count = state["counts"]
        self._hand_over()


def weights_of(policy: StudentPolicy) -> StudentParameters:
    """The trainable tensors, without their gradients."""
    weights = policy.tensors()
    return type(weights)(*(tensor.detach() for tensor in weights))
