"""Imitation: regression of a student onto recorded demonstrations, packed into sequences."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from raptor.config.settings import Settings, at_least, between, not_negative, optional, positive, setting
from raptor.core.distributed import Parts
from raptor.environments.rollout import StudentParameters
from raptor.formats.checkpoint import StudentPolicy
from raptor.nn.policy import PolicyParameters
from raptor.rl.adam import adam_start, adam_step, warmup_cosine
from raptor.rl.demonstrations import Demonstrations
from raptor.rl.sequence_gradient import SequenceGradient, transition_gradient


@dataclasses.dataclass(frozen=True)
class ImitationConfig(Settings):
    """Settings of the regression."""

    compile: bool = setting(True, "false runs uncompiled: at once, but several times slower")
    num_epochs: int = setting(150, "passes over the data; the learning rate falls to its end over as many", at_least(0))
    batch_size: int = setting(192, "sequences between two steps of the optimiser", at_least(1))
    sequence_length: int = setting(160, "steps of a sequence, through which the gradient flows", at_least(1))
    shuffle: bool = setting(True, "whether episodes are packed into sequences in random order")
    learning_rate: float = setting(1e-2, "of Adam, at its highest", positive)
    final_learning_rate: float = setting(
        0.02, "fraction of the learning rate that is left at the end of the cosine; 1: constant", between(0, 1)
    )
    warm_up_batches: int = setting(20, "batches over which the learning rate rises", not_negative)
    gradient_norm: float | None = setting(1.0, "bound on the norm of the gradient; null: none", optional(positive))
    epsilon: float = setting(1e-8, "of Adam", positive)
    variance_floor: float = setting(0.0, "lower bound on Adam's second moment", not_negative)


LEAST_DEVIATION = 0.1
"""Numbers that hardly vary are not magnified further: they vary a hundred times as much when a policy fails."""


class ObservationScale(NamedTuple):
    """Mean and standard deviation of observations, folded into the first layer of a policy.

    A layer on x' = (x - m) / d with weights W' and biases b' is one on x with W = W' / d and b = b' - W m. So W' and b'
    are trained, and W and b are flown and saved.
    """

    mean: Tensor  # (D,)
    deviation: Tensor  # (D,)

    @classmethod
    def of(cls, observation: Tensor, length: Tensor) -> ObservationScale:
        """Scale of recorded episodes (E, S, D), of `length` (E,) steps each."""
        counted = torch.arange(observation.shape[1], device=length.device) < length.unsqueeze(-1)
        rows = observation[counted].double()
        deviation = rows.std(0, correction=0).clamp(min=LEAST_DEVIATION)
        return cls(rows.mean(0).to(observation), deviation.to(observation))

    def fold(self, parameters: StudentParameters) -> StudentParameters:
        """Weights for raw observations, from those for scaled ones."""
        weight = parameters.input_weight / self.deviation
        return parameters._replace(input_weight=weight, input_bias=parameters.input_bias - weight @ self.mean)

    def pull_back(self, gradient: StudentParameters) -> StudentParameters:
        """Gradient by the weights for scaled observations, from that by the weights for raw ones."""
        by_weight = gradient.input_weight - gradient.input_bias.unsqueeze(-1) * self.mean
        return gradient._replace(input_weight=by_weight / self.deviation)


class PackedBatch(NamedTuple):
    """Rows of B packed sequences of L steps."""

    row: Tensor  # (L, B) int64, episode * S + step, for episodes (E, S, ...) with their first two axes flattened
    reset: Tensor  # (L, B) bool, True where an episode begins inside a sequence; all begin afresh without it


def pack(
    length: Tensor, episode_steps: int, sequence_length: int, batch_size: int, generator: torch.Generator | None
) -> list[PackedBatch]:
    """Put episodes end to end in batches of B sequences of L steps, so that no step is padding.

           episode 2            episode 0        episode 3
        |================|===========================|========
        |---- sequence 0 ----|---- sequence 1 ----|---- sequence 2 ----|

    Each is stored in `episode_steps` rows, of which the first `length` (E,) int64 are in use. The generator draws their
    order; None keeps them in order. The last batch is dropped unless an episode is left over once it is full.
    Source: RAPTOR's post-training.
    """
    order = torch.arange(len(length), device=length.device)
    if generator is not None:
        order = torch.randperm(len(length), generator=generator, device=length.device)
    length = length[order]
    end = length.cumsum(0)
    num_rows = int(end[-1]) if len(end) else 0
    num_batches = max(num_rows - 1, 0) // (batch_size * sequence_length)
    num_packed = num_batches * batch_size * sequence_length
    begin = end - length  # of each episode, among the packed rows
    row = (order * episode_steps - begin).repeat_interleave(length, output_size=num_rows)[:num_packed]
    reset = torch.zeros(num_packed, dtype=torch.bool, device=row.device)
    reset[begin[begin < num_packed]] = True
    reset[::sequence_length] = False
    shape = num_batches, batch_size, sequence_length
    rows = row.new_empty(num_batches, sequence_length, batch_size)
    torch.add(row.view(shape).mT, torch.arange(num_packed, device=row.device).view(shape).mT, out=rows)
    return [PackedBatch(*batch) for batch in zip(rows, reset.view(shape).mT.contiguous(), strict=True)]


class Imitation:
    """A student, recurrent or not, improved in place at the end of each epoch, and the state of its regression."""

    def __init__(
        self, config: ImitationConfig, policy: StudentPolicy, parts: Parts | None = None, precision: str = "float32"
    ) -> None:
        self.config, self.policy, self.parts = config, policy, parts or Parts()
        self.weights: StudentParameters = pytree.tree_map(torch.clone, weights_of(policy))  # for scaled observations
        self.adam = adam_start(self.weights)
        zeros = torch.zeros_like(self.weights.input_weight[0])
        self.scale = ObservationScale(zeros, zeros + 1)
        self.epoch_count, self.batch_count, self.skipped_count = 0, 0, 0
        self._is_recurrent = isinstance(self.weights, PolicyParameters)
        kind: Any = SequenceGradient if self._is_recurrent else transition_gradient
        self._gradient = kind(config.compile, precision)

    def rescale(self, scale: ObservationScale) -> None:
        """Interpret the student's weights as those for observations of that scale."""
        self.scale = scale
        self._update_policy()

    def epoch(self, data: Demonstrations, generator: torch.Generator) -> dict[str, float]:
        """One pass over the demonstrations, in an order that the generator draws; returns figures by name."""
        batches = self.batches(data, generator)
        skipped = torch.zeros((), dtype=torch.long, device=data.length.device)
        losses = []
        for number, batch in enumerate(batches):
            gradient, loss = self._differentiate(data, batch)
            skipped += ~self._optimizer_step(gradient, number / len(batches))
            losses.append(loss)
        self.skipped_count += int(skipped)
        self.epoch_count += 1
        self._update_policy()
        return {
            "training/loss": float(torch.stack(losses).mean()),  # mean squared error
            "training/num_batches": float(len(losses)),
            "training/num_skipped": float(self.skipped_count),  # batches so far whose gradient was not finite
            "training/learning_rate": self.learning_rate(0.0),
        }

    def batches(self, data: Demonstrations, generator: torch.Generator) -> list[PackedBatch]:
        """Batches of one epoch, of sequences or as many single steps; episodes too short for one batch are repeated."""
        config, length = self.config, data.length
        num, steps = data.observation.shape[:2]
        size = config.batch_size * config.sequence_length
        if self._is_recurrent:
            repeated = length.repeat(math.ceil((size + 1) / max(int(length.sum()), 1)))
            order = generator if config.shuffle else None
            packed = pack(repeated, steps, config.sequence_length, config.batch_size, order)
            return [batch._replace(row=batch.row % (num * steps)) for batch in packed]
        recorded = torch.arange(steps, device=length.device) < length.unsqueeze(-1)
        rows = recorded.flatten().nonzero().squeeze(-1)
        rows = rows.repeat(math.ceil(size / len(rows)))
        if config.shuffle:
            rows = rows[torch.randperm(len(rows), generator=generator, device=rows.device)]
        no_reset = recorded.new_zeros(0)
        return [PackedBatch(row, no_reset) for row in rows[: len(rows) // size * size].split(size)]

    def _differentiate(self, data: Demonstrations, batch: PackedBatch) -> tuple[StudentParameters, Tensor]:
        """Gradient of the mean squared error of a batch by the weights for scaled observations, and that error."""
        size, weights = batch.row.shape[-1], self.scale.fold(self.weights)
        stored = data.observation.flatten(0, 1), data.label.flatten(0, 1)

        def part(own: slice) -> list[Tensor]:
            row, reset = (tensor[..., own] for tensor in batch)
            observation, label = (rows.index_select(0, row.flatten()).unflatten(0, row.shape) for rows in stored)
            gradient, loss = self._gradient(weights, observation, label, *([reset] if self._is_recurrent else []))
            return [*gradient, loss]

        *gradient, loss = self.parts.mean([part(own) for own in self.parts.own(size)], size)
        return self.scale.pull_back(type(weights)(*gradient)), loss

    def _optimizer_step(self, gradient: StudentParameters, progress: float) -> Tensor:
        """One step of Adam where the gradient is finite; () whether it is, left on the device."""
        config, rate = self.config, self.learning_rate(progress)
        self.batch_count += 1
        norm = torch.stack([(g * g).sum() for g in gradient]).sum().sqrt()
        finite = norm.isfinite()
        if config.gradient_norm is not None:
            scale = (config.gradient_norm / norm).clamp(max=1)
            gradient = type(gradient)(*(g * scale for g in gradient))
        before, floor = (self.weights, self.adam), config.variance_floor
        after = adam_step(self.weights, gradient, self.adam, rate, epsilon=config.epsilon, variance_floor=floor)
        self.weights, self.adam = pytree.tree_map(lambda new, old: torch.where(finite, new, old), after, before)
        return finite

    def learning_rate(self, progress: float) -> float:
        """After `progress` of the present epoch: a warm-up over batches, a cosine over epochs."""
        config, done = self.config, (self.epoch_count + progress) / max(self.config.num_epochs, 1)
        rates = config.learning_rate, config.final_learning_rate
        return warmup_cosine(*rates, done, self.batch_count, config.warm_up_batches)

    def _update_policy(self) -> None:
        """Give the policy the weights for raw observations."""
        with torch.no_grad():
            for weight, new in zip(self.policy.tensors(), self.scale.fold(self.weights), strict=True):
                weight.copy_(new)

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next epoch depends on, besides the data."""
        counts = [self.epoch_count, self.batch_count, self.skipped_count]
        tensors = {"weights": [*self.weights], "adam": pytree.tree_leaves(self.adam), "scale": [*self.scale]}
        return {**tensors, "counts": counts}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go back to a state that `state_dict` gave."""
        like = self.weights[0].device
        stored = pytree.tree_map(lambda tensor: tensor.to(like), [*state["weights"], *state["adam"], *state["scale"]])
        structure = pytree.tree_structure((self.weights, self.adam, self.scale))
        self.weights, self.adam, self.scale = pytree.tree_unflatten(stored, structure)
        self.epoch_count, self.batch_count, self.skipped_count = state["counts"]
        self._update_policy()


def weights_of(policy: StudentPolicy) -> StudentParameters:
    """The trainable tensors, without their gradients."""
    weights = policy.tensors()
    return type(weights)(*(tensor.detach() for tensor in weights))
