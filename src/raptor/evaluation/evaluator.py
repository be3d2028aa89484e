"""Evaluating policies on suites of conditions, each a population of vehicles at the start of its episodes."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree as pytree

from raptor.core.compilation import steps_before_compiling
from raptor.core.devices import find_device
from raptor.core.errors import UserError
from raptor.environments.collectors import Episodes, PositionErrors, Recorder
from raptor.environments.episode import Episode, begin_episode
from raptor.environments.rollout import VEHICLES_AT_ONCE, Policy, controller_of, rollout
from raptor.evaluation.results import CONFIDENCE, RESAMPLES, Evaluation, bootstrap_means, estimates, metrics_of
from raptor.quadrotor.parameters import NUM_ROTORS, PLATFORMS, Quadrotors, load_platforms
from raptor.quadrotor.population import sample_quadrotors
from raptor.tasks.initial_state import InitialStates
from raptor.tasks.observation import STUDENT_DIM, Sensing
from raptor.tasks.reference import Lissajous, References
from raptor.tasks.task import Task

CountFunction = Callable[[str, int, int], None]
"""Called with what is being done, how much is done, and how much there is."""

SUITES = ("paper", "unseen", "platforms", "figure-eight", "robustness")
"""`paper`: RAPTOR's own training evaluation, the target hidden from the policy. `unseen`: the same vehicles, the target
visible. `platforms`: the nine named vehicles, holding the origin. `figure-eight`: the same, following a figure eight.
`robustness`: `unseen` with noise, delays and a wrong thrust."""

TEST_SEEDS = 3_000_000  # those of training are from 1 000 000 on, of validation from 2 000 000 on
FIGURE_EIGHT_INTERVALS = (10.0, 6.5, 5.0)  # s that each figure takes
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
    first_counted_step: int = VISIBLE.episode_steps // 2  # position errors count from here on
    survivors_only: bool = True  # whether position errors of terminated episodes are left out
    episodes: int = 1  # consecutive rows that are episodes of one vehicle, and are averaged
    groups: tuple[str, ...] = ()  # names of groups, all of the same size and one after another; none: a single group

    @property
    def flown_alike(self) -> tuple[Task, int, int]:
        """What conditions must have in common to be one rollout."""
        return self.task, self.num_steps, self.first_counted_step

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

THRUST_FACTORS = {"thrust-0.8": 0.8, "thrust-1.5": 1.5}  # thrust of the vehicle over that of its model


def conditions(suite: str, num_quadrotors: int, episodes: int, seed: int, device: torch.device) -> list[Condition]:
    """The conditions of a suite; `UserError` where there is none of that name, or a number is out of range.

    Of the named platforms, each starts an eighth as often as `num_quadrotors`, and a 32nd on each figure eight, but at
    least once, times `episodes`. Seeds go from 0 to 999 999 and determine vehicles, starts and references.
    """
    for name, number in (("num_quadrotors", num_quadrotors), ("episodes", episodes)):
        if number < 1:
            raise UserError(f"{name} must be at least 1, got {number}")
    if not 0 <= seed < 1_000_000:
        raise UserError(f"seed must be between 0 and 999999, which keeps test vehicles apart from others, got {seed}")
    if suite == "platforms":
        vehicles = load_platforms().to(device).repeat_interleave(starts_per_platform(num_quadrotors, episodes))
        starts = Task(references=References(langevin_share=0.0), sensing=_sensing())
        return [Condition("", VISIBLE, starts, vehicles, seed, groups=PLATFORMS)]
    if suite == "figure-eight":
        num_starts = starts_per_platform(num_quadrotors, episodes, part=32)
        return [figure_eight(interval, num_starts, seed, device) for interval in FIGURE_EIGHT_INTERVALS]
    if suite not in SUITES:
        raise UserError(f"there is no suite {suite!r}: choose from {', '.join(SUITES)}")
    task, starts = (Task.paper(), Task.paper()) if suite == "paper" else (VISIBLE, Task(sensing=_sensing()))
    sampled = sample_quadrotors(num_quadrotors, seed=TEST_SEEDS + seed).to(device).repeat_interleave(episodes)
    plain = Condition("", task, starts, sampled, seed, episodes=episodes)
    if suite != "robustness":
        return [plain]
    impaired = {name: dataclasses.replace(starts, sensing=sensing) for name, sensing in IMPAIRMENTS.items()}
    scaled = {name: sampled.with_thrust_scaled(factor) for name, factor in THRUST_FACTORS.items()}
    return [
        *(dataclasses.replace(plain, name=name, starts=starts) for name, starts in impaired.items()),
        *(dataclasses.replace(plain, name=name, quadrotors=quadrotors) for name, quadrotors in scaled.items()),
    ]


def starts_per_platform(num_quadrotors: int, episodes: int, part: int = 8) -> int:
    """How often each named platform starts in `platforms`; with `part` 32, on each figure of `figure-eight`."""
    return max(1, num_quadrotors // part) * episodes


def figure_eight(interval: float, starts: int, seed: int, device: torch.device) -> Condition:
    """Each platform so often on figure eights of `interval` s, from rest at the origin, rotors at random speeds."""
    quadrotors = load_platforms().to(device).repeat_interleave(starts)
    box = torch.full_like(quadrotors.position_threshold, FIGURE_EIGHT_BOX)
    figure = Lissajous(interval=(interval, interval))
    references = References(langevin_share=0.0, lissajous_share=1.0, lissajous=figure)
    return Condition(
        name=f"{interval:g}s",
        task=VISIBLE,
        starts=Task(initial_states=InitialStates(guidance=1.0), references=references, sensing=_sensing()),
        quadrotors=dataclasses.replace(quadrotors, position_threshold=box),
        seed=seed,
        num_steps=round(FIGURE_EIGHT_DURATION / VISIBLE.dt),
        first_counted_step=0,
        survivors_only=False,
        groups=PLATFORMS,
    )


def evaluate(
    policies: Mapping[str, Policy],
    suites: Sequence[str] = SUITES,
    num_quadrotors: int = 2048,
    episodes: int = 1,
    seed: int = 0,
    device: torch.device | str = "cpu",
    progress: CountFunction | None = None,
    compile: bool | None = None,
) -> Evaluation:
    """Evaluate policies by name on suites; each of them meets the same vehicles, starts, references and noise.

    The first policy is the one that others are compared with. `num_quadrotors` are sampled; see `conditions`
    for the named platforms. Unless `compile` says so, it is compiled where that saves time. A `UserError` is raised for
    an unknown suite or device, a number out of range, no policy, or one of other dimensions.
    """
    where = find_device(device)
    if not policies:
        raise UserError("there is no policy to evaluate: name at least one")
    if isinstance(suites, str) or not suites:
        raise UserError(f"suites must be some of {', '.join(SUITES)}, got {suites!r}")
    for name, policy in policies.items():
        dimensions = getattr(policy, "observation_dim", STUDENT_DIM), getattr(policy, "action_dim", NUM_ROTORS)
        if dimensions != (STUDENT_DIM, NUM_ROTORS):
            raise UserError(
                f"policy {name!r} maps {dimensions[0]} numbers to {dimensions[1]}, and no suite can fly it: "
                f"it must map {STUDENT_DIM} to {NUM_ROTORS}"
            )
    planned = {suite: conditions(suite, num_quadrotors, episodes, seed, where) for suite in dict.fromkeys(suites)}
    most = VEHICLES_AT_ONCE.get(where.type, VEHICLES_AT_ONCE["cpu"])
    pad_to = min(most, max(map(_num_vehicles, planned.values())))
    batches = {suite: _batches(group, pad_to) for suite, group in planned.items()}
    flown = (
        batch[0].num_steps * math.ceil(_num_vehicles(batch) / pad_to) for each in batches.values() for batch in each
    )
    num_steps = len(policies) * sum(flown)
    compile = num_steps > steps_before_compiling(pad_to) if compile is None else compile
    results: dict[str, dict[str, Any]] = {name: {} for name in policies}
    show, done = progress or (lambda what, done, total: None), 0
    for suite, group in batches.items():
        for name, policy in policies.items():
            means = {}
            for batch in group:
                what = " ".join([f"{name}: {suite}", *(condition.name for condition in batch)]).strip()
                show(what, done, num_steps)
                tables = []
                for table in _measure(policy, batch, pad_to, compile):
                    tables.append(table)
                    done += batch[0].num_steps
                    show(what, done, num_steps)
                parts = torch.cat(tables).split([len(part.quadrotors) for part in batch])
                for condition, part in zip(batch, parts, strict=True):
                    rows = part.unflatten(0, (-1, condition.episodes)).nanmean(1).cpu().numpy()
                    num_groups = max(1, len(condition.groups))
                    labels = np.repeat(np.arange(num_groups), len(rows) // num_groups)
                    means[condition.name] = bootstrap_means(rows, labels, seed)
            results[name][suite] = estimates(means, planned[suite][0].groups)
    settings = {
        "version": importlib.metadata.version("raptor-python"),
        "suites": list(planned),
        "num_quadrotors": num_quadrotors,
        "episodes": episodes,
        "seed": seed,
        "test_seed": TEST_SEEDS + seed,
        "device": str(where),
        "starts_per_platform": starts_per_platform(num_quadrotors, episodes),
        "figure_eight_intervals_s": list(FIGURE_EIGHT_INTERVALS),
        "figure_eight_duration_s": FIGURE_EIGHT_DURATION,
        "figure_eight_starts_per_platform": starts_per_platform(num_quadrotors, episodes, 32),
        "vehicles_at_once": pad_to,
        "compiled": compile,
        "confidence": CONFIDENCE,
        "bootstrap_resamples": RESAMPLES,
    }
    return Evaluation(results, settings)


def _batches(group: Sequence[Condition], pad_to: int) -> list[list[Condition]]:
    """Put conditions that are flown alike into common rollouts, as long as there is room."""
    batches: list[list[Condition]] = []
    for condition in group:
        last = batches[-1] if batches else []
        room = _num_vehicles([*last, condition]) <= pad_to
        if last and room and last[0].flown_alike == condition.flown_alike:
            last.append(condition)
        else:
            batches.append([condition])
    return batches


def _num_vehicles(group: Sequence[Condition]) -> int:
    return sum(len(condition.quadrotors) for condition in group)


def _measure(policy: Policy, batch: Sequence[Condition], pad_to: int, compile: bool) -> Iterator[torch.Tensor]:
    """Metrics of all vehicles of a batch, one rollout of at most `pad_to` (n, 5) after the other."""
    quadrotors, start, generator = begin_together(batch)
    for first in range(0, len(quadrotors), pad_to):
        vehicles, begun = pytree.tree_map(lambda t, first=first: t[first : first + pad_to], (quadrotors, start))
        episodes, errors = fly(policy, batch[0], (vehicles, begun, generator), pad_to, compile)
        yield metrics_of(episodes, errors, begun.reference, batch[0].survivors_only)


def fly(
    policy: Policy,
    condition: Condition,
    begun: tuple[Quadrotors, Episode, torch.Generator],
    pad_to: int | None,
    compile: bool,
    watch: Recorder | None = None,
) -> tuple[Episodes, PositionErrors]:
    """One rollout under a condition, of vehicles that have begun."""
    quadrotors, start, generator = begun
    episodes, (errors,) = rollout(
        *controller_of(policy, len(quadrotors)),
        condition.task,
        quadrotors,
        generator,
        start=start,
        num_steps=condition.num_steps,
        collectors=[PositionErrors.begin(quadrotors.mass, condition.first_counted_step)],
        watch=watch,
        pad_to=pad_to,
        compile=compile,
    )
    return episodes, errors
