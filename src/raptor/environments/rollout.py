"""Flying vehicles for some steps: the one function behind evaluation, validation, demonstrations and videos.

Controllers are pure functions from what vehicles are in to an action, and a memory of what they did before.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from raptor.core.compilation import CompiledStep, Tensors
from raptor.core.distributed import ALONE, Parts, World, cut
from raptor.environments.collectors import Collector, Episodes, EpisodeTally, Moment, Part, Snapshot
from raptor.environments.episode import Episode, Noise, advance, begin_episode, draw_noise, observe, observe_as_teacher
from raptor.nn.activations import RELU_TANH, Activations
from raptor.nn.policy import MLPParameters, MLPPolicy, PolicyParameters, RaptorPolicy, mlp_step, policy_step
from raptor.nn.policy_kernel import PolicyKernel, policy_kernel
from raptor.nn.stacked_mlp import Layers, act
from raptor.quadrotor.dynamics import Method
from raptor.quadrotor.dynamics import step as own_dynamics
from raptor.quadrotor.parameters import NUM_ROTORS, Quadrotors
from raptor.quadrotor.state import State, component_major, components, from_components
from raptor.tasks.task import Task

BLOCK_STEPS = 50
"""Steps whose noise is drawn at once, which bounds the memory that it takes."""

VEHICLES_AT_ONCE = {"cpu": 2048, "cuda": 65536}
"""How many vehicles it pays to fly at once, by type of device."""

Tree = TypeVar("Tree")


StudentParameters = PolicyParameters | MLPParameters
"""Of a recurrent student, or of one without memory."""

Memory = tuple[Tensor, ...]
"""What a controller remembers, (N, H) each."""


class Controller(Protocol):
    """A pure function of parameters, of what the vehicles are in, and of what it remembers."""

    def act(self, parameters: Any, quadrotors: Quadrotors, episode: Episode, memory: Memory) -> tuple[Tensor, Memory]:
        """Action (..., 4), component by component in memory, and what to remember."""


@dataclasses.dataclass(frozen=True)
class Student:
    """A policy of this package, one for all vehicles; its parameters are `StudentParameters`."""

    precision: str = "float32"  # of the matrix products

    def act(self, parameters: Any, quadrotors: Quadrotors, episode: Episode, memory: Memory) -> tuple[Tensor, Memory]:
        """See `Controller`."""
        return student_step(parameters, observe(episode), memory, self.precision)


@dataclasses.dataclass(frozen=True)
class Teachers:
    """T stacked networks, whose layers are the parameters; each acts for B vehicles, (T, B) or side by side (T B,)."""

    activations: Activations = RELU_TANH

    def act(
        self, parameters: Layers, quadrotors: Quadrotors, episode: Episode, memory: Memory
    ) -> tuple[Tensor, Memory]:
        """See `Controller`; the action lies in [-1, 1], and nothing is remembered."""
        observation = observe_as_teacher(quadrotors, episode)
        if observation.ndim > 2:
            return from_components(components(act(parameters, observation, self.activations))), ()
        own = observation.contiguous().view(len(parameters[0].weight), -1, observation.shape[-1])
        return component_major(act(parameters, own, self.activations).flatten(0, 1)), ()


class Policy(Protocol):
    """What can be evaluated: anything recurrent that maps observations (N, 22) to actions (N, 4)."""

    def initial_hidden_state(self, *shape: int) -> Tensor:
        """Hidden state of a fresh start, (*shape, H)."""

    def __call__(self, observation: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Action (N, 4) and next hidden state (N, H)."""


@dataclasses.dataclass(frozen=True)
class CalledPolicy:
    """Any other policy: it is called before each step, whose parameter its action is, outside of what is compiled."""

    policy: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] = dataclasses.field(compare=False)

    def call(self, observation: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """Action and memory of the policy."""
        action, hidden = self.policy(observation, memory[0])
        return component_major(action.to(observation.device)), (hidden,)

    def act(self, parameters: Any, quadrotors: Quadrotors, episode: Episode, memory: Memory) -> tuple[Tensor, Memory]:
        """See `Controller`."""
        return parameters, memory


@dataclasses.dataclass(frozen=True)
class KernelPolicy:
    """A student whose steps a kernel computes."""

    parameters: PolicyParameters
    kernel: PolicyKernel

    def __call__(self, observation: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """See `Policy`; everything is component by component in memory."""
        action, following = self.kernel.step(self.parameters, observation.mT, hidden.mT)
        return action.mT, following.mT


def student_kernel(controller: Controller, parameters: Any, compile: bool = True) -> PolicyKernel | None:
    """The kernel for a controller, None where there is none: a recurrent student in single precision on a CPU has."""
    plain = compile and controller == Student() and isinstance(parameters, PolicyParameters)
    return policy_kernel(parameters) if plain else None


def student_step(
    parameters: StudentParameters, observation: Tensor, memory: Memory, precision: str = "float32"
) -> tuple[Tensor, Memory]:
    """Action (N, A) of a student for observations (N, D), and what it remembers then."""
    if isinstance(parameters, MLPParameters):
        return mlp_step(parameters, observation, precision), ()
    action, hidden = policy_step(parameters, observation, memory[0], precision)
    return action, (hidden,)


def initial_memory(parameters: StudentParameters, num: int) -> Memory:
    """What a student remembers at the start of `num` episodes: a hidden state (num, H) of zeros, or nothing."""
    if isinstance(parameters, MLPParameters):
        return ()
    return (parameters.output_weight.new_zeros(num, parameters.output_weight.shape[-1]),)


def controller_of(policy: Policy, num: int) -> tuple[Controller, Any, Memory]:
    """What `rollout` begins with: the controller of a policy, its parameters, and its memory for `num` vehicles."""
    hidden = policy.initial_hidden_state(num).detach()
    if not isinstance(policy, (RaptorPolicy, MLPPolicy)):
        return CalledPolicy(policy), (), (hidden,)
    parameters = pytree.tree_map(lambda tensor: tensor.detach().contiguous(), policy.tensors())
    return Student(), parameters, (hidden,) if hidden.shape[-1] else ()


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
    simulate: Callable[..., State] = own_dynamics,
) -> tuple[Episodes, tuple[Any, ...]]:
    """Fly one episode with each vehicle; returns what came of the episodes, and the collectors at the end.

    `controller_of` gives the controller, its parameters and its `memory` at the start, (N, H) each. The vehicles are N,
    or of leading shape (T, B) where the controller says so, on the device of the generator of everything random.
    Episodes `start` where they are drawn, and last as long as the task says, unless told otherwise. Vehicles whose
    episode is over fly on, without adding to return and length.

    `watch` is called at the start and after each step; `stop` is asked before each block of `block_steps` whether to
    end. What they raise ends the rollout, and leaves nothing behind but draws of the generator. `action_noise` is the
    standard deviation of what is added to the actions on their way to the motors.

    The step is compiled once for each task, method, controller, kind of collectors and shape; weights and vehicles are
    its arguments. Compiled, `pad_to` vehicles fly, at least N, by repeating them, which keeps their number the same
    from call to call. With another function than `raptor.quadrotor.step` to `simulate`, nothing is compiled. The
    processes of `world` share the vehicles, `together` in a row of which stay in one process, and each is given
    everything.
    """
    task, compile = task.for_vehicles(quadrotors), compile and simulate is own_dynamics
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
    if (kernel := student_kernel(controller, parameters, compile)) is not None:
        weights = PolicyParameters(*(weight.contiguous() for weight in parameters))
        controller, memory = CalledPolicy(KernelPolicy(weights, kernel)), (component_major(memory[0]),)
    called, seen = (controller, [observe(start)]) if isinstance(controller, CalledPolicy) else (None, [])
    within = (parameters, memory) if called is None else (start.previous_action, ())
    everything = _Carried(within[0], vehicles, start, within[1], begun)
    carried, structure = pytree.tree_flatten(everything)
    _, _, flying, _, collected = Part.of(everything)
    kinds = tuple((tensor.shape, tensor.stride(), tensor.dtype, tensor.device) for tensor in carried)
    acting: Any = controller  # hashable, which its protocol cannot say
    step = _compiled(acting, task, method, structure, kinds, compile, simulate)

    def snapshot(done: int) -> Snapshot:
        return Snapshot(done, carried, flying, collected)

    if watch is not None:
        watch(snapshot(0))
    numbers = torch.arange(num_steps, dtype=like.dtype, device=like.device).unbind()
    for first in range(0, num_steps, block_steps):
        if stop is not None and stop(snapshot(first)):
            break
        block = _draws(task, like, generator, min(block_steps, num_steps - first), action_noise)
        for done, drawn in enumerate(cut(block, shares[world.rank]), start=first):
            if called is not None:
                carried[0], memory = called.call(component_major(seen[0]), memory)
            carried, seen = step(carried, [numbers[done], *drawn])
            if watch is not None:
                watch(snapshot(done + 1))
    tally, *results = _whole(snapshot(num_steps).collectors, len(like), num, shares, world)
    return Episodes(tally.returns, tally.lengths, tally.flying == 0), tuple(results)


@functools.lru_cache(maxsize=64)
def _compiled(
    controller: Controller,
    task: Task,
    method: Method,
    structure: pytree.TreeSpec,
    kinds: Hashable,
    compile: bool,
    simulate: Callable[..., State],
) -> CompiledStep:
    """One step of all that is carried; given are its number, its noise, and that of the actions where there is any.

    Outputs what a `CalledPolicy` observes then.
    """
    num_noise = task.num_noise

    def step(carried: Tensors, given: Tensors) -> tuple[Tensors, Tensors]:
        parameters, quadrotors, episode, memory, collectors = pytree.tree_unflatten(carried, structure)
        number, noise, deviations = given[0], Noise.of(task, given[1 : 1 + num_noise]), given[1 + num_noise :]
        action, memory = controller.act(parameters, quadrotors, episode, memory)
        applied = deviations[0] + action if deviations else action
        after, outcome = advance(task, quadrotors, episode, applied, noise, method, simulate)
        moment = Moment(number, quadrotors, episode, action, after, outcome, collectors[0].flying)
        collectors = tuple(collector.add(moment) for collector in collectors)
        moved = pytree.tree_leaves(_Carried(parameters, quadrotors, after, memory, collectors))
        seen = [observe(after)] if isinstance(controller, CalledPolicy) else []
        return [_laid_out(new, old) for new, old in zip(moved, carried, strict=True)], seen

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
