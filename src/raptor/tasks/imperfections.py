"""What separates an episode from a perfect one: motors, air and flight controller; drawn per vehicle and episode.

Sensors have settings of their own, `raptor.tasks.observation.Sensing`, and are drawn here with all else.
"""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import torch
from torch import Tensor

from raptor.config.settings import Limit, Settings, above, ascending, between, not_negative, positive, setting
from raptor.quadrotor.parameters import NUM_ROTORS, Quadrotors
from raptor.quadrotor.state import State, component_major, components, from_components
from raptor.tasks.initial_state import uniform
from raptor.tasks.observation import Sensing

HELD = "held"
"""First previous action that would hold the rotors' initial speed."""

_LIMITS = Limit("null, or (low, high) with 0 < low <= high", lambda pair: pair is None or 0 < pair[0] <= pair[1])
_ACTIONS = Limit(
    f"{HELD}, or a number in [-1, 1], in every entry, of which there is one at least",
    lambda them: bool(them) and all(x == HELD or (not isinstance(x, str) and -1 <= x <= 1) for x in them),
)


@dataclasses.dataclass(frozen=True)
class Motors(Settings):
    """What the rotors give of the thrust that the vehicle's model says; all of it by default."""

    thrust: tuple[float, float] = setting(
        (1.0, 1.0), "factor on the thrust of all rotors; uniform in the logarithm", ascending(positive)
    )
    weakest: tuple[float, float] = setting((1.0, 1.0), "factor on that of one, drawn among all", ascending(positive))
    sag: tuple[float, float] = setting(
        (0.0, 0.0), "fraction that the battery loses steadily until the end of an episode", ascending(between(0, 0.9))
    )
    thrust_to_weight: float = setting(1.2, "that these leave a vehicle at least, if it had it", above(1))

    @property
    def perfect(self) -> bool:
        """Whether nothing is drawn."""
        return (*self.thrust, *self.weakest, *self.sag) == (1, 1, 1, 1, 0, 0)


@dataclasses.dataclass(frozen=True)
class Air(Settings):
    """Drag against moving air: the force -m R D R' (v - w), with the wind w. None by default, as in l2f.

    D is diagonal in the body frame, with one number for x and y and one for z. The wind is level and constant; gusts on
    top of it, in all three axes, are Ornstein-Uhlenbeck processes. The force is held during a step.
    """

    drag: tuple[float, float] = setting((0.0, 0.0), "1/s, each of the two numbers of D", ascending(not_negative))
    wind: tuple[float, float] = setting((0.0, 0.0), "m/s, in a random direction", ascending(not_negative))
    gusts: tuple[float, float] = setting((0.0, 0.0), "m/s, standard deviation per axis", ascending(not_negative))
    gust_time: float = setting(0.5, "s, correlation time of the gusts", positive)

    @property
    def still(self) -> bool:
        """Whether there is no drag, and so no force."""
        return self.drag[1] == 0


@dataclasses.dataclass(frozen=True)
class Deployment(Settings):
    """What flight controllers do to a policy. By default nothing: unbounded errors, steps of dt, held first actions."""

    position_limit: tuple[float, float] | None = setting(None, "m, position errors are clipped to, per axis", _LIMITS)
    velocity_limit: tuple[float, float] | None = setting(None, "m/s, velocity errors are clipped to, per axis", _LIMITS)
    first_action: tuple[float | str, ...] = setting(
        (HELD,),
        "what is observed as previous action at the start, each as likely; held: what holds the rotors",
        _ACTIONS,
    )
    dt_factor: tuple[float, float] = setting(
        (1.0, 1.0), "on the duration of a step, which the policy is not told", ascending(between(0.5, 1))
    )


class Imperfections(NamedTuple):
    """What was drawn for N vehicles; empty where the task has none of it."""

    bias: tuple[Tensor, ...] = ()  # (..., 12) position 3, rotation vector 3, linear and angular velocity 3 each
    lost: tuple[Tensor, ...] = ()  # (...) a sample is lost where a standard normal number is below this
    velocity_delay: tuple[Tensor, ...] = ()  # (...) steps, of linear velocity on top of the others
    limits: tuple[Tensor, ...] = ()  # (..., 2) of position (m) and velocity errors (m/s); infinite without
    thrust: tuple[Tensor, ...] = ()  # (..., 5) factor for each rotor, and the fraction that is lost per second
    drag: tuple[Tensor, ...] = ()  # (..., 2) 1/s, across and along the body's z axis
    wind: tuple[Tensor, ...] = ()  # (..., 4) m/s, constant wind in the world, and standard deviation of the gusts
    gust: tuple[Tensor, ...] = ()  # (..., 3) m/s, world; the present one, all else is constant
    dt: tuple[Tensor, ...] = ()  # (...) s, duration of a step


@dataclasses.dataclass
class Shares:
    """Which imperfections an episode has: none in some; in others noise, and each of the rest, with a probability."""

    like: Tensor  # (...) shape, type and device of what is drawn
    generator: torch.Generator
    clean: float  # fraction of episodes without any
    each: float  # probability of each in the others

    def __post_init__(self) -> None:
        self._flawed = None if self.clean == 0 else self._uniform() >= self.clean

    def _uniform(self) -> Tensor:
        return uniform(tuple(self.like.shape), self.like, self.generator)

    def among(self, value: Tensor, without: float | Tensor, share: float | None = None) -> Tensor:
        """The value (...) or (..., K) in episodes that have this imperfection, else what it is without.

        Those are a `share` of the flawed ones, by default `each`.
        """
        share = self.each if share is None else share
        if self._flawed is None and share == 1:
            return value
        has = self._uniform() < share
        has = has if self._flawed is None else has & self._flawed
        has = has.unsqueeze(-1) if value.ndim > has.ndim else has
        return torch.where(has, value, torch.as_tensor(without, dtype=value.dtype, device=value.device))


def draw_imperfections(
    sensing: Sensing,
    motors: Motors,
    air: Air,
    deployment: Deployment,
    quadrotors: Quadrotors,
    shares: Shares,
    dt: float,
    episode_s: float,
) -> Imperfections:
    """Draw all but noise and the two common delays, for one episode of `episode_s` seconds of each vehicle."""
    return Imperfections(
        **_draw_sensors(sensing, shares),
        **_draw_limits(deployment, shares),
        **_draw_thrust(motors, quadrotors, shares, episode_s),
        **_draw_air(air, shares),
        **_draw_dt(deployment, shares, dt),
    )


Drawn = dict[str, tuple[Tensor, ...]]


def _draw(shares: Shares, *pair: float) -> Tensor:
    return uniform(tuple(shares.like.shape), shares.like, shares.generator, *pair)


def _normal(shares: Shares, size: int) -> Tensor:
    like = shares.like
    draw = torch.randn((size, *like.shape), generator=shares.generator, dtype=like.dtype, device=like.device)
    return draw.movedim(0, -1)


def draw_steps(shares: Shares, low: int, high: int) -> Tensor:
    """Whole numbers (...) from `low` to `high`, as floating-point numbers."""
    if high == low:
        return torch.full_like(shares.like, low)
    return _draw(shares, low, high + 1).floor().clamp(max=high)


def _draw_sensors(sensing: Sensing, shares: Shares) -> Drawn:
    drawn: Drawn = {}
    if any(sensing.biases):
        deviations = shares.like.new_tensor(sensing.biases)
        drawn["bias"] = (component_major(shares.among(_normal(shares, len(deviations)) * deviations, 0.0)),)
    if sensing.lost[1] > 0:
        lost = _draw(shares, *sensing.lost).clamp(max=1 - 1e-6)
        drawn["lost"] = (shares.among(torch.special.ndtri(lost), -math.inf),)
    if sensing.velocity_delay[1] > 0:
        drawn["velocity_delay"] = (shares.among(draw_steps(shares, *sensing.velocity_delay), 0.0),)
    return drawn


def _draw_limits(deployment: Deployment, shares: Shares) -> Drawn:
    pairs = deployment.position_limit, deployment.velocity_limit
    if pairs == (None, None):
        return {}
    unbounded = torch.full_like(shares.like, math.inf)
    limits = [unbounded if pair is None else shares.among(_draw(shares, *pair), math.inf) for pair in pairs]
    return {"limits": (from_components(limits),)}


def _draw_thrust(motors: Motors, quadrotors: Quadrotors, shares: Shares, episode_s: float) -> Drawn:
    if motors.perfect:
        return {}
    thrust = shares.among(_draw(shares, *map(math.log, motors.thrust)).exp(), 1.0)
    weak, sag = shares.among(_draw(shares, *motors.weakest), 1.0), shares.among(_draw(shares, *motors.sag), 0.0)
    weakest = draw_steps(shares, 0, NUM_ROTORS - 1)
    left = (NUM_ROTORS - 1 + weak) / NUM_ROTORS * (1 - sag)
    enough = motors.thrust_to_weight / (quadrotors.thrust_to_weight.to(left) * left)
    thrust = torch.maximum(thrust, torch.minimum(enough, 1 / left))
    rotors = [torch.where(weakest == rotor, thrust * weak, thrust) for rotor in range(NUM_ROTORS)]
    return {"thrust": (from_components([*rotors, sag / episode_s]),)}


def _draw_air(air: Air, shares: Shares) -> Drawn:
    if air.still:
        return {}
    drag = shares.among(torch.stack([_draw(shares, *air.drag) for _ in range(2)], -1), 0.0)
    direction, speed = 2 * math.pi * _draw(shares), _draw(shares, *air.wind)
    deviation = shares.among(_draw(shares, *air.gusts), 0.0)
    wind = [speed * torch.cos(direction), speed * torch.sin(direction), torch.zeros_like(speed), deviation]
    gust = _normal(shares, 3) * deviation.unsqueeze(-1)
    return {
        "drag": (component_major(drag),),
        "wind": (from_components(wind),),
        "gust": (component_major(gust),),
    }


def _draw_dt(deployment: Deployment, shares: Shares, dt: float) -> Drawn:
    low, high = deployment.dt_factor
    return {"dt": (dt * shares.among(_draw(shares, low, high), 1.0),)} if low < 1 else {}


def draw_first_action(deployment: Deployment, held: Tensor, shares: Shares) -> Tensor:
    """What is observed as previous action (..., 4) at the start, where `held` would hold the rotors' speed."""
    choices = deployment.first_action
    if choices == (HELD,):
        return held
    place = draw_steps(shares, 0, len(choices) - 1)
    first = held
    for number, choice in enumerate(choices):
        if not isinstance(choice, str):
            first = torch.where((place == number).unsqueeze(-1), choice, first)
    return component_major(shares.among(first, held))


def biased(sensed: Tensor, imperfections: Imperfections) -> Tensor:
    """What sensors with a bias give, (..., 18): rotations are off by a small one about the body's axes."""
    if not imperfections.bias:
        return sensed
    x, b = components(sensed), components(imperfections.bias[0])
    turn = b[3:6]
    rotation = []
    for row in (x[3:6], x[6:9], x[9:12]):
        for i, j, k in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
            rotation.append(row[i] + row[j] * turn[k] - row[k] * turn[j])
    position, velocities = zip(x[:3], b[:3], strict=True), zip(x[12:], b[6:], strict=True)
    return from_components([*(v + o for v, o in position), *rotation, *(v + o for v, o in velocities)])


def limited(sensed: Tensor, imperfections: Imperfections) -> Tensor:
    """What the flight controller makes of it, (..., 18): errors of position and velocity within their limits."""
    if not imperfections.limits:
        return sensed
    x, (position, velocity) = list(components(sensed)), components(imperfections.limits[0])
    for places, limit in (((0, 1, 2), position), ((12, 13, 14), velocity)):
        for place in places:
            x[place] = torch.minimum(torch.maximum(x[place], -limit), limit)
    return from_components(x)


def thrust_factor(imperfections: Imperfections, time: Tensor) -> Tensor | None:
    """Factor (..., 4) on the thrust of each rotor, so many seconds (...) after the start; None where it is 1."""
    if not imperfections.thrust:
        return None
    *rotors, sag = components(imperfections.thrust[0])
    charge = (1 - sag * time).clamp(min=0.1)
    return from_components([rotor * charge for rotor in rotors])


def drag_force(quadrotors: Quadrotors, state: State, imperfections: Imperfections) -> list[Tensor]:
    """Components (...) of the force of the air in N, world."""
    (across, along), wind = components(imperfections.drag[0]), components(imperfections.wind[0])
    gust = components(imperfections.gust[0])
    relative = [v - w - g for v, w, g in zip(components(state.linear_velocity), wind, gust, strict=False)]
    w, x, y, z = components(state.orientation)
    axis = 2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)
    along_axis = (along - across) * sum(r * a for r, a in zip(relative[1:], axis[1:], strict=True))
    along_axis = along_axis + (along - across) * relative[0] * axis[0]
    return [-quadrotors.mass * (across * r + along_axis * a) for r, a in zip(relative, axis, strict=True)]


def next_gust(air: Air, imperfections: Imperfections, noise: Tensor | None, dt: float) -> Imperfections:
    """The same after one step; `noise` (..., 3) is standard normal."""
    if not imperfections.gust or noise is None:
        return imperfections
    keep = math.exp(-dt / air.gust_time)
    fresh = (1 - keep**2) ** 0.5 * components(imperfections.wind[0])[3]
    pairs = zip(components(imperfections.gust[0]), components(noise), strict=True)
    return imperfections._replace(gust=(from_components([keep * g + fresh * n for g, n in pairs]),))
