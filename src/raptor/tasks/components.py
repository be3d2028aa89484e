"""The components that an observation is made of, by name.

`NAME` is a component as it is now, `NAME@-3` as it was three steps ago (at the start of an episode as it is then),
`NAME@+25` with the target of 25 steps ahead, and `NAME@-3..0` four of them, from the oldest to the newest.
"""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from raptor.core.errors import UserError
from raptor.quadrotor.state import components, difference, from_components
from raptor.tasks.observation import scaled_rotor_speed
from raptor.tasks.reference import Reference
from raptor.tasks.terms import Terms, Use, find_term, term, terms_of_kind
from raptor.tasks.views import ObservationView


@term("observation")
def position_error(view: ObservationView) -> Tensor:
    """Position from the target, 3, m, world; where that is not visible, the position."""
    return view.position_error


@term("observation")
def rotation(view: ObservationView) -> Tensor:
    """Rotation matrix, 9, row-major, body -> world."""
    return view.rotation


@term("observation")
def linear_velocity(view: ObservationView) -> Tensor:
    """Velocity from the target's, 3, m/s, world; where that is not visible, the velocity."""
    return view.velocity_error


@term("observation")
def angular_velocity(view: ObservationView) -> Tensor:
    """Body rates, 3, rad/s."""
    return view.angular_velocity


@term("observation")
def previous_action(view: ObservationView) -> Tensor:
    """The action before, 4."""
    return view.previous_action


@term("observation")
def rotor_speed(view: ObservationView) -> Tensor:
    """Actions that would hold the rotor speeds, 4; exact, so for teachers and simulation only."""
    return from_components(scaled_rotor_speed(view.state.rotor_speed, view.quadrotors))


@term("observation")
def position_error_body(view: ObservationView) -> Tensor:
    """Position from the target, 3, m, body."""
    return _turned_back(view.rotation, view.position_error)


@term("observation")
def linear_velocity_body(view: ObservationView) -> Tensor:
    """Velocity from the target's, 3, m/s, body."""
    return _turned_back(view.rotation, view.velocity_error)


@term("observation")
def position_error_yaw(view: ObservationView) -> Tensor:
    """Position from the target, 3, m, in the level frame whose x axis points as the vehicle does."""
    return _yawed_back(view.rotation, view.position_error)


@term("observation")
def linear_velocity_yaw(view: ObservationView) -> Tensor:
    """Velocity from the target's, 3, m/s, in the level frame whose x axis points as the vehicle does."""
    return _yawed_back(view.rotation, view.velocity_error)


@term("observation")
def up_body(view: ObservationView) -> Tensor:
    """The world's z axis, 3, body: the tilt without the heading."""
    return view.rotation[..., 6:]


def _turned_back(rotation: Tensor, vector: Tensor) -> Tensor:
    r, v = components(rotation), components(vector)
    return from_components([r[i] * v[0] + r[3 + i] * v[1] + r[6 + i] * v[2] for i in range(3)])


def _yawed_back(rotation: Tensor, vector: Tensor) -> Tensor:
    r, (x, y, z) = components(rotation), components(vector)
    length = torch.sqrt(r[0] ** 2 + r[3] ** 2 + 1e-12)
    cos, sin = r[0] / length, r[3] / length
    return from_components([cos * x + sin * y, cos * y - sin * x, z])


DEFAULT = ("position_error", "rotation", "linear_velocity", "angular_velocity", "previous_action")
"""The 22 numbers that the published policy observes."""

LONGEST = 1000  # steps that a component can be old, or a target ahead


class Component(NamedTuple):
    """A component of an observation."""

    use: Use
    lag: int  # steps: below 0 as it was then; above 0 with the target then


class Layout(NamedTuple):
    """The components of an observation in their order."""

    components: tuple[Component, ...]

    @property
    def uses(self) -> tuple[Use, ...]:
        """The different terms among them."""
        return tuple(dict.fromkeys(component.use for component in self.components))

    @property
    def remembered(self) -> tuple[Use, ...]:
        """Those that are also observed as they were."""
        return tuple(dict.fromkeys(component.use for component in self.components if component.lag < 0))

    @property
    def depth(self) -> int:
        """Steps that the oldest component is old."""
        return max(0, -min((component.lag for component in self.components), default=0))


@functools.lru_cache(maxsize=64)
def layout_of(names: tuple[str, ...], own: Terms) -> Layout:
    """The components of these names, with the settings that one's `own` terms give them."""
    if not names:
        raise UserError("observation must name at least one component")
    given = {use.term.name: use for use in own.of_kind("observation")}
    return Layout(tuple(component for entry in names for component in _components(entry, given)))


def present_only(names: Sequence[str]) -> tuple[str, ...]:
    """The same components, with the present target in place of a future one."""
    parts = [(name, range(first, last + 1)) for name, first, last in map(_parsed, names)]
    return tuple(f"{name}@{min(lag, 0)}" for name, lags in parts for lag in lags)


def _parsed(entry: str) -> tuple[str, int, int]:
    """Name, and first and last lag, of an entry of an observation."""
    parts = re.fullmatch(r"(\w+)(?:@([-+]?\d+)(?:\.\.([-+]?\d+))?)?", entry)
    if not parts:
        raise UserError(f"observation holds {entry!r}: components are NAME, NAME@-3, NAME@+25 or NAME@-3..0")
    return parts[1], int(parts[2] or 0), int(parts[3] or parts[2] or 0)


def _components(entry: str, given: dict[str, Use]) -> list[Component]:
    name, first, last = _parsed(entry)
    if name not in given:
        try:
            found = find_term(name)
        except UserError as error:
            if near := difflib.get_close_matches(name, terms_of_kind("observation"), 1):
                raise UserError(f"there is no observation {name}: did you mean {near[0]}?") from error
            known = ", ".join(terms_of_kind("observation"))
            raise UserError(f"there is no observation {name}: the components are {known}; {error}") from error
        if found.kind != "observation":
            raise UserError(f"{name} is a {found.kind} term, and no component of an observation")
        given = given | {name: found()}
    use, lags = given[name], range(first, last + 1)
    if not lags or max(map(abs, lags)) > LONGEST or (use.term.memory and last > 0):
        raise UserError(f"observation holds {entry!r}, which cannot be: lags rise, up to {LONGEST} steps")
    return [Component(use, lag) for lag in lags]


class Looked(NamedTuple):
    """What came of composing an observation."""

    observation: Tensor  # (..., D)
    past: tuple[Tensor, ...]  # (..., K) each: what is remembered of this step and of those before, newest first
    memory: dict[Use, Tensor]  # (..., M) of the terms that remember


def compose(
    layout: Layout,
    views: Mapping[Use, ObservationView],
    past: tuple[Tensor, ...] | None,
    ahead: Callable[[int], Reference],
) -> Looked:
    """The observation of vehicles, each term seen through its own view; `past` is None at the start of an episode.

    `ahead` gives the target of so many steps ahead.
    """
    values, memory = {}, {}
    for use in layout.uses:
        values[use] = use(views[use])
        if use.term.memory:
            values[use], memory[use] = values[use]
    kept = [part for use in layout.remembered for part in components(values[use])]
    now = (from_components(kept),) if kept else ()
    earlier = now * layout.depth if past is None else past
    starts, place = {}, 0
    for use in layout.remembered:
        starts[use] = place
        place += values[use].shape[-1]

    def value(use: Use, lag: int) -> Tensor:
        if lag < 0:
            return earlier[-lag - 1][..., starts[use] : starts[use] + values[use].shape[-1]]
        return values[use] if lag == 0 else use(_looking_ahead(views[use], ahead(lag)))

    row = [part for component in layout.components for part in components(value(*component))]
    return Looked(from_components(row), (*now, *earlier)[: layout.depth], memory)


def _looking_ahead(view: ObservationView, target: Reference) -> ObservationView:
    """The same with another target, which is known exactly."""
    now = view.reference
    position = now.from_world(difference(now.position, target.position))
    velocity = now.from_world(difference(now.velocity, target.velocity))
    return view._replace(
        position_error=from_components([e + d for e, d in zip(components(view.position_error), position, strict=True)]),
        velocity_error=from_components([e + d for e, d in zip(components(view.velocity_error), velocity, strict=True)]),
        reference=target,
    )
