"""Flying vehicles for some steps: the one function behind evaluation, validation, demonstrations and videos."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from raptor.core.compilation import CompiledStep, Tensors
from raptor.core.distributed import ALONE, Parts, World, cut
from raptor.environments.collectors import Collector, Episodes, EpisodeTally, Moment, Snapshot
from raptor.environments.controllers import CalledPolicy, Controller, Memory
from raptor.environments.episode import Episode, Noise, StepOutcome, advance, begin_episode, draw_noise
from raptor.quadrotor.dynamics import Method
from raptor.quadrotor.parameters import NUM_ROTORS, Quadrotors
from raptor.quadrotor.state import component_major
from raptor.tasks.task import Task

BLOCK_STEPS = 50
"""Steps whose noise is drawn at once, which bounds the memory that it takes."""

VEHICLES_AT_ONCE = {"cpu": 2048, "cuda": 65536}
"""How many vehicles it pays to fly at once, by type of device."""

Tree = TypeVar("Tree")


class Transition(NamedTuple):
    """One step of a controller and the vehicles; the leading shape (...) is that of the vehicles."""

    action: Tensor  # (..., 4) of the controller, before any noise is added
    memory: Memory
    episode: Episode  # after the step
    outcome: StepOutcome


class _Carried(NamedTuple):
    """What is carried from step to step."""

    parameters: Any
    quadrotors: Quadrotors
    episode: Episode
    memory: Memory
    collectors: tuple[Any, ...]  # the tally of the episodes is the first


@torch.no_grad()
def rollout(
    controller: Controller,
    parameters: Any,
    memory: Memory,
    task: Task,
    quadrotors: Quadrotors,
    generator: torch.Generator,
    *,
    start: Episode | None = None,
    num_steps: int | None = None,
    collectors: Sequence[Collector] = (),
    watch: Callable[[Snapshot], None] | None = None,
    stop: Callable[[Snapshot], bool] | None = None,
    method: Method = "rk4",
    action_noise: float = 0.0,
    pad_to: int | None = None,
    compile: bool = True,
    world: World = ALONE,
    together: int = 1,
    block_steps: int = BLOCK_STEPS,
) -> tuple[Episodes, tuple[Any, ...]]:
    """Fly one episode with each vehicle.

    The step is compiled once for each task, method, controller, kind of collectors and shape; weights and vehicles are
    its arguments. Vehicles whose episode is over fly on, without adding to return and length. What `watch` or `stop`
    raises ends the rollout, and leaves nothing behind but draws of the generator.

    Args:
        controller: acts; see `controller_of` for the first three.
        parameters: of the controller, nested tensors.
        memory: what the controller remembers at the start, (N, H) each.
        task: gives observation, reward and termination.
        quadrotors: N vehicles; of leading shape (T, B) where the controller says so.
        generator: of everything random, on the device of the vehicles.
        start: where the episodes begin; drawn by default.
        num_steps: length of the rollout; the task's by default.
        collectors: as they begin.
        watch: called at the start and after each step.
        stop: asked before each block of steps whether to end.
        method: integrator.
        action_noise: standard deviation of what is added to the actions on their way to the motors.
        pad_to: compiled, fly so many vehicles, at least N, by repeating them: code is compiled for one number of
            vehicles, which this keeps the same from call to call.
        compile: False runs eagerly.
        world: the processes that share the vehicles; each is given everything that comes of them.
        together: so many vehicles in a row stay in one process.
        block_steps: steps whose noise is drawn at once.

    Returns:
        What came of the episodes, and the collectors at the end, on the device of the vehicles.
    """
    task = task.for_vehicles(quadrotors)
    num_steps = task.episode_steps if num_steps is None else num_steps
    start = begin_episode(task, quadrotors, generator) if start is None else start
    num, axes, zero = len(quadrotors), quadrotors.mass.ndim, torch.zeros_like(quadrotors.mass)

    def component_wise(tensor: Tensor) -> Tensor:
        return component_major(tensor, tensor.ndim - axes)

    flown: Any = (quadrotors, start, (EpisodeTally(torch.ones_like(zero), zero, zero), *collectors))
    if compile and pad_to is not None and pad_to != num:
        places = torch.arange(pad_to, device=quadrotors.device) % num
        flown, memory = pytree.tree_map(lambda tensor: tensor[places], (flown, memory))
        flown = pytree.tree_map(component_wise, flown)
    like = flown[0].mass
    shares = [slice(together * s.start, together * s.stop) for s in Parts(world).shares(len(like) // together)]
    vehicles, start, begun, memory = cut((*flown, memory), shares[world.rank])
    vehicles, start = pytree.tree_map(component_wise, (vehicles, start))
    parameters, memory = pytree.tree_map(lambda tensor: tensor.detach().to(like.device), (parameters, memory))
    called = controller if isinstance(controller, CalledPolicy) else None
    within = (parameters, memory) if called is None else (start.previous_action, ())
    carried, structure = pytree.tree_flatten(_Carried(within[0], vehicles, start, within[1], begun))
    kinds = tuple((tensor.shape, tensor.stride(), tensor.dtype, tensor.device) for tensor in carried)
    acting: Any = controller  # hashable, which its protocol cannot say
    step = _compiled(acting, task, method, structure, kinds, compile)

    def snapshot(done: int) -> Snapshot:
        now: _Carried = pytree.tree_unflatten(carried, structure)
        return Snapshot(done, now.episode, now.collectors)

    if watch is not None:
        watch(snapshot(0))
    numbers = torch.arange(num_steps, dtype=like.dtype, device=like.device).unbind()
    for first in range(0, num_steps, block_steps):
        if stop is not None and stop(snapshot(first)):
            break
        block = _draws(task, like, generator, min(block_steps, num_steps - first), action_noise)
        for done, drawn in enumerate(cut(block, shares[world.rank]), start=first):
            if called is not None:
                carried[0], memory = called.call(snapshot(done).episode, memory)
            carried, _ = step(carried, [numbers[done], *drawn])
            if watch is not None:
                watch(snapshot(done + 1))
    tally, *collected = _whole(snapshot(num_steps).collectors, len(like), num, shares, world)
    return Episodes(tally.returns, tally.lengths, tally.flying == 0), tuple(collected)


@functools.lru_cache(maxsize=64)
def _compiled(
    controller: Controller, task: Task, method: Method, structure: pytree.TreeSpec, kinds: Hashable, compile: bool
) -> CompiledStep:
    """One step of all that is carried; given are its number, its noise, and that of the actions where there is any."""
    num_noise = 1 + task.sensing.noisy

    def step(carried: Tensors, given: Tensors) -> tuple[Tensors, Tensors]:
        parameters, quadrotors, episode, memory, collectors = pytree.tree_unflatten(carried, structure)
        number, noise, deviations = given[0], Noise(*given[1 : 1 + num_noise]), given[1 + num_noise :]
        action, memory = controller.act(parameters, quadrotors, episode, memory)
        applied = deviations[0] + action if deviations else action
        after, outcome = advance(task, quadrotors, episode, applied, noise, method)
        moment = Moment(number, quadrotors, episode, action, after, outcome, collectors[0].flying)
        collectors = tuple(collector.add(moment) for collector in collectors)
        moved = pytree.tree_leaves(_Carried(parameters, quadrotors, after, memory, collectors))
        return [_laid_out(new, old) for new, old in zip(moved, carried, strict=True)], []

    return CompiledStep(step, compile)


def _laid_out(tensor: Tensor, like: Tensor) -> Tensor:
    """The same numbers in the memory order of `like`, for which the next step is compiled."""
    if tensor.stride() == like.stride():
        return tensor
    order = sorted(range(like.ndim), key=like.stride, reverse=True)
    return tensor.permute(order).contiguous().permute([order.index(axis) for axis in range(like.ndim)])


def _draws(task: Task, like: Tensor, generator: torch.Generator, num: int, action_noise: float) -> list[Tensors]:
    """What each of `num` steps consumes: noise of the task, then of the actions, where there is any."""
    steps = [[draw for draw in noise if draw is not None] for noise in draw_noise(task, like, generator, num)]
    if action_noise:
        shape = (num, NUM_ROTORS, *like.shape)
        deviation = action_noise * torch.randn(shape, generator=generator, dtype=like.dtype, device=like.device)
        steps = [[*drawn, own] for drawn, own in zip(steps, deviation.movedim(1, -1), strict=True)]
    return steps


def _whole(tree: Tree, num_flown: int, num: int, shares: Sequence[slice], world: World) -> Tree:
    """The first `num` vehicles of those that all processes flew together."""

    def gather(own: Tensor) -> Tensor:
        if world.size == 1:
            return own[:num]
        whole = own.new_empty(num_flown, *own.shape[1:])
        whole[shares[world.rank]] = own
        world.all_gather_into(whole, shares)
        return whole[:num]

    result: Tree = pytree.tree_map(gather, tree)
    return result
