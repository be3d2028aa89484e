"""Trajectories: targets as pure functions of time, by name or from a file, and how an episode follows one.

A function maps times (...) s to positions (..., 3) m in the world, or to these and yaws (...) rad; velocity and yaw
rate are its derivatives. One's own is declared as those below, and used by `task.references.trajectory=NAME`.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from raptor.config.settings import Settings, each, not_negative, optional, positive, setting
from raptor.core.atomic import checked_path
from raptor.core.compilation import register
from raptor.core.errors import UserError, first_line
from raptor.quadrotor.state import component_major, components, from_components
from raptor.tasks.initial_state import uniform
from raptor.tasks.splines import Table
from raptor.tasks.terms import Terms, Use, find_term, term, terms_of_kind
from raptor.tasks.trajectory_files import read_table, settled, text_of

if TYPE_CHECKING:
    Range = Tensor  # what a function is given: () or (...)
else:
    Range = float | tuple[float, float]  # what is set: a number, or lowest and highest, from which each episode draws
Motion = Tensor | tuple[Tensor, Tensor]
TURN = 2 * torch.pi
NOMINAL = 30.0  # s that are flown of a function of time, which has no end
RAMP = 2.0  # s within which a trajectory that begins in motion gets to its speed from rest


@term("trajectory")
def figure_eight(
    t: Tensor,
    length: Range = setting(2.0, "m, between its tips, along y", each(not_negative)),
    width: Range = setting(1.0, "m, along x", each(not_negative)),
    period: Range = setting(6.0, "s", each(positive)),
) -> Motion:
    """A lying figure eight at constant height."""
    phase = TURN * t / period
    return from_components([width / 2 * torch.sin(2 * phase), length / 2 * torch.sin(phase), torch.zeros_like(t)])


@term("trajectory")
def circle(
    t: Tensor,
    radius: Range = setting(1.0, "m", each(not_negative)),
    period: Range = setting(6.0, "s", each(positive)),
    facing: bool = setting(False, "whether the yaw is along the velocity"),
) -> Motion:
    """A circle at constant height and speed, counterclockwise."""
    return _turning(TURN * t / period, radius, torch.zeros_like(t), facing)


@term("trajectory")
def helix(
    t: Tensor,
    radius: Range = setting(1.0, "m", each(not_negative)),
    period: Range = setting(6.0, "s for a turn", each(positive)),
    height: Range = setting(1.0, "m, that it rises and comes down again"),
    turns: Range = setting(3.0, "on the way up and down", each(positive)),
    facing: bool = setting(False, "whether the yaw is along the horizontal velocity"),
) -> Motion:
    """A circle that rises and comes down."""
    phase = TURN * t / period
    return _turning(phase, radius, height / 2 * (1 - torch.cos(phase / turns)), facing)


def _turning(phase: Tensor, radius: Any, height: Tensor, facing: bool) -> Motion:
    """On a circle of `radius` (m) at a phase (rad) and a height (m), with the yaw along it where it is `facing`."""
    position = from_components([radius * torch.sin(phase), -radius * torch.cos(phase), height])
    return (position, phase) if facing else position


@term("trajectory")
def steps(
    t: Tensor,
    size: Range = setting(0.4, "m, of each step", each(not_negative)),
    hold: Range = setting(3.0, "s between two steps", each(positive)),
) -> Motion:
    """Jumps from corner to corner of a square, each with a jump up or down."""
    corner = (t / hold).detach().floor().remainder(4)
    x, y, z = (corner == 1) | (corner == 2), corner >= 2, corner.remainder(2) == 1
    return from_components([size * axis.to(t.dtype) for axis in (x, y, z)])


@term("trajectory")
def hover(
    t: Tensor,
    yaw: Range = setting(0.0, "rad, at the beginning"),
    yaw_rate: Range = setting(0.0, "rad/s"),
) -> Motion:
    """The origin, with a yaw."""
    return torch.zeros_like(t).unsqueeze(-1).expand(*t.shape, 3), yaw + yaw_rate * t


@dataclasses.dataclass(frozen=True)
class Trajectory(Settings):
    """The trajectory that episodes follow, by name or from a file. A plain value is its `source`."""

    SHORTHAND: ClassVar[str] = "source"

    source: str | None = setting(None, "NAME of a trajectory, or a CSV file; null: none")
    speed: float = setting(1.0, "m/s, the highest, of way-points without times", positive)
    scale: float = setting(1.0, "factor on its size, and by that on its speed", positive)
    ramp: float | None = setting(
        None, "s until full speed; null: 2, but 0 if it begins at rest", optional(not_negative)
    )
    duration: float | None = setting(
        None, "s that are flown; null: all of a file, 30 of a function", optional(positive)
    )
    random_start: bool = setting(True, "whether episodes begin anywhere on it, or else at its beginning")
    function: ClassVar[Table | Use | None] = None  # of an instance: what `source` stands for
    ramp_s: ClassVar[float] = 0.0  # of an instance: `ramp`, or what it stands for

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.source is None:
            return
        if not isinstance(self.source, str):
            raise UserError(f"the trajectory must be a name, or that of a CSV file, as text, got {self.source!r}")
        name, known = self.source.replace("-", "_"), terms_of_kind("trajectory")
        is_file = text_of(self.source) is not None or not name.isidentifier()
        if name not in known and (is_file or checked_path(self.source, "the trajectory").is_file()):
            object.__setattr__(self, "source", settled(self.source))
            self._follow(read_table(self.source, self.speed))
            return
        try:
            found = find_term(name)
        except UserError as error:
            raise UserError(f"{error}; trajectories are {', '.join(known).replace('_', '-')}, or a CSV file") from error
        if found.kind != "trajectory":
            raise UserError(f"{name} is a {found.kind}, and a trajectory is expected here")
        self._follow(found())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Trajectory) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)

    @property
    def _identity(self) -> tuple[Any, ...]:
        """Everything that compiled code depends on; of a file its fingerprint is in `source`."""
        return (*(getattr(self, field.name) for field in dataclasses.fields(self)), *self.uses)

    @property
    def uses(self) -> tuple[Use, ...]:
        """The function with its settings, unless it is a file."""
        return (self.function,) if isinstance(self.function, Use) else ()

    def with_settings(self, extra: Terms) -> Trajectory:
        """The same with the settings that `task.extra` has for its function."""
        name = (self.source or "").replace("-", "_")
        if (use := next((use for use in extra.of_kind("trajectory") if use.term.name == name), None)) is None:
            return self
        same = dataclasses.replace(self)
        same._follow(use)
        return same

    def _follow(self, function: Table | Use) -> None:
        """Take a function for what `source` stands for, after a look at what it gives."""
        object.__setattr__(self, "function", function)
        object.__setattr__(self, "ramp_s", self.ramp or 0.0)
        drawn = torch.tensor([[low for low, _ in self.drawn.values()]] * 2)
        try:
            motion, velocity = self.motion(torch.tensor([0.0, 0.5]), drawn), torch.zeros(2, 3)
            shapes = [tuple(part.shape) for part in motion]
            problem = "" if shapes in ([(2, 3)], [(2, 3), (2,)]) else f"got shapes {shapes} for two times"
            if not problem:
                _, (velocity, *_) = self.flown(torch.tensor([0.0, 0.5]), drawn)
                problem = "" if all(part.isfinite().all() for part in motion) else "got a number not finite"
        except (TypeError, ValueError, RuntimeError, AttributeError, IndexError) as error:
            problem = f"got {type(error).__name__}: {first_line(error)}"
        if problem:
            wanted = "must map times (...) to positions (..., 3), or to these and yaws (...), all finite tensors"
            raise UserError(f"the trajectory {self.source} {wanted}: {problem}")
        if self.ramp is None and velocity[0].norm() > 1e-3:
            object.__setattr__(self, "ramp_s", RAMP)

    @property
    def drawn(self) -> dict[str, tuple[float, float]]:
        """The settings of the function that each episode draws, with lowest and highest value."""
        values = vars(self.function.settings) if isinstance(self.function, Use) else {}
        return {name: value for name, value in values.items() if isinstance(value, tuple) and len(value) == 2}

    def motion(self, t: Tensor, drawn: Tensor) -> tuple[Tensor, ...]:
        """Position (..., 3), and yaw (...) if there is one, at times (...) with the drawn settings (..., K)."""
        if isinstance(self.function, Use):
            given = vars(self.function.settings) | dict(zip(self.drawn, components(drawn), strict=True))
            motion = self.function.term.function(t, **given)
        else:
            assert self.function is not None, "there is no trajectory"
            motion = self.function(t)
        return motion if isinstance(motion, tuple) else (motion,)

    def flown(self, t: Tensor, drawn: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """What `motion` gives at times (...) since the start at rest, and its derivative."""
        ramp = self.ramp_s

        def progress(t: Tensor) -> tuple[Tensor, ...]:
            return self.motion(torch.where(t < ramp, t * t / (2 * ramp), t - ramp / 2) if ramp else t, drawn)

        jvp: Any = torch.func.jvp
        moving: tuple[tuple[Tensor, ...], tuple[Tensor, ...]] = jvp(progress, (t,), (torch.ones_like(t),))
        return moving

    @property
    def flight_s(self) -> float:
        """Seconds from the start at rest to its end."""
        own = self.function.duration if isinstance(self.function, Table) else NOMINAL
        return (self.duration or own) + self.ramp_s / 2

    @property
    def summary(self) -> str:
        """How long it is and what it asks of a vehicle, in words; settings with a range are at their lower ends."""
        t = torch.arange(0.0, self.flight_s, 0.01, dtype=torch.float64)
        drawn = torch.tensor([low for low, _ in self.drawn.values()], dtype=t.dtype).expand(len(t), -1)
        velocity = self.scale * self.flown(t, drawn)[1][0]
        faster = velocity.diff(dim=0).norm(dim=-1) / 0.01
        name, most = str(self.source).partition("#")[0], [float(x.max()) for x in (velocity.norm(dim=-1), faster)]
        return f"{name}: {self.flight_s:.3g} s, at most {most[0]:.2g} m/s and {most[1]:.2g} m/s²"


@register()
@dataclasses.dataclass(frozen=True)
class Course:
    """How N episodes follow the trajectory."""

    scale: Tensor  # (...) factor on its size; 0 where the episode does not follow it
    begin: Tensor  # (...) s since the start at rest at which the episode begins
    origin: Tensor  # (..., 3) m; where the trajectory is then
    drawn: Tensor  # (..., K) settings of the function that were drawn
    heading: tuple[Tensor, ...]  # (...) yaw rad and yaw rate rad/s of the target at present; none without yaw

    @classmethod
    def draw(cls, trajectory: Trajectory, followed: Tensor, generator: torch.Generator, episode_s: float) -> Course:
        """Begin episodes of at most `episode_s` seconds, some (...) of which are `followed` (1, else 0)."""
        shape = tuple(followed.shape)
        begin = uniform(shape, followed, generator)
        values = [uniform(shape, followed, generator, low, high) for low, high in trajectory.drawn.values()]
        drawn = from_components(values) if values else component_major(followed.new_zeros(*shape, 1))[..., :0]
        endless = not isinstance(trajectory.function, Table) or trajectory.function.closed
        latest = trajectory.flight_s - (0.0 if endless else episode_s)
        begin = begin * (max(0.0, latest) if trajectory.random_start else 0.0)
        (position, *yaw), _ = trajectory.flown(begin, drawn)
        heading = (torch.zeros_like(begin),) * (2 * len(yaw))
        return cls(trajectory.scale * followed, begin, component_major(position), drawn, heading)

    def at(self, trajectory: Trajectory, time: Tensor) -> tuple[Course, Tensor, Tensor]:
        """The course so many seconds (...) into the episodes; also position and velocity of the target, (..., 3)."""
        (position, *yaw), (velocity, *yaw_rate) = trajectory.flown(self.begin + time, self.drawn)
        follows = self.scale != 0
        heading = tuple(torch.where(follows, value, 0.0) for value in (*yaw, *yaw_rate))
        moved = [self.scale * (x - o) for x, o in zip(components(position), components(self.origin), strict=True)]
        fast = [self.scale * v for v in components(velocity)]
        return dataclasses.replace(self, heading=heading), from_components(moved), from_components(fast)
