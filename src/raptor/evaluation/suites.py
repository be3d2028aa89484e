"""What policies are put to: suites of conditions, each a population of vehicles at the start of its episodes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from raptor.environments.episode import Episode, begin_episode
from raptor.errors import UserError
from raptor.quadrotor.parameters import Quadrotors
from raptor.quadrotor.platforms import PLATFORMS, platforms
from raptor.quadrotor.sampling import sample_quadrotors
from raptor.tasks.initial_state import InitialStates
from raptor.tasks.observation import Sensing
from raptor.tasks.reference import Lissajous, References
from raptor.tasks.task import Task

SUITES = ("paper", "unseen", "platforms", "figure-eight", "robustness")
"""`paper`: RAPTOR's own training evaluation, the target hidden from the policy. `unseen`: the same vehicles, the target
visible. `platforms`: the nine named vehicles, holding the origin. `figure-eight`: the same, following a figure eight.
`robustness`: `unseen` with noise, delays and a wrong thrust."""

TEST_SEEDS = 3_000_000
"""Test vehicles are drawn from this seed on, training vehicles from 1 000 000 on, validation vehicles from 2 000 000 on."""

FIGURE_EIGHT_INTERVALS = (10.0, 6.5, 5.0)
"""Seconds that each figure takes."""

FIGURE_EIGHT_DURATION = 30.0
"""Seconds that are flown of each figure: from rest at the origin, through the ramp, figure after figure."""

FIGURE_EIGHT_BOX = 2.0
"""m; leaving a box of this half side about the origin counts as terminated; the position error counts regardless."""

NOISE = Sensing(
    position_noise=0.01, orientation_noise=0.02, linear_velocity_noise=0.05, angular_velocity_noise=0.1
)

VISIBLE = Task(
    references=References(langevin_share=0.5, lissajous_share=0.5),
    sensing=dataclasses.replace(NOISE, observation_delay=(0, 3), action_delay=(0, 2)),
)
"""The task of every suite that shows the target. What differs between them (who follows what, noise, delays) is data of
the episode, so that one compiled step serves them all."""


@dataclasses.dataclass(frozen=True)
class Disturbance:
    """What a condition of `robustness` does to a vehicle. Delays are steps of 10 ms."""

    noise: float = 0.0  # factor on `NOISE`
    observation_delay: int = 0  # everything but the previous action is seen so late
    action_delay: int = 0  # the motors answer so late
    thrust: float = 1.0  # factor on the thrust of every rotor


CONDITIONS = {
    "noise": Disturbance(noise=1.0),
    "10ms-late": Disturbance(observation_delay=1),
    "20ms-late": Disturbance(observation_delay=2),
    "30ms-late": Disturbance(observation_delay=3),
    "noise+10ms-late": Disturbance(noise=1.0, observation_delay=1),
    "motors-10ms-late": Disturbance(action_delay=1),
    "motors-20ms-late": Disturbance(action_delay=2),
    "thrust-0.8": Disturbance(thrust=0.8),
    "thrust-1.5": Disturbance(thrust=1.5),
}
"""Of `robustness`."""


@dataclasses.dataclass(frozen=True)
class Condition:
    """A population at the start of its episodes; the same for every policy."""

    name: str  # empty where a suite has only one
    task: Task
    quadrotors: Quadrotors  # N vehicles
    start: Episode
    noise: Tensor  # state of the generator that the noise of the flight is drawn from
    num_steps: int
    first_counted_step: int  # position errors count from here on
    survivors_only: bool = True  # whether position errors of terminated flights are left out
    episodes: int = 1  # consecutive rows that are episodes of one vehicle, and are averaged
    groups: tuple[str, ...] = ()  # names of groups, all of the same size and one after another; none: a single group


def conditions(suite: str, num_quadrotors: int, episodes: int, seed: int, device: torch.device) -> list[Condition]:
    """The conditions of a suite.

    Args:
        suite: one of `SUITES`.
        num_quadrotors: vehicles that are sampled. Of the named platforms, each has an eighth as many starts, and a 32nd
            on each figure eight, but at least one.
        episodes: of each sampled vehicle; factor on the starts of each platform.
        seed: from 0 to 999 999; the same seed gives the same vehicles, starts and references.
        device: where to fly.

    Raises:
        UserError: there is no such suite, or a number is out of range.
    """
    for name, number in (("num_quadrotors", num_quadrotors), ("episodes", episodes)):
        if number < 1:
            raise UserError(f"{name} must be at least 1, got {number}")
    if not 0 <= seed < 1_000_000:
        raise UserError(f"seed must be between 0 and 999999, which keeps test vehicles apart from others, got {seed}")
    if suite == "paper":
        return [_sampled("", Task.paper(), Disturbance(), num_quadrotors, episodes, seed, device)]
    if suite == "unseen":
        return [_sampled("", VISIBLE, Disturbance(), num_quadrotors, episodes, seed, device)]
    if suite == "robustness":
        return [
            _sampled(name, VISIBLE, disturbance, num_quadrotors, episodes, seed, device)
            for name, disturbance in CONDITIONS.items()
        ]
    if suite == "platforms":
        return [_platforms(max(1, num_quadrotors // 8) * episodes, seed, device)]
    if suite == "figure-eight":
        starts = max(1, num_quadrotors // 32) * episodes
        return [figure_eight(interval, starts, seed, device) for interval in FIGURE_EIGHT_INTERVALS]
    raise UserError(f"there is no suite {suite!r}: choose from {', '.join(SUITES)}")


def _sampled(
    name: str,
    task: Task,
    disturbance: Disturbance,
    num_quadrotors: int,
    episodes: int,
    seed: int,
    device: torch.device,
) -> Condition:
    quadrotors = sample_quadrotors(num_quadrotors, seed=TEST_SEEDS + seed).to(device).repeat_interleave(episodes)
    drawn = dataclasses.replace(task, references=References())
    quadrotors = quadrotors.with_thrust_scaled(disturbance.thrust)
    condition = _begin(name, task, drawn, disturbance, quadrotors, seed)
    return dataclasses.replace(condition, episodes=episodes)


def _platforms(starts: int, seed: int, device: torch.device) -> Condition:
    quadrotors = platforms().to(device).repeat_interleave(starts)
    drawn = Task(references=References(langevin_share=0.0))
    return dataclasses.replace(_begin("", VISIBLE, drawn, Disturbance(), quadrotors, seed), groups=PLATFORMS)


def figure_eight(interval: float, starts: int, seed: int, device: torch.device) -> Condition:
    """Each platform on figure eights, from rest at the origin with rotors at random speeds.

    Args:
        interval: s for each figure.
        starts: of each platform.
        seed: of the starts.
        device: where to fly.
    """
    quadrotors = platforms().to(device).repeat_interleave(starts)
    box = torch.full_like(quadrotors.position_threshold, FIGURE_EIGHT_BOX)
    quadrotors = dataclasses.replace(quadrotors, position_threshold=box)
    figure = Lissajous(interval=(interval, interval))
    drawn = Task(
        initial_states=InitialStates(guidance=1.0),
        references=References(langevin_share=0.0, lissajous_share=1.0, lissajous=figure),
    )
    return dataclasses.replace(
        _begin(f"{interval:g}s", VISIBLE, drawn, Disturbance(), quadrotors, seed),
        num_steps=round(FIGURE_EIGHT_DURATION / VISIBLE.dt),
        first_counted_step=0,
        survivors_only=False,
        groups=PLATFORMS,
    )


def _begin(
    name: str, task: Task, drawn: Task, disturbance: Disturbance, quadrotors: Quadrotors, seed: int
) -> Condition:
    """Draw starts as `drawn` says, of episodes that `task` flies and `disturbance` disturbs."""
    delays = (disturbance.observation_delay,) * 2, (disturbance.action_delay,) * 2
    sensing = dataclasses.replace(
        NOISE,
        noise_scale=(disturbance.noise, disturbance.noise),
        observation_delay=delays[0],
        action_delay=delays[1],
    )
    generator = torch.Generator(quadrotors.device).manual_seed(TEST_SEEDS + seed)
    start = begin_episode(dataclasses.replace(drawn, sensing=sensing), quadrotors, generator)
    longest = task.sensing.observation_delay[1] + 1, task.sensing.action_delay[1]
    held = start.previous_action
    start = dataclasses.replace(
        start,
        sensed=(start.sensed + start.sensed[-1:] * longest[0])[: longest[0]],
        commanded=(start.commanded + (held,) * longest[1])[: longest[1]],
    )
    return Condition(
        name=name,
        task=task,
        quadrotors=quadrotors,
        start=start,
        noise=generator.get_state(),
        num_steps=task.episode_steps,
        first_counted_step=task.episode_steps // 2,
    )
