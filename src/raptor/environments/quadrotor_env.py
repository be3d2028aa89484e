"""N vehicles at once, torch in and out; and the keyword arguments that all interfaces share."""

from __future__ import annotations

import dataclasses
import pkgutil
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from raptor.core.compilation import CompiledStep, Tensors, steps_before_compiling
from raptor.core.devices import find_device
from raptor.core.errors import UserError
from raptor.environments.episode import Episode, Noise, advance, begin_episode, draw_noise, observe
from raptor.quadrotor import dynamics
from raptor.quadrotor.parameters import Quadrotors
from raptor.quadrotor.population import sample_quadrotors
from raptor.quadrotor.reader import Source, load_quadrotors
from raptor.quadrotor.state import State, difference, norm
from raptor.tasks.reference import Reference
from raptor.tasks.task import Task, make_task

Tree = TypeVar("Tree")

SIMULATORS = {
    "raptor": None,
    "l2f": "raptor.interop.l2f:L2FSimulator",
    "mujoco": "raptor.interop.mujoco:MujocoSimulator",
}
"""Simulators by name, as import strings; None is the dynamics of this package."""


class StepResult(NamedTuple):
    """Result of one step of N vehicles, in Gymnasium's order.

    `info` belongs to the episode that the step was part of, even if it ended: `final_observation` (N, 22);
    `position_error` (N,) m, the distance from the target; `episode_return` (N,), the sum of rewards so far, without
    gradient; `episode_length` (N,) int64, the steps so far.
    """

    observation: Tensor  # (N, 22) to act upon next: the first one of the new episode where one was begun
    reward: Tensor  # (N,)
    terminated: Tensor  # (N,) bool; the vehicle left its bounds
    truncated: Tensor  # (N,) bool; the episode reached its last step within bounds
    info: dict[str, Tensor]

    @property
    def done(self) -> Tensor:
        """(N,) bool; whether the episode ended."""
        return self.terminated | self.truncated


class _Progress(NamedTuple):
    episode: Episode
    episode_return: Tensor  # (N,)
    episode_length: Tensor  # (N,)


class QuadrotorEnv:
    """A task, by default `Task()`, and N vehicles, on their device or another.

    The gradient of a reward reaches all actions of its episode since the last `detach`. Tensors that were returned are
    never written to. Everything random is drawn from one generator.

    Args:
        compile: False runs eagerly; None does so until that has taken as long as compiling.
        auto_reset: begin a new episode within the step that ended one. Otherwise vehicles fly on until `reset`.
        resample: True draws a new vehicle of the published distribution for each episode; a function (number,
            generator) returns that many vehicles instead. Then `quadrotors` only give number, device and precision.
        simulator: called in place of `raptor.quadrotor.step`, as `raptor.interop.l2f.L2FSimulator`; its
            `begin(quadrotors, indices, generator)` begins episodes of the vehicles at `indices` (None: of all). Nothing
            is compiled then.
    """

    quadrotors: Quadrotors  # N; of the present episodes
    task: Task  # of all vehicles, with `exact_rotors` decided
    generator: torch.Generator  # that everything random is drawn from
    auto_reset: bool  # whether `step` begins a new episode where one ended

    def __init__(
        self,
        quadrotors: Quadrotors,
        task: Task | None = None,
        *,
        seed: int = 0,
        device: torch.device | str | None = None,
        compile: bool | None = None,
        auto_reset: bool = True,
        resample: bool | Callable[[int, torch.Generator], Quadrotors] = False,
        method: dynamics.Method = "rk4",
        simulator: Any = None,
    ) -> None:
        self.quadrotors = quadrotors.to(None if device is None else find_device(device)).component_major()
        self.task = (task or Task()).for_vehicles(self.quadrotors)
        self.auto_reset, self.generator = auto_reset, torch.Generator(self.quadrotors.device).manual_seed(seed)
        self._resample, self._method, self._simulator = resample, method, simulator
        self._fixed = pytree.tree_leaves(self.quadrotors)
        self._leaves: Tensors = []  # of `_Progress`
        self._structure = pytree.tree_structure(None)
        self._compile = False if simulator is not None else compile
        self._move = self._compiled_step()

    def __len__(self) -> int:
        return len(self.quadrotors)

    def __repr__(self) -> str:
        """What flies, what it has to do, how a step is computed, and where the episodes stand."""
        own, now = self.quadrotors, "none has begun: call reset()"
        names = list(dict.fromkeys(own.names or ("without names",)))
        named = ", ".join([*names[:4], *(["..."] if names[4:] else [])])
        new = ", new ones for each episode" if self._resample else ""
        if self._leaves:
            away, seen = _span(self.position_error), tuple(self.observation.shape)
            now = f"step {_span(self.episode_length)}, {away} m from the target; observation {seen}"
        by = type(self._simulator).__name__ if self._simulator else self._method
        how = {True: "compiled", False: "eager", None: "compiled once that pays"}[self._compile]
        lines = {
            "quadrotors": f"{named}{new}; mass {_span(own.mass)} kg, thrust-to-weight {_span(own.thrust_to_weight)}",
            "task": self.task.summary,
            "step": f"{by}, {how}; action ({len(self)}, 4) in [-1, 1], one for each rotor",
            "episodes": now,
        }
        head = f"QuadrotorEnv of {len(self)} vehicles on {own.device}"
        return "\n".join([head, *(f"  {name:11} {line}" for name, line in lines.items())])

    @property
    def num_envs(self) -> int:
        """N."""
        return len(self)

    @property
    def episode(self) -> Episode:
        """The present episodes."""
        return self._progress.episode

    @property
    def state(self) -> State:
        """Position, orientation, velocities and rotor speeds of each vehicle now; (N, ...) each."""
        return self.episode.state

    @property
    def reference(self) -> Reference:
        """Position and velocity of each vehicle's target now; (N, ...) each."""
        return self.episode.reference

    @property
    def observation(self) -> Tensor:
        """(N, 22) that `reset` or `step` returned last."""
        return observe(self.episode)

    @property
    def position_error(self) -> Tensor:
        """(N,) m; distance of each vehicle from its target."""
        return _position_error(self.episode)

    @property
    def episode_length(self) -> Tensor:
        """(N,) int64; steps of the present episodes. May be assigned, with numbers below `task.episode_steps`."""
        return self._progress.episode_length

    @episode_length.setter
    def episode_length(self, lengths: Tensor) -> None:
        old, most = self._progress.episode_length, self.task.episode_steps
        if lengths.shape != old.shape or lengths.is_floating_point() or not ((lengths >= 0) & (lengths < most)).all():
            wanted = f"whole numbers from 0 to {most - 1}"
            raise UserError(f"the lengths of {len(self)} episodes must be {wanted}, got {lengths}")
        self._leaves = [*self._leaves[:-1], lengths.to(old)]

    def reset(self, seed: int | None = None, mask: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Begin episodes of the vehicles in `mask` (N,), by default all; returns observation and `position_error`."""
        if seed is not None:
            self.generator.manual_seed(seed)
        if mask is None or not self._leaves:
            self._leaves, self._structure = pytree.tree_flatten(self._begin(None))
        else:
            self._begin_some(mask.to(self.quadrotors.device).nonzero().squeeze(-1))
        return self.observation, {"position_error": self.position_error}

    def step(self, action: Tensor) -> StepResult:
        """Apply one action (N, 4) to each vehicle for `task.dt` seconds; beyond [-1, 1] the motors get it clipped."""
        if not self._leaves:
            raise UserError("no episode has begun: call reset() before step()")
        if action.shape != (len(self), 4):
            raise UserError(f"the action must have shape ({len(self)}, 4), got {tuple(action.shape)}")
        noise = draw_noise(self.task, self.quadrotors.mass, self.generator)[0]
        given = [*self._fixed, action.to(self.quadrotors.mass), *(draw for draw in noise if draw is not None)]
        self._leaves, (final, reward, terminated, truncated, error) = self._move(self._leaves, given)
        *_, total, length = self._leaves
        info = {"final_observation": final, "position_error": error, "episode_return": total, "episode_length": length}
        result = StepResult(final, reward, terminated, truncated, info)
        if self.auto_reset and len(ended := result.done.nonzero().squeeze(-1)):
            fresh = self._begin_some(ended)
            return result._replace(observation=_replace_some(final, ended, observe(fresh.episode)))
        return result

    def detach(self) -> None:
        """Cut the gradient: later rewards do not reach the actions taken so far."""
        self._leaves = [leaf.detach() for leaf in self._leaves]

    @property
    def _progress(self) -> _Progress:
        if not self._leaves:
            raise UserError("no episode has begun: call reset() first")
        return pytree.tree_unflatten(self._leaves, self._structure)  # type: ignore[no-any-return]

    def _compiled_step(self) -> CompiledStep:
        patience = steps_before_compiling(len(self)) if self._compile is None else 0
        structure = pytree.tree_structure(self.quadrotors)
        num, simulate = structure.num_leaves, self._simulator or dynamics.step

        def step(carried: Tensors, given: Tensors) -> tuple[Tensors, Tensors]:
            """One step of all `_Progress`; `given` are the leaves of the vehicles, the action and the noise."""
            before, total, length = pytree.tree_unflatten(carried, self._structure)
            quadrotors, noise = pytree.tree_unflatten(given[:num], structure), Noise.of(self.task, given[num + 1 :])
            after, outcome = advance(self.task, quadrotors, before, given[num], noise, self._method, simulate)
            reward, over, _ = outcome
            length = length + 1
            truncated = ~over & (length >= self.task.episode_steps)
            moved = _Progress(after, total + reward.detach(), length)
            return pytree.tree_leaves(moved), [observe(after), reward, over, truncated, _position_error(after)]

        return CompiledStep(step, self._compile is not False, patience)

    def _begin(self, indices: Tensor | None) -> _Progress:
        quadrotors = self.quadrotors if indices is None else self.quadrotors[indices].component_major()
        if self._resample:
            quadrotors = self._draw(len(quadrotors))
            self.quadrotors = quadrotors if indices is None else _replace_some(self.quadrotors, indices, quadrotors)
            self._fixed = pytree.tree_leaves(self.quadrotors)
        if self._simulator is not None:
            self._simulator.begin(quadrotors, indices, self.generator)
        zero = torch.zeros_like(quadrotors.mass)
        return _Progress(begin_episode(self.task, quadrotors, self.generator), zero, zero.long())

    def _begin_some(self, indices: Tensor) -> _Progress:
        fresh = self._begin(indices)
        self._leaves = pytree.tree_leaves(_replace_some(self._progress, indices, fresh))
        return fresh

    def _draw(self, num: int) -> Quadrotors:
        if callable(self._resample):
            drawn = self._resample(num, self.generator)
        else:
            drawn = sample_quadrotors(num, generator=self.generator)
        if len(drawn) != num:
            raise UserError(f"resample was asked for {num} vehicles and returned {len(drawn)}")
        if (task := self.task.for_vehicles(drawn)) != self.task:  # rotors faster than any before
            self.task, self._move = task, self._compiled_step()
        drawn = drawn.to(self.quadrotors.device, self.quadrotors.dtype).component_major()
        return dataclasses.replace(drawn, names=None, documents=None)


def make_env(
    num: int, quadrotor: Source = "crazyflie", task: str | Task = "hover", simulator: str = "raptor", **settings: Any
) -> QuadrotorEnv:
    """Make the batched environment of `num` vehicles behind every interface.

    `quadrotor` is what `raptor.load_quadrotors` reads, a platform's name for instance, or "random" for a new vehicle in
    each episode; fewer vehicles than `num` fly in turn: vehicle i of V flies in the environments i, i + V, ... `task`
    is a `Task`, or "hover", "track" or "paper"; `simulator` is "raptor", or "l2f" for the original one (extra `l2f`),
    or "mujoco" (extra `sim`); the settings are `device`, `compile` and `auto_reset` of `QuadrotorEnv`, and fields of
    the task, for instance `termination=Termination(enabled=False)` or `references={"trajectory": "circle"}`.
    """
    own = {name: settings.pop(name) for name in ("device", "compile", "auto_reset") if name in settings}
    task = make_task(task, settings)
    if simulator not in SIMULATORS:
        raise UserError(f"simulator must be one of {', '.join(SIMULATORS)}, got {simulator!r}")
    is_random = isinstance(quadrotor, str) and quadrotor == "random"
    # Of random ones, only the number counts.
    quadrotors = sample_quadrotors(num) if is_random else load_quadrotors(quadrotor, "random")
    if len(quadrotors) > num:
        remedy = "choose one, or make as many environments with gymnasium.make_vec(..., num_envs=...)"
        raise UserError(f"{len(quadrotors)} quadrotors were given, but the environment flies {num}: {remedy}")
    home, flown = SIMULATORS[simulator], quadrotors[torch.arange(num) % len(quadrotors)]
    replacement = home and pkgutil.resolve_name(home)(num, task)
    return QuadrotorEnv(flown, task, **own, resample=is_random, simulator=replacement)


def _span(values: Tensor) -> str:
    low, high = (f"{value.item():.3g}" for value in values.aminmax())
    return low if low == high else f"{low} to {high}"


def _position_error(episode: Episode) -> Tensor:
    return norm(difference(episode.state.position, episode.reference.position))


def _replace_some(tree: Tree, indices: Tensor, by: Tree) -> Tree:
    """The population in `tree` with the vehicles at `indices` exchanged; no tensor is written to."""

    def replace(old: Tensor, new: Tensor) -> Tensor:  # along the last axis of memory, so that the layout stays
        return old.movedim(0, -1).index_copy(-1, indices, new.movedim(0, -1)).movedim(-1, 0)

    return pytree.tree_map(replace, tree, by)  # type: ignore[no-any-return]
