"""How a step of a segment is computed forward and backward: by compiled graphs alone, or with a kernel for the policy.

What the vehicles carry is packed into few tensors. `SegmentGradient` defines the step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from raptor.core.compilation import CompiledStep, Tensors
from raptor.core.packing import Packing, Rows
from raptor.environments.episode import StepOutcome, observe
from raptor.environments.rollout import Memory
from raptor.nn.policy import PolicyParameters
from raptor.nn.policy_kernel import PolicyKernel, Sums
from raptor.quadrotor.state import component_major
from raptor.rl.segment import RolloutState, StepInputs

Moved = tuple[RolloutState, Tensor, StepOutcome]
"""The rollout after a step, the step's cost (...), and its outcome."""


class Flight(Protocol):
    """What a step and its derivative are; see `raptor.rl.analytic_policy_gradient.SegmentGradient`."""

    compile: bool

    def step(self, inputs: StepInputs) -> Moved:
        """One step forward."""

    def move(self, inputs: StepInputs, action: Tensor, memory: Memory) -> Moved:
        """The same with an action that is known."""

    def step_adjoint(
        self, inputs: StepInputs, adjoint: Sequence[Tensor], pull: Sequence[Tensor]
    ) -> tuple[Any, Tensors]:
        """One step backward."""

    def move_adjoint(
        self,
        inputs: StepInputs,
        action: Tensor,
        adjoint: Sequence[Tensor],
        by_observation: Tensor,
        pull: Sequence[Tensor],
    ) -> tuple[Tensors, Tensor, Tensor]:
        """The same with an action that is known, from the next observation back to it."""


class _Packed:
    """What a step depends on in few tensors, for vehicles of one number, layout and structure."""

    def __init__(self, start: StepInputs, action: Tensor | None, flight: Flight) -> None:
        tensors, self._structure = pytree.tree_flatten(start)
        example = [tensor.detach() for tensor in tensors]  # each of them another one
        after, *_ = moved(flight, pytree.tree_unflatten(example, self._structure), action)
        num_weights, axes = len(pytree.tree_leaves(start.parameters)), start.quadrotors.mass.ndim
        after_leaves = pytree.tree_leaves(after[:3])
        self._packing = Packing(example[: len(after_leaves)], after_leaves, start.quadrotors.mass, num_weights)
        self.num = self._packing.num_packed + len(start.noise)  # tensors that `inputs` takes
        self.adjoint = Rows(start.rollout.differentiable, axes)

    def pack(self, inputs: StepInputs, packed: Sequence[Tensor] = ()) -> Tensors:
        """All but the noise; what stays the same is taken from what is packed already, if anything is."""
        return self._packing.pack(pytree.tree_leaves(inputs[:3]), *packed[:1])

    def inputs(self, tensors: Sequence[Tensor]) -> StepInputs:
        """What a step depends on, from what is packed and its noise."""
        num = self._packing.num_packed
        leaves = [*self._packing.unpack(tensors[:num]), *tensors[num:]]
        inputs: StepInputs = pytree.tree_unflatten(leaves, self._structure)
        return inputs


def moved(flight: Flight, inputs: StepInputs, action: Tensor | None) -> tuple[StepInputs, RolloutState, Tensors]:
    """What the next step depends on but for its noise, the rollout then, and cost, reward and termination."""
    last_action = inputs.rollout.episode.last_action  # is the previous action, so it need not be carried on
    before = inputs._replace(rollout=inputs.rollout.acting())
    after, cost, outcome = flight.step(before) if action is None else flight.move(before, action, ())
    outputs = [cost, outcome.reward, outcome.terminated]
    return inputs._replace(rollout=after.acting(last_action)), after, outputs


class GraphSteps:
    """One compiled graph for each direction; forward is carried what is packed, backward gradient and adjoint."""

    def __init__(self, flight: Flight, start: StepInputs) -> None:
        self._flight, self._packed = flight, _Packed(start, None, flight)
        self._num_weights = len(pytree.tree_leaves(start.parameters))
        self.forward = CompiledStep(self._ahead, flight.compile)
        self.backward = CompiledStep(self._back, flight.compile, what="a step of the gradient")

    def begin(self, start: StepInputs) -> Tensors:
        """What is carried at first."""
        return self._packed.pack(start)

    def ahead(self, carried: Tensors, draws: Tensors) -> tuple[Tensors, Tensors, Tensors]:
        """What is carried on, cost, reward and termination, and what the way back needs."""
        after, outputs = self.forward(carried, draws)
        return after, outputs, [*carried, *draws]

    def rollout(self, left: Tensors) -> RolloutState:
        """The rollout before a step, of which this was left."""
        return self._packed.inputs(left).rollout

    def end(self, carried: Tensors, draws: Tensors) -> RolloutState:
        """The rollout where the segment ended."""
        return self.rollout([*carried, *draws])

    def turn(self, start: StepInputs) -> Tensors:
        """What is carried at first on the way back: nothing."""
        nothing = [torch.zeros_like(tensor) for tensor in start.rollout.differentiable]
        return [*map(torch.zeros_like, pytree.tree_leaves(start.parameters)), self._packed.adjoint.pack(nothing)]

    def back(self, carried: Tensors, left: Tensors, pull: Tensors) -> Tensors:
        """One step back; of a guide there are label and weight."""
        return self.backward(carried, [*left, *pull])[0]

    def gradient(self, carried: Tensors) -> Tensors:
        """The gradient by each tensor of the parameters, summed over steps and vehicles."""
        return carried[: self._num_weights]

    def _ahead(self, carried: Tensors, given: Tensors) -> tuple[Tensors, Tensors]:
        after, _, outputs = moved(self._flight, self._packed.inputs([*carried, *given]), None)
        return self._packed.pack(after, carried), outputs

    def _back(self, carried: Tensors, given: Tensors) -> tuple[Tensors, Tensors]:
        packed, num = self._packed, self._num_weights
        adjoint = packed.adjoint.unpack(carried[num])
        gradient, before = self._flight.step_adjoint(packed.inputs(given[: packed.num]), adjoint, given[packed.num :])
        added = zip(carried[:num], pytree.tree_leaves(gradient), strict=True)
        return [*(so_far + new for so_far, new in added), packed.adjoint.pack(before)], []


class _Ahead(NamedTuple):
    """What is carried forward beside a kernel."""

    weights: PolicyParameters
    packed: Tensors
    observation: Tensor  # (D, N)
    hidden: Tensor  # (H, N)


class _Left(NamedTuple):
    """What the way back needs of a step."""

    before: _Ahead
    given: Tensors  # what is packed, the noise and the action


class _Back(NamedTuple):
    """What is carried backward: derivatives of all that follows, apart from what goes through the observation."""

    adjoint: Tensor  # by the rows of what is `differentiable`
    by_observation: Tensor  # (D, N)
    by_hidden: Tensor  # (H, N)
    sums: Sums


class KernelSteps:
    """Graphs from action to observation, and from one to the other a kernel for the policy."""

    def __init__(self, flight: Flight, start: StepInputs, kernel: PolicyKernel) -> None:
        self._flight, self._kernel = flight, kernel
        self._packed = _Packed(_without_policy(start), start.rollout.episode.previous_action, flight)
        self.forward = CompiledStep(self._ahead, flight.compile)
        self.backward = CompiledStep(self._back, flight.compile, what="a step of the gradient")

    def begin(self, start: StepInputs) -> _Ahead:
        """See `GraphSteps`."""
        weights = PolicyParameters(*(weight.contiguous() for weight in start.parameters))
        seen, (hidden,) = component_major(observe(start.rollout.episode)), start.rollout.memory
        return _Ahead(weights, self._packed.pack(_without_policy(start)), seen.mT, hidden.mT)

    def ahead(self, carried: _Ahead, draws: Tensors) -> tuple[_Ahead, Tensors, _Left]:
        """See `GraphSteps`."""
        action, following = self._kernel.step(carried.weights, carried.observation, carried.hidden)
        given = [*draws, action]
        after, (*outputs, observation) = self.forward(carried.packed, given)
        left = _Left(carried, [*carried.packed, *given])
        return _Ahead(carried.weights, after, observation, following), outputs, left

    def rollout(self, left: _Left) -> RolloutState:
        """See `GraphSteps`."""
        return self._packed.inputs(left.given[:-1]).rollout._replace(memory=(left.before.hidden.mT,))

    def end(self, carried: _Ahead, draws: Tensors) -> RolloutState:
        """See `GraphSteps`."""
        return self.rollout(_Left(carried, [*carried.packed, *draws, carried.hidden]))

    def turn(self, start: StepInputs) -> _Back:
        """See `GraphSteps`."""
        rollout, (hidden,) = _without_policy(start).rollout, start.rollout.memory
        adjoint = self._packed.adjoint.pack([torch.zeros_like(tensor) for tensor in rollout.differentiable])
        by_observation = hidden.new_zeros(self._kernel.observation_dim, len(hidden))
        return _Back(adjoint, by_observation, torch.zeros_like(hidden.mT), self._kernel.no_sums(hidden))

    def back(self, carried: _Back, left: _Left, pull: Tensors) -> _Back:
        """See `GraphSteps`."""
        before = left.before
        arrived = [carried.adjoint, carried.by_observation]
        (adjoint, by_action, scale), _ = self.backward(arrived, [*left.given, *pull])
        slopes = self._kernel.pull(
            before.weights, before.observation, before.hidden, by_action, carried.by_hidden, scale, carried.sums
        )
        return _Back(adjoint, *slopes, carried.sums)

    def gradient(self, carried: _Back) -> Tensors:
        """See `GraphSteps`."""
        return list(self._kernel.by_parameters(carried.sums))

    def _ahead(self, carried: Tensors, given: Tensors) -> tuple[Tensors, Tensors]:
        *draws, action = given
        after, rollout, outputs = moved(self._flight, self._packed.inputs([*carried, *draws]), action.mT)
        return self._packed.pack(after, carried), [*outputs, component_major(observe(rollout.episode)).mT]

    def _back(self, carried: Tensors, given: Tensors) -> tuple[Tensors, Tensors]:
        packed = self._packed
        tensors, action, pull = given[: packed.num], given[packed.num], given[packed.num + 1 :]
        by_rows, by_observation = carried
        by_state, by_action, scale = self._flight.move_adjoint(
            packed.inputs(tensors), action.mT, packed.adjoint.unpack(by_rows), by_observation.mT, pull
        )
        return [packed.adjoint.pack(by_state), by_action.mT, scale], []


def _without_policy(start: StepInputs) -> StepInputs:
    return start._replace(parameters=(), rollout=start.rollout._replace(memory=()))
