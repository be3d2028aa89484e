"""Suites of conditions: what is flown to see how good policies are, the same for all of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils import _pytree as pytree

from raptor.core.errors import UserError, printable
from raptor.environments.episode import Episode, begin_episode
from raptor.environments.rollout import Policy
from raptor.quadrotor.parameters import Quadrotors, load_platforms
from raptor.quadrotor.population import sample_quadrotors, scale_quantity, uncertainty_of
from raptor.tasks.imperfections import Air
from raptor.tasks.initial_state import InitialStates
from raptor.tasks.observation import Sensing
from raptor.tasks.reference import Lissajous, References
from raptor.tasks.reward import Termination
from raptor.tasks.task import Task
from raptor.tasks.terms import Terms
from raptor.tasks.trajectories import Trajectory
from raptor.tasks.trajectory_files import FASTEST

SUITES = ("paper", "unseen", "platforms", "figure-eight", "robustness")
"""`paper`: RAPTOR's own training evaluation, the target hidden from the policy. `unseen`: the same vehicles, the target
visible. `platforms`: the nine named vehicles, holding the origin. `figure-eight`: the same, following a figure eight.
`robustness`: `unseen` with noise, delays and a wrong thrust."""

GIVEN_SUITES = ("platforms", "figure-eight", "robustness", "sensitivity")
"""Suites of given vehicles, in place of the named or sampled ones. `sensitivity`: `unseen` with one quantity of each
vehicle at a time at the lower and at the upper end of its uncertainty."""


AGILITY = "agility"
"""Suite of figure eights that become faster and faster, clean, and late with noise; the vehicle may be fast."""

SURVIVAL = "survival"
"""Suite of ever later and noisier sensors, ever more or less thrust, and ever more wind, one at a time."""

ON_DEMAND = (AGILITY, SURVIVAL)
"""Suites of named or sampled, and of given vehicles, that are flown only where they are asked for."""

ALL_SUITES = tuple(dict.fromkeys((*SUITES, *GIVEN_SUITES, *ON_DEMAND)))

REFERENCE = "reference"
"""Suite of a trajectory that is given: named, or given, vehicles follow it from rest, whole."""

TEST_SEEDS = 3_000_000  # those of training are from 1 000 000 on, of validation from 2 000 000 on
FIGURE_EIGHT_INTERVALS = (10.0, 6.5, 5.0)  # s that each figure takes
AGILITY_INTERVALS = (10.0, 6.5, 5.0, 4.0, 3.0, 2.5, 2.0)
FIGURE_EIGHT_DURATION = 30.0  # s that are flown of each figure, from rest at the origin, through the ramp
FIGURE_EIGHT_BOX = 2.0  # m; half side of a box about the origin: leaving it counts as terminated
NOISE = Sensing(position_noise=0.01, orientation_noise=0.02, linear_velocity_noise=0.05, angular_velocity_noise=0.1)

VISIBLE = Task(
    references=References(langevin_share=0.5, lissajous_share=0.5),
    sensing=dataclasses.replace(NOISE, observation_delay=(0, 3), action_delay=(0, 2)),
)
"""The task of every suite that shows the target. What differs between them (references, noise, delays) is data of the
episode, so that one compiled step serves them all."""


@dataclasses.dataclass(frozen=True)
class Condition:
    """A population and its task; the same for every policy."""

    name: str  # empty where a suite has only one
    task: Task  # what is flown; its draws are those of `starts`
    starts: Task  # what starts, references, noise and delays are drawn from
    quadrotors: Quadrotors  # N vehicles
    seed: int
    num_steps: int = VISIBLE.episode_steps
    first_counted_step: int = VISIBLE.episode_steps // 2  # position errors and action changes count from here on
    survivors_only: bool = True  # whether position errors of terminated episodes are left out
    episodes: int = 1  # consecutive rows that are episodes of one vehicle, and are averaged
    tracked: bool = False  # whether the worst position error counts, too, and the error of yaw
    groups: tuple[str, ...] = ()  # names of groups, all of the same size and one after another; none: a single group

    @property
    def flown_alike(self) -> tuple[Task, int, int]:
        """What conditions must have in common to be one rollout."""
        return self.task, self.num_steps, self.first_counted_step

    def under(self, extra: Terms) -> Condition:
        """The same under terms of one's own."""
        if not extra:
            return self
        task, starts = (dataclasses.replace(each, extra=extra) for each in (self.task, self.starts))
        return dataclasses.replace(self, task=task, starts=starts)

    def seen_by(self, policy: Policy) -> Condition:
        """The same where the policy observes other numbers than the default."""
        layout = getattr(policy, "layout", {})
        if not layout:
            return self
        return dataclasses.replace(self, task=self.task.observing(layout), starts=self.starts.observing(layout))

    def begin(self) -> tuple[Episode, torch.Generator]:
        """Draw the starts; the generator goes on to draw the noise of the rollouts."""
        generator = torch.Generator(self.quadrotors.device).manual_seed(TEST_SEEDS + self.seed)
        start = begin_episode(self.starts, self.quadrotors, generator)
        num_sensed = self.task.sensing.observation_delay[1] + 1
        num_commanded = self.task.sensing.action_delay[1]
        padded = dataclasses.replace(
            start,
            sensed=(start.sensed + start.sensed[-1:] * num_sensed)[:num_sensed],
            commanded=(start.commanded + (start.previous_action,) * num_commanded)[:num_commanded],
        )
        return padded, generator


def begin_together(group: Sequence[Condition]) -> tuple[Quadrotors, Episode, torch.Generator]:
    """The vehicles of several conditions as one population, at the start of their episodes, in the order given."""
    starts, generators = zip(*(condition.begin() for condition in group), strict=True)
    quadrotors = Quadrotors.concatenate(condition.quadrotors for condition in group)
    return quadrotors, pytree.tree_map(lambda *tensors: torch.cat(tensors), *starts), generators[0]


def _sensing(noise: float = 0.0, observation_delay: int = 0, action_delay: int = 0) -> Sensing:
    seen_late, moved_late = (observation_delay, observation_delay), (action_delay, action_delay)
    return dataclasses.replace(NOISE, noise_scale=(noise, noise), observation_delay=seen_late, action_delay=moved_late)


IMPAIRMENTS = {
    "noise": _sensing(noise=1),
    "10ms-late": _sensing(observation_delay=1),
    "20ms-late": _sensing(observation_delay=2),
    "30ms-late": _sensing(observation_delay=3),
    "noise+10ms-late": _sensing(noise=1, observation_delay=1),
    "motors-10ms-late": _sensing(action_delay=1),
    "motors-20ms-late": _sensing(action_delay=2),
}
"""Sensors and motors of `robustness`: noise, and steps of 10 ms by which all but the previous action is seen late, or
the motors answer late."""

AIR = Air(drag=(0, 1), gusts=(0, 1))
"""The air of tasks that are flown in wind; what they differ in is data of the episode."""

SURVIVAL_AXES: dict[str, tuple[float, ...]] = {
    "delay": (0, 10, 20, 30, 40, 50),  # ms
    "noise": (0, 0.5, 1, 1.5, 2, 3),  # times `NOISE`
    "thrust": (0.7, 0.8, 0.9, 1, 1.25, 1.5, 2),  # of the vehicle over that of its model
    "wind": (0, 2, 4, 6, 8, 10),  # m/s, with gusts of a quarter of it, where drag is `WINDY_DRAG`
}
"""Conditions of `survival`, each named by its axis and its place on it: `delay-20`."""

WINDY_DRAG = 0.3  # 1/s

LATE_AND_NOISY = "noise+20ms-late"

NOMINAL = "as-given"  # condition of `sensitivity`
MOST_GROUPS = 16  # given vehicles of which each has figures of its own

THRUST_FACTORS = {"thrust-0.8": 0.8, "thrust-1.5": 1.5}  # thrust of the vehicle over that of its model


def conditions(
    suite: str,
    num_quadrotors: int,
    episodes: int,
    seed: int,
    device: torch.device,
    quadrotors: Quadrotors | None = None,
    reference: str | Trajectory | None = None,
) -> list[Condition]:
    """The conditions of a suite; `UserError` where there is none of that name, or a number is out of range.

    Of the named platforms, or of the vehicles that are given in their place, each starts `starts_of_each` times. Seeds
    go from 0 to 999 999 and determine sampled vehicles, starts and references. `reference` is the trajectory, by name
    or file, of the suite of that name.
    """
    for name, number in (("num_quadrotors", num_quadrotors), ("episodes", episodes)):
        if number < 1:
            raise UserError(f"{name} must be at least 1, got {number}")
    if not 0 <= seed < 1_000_000:
        raise UserError(f"seed must be between 0 and 999999, which keeps test vehicles apart from others, got {seed}")
    named = (load_platforms() if quadrotors is None else quadrotors).to(device)
    if suite == REFERENCE:
        if reference is None:
            raise UserError("the suite reference follows a trajectory: give it with --reference FILE|NAME")
        return [following(reference, starts_of_each(len(named), num_quadrotors, episodes, 32), seed, named)]
    check_suite(suite, quadrotors is not None)

    def started(part: int) -> dict[str, Any]:
        return _started(named, starts_of_each(len(named), num_quadrotors, episodes, part))

    if suite == "platforms":
        starts = Task(references=References(langevin_share=0.0), sensing=_sensing())
        return [Condition("", VISIBLE, starts, seed=seed, **started(8))]
    if suite == "figure-eight":
        num_starts = starts_of_each(len(named), num_quadrotors, episodes, 32)
        return [figure_eight(interval, num_starts, seed, named) for interval in FIGURE_EIGHT_INTERVALS]
    if suite == AGILITY:
        num_starts = starts_of_each(len(named), num_quadrotors, episodes, 32)
        return [
            figure_eight(interval, num_starts, seed, named, sensing, agile=True)
            for sensing in (_sensing(), _sensing(noise=1, observation_delay=2))
            for interval in AGILITY_INTERVALS
        ]
    task, starts = (Task.paper(), Task.paper()) if suite == "paper" else (VISIBLE, Task(sensing=_sensing()))
    if quadrotors is None:
        sampled = sample_quadrotors(num_quadrotors, seed=TEST_SEEDS + seed).to(device).repeat_interleave(episodes)
        plain = Condition("", task, starts, sampled, seed, episodes=episodes)
    else:
        plain = Condition("", task, starts, seed=seed, **started(16 if suite == "sensitivity" else 8))
    of_many = {"robustness": _impaired, "sensitivity": _varied, SURVIVAL: _worsened}
    return of_many.get(suite, lambda plain: [plain])(plain)


def check_suite(suite: str, given: bool) -> None:
    """Refuse a suite that does not exist, or not with or without `given` vehicles."""
    if suite not in ALL_SUITES:
        raise UserError(f"there is no suite {suite!r}: choose from {', '.join(ALL_SUITES)}")
    if not given and suite not in (*SUITES, *ON_DEMAND):
        raise UserError(f"the suite {suite} is of given vehicles: give some with --quadrotor, or leave it out")
    if given and suite not in (*GIVEN_SUITES, *ON_DEMAND):
        choice = f"choose from {', '.join((*GIVEN_SUITES, *ON_DEMAND))}"
        raise UserError(f"the suite {suite} samples vehicles of its own and cannot fly given ones: {choice}")


def _impaired(plain: Condition) -> list[Condition]:
    """The conditions of `robustness`."""
    impaired = {name: dataclasses.replace(plain.starts, sensing=sensing) for name, sensing in IMPAIRMENTS.items()}
    scaled = {name: plain.quadrotors.with_thrust_scaled(factor) for name, factor in THRUST_FACTORS.items()}
    return [
        *(dataclasses.replace(plain, name=name, starts=starts) for name, starts in impaired.items()),
        *(dataclasses.replace(plain, name=name, quadrotors=quadrotors) for name, quadrotors in scaled.items()),
    ]


def _worsened(plain: Condition) -> list[Condition]:
    """The conditions of `survival`."""
    late = dataclasses.replace(NOISE, observation_delay=(0, round(SURVIVAL_AXES["delay"][-1] / 10)))
    task = dataclasses.replace(VISIBLE, sensing=late)

    def worsened(axis: str, amount: float) -> Condition:
        name, starts, quadrotors = f"{axis}-{amount:g}", plain.starts, plain.quadrotors
        if axis == "wind":
            air = Air(drag=(WINDY_DRAG, WINDY_DRAG), wind=(amount, amount), gusts=(amount / 4, amount / 4))
            starts, windy = dataclasses.replace(starts, air=air), dataclasses.replace(task, air=AIR)
            return dataclasses.replace(plain, name=name, task=windy, starts=starts)
        if axis == "thrust":
            quadrotors = quadrotors.with_thrust_scaled(amount)
        if axis in ("delay", "noise"):
            sensing = _sensing(observation_delay=round(amount / 10)) if axis == "delay" else _sensing(noise=amount)
            starts = dataclasses.replace(starts, sensing=sensing)
        return dataclasses.replace(plain, name=name, task=task, starts=starts, quadrotors=quadrotors)

    return [worsened(axis, amount) for axis, amounts in SURVIVAL_AXES.items() for amount in amounts]


def _varied(plain: Condition) -> list[Condition]:
    """The conditions of `sensitivity`: vehicles as given, then QUANTITY-low and QUANTITY-high."""
    varied = [dataclasses.replace(plain, name=NOMINAL)]
    for quantity, uncertainty in uncertainty_of(plain.quadrotors).items():
        for end, factors in (("low", 1 - uncertainty), ("high", 1 + uncertainty)) if uncertainty.any() else ():
            scaled = scale_quantity(plain.quadrotors, quantity, factors)
            varied.append(dataclasses.replace(plain, name=f"{quantity}-{end}", quadrotors=scaled))
    return varied


def starts_of_each(num_vehicles: int, num_quadrotors: int, episodes: int, part: int = 8) -> int:
    """How often each named or given vehicle starts: a `part` as often as vehicles are sampled; many share these.

    `part` is 8 in `platforms` and `robustness`, 16 in `sensitivity`, and 32 on each figure of `figure-eight`.
    """
    return max(1, num_quadrotors // max(part, num_vehicles if num_vehicles > MOST_GROUPS else 0)) * episodes


def names_of(quadrotors: Quadrotors) -> tuple[str, ...]:
    """Names of vehicles in results: without slashes, and each only once."""
    given = [printable(name).replace("/", "-") for name in quadrotors.names or map(str, range(len(quadrotors)))]
    return tuple(name if given.count(name) == 1 else f"{name} ({place})" for place, name in enumerate(given, 1))


def _started(quadrotors: Quadrotors, num: int) -> dict[str, Any]:
    """Fields of a condition: each vehicle starts `num` times; a few vehicles are groups, one or many are not."""
    rows, names = quadrotors.repeat_interleave(num), names_of(quadrotors)
    if len(names) > MOST_GROUPS:
        return {"quadrotors": rows, "episodes": num}
    return {"quadrotors": rows, "groups": names if len(names) > 1 else ()}


def figure_eight(
    interval: float,
    num_starts: int,
    seed: int,
    quadrotors: Quadrotors,
    sensing: Sensing | None = None,
    agile: bool = False,
) -> Condition:
    """Each vehicle so often on figure eights of `interval` s, from rest at the origin, rotors at random speeds.

    `agile` flight may be as fast as it likes.
    """
    noise = "" if sensing is None or not sensing.noise_scale[0] else f"-{LATE_AND_NOISY}"
    bounds = Termination(linear_velocity=FASTEST) if agile else Termination()
    started = _started(_boxed(quadrotors), num_starts)
    figure = Lissajous(interval=(interval, interval))
    references = References(langevin_share=0.0, lissajous_share=1.0, lissajous=figure)
    return Condition(
        name=f"{interval:g}s{noise}",
        task=dataclasses.replace(VISIBLE, termination=bounds),
        starts=Task(initial_states=InitialStates(guidance=1.0), references=references, sensing=sensing or _sensing()),
        seed=seed,
        num_steps=round(FIGURE_EIGHT_DURATION / VISIBLE.dt),
        first_counted_step=0,
        survivors_only=False,
        **started,
    )


def following(source: str | Trajectory, num_starts: int, seed: int, quadrotors: Quadrotors) -> Condition:
    """Each vehicle so often on a trajectory, from rest at its beginning to its end; lost beyond the box about it."""
    given = Trajectory(source) if isinstance(source, str) else source
    trajectory, own = dataclasses.replace(given, random_start=False), Terms(given.uses)
    references = References(langevin_share=0.0, trajectory_share=1.0, trajectory=trajectory)
    bounds = Termination(about_target=True, linear_velocity=FASTEST)
    at_rest = InitialStates(guidance=1.0)
    return Condition(
        name="",
        task=dataclasses.replace(VISIBLE, references=references, termination=bounds, extra=own),
        starts=Task(initial_states=at_rest, references=references, sensing=_sensing(), termination=bounds, extra=own),
        seed=seed,
        num_steps=max(1, round(trajectory.flight_s / VISIBLE.dt)),
        first_counted_step=0,
        survivors_only=False,
        tracked=True,
        **_started(_boxed(quadrotors), num_starts),
    )


def _boxed(quadrotors: Quadrotors) -> Quadrotors:
    box = torch.full_like(quadrotors.position_threshold, FIGURE_EIGHT_BOX)
    return dataclasses.replace(quadrotors, position_threshold=box)
