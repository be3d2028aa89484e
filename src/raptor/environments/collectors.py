"""What is kept of a rollout: pure accumulators that ride in its compiled step, and recordings made beside it."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from raptor.environments.episode import Episode, StepOutcome
from raptor.quadrotor.parameters import Quadrotors
from raptor.quadrotor.state import components, difference, from_components, norm, rotation_matrix

C = TypeVar("C", bound="Collector")

ERROR_CAP = 100.0
"""m; bound on each axis of the position error, so that a vehicle that is lost, or not finite, counts, and as bad."""


class Moment(NamedTuple):
    """One step of a rollout; the leading shape (...) is that of the vehicles."""

    step: Tensor  # () number of the step, from 0
    quadrotors: Quadrotors
    before: Episode  # what the controller acted in
    action: Tensor  # (..., 4) of the controller, before any noise is added
    after: Episode
    outcome: StepOutcome
    flying: Tensor  # (...) 1 where the step counts, 0 where the episode was over before it


class Collector(Protocol):
    """A tuple of tensors of leading shape (...), to be begun by its owner and accumulated by the rollout."""

    def add(self: C, moment: Moment) -> C:
        """The same after a step: pure, no tensor of another shape, type or device. It is compiled with the step."""


class Episodes(NamedTuple):
    """What came of whole episodes; two leading axes are vehicles or environments, and episodes of each."""

    returns: Tensor  # (...) sum of rewards up to and including the step that ended the episode
    lengths: Tensor  # (...) steps, as floating-point numbers
    terminated: Tensor  # (...) bool; whether the episode ended before its time

    def figures(self) -> dict[str, float]:
        """Mean and standard deviation of the return, mean length, and rate of terminations."""
        return {
            "mean_return": self.returns.mean().item(),
            "std_return": self.returns.std(correction=0).item(),
            "mean_length": self.lengths.mean().item(),
            "termination_rate": self.terminated.float().mean().item(),
        }


class EpisodeTally(NamedTuple):
    """Where episodes stand; vehicles whose episode is over go on, without counting."""

    flying: Tensor  # (...) 1 until the episode is over, then 0
    returns: Tensor  # (...)
    lengths: Tensor  # (...) steps

    def add(self, moment: Moment) -> EpisodeTally:
        """See `Collector`."""
        flying = torch.where(moment.outcome.terminated, 0.0, self.flying)
        reward = torch.where(self.flying > 0, moment.outcome.reward, 0.0)
        return EpisodeTally(flying, self.returns + reward, self.lengths + self.flying)


class PositionErrors(NamedTuple):
    """Sums of the distance from the target, over all steps from the first that counts, terminated or not."""

    first: Tensor  # (...) number of the first step that counts, from 0
    num_steps: Tensor  # (...) that counted
    squared: Tensor  # (...) m^2
    total: Tensor  # (..., 3) m, world

    @classmethod
    def begin(cls, like: Tensor, first_counted_step: int) -> PositionErrors:
        """Nothing summed."""
        zero = torch.zeros_like(like)
        return cls(torch.full_like(like, first_counted_step), zero, zero, from_components([zero] * 3))

    def add(self, moment: Moment) -> PositionErrors:
        """Count where the step led to."""
        apart = difference(moment.after.state.position, moment.after.reference.position)
        error = [torch.where(e.abs() <= ERROR_CAP, e, ERROR_CAP) for e in apart]
        counted = (moment.step >= self.first).to(self.num_steps.dtype)
        num_steps, squared = self.num_steps + counted, self.squared + counted * sum(e * e for e in error)
        total = [s + counted * e for s, e in zip(components(self.total), error, strict=True)]
        return PositionErrors(self.first, num_steps, squared, from_components(total))

    @property
    def rmse(self) -> Tensor:
        """(...) m; root mean square of the distance."""
        return (self.squared / self.num_steps).sqrt()

    @property
    def offset(self) -> Tensor:
        """(..., 3) m, world; mean position error."""
        return self.total / self.num_steps.unsqueeze(-1)


class ActionChanges(NamedTuple):
    """Sum of how far the clipped action moves per step, over the steps from the first that counts while it flies."""

    first: Tensor  # (...) number of the first step that counts, from 1: no action comes before that of step 0
    num_steps: Tensor  # (...) that counted
    total: Tensor  # (...) of absolute changes, each the mean over the rotors

    @classmethod
    def begin(cls, like: Tensor, first_counted_step: int) -> ActionChanges:
        """Nothing summed."""
        zero = torch.zeros_like(like)
        return cls(torch.full_like(like, max(1, first_counted_step)), zero, zero)

    def add(self, moment: Moment) -> ActionChanges:
        """Count the action of the step, while the episode lasts; one that is not finite moves by all there is, 2."""
        actions = (components(episode.previous_action) for episode in (moment.after, moment.before))
        moved = [(new.clamp(-1, 1) - old.clamp(-1, 1)).abs() for new, old in zip(*actions, strict=True)]
        mean = sum(torch.where(change <= 2, change, 2.0) for change in moved) / len(moved)
        counted = moment.flying * (moment.step >= self.first)
        return ActionChanges(self.first, self.num_steps + counted, self.total + counted * mean)

    @property
    def mean(self) -> Tensor:
        """(...) absolute change per step and rotor, from 0 to 2; NaN where no step counted."""
        return self.total / self.num_steps


class TrackingErrors(NamedTuple):
    """Worst distance from the target, and the sum of squared errors of yaw, where the target has one."""

    num_steps: Tensor  # (...)
    largest: Tensor  # (...) m
    squared_yaw: tuple[Tensor, ...]  # (...) rad^2; none without yaw

    @classmethod
    def begin(cls, like: Tensor, yaw: bool) -> TrackingErrors:
        """Nothing summed."""
        zero = torch.zeros_like(like)
        return cls(zero, zero, (zero,) if yaw else ())

    def add(self, moment: Moment) -> TrackingErrors:
        """Count where the step led to."""
        state, target = moment.after.state, moment.after.reference
        apart = norm(difference(state.position, target.position))
        largest = torch.maximum(self.largest, torch.where(apart <= ERROR_CAP, apart, ERROR_CAP))
        r = components(rotation_matrix(target.orientation_from_world(state.orientation)))
        turned = torch.atan2(r[3], r[0]).nan_to_num(torch.pi)
        return TrackingErrors(self.num_steps + 1, largest, tuple(s + turned**2 for s in self.squared_yaw))

    @property
    def columns(self) -> tuple[Tensor, ...]:
        """The worst distance (...) m, and the root mean square of the error of yaw (...) rad, where there is one."""
        return self.largest, *((s / self.num_steps).sqrt() for s in self.squared_yaw)


class TermMeans(NamedTuple):
    """Sums of cost and reward terms of one's own, unweighted, over the steps of the episode."""

    num_steps: Tensor  # (...)
    sums: tuple[Tensor, ...]  # (...) of each term

    @classmethod
    def begin(cls, like: Tensor, num_terms: int) -> TermMeans:
        """Nothing summed."""
        zero = torch.zeros_like(like)
        return cls(zero, (zero,) * num_terms)

    def add(self, moment: Moment) -> TermMeans:
        """Count the step, while the episode lasts."""
        flies = moment.flying > 0
        sums = [s + torch.where(flies, x, 0.0) for s, x in zip(self.sums, moment.outcome.terms, strict=True)]
        return TermMeans(self.num_steps + moment.flying, tuple(sums))

    @property
    def columns(self) -> tuple[Tensor, ...]:
        """The mean (...) of each term over the steps that were flown."""
        return tuple(s / self.num_steps for s in self.sums)


@dataclasses.dataclass(frozen=True)
class Recording:
    """Where vehicles went, step by step; the first entry in time is the start."""

    position: Tensor  # (S + 1, N, 3) m, world
    orientation: Tensor  # (S + 1, N, 4) unit quaternion (w, x, y, z), body -> world
    linear_velocity: Tensor  # (S + 1, N, 3) m/s, world
    target: Tensor  # (S + 1, N, 3) m, world
    flying: Tensor  # (S + 1, N) bool; False once the episode is over
    dt: float  # s

    def __getitem__(self, index: tuple[slice, slice]) -> Recording:
        """A part of it: steps from the start, vehicles."""
        tensors = {name: value[index] for name, value in vars(self).items() if name != "dt"}
        return Recording(**tensors, dt=self.dt)

    @property
    def time(self) -> Tensor:
        """(S + 1,) s."""
        return self.dt * torch.arange(len(self.position))

    @property
    def tracking_error(self) -> Tensor:
        """(S + 1, N) m; distance from the target."""
        return torch.linalg.vector_norm(self.position - self.target, dim=-1)

    @property
    def tilt(self) -> Tensor:
        """(S + 1, N) rad between the body's z axis and the vertical."""
        _, x, y, _ = self.orientation.unbind(-1)
        return torch.acos((1 - 2 * (x * x + y * y)).clamp(-1, 1))


class Part(NamedTuple):
    """A part of a tree whose leaves stand in one list, one part after the other."""

    structure: pytree.TreeSpec
    place: slice  # of its leaves

    @classmethod
    def of(cls, trees: Iterable[Any]) -> list[Part]:
        """Each of these trees, in the list of all their leaves."""
        structures = [pytree.tree_structure(tree) for tree in trees]
        ends = [*itertools.accumulate((structure.num_leaves for structure in structures), initial=0)]
        return [cls(*pair) for pair in zip(structures, map(slice, ends, ends[1:]), strict=False)]


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """Where a rollout stands; only what is asked for is put together, which takes as long as a step of few vehicles."""

    step: int  # steps so far
    _tensors: Sequence[Tensor]
    _episode: Part
    _collectors: Part

    def _get(self, part: Part) -> Any:
        return pytree.tree_unflatten(self._tensors[part.place], part.structure)

    @property
    def episode(self) -> Episode:
        """What the vehicles are in."""
        episode: Episode = self._get(self._episode)
        return episode

    @property
    def collectors(self) -> tuple[Any, ...]:
        """The `EpisodeTally`, and those that were given."""
        collectors: tuple[Any, ...] = self._get(self._collectors)
        return collectors


class Recorder:
    """Records the first `num` vehicles, by default all, of a rollout that it watches, with `dt` s between two steps."""

    def __init__(self, dt: float, num: int | None = None) -> None:
        self._dt, self._vehicles = dt, slice(num)
        self._log: list[list[Tensor]] = []

    def __call__(self, snapshot: Snapshot) -> None:
        """Keep where the vehicles are."""
        state, flying = snapshot.episode.state, snapshot.collectors[0].flying > 0
        target = snapshot.episode.reference.position
        shown = (state.position, state.orientation, state.linear_velocity, target, flying)
        self._log.append([tensor[self._vehicles].clone() for tensor in shown])

    @property
    def recording(self) -> Recording:
        """Everything so far."""
        columns: list[Any] = [torch.stack(column) for column in zip(*self._log, strict=True)]
        return Recording(*[*columns, self._dt])
