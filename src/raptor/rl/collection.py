"""Experience for soft actor-critic: T stochastic actors, each in E environments, one compiled step for all.

The step works in place, so that it can be part of a captured graph.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from raptor.core.compilation import FlatFunction, Tensors, compile_flat
from raptor.environments.episode import Episode, Noise, advance, draw_noise, observe_as_teacher
from raptor.nn.stacked_mlp import Layers
from raptor.quadrotor.parameters import Quadrotors
from raptor.quadrotor.state import component_major
from raptor.rl.objective import in_bounds
from raptor.rl.replay import Experience
from raptor.rl.sac import sample_action
from raptor.tasks.task import Task

BLOCK_STEPS = 50
"""Steps for which starts and noise are drawn at once."""


@dataclasses.dataclass(eq=False)
class ExperienceCollector:
    """Flies T vehicles, E times each, and begins anew where an episode ended; nothing is read back from the device."""

    task: Task  # defines the episodes
    quadrotors: dataclasses.InitVar[Quadrotors]  # T
    num_envs: int  # E
    _: dataclasses.KW_ONLY
    begin: Callable[[Quadrotors, torch.Generator], Episode]  # draws the episodes of (T, n); it may hold a curriculum
    generator: torch.Generator  # of everything that is drawn, on the device of the vehicles
    compile: bool = True  # False runs eagerly
    block_steps: int = BLOCK_STEPS  # steps for which starts and noise are drawn at once

    def __post_init__(self, quadrotors: Quadrotors) -> None:
        self.task = self.task.for_vehicles(quadrotors)
        everyone, self._for_block = (grid(quadrotors, self.num_envs * steps) for steps in (1, self.block_steps))
        carried = _laid_out(self.begin(everyone, self.generator)), torch.zeros_like(everyone.mass)  # and steps so far
        state = self.generator.get_state()
        block = self._drawn()  # of the same shapes as the first one, which is not drawn yet
        self.generator.set_state(state)
        place = torch.zeros((), dtype=torch.long, device=quadrotors.device)
        self._left = 0  # steps for which the block still has inputs
        self._inputs = pytree.tree_map(_copied, (carried, everyone, block, place))  # of a step, besides the actor
        self._leaves = pytree.tree_leaves(self._inputs)
        self._compiled: FlatFunction | None = None

    @torch.no_grad()
    def step(self, actor: Layers) -> tuple[Experience, Tensor]:
        """Act once in every environment; `actor` as in `sample_action`.

        Also returns where a vehicle left the bounds within which its numbers mean something, and so terminated, (T, E).
        """
        if self._left == 0:
            self.draw()
        tensors = [*pytree.tree_leaves(actor), *self._leaves]
        if self._compiled is None:
            step = functools.partial(self._step, pytree.tree_structure((actor, *self._inputs)))
            self._compiled = compile_flat(step, [_copied(tensor) for tensor in tensors], self.compile)
        *experience, lost = self._compiled(*tensors)
        self._left -= 1
        return Experience(*experience), lost

    @torch.no_grad()
    def draw(self) -> None:
        """Draw the inputs of the next `block_steps` steps, in place of what is left."""
        _, _, block, place = self._inputs
        _overwrite(block, self._drawn())
        place.zero_()
        self._left = self.block_steps

    def _drawn(self) -> tuple[Episode, tuple[Tensor, ...], Tensor]:
        """Starts, noise, and noise of the actions of K steps; those of step k are at k E to (k + 1) E of (T, K E)."""
        draws = draw_noise(self.task, self._for_block.mass, self.generator)[0]
        noise = tuple(draw for draw in draws if draw is not None)
        shape = (*self._for_block.mass.shape, 4)
        action_noise = torch.randn(shape, generator=self.generator, device=self.generator.device)
        return _laid_out(self.begin(self._for_block, self.generator)), noise, action_noise

    def _step(self, structure: pytree.TreeSpec, *tensors: Tensor) -> Tensors:
        actor, (episode, length), quadrotors, block, place = pytree.tree_unflatten(list(tensors), structure)
        columns = place * self.num_envs + torch.arange(self.num_envs, device=place.device)
        starts, noise, action_noise = pytree.tree_map(lambda tensor: tensor.index_select(1, columns), block)
        observation = observe_as_teacher(quadrotors, episode)
        action, _ = sample_action(actor, observation, action_noise)
        moved, outcome = advance(self.task, quadrotors, episode, component_major(action), Noise.of(self.task, noise))
        # A vehicle that is lost would go on as NaN; its reward is that of any other termination.
        target = moved.reference if self.task.termination.about_target else None
        lost = in_bounds(quadrotors, moved.state, target) == 0
        terminated = outcome.terminated | lost
        truncated = ~terminated & (length + 1 >= self.task.episode_steps)
        reached = torch.nan_to_num(observe_as_teacher(quadrotors, moved), posinf=0.0, neginf=0.0)
        over = terminated | truncated

        def restart(new: Tensor, old: Tensor) -> Tensor:
            return torch.where(over.view(*over.shape, *[1] * (old.ndim - 2)), new, old)

        kept = [torch.nan_to_num(tensor) for tensor in (action, outcome.reward)]
        outputs = [observation, *kept, terminated, truncated, reached, lost]
        outputs = [tensor.contiguous() for tensor in outputs]
        following = _laid_out(pytree.tree_map(restart, starts, moved)), torch.where(over, 0.0, length + 1)
        _overwrite((episode, length), following)
        place.add_(1)
        return outputs

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on, but the generator."""
        carried, block = ([_copied(t) for t in pytree.tree_leaves(self._inputs[part])] for part in (0, 2))
        return {"carried": carried, "block": block, "place": self.block_steps - self._left}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go back to where `state_dict` was called."""
        carried, _, block, place = self._inputs
        _overwrite((carried, block), (state["carried"], state["block"]))
        self._left = self.block_steps - state["place"]
        place.fill_(state["place"])


def grid(quadrotors: Quadrotors, num: int) -> Quadrotors:
    """Each of T vehicles `num` times: a population of leading shape (T, num), in component-major layout."""
    plain = dataclasses.replace(quadrotors, names=None, documents=None)
    repeated = plain.repeat_interleave(num).map(lambda tensor: tensor.unflatten(0, (-1, num)))
    return repeated.component_major()


def _laid_out(episode: Episode) -> Episode:
    """The layout in which the simulator computes: component by component over the population (T, E)."""
    turned: Episode = pytree.tree_map(lambda tensor: component_major(tensor, tensor.ndim - 2), episode)
    return turned


def _copied(tensor: Tensor) -> Tensor:
    """A copy in the same memory layout, which nothing else writes to."""
    return tensor.clone(memory_format=torch.preserve_format)


def _overwrite(old: Any, new: Any) -> None:
    for target, source in zip(pytree.tree_leaves(old), pytree.tree_leaves(new), strict=True):
        target.copy_(source)
