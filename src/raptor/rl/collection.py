"""Experience of a population: T stochastic actors, each in E environments, one compiled step for all.

The step works in place, so that it can be part of a captured graph.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from raptor.core.compilation import FlatFunction, Tensors, compile_flat
from raptor.environments.episode import Episode, Noise, advance, draw_noise, observe_as_teacher
from raptor.nn.stacked_mlp import Layers
from raptor.quadrotor.parameters import Quadrotors
from raptor.quadrotor.state import component_major
from raptor.rl.flight import in_bounds
from raptor.rl.sac import sample_action
from raptor.tasks.task import Task

BLOCK_STEPS = 50
"""Steps for which starts and noise are drawn at once."""

Begin = Callable[[Quadrotors, torch.Generator], Episode]


class Experience(NamedTuple):
    """One step of every environment of every actor."""

    observation: Tensor  # (T, E, 26)
    action: Tensor  # (T, E, 4)
    reward: Tensor  # (T, E)
    terminated: Tensor  # (T, E) bool
    truncated: Tensor  # (T, E) bool
    next_observation: Tensor  # (T, E, 26) what the step led to, before any new episode
    lost: Tensor  # (T, E) bool; whether the vehicle left the bounds within which its numbers mean something


class _Block(NamedTuple):
    """What K steps consume; the environments of step k stand at k E to (k + 1) E along the second axis."""

    starts: Episode  # (T, K E)
    noise: tuple[Tensor, ...]  # (T, K E, ...) each; the fields of `Noise` that the task needs
    action_noise: Tensor  # (T, K E, 4)


class _Standing(NamedTuple):
    """What is carried from step to step."""

    episode: Episode  # (T, E)
    length: Tensor  # (T, E) steps of the episode so far


class Collector:
    """Flies T vehicles, E times each, and begins anew where an episode ended; nothing is read back from the device.

    Args:
        task: what is flown.
        quadrotors: T vehicles.
        num_envs: E.
        begin: draws the episodes of a population of leading shape (T, n); it may hold a curriculum.
        generator: of everything that is drawn, on the device of the vehicles.
        compile: False runs eagerly.
        block_steps: steps for which starts and noise are drawn at once.
    """

    def __init__(
        self,
        task: Task,
        quadrotors: Quadrotors,
        num_envs: int,
        begin: Begin,
        generator: torch.Generator,
        compile: bool = True,
        block_steps: int = BLOCK_STEPS,
    ) -> None:
        self.task = task.for_vehicles(quadrotors)
        self.num_envs, self.generator, self.block_steps = num_envs, generator, block_steps
        self._begin = begin
        self._quadrotors = grid(quadrotors, num_envs)
        self._for_block = grid(quadrotors, num_envs * block_steps)
        self._fixed, self._vehicles = pytree.tree_flatten(self._quadrotors)
        standing = _Standing(self._starts(self._quadrotors), torch.zeros_like(self._quadrotors.mass))
        self._carried, self._structure = pytree.tree_flatten(pytree.tree_map(_copied, standing))
        self._block: Tensors = []
        self._block_structure = pytree.tree_structure(None)
        self._place = torch.zeros((), dtype=torch.long, device=quadrotors.device)
        self._left = 0
        self._weights = pytree.tree_structure(None)
        self._compile = compile
        self._compiled: FlatFunction | None = None

    @torch.no_grad()
    def step(self, actor: Layers) -> Experience:
        """Act once in every environment; `actor` as in `sample_action`. Draws first, where nothing is left."""
        if self._left == 0:
            self.draw()
        weights, self._weights = pytree.tree_flatten(actor)
        tensors = [*self._carried, *weights, *self._fixed, *self._block, self._place]
        if self._compiled is None:
            self._compiled = compile_flat(self._step, [_copied(tensor) for tensor in tensors], self._compile)
        outputs = self._compiled(*tensors)
        self._left -= 1
        return Experience(*outputs)

    def _step(self, *tensors: Tensor) -> Tensors:
        carried, given = tensors[: len(self._carried)], tensors[len(self._carried) :]
        moved, outputs = self._transition(list(carried), list(given))
        for old, new in zip(carried, moved, strict=True):
            old.copy_(new)
        given[-1].add_(1)
        return outputs

    @torch.no_grad()
    def draw(self) -> None:
        """Draw what the next `block_steps` steps consume, instead of what is left."""
        draws = draw_noise(self.task, self._for_block.mass, self.generator)[0]
        noise = tuple(draw for draw in draws if draw is not None)
        shape = (*self._for_block.mass.shape, 4)
        action_noise = torch.randn(shape, generator=self.generator, device=self.generator.device)
        block = _Block(self._starts(self._for_block), noise, action_noise)
        leaves, self._block_structure = pytree.tree_flatten(block)
        if not self._block:
            self._block = [_copied(leaf) for leaf in leaves]
        else:
            for old, new in zip(self._block, leaves, strict=True):
                old.copy_(new)
        self._place.zero_()
        self._left = self.block_steps

    def _starts(self, quadrotors: Quadrotors) -> Episode:
        episode: Episode = pytree.tree_map(_laid_out, self._begin(quadrotors, self.generator))
        return episode

    def _transition(self, carried: Tensors, given: Tensors) -> tuple[Tensors, Tensors]:
        standing: _Standing = pytree.tree_unflatten(carried, self._structure)
        num = self._weights.num_leaves
        weights, rest = given[:num], given[num:]
        vehicles, rest = rest[: len(self._fixed)], rest[len(self._fixed) :]
        quadrotors: Quadrotors = pytree.tree_unflatten(vehicles, self._vehicles)
        *block_leaves, place = rest
        columns = place * self.num_envs + torch.arange(self.num_envs, device=place.device)
        block: _Block = pytree.tree_map(
            lambda tensor: tensor.index_select(1, columns), pytree.tree_unflatten(block_leaves, self._block_structure)
        )
        observation = observe_as_teacher(quadrotors, standing.episode)
        actor = pytree.tree_unflatten(weights, self._weights)
        action, _ = sample_action(actor, observation, block.action_noise)
        moved, rating = advance(self.task, quadrotors, standing.episode, component_major(action), Noise(*block.noise))
        length = standing.length + 1
        # A vehicle that is lost would go on as NaN; its reward is that of any other termination.
        lost = in_bounds(quadrotors, moved.state) == 0
        terminated = rating.terminated | lost
        truncated = ~terminated & (length >= self.task.episode_steps)
        reached = torch.nan_to_num(observe_as_teacher(quadrotors, moved), posinf=0.0, neginf=0.0)
        over = terminated | truncated

        def restart(new: Tensor, old: Tensor) -> Tensor:
            return torch.where(over.view(*over.shape, *[1] * (old.ndim - 2)), new, old)

        carried_on = pytree.tree_map(restart, block.starts, moved)
        standing = _Standing(pytree.tree_map(_laid_out, carried_on), torch.where(over, 0.0, length))
        kept = [torch.nan_to_num(tensor) for tensor in (action, rating.reward)]
        outputs = [observation, *kept, terminated, truncated, reached, lost]
        return pytree.tree_leaves(standing), [tensor.contiguous() for tensor in outputs]

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on, but the generator."""
        return {
            "carried": [_copied(tensor) for tensor in self._carried],
            "block": [_copied(tensor) for tensor in self._block],
            "place": self.block_steps - self._left,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go back to where `state_dict` was called."""
        self.draw()  # for the structure of a block
        for old, stored in zip(self._carried, state["carried"], strict=True):
            old.copy_(stored)
        if state["block"]:
            for old, stored in zip(self._block, state["block"], strict=True):
                old.copy_(stored)
        self._left = self.block_steps - state["place"]
        self._place.fill_(state["place"])


def grid(quadrotors: Quadrotors, num: int) -> Quadrotors:
    """Each of T vehicles `num` times: a population of leading shape (T, num), in component-major layout."""
    plain = dataclasses.replace(quadrotors, names=None, documents=None)
    repeated = plain.repeat_interleave(num).map(lambda tensor: tensor.unflatten(0, (-1, num)))
    return repeated.component_major()


def _laid_out(tensor: Tensor) -> Tensor:
    """The layout in which the simulator computes: component by component over the population (T, E)."""
    return component_major(tensor, tensor.ndim - 2)


def _copied(tensor: Tensor) -> Tensor:
    """A copy in the same memory layout, which nothing else writes to."""
    return tensor.clone(memory_format=torch.preserve_format)
