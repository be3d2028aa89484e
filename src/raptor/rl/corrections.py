"""How much more given episodes can return: corrections of every action of every vehicle, found by gradient.

The episodes, with the motion of their targets, are known in advance, and the controller stays in the loop. What the
corrected actions return is a lower bound of what the best of all controllers could.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from raptor.core.compilation import CompiledStep, Tensors
from raptor.environments.collectors import Episodes
from raptor.environments.episode import Episode, Noise
from raptor.environments.rollout import Controller, Memory
from raptor.quadrotor.parameters import NUM_ROTORS, Quadrotors
from raptor.quadrotor.state import component_major, components, from_components
from raptor.rl.adam import adam_start, adam_step, warmup_cosine
from raptor.rl.analytic_policy_gradient import SegmentGradient
from raptor.rl.objective import Objective
from raptor.rl.segment import RolloutState, StepInputs
from raptor.tasks.task import Task

SURROGATE = Objective(kind="reward", speed_limit=1.8, box_limit=0.9)
"""What is descended in place of the negative return: the reward with rounded norms, and slopes close to the limits."""

FINAL_RATE = 0.01  # of the learning rate


@dataclasses.dataclass(frozen=True)
class Corrected:
    """A controller whose action is corrected; its parameters are those of the other, and corrections (..., 4)."""

    controller: Controller

    def act(self, parameters: Any, quadrotors: Quadrotors, episode: Episode, memory: Memory) -> tuple[Tensor, Memory]:
        """See `Controller`."""
        own, correction = parameters
        action, memory = self.controller.act(own, quadrotors, episode, memory)
        pairs = zip(components(action), components(correction), strict=True)
        return from_components([a + c for a, c in pairs]), memory


class Start(NamedTuple):
    """What does not depend on the corrections: the controller, the vehicles, and where their episodes begin."""

    parameters: Any
    quadrotors: Quadrotors  # N
    rollout: RolloutState


class CorrectedFlights:
    """Whole episodes with given noise, whose actions are corrected, and their gradient by the corrections."""

    def __init__(
        self,
        controller: Controller,
        task: Task,
        start: Start,
        noise: Sequence[Noise],
        objective: Objective = SURROGATE,
        compile: bool = True,
    ) -> None:
        acting = Corrected(controller)
        self._exact = SegmentGradient(task, objective, method="rk4", controller=acting)
        self._adjoint = SegmentGradient(task, objective, method="midpoint", controller=acting)
        self._draws = [[draw for draw in step if draw is not None] for step in noise]
        leaves, self._structure = pytree.tree_flatten(start)
        self._leaves = [tensor if tensor.numel() else tensor.new_empty(tensor.shape) for tensor in leaves]
        self._forward = CompiledStep(self._ahead, compile)
        self._backward = CompiledStep(self._back, compile, what="a step of the gradient")

    def _inputs(self, tensors: Tensors) -> StepInputs:
        """What a step depends on, out of the leaves of `Start`, the corrections and the noise."""
        num = len(self._leaves)
        start: Start = pytree.tree_unflatten(tensors[:num], self._structure)
        return StepInputs((start.parameters, tensors[num]), *start[1:], tuple(tensors[num + 1 :]))

    def _ahead(self, carried: Tensors, given: Tensors) -> tuple[Tensors, Tensors]:
        inputs = self._inputs([*carried, *given])
        moved, _, outcome = self._exact.step(inputs)
        arrived = Start(inputs.parameters[0], inputs.quadrotors, moved)
        return pytree.tree_leaves(arrived), [outcome.reward, outcome.terminated]

    def _back(self, carried: Tensors, given: Tensors) -> tuple[Tensors, Tensors]:
        (_, slope), before = self._adjoint.step_adjoint(self._inputs(given), tuple(carried))
        return before, [slope]

    @torch.no_grad()
    def fly(self, corrections: Tensor) -> tuple[Episodes, list[Tensors]]:
        """What comes of episodes with corrections (S, 4, N), and the inputs of each step."""
        carried, trail, rewards, ends = self._leaves, [], [], []
        for correction, draws in zip(corrections, self._draws, strict=True):
            given = [correction.mT, *draws]
            trail.append([*carried, *given])
            carried, (reward, terminated) = self._forward(carried, given)
            rewards.append(reward)
            ends.append(terminated)
        over = torch.stack(ends)
        flown = over.cumsum(0) - over.long() == 0  # up to and including the step that ends the episode
        returns = torch.where(flown, torch.stack(rewards), 0.0).sum(0)
        return Episodes(returns, flown.sum(0).to(returns.dtype), over.any(0)), trail

    @torch.no_grad()
    def gradient(self, trail: Sequence[Tensors]) -> Tensor:
        """Gradient (S, 4, N) of the objective, summed over the steps, by the corrections."""
        last: Start = pytree.tree_unflatten(trail[-1][: len(self._leaves)], self._structure)
        carried = [torch.zeros_like(tensor) for tensor in last.rollout.differentiable]
        slopes = []
        for tensors in reversed(trail):
            carried, (slope,) = self._backward(carried, tensors)
            slopes.append(slope.mT)
        return torch.stack(slopes[::-1])


@torch.no_grad()
def correct(
    controller: Controller,
    parameters: Any,
    memory: Memory,
    task: Task,
    quadrotors: Quadrotors,
    start: Episode,
    noise: Sequence[Noise],
    *,
    objective: Objective = SURROGATE,
    num_updates: int = 300,
    learning_rate: float = 0.03,
    compile: bool = True,
    stop: Callable[[int, Episodes], bool] | None = None,
) -> tuple[Episodes, Tensor]:
    """Optimise corrections of the actions of N vehicles, one episode each of as many steps as there is noise.

    Adam descends the `objective`; rated is each iterate by the task's own reward and termination, the uncorrected
    actions too. `controller_of` gives the first three arguments. `stop` is asked after each update, with its number and
    the best so far, whether to end.

    Returns:
        Of each vehicle's best iterate, what came of the episode, and the corrections (S, 4, N).
    """
    given = quadrotors, start, memory
    vehicles, begun, memory = pytree.tree_map(lambda tensor: component_major(tensor, tensor.ndim - 1), given)
    rollout = RolloutState(begun, memory, torch.ones_like(quadrotors.mass))
    flights = CorrectedFlights(
        controller, task.for_vehicles(quadrotors), Start(parameters, vehicles, rollout), noise, objective, compile
    )
    corrections = quadrotors.mass.new_zeros(len(noise), NUM_ROTORS, len(quadrotors))
    best, chosen, adam = None, corrections, adam_start(corrections)
    for update in range(num_updates + 1):
        episodes, trail = flights.fly(corrections)
        better = episodes.returns > (torch.full_like(episodes.returns, -torch.inf) if best is None else best.returns)
        best = episodes if best is None else Episodes(*map(torch.where, [better] * 3, episodes, best))
        chosen = torch.where(better, corrections, chosen)
        if (stop is not None and stop(update, best)) or update == num_updates:
            break
        rate = warmup_cosine(learning_rate, FINAL_RATE, update / num_updates, update, 1)
        corrections, adam = adam_step(corrections, flights.gradient(trail), adam, rate)
    assert best is not None
    return best, chosen
