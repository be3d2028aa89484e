"""Trajectories: functions of time, and how episodes follow them."""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest
import torch

from raptor.config import load_config, to_dict
from raptor.core.errors import UserError
from raptor.environments.episode import advance, begin_episode, draw_noise
from raptor.quadrotor import load_platform
from raptor.quadrotor.state import rotation_matrix
from raptor.tasks import References, Task, Termination, Trajectory, sense, terminated, trajectory_from_array
from raptor.tasks.reference import advance_reference, look_ahead, sample_reference
from raptor.tasks.reward import COSTS, heading_angle
from raptor.tasks.terms import Terms, find_term, term
from raptor.tasks.trajectories import RAMP
from raptor.tasks.views import StepView

DT = 0.01
NAMED = ("figure-eight", "circle", "helix", "steps", "hover")
AT_THE_START = {"random_start": False, "ramp": 0.0}


@term("trajectory", "rising_line")
def rising_line(t: torch.Tensor, speed: float = 2.0) -> torch.Tensor:
    """A line."""
    return torch.stack([speed * t, torch.zeros_like(t), 0.1 * t * t], dim=-1)


def references(source, share=1.0, extra=(), **settings):
    config = References(langevin_share=0.0, trajectory_share=share, trajectory=Trajectory(source, **settings))
    return config.with_settings(Terms(extra))


def begin(config, num=64, seed=0, episode_s=5.0):
    like = torch.zeros(num, dtype=torch.float64)
    return sample_reference((num,), config, like, torch.Generator().manual_seed(seed), episode_s)


def path(config, num_steps, **how):
    """The reference at the start and after each step."""
    reference = begin(config, **how)
    still = torch.zeros_like(reference.position)
    steps = itertools.accumulate(
        range(num_steps), lambda r, _: advance_reference(r, config, still, DT), initial=reference
    )
    return list(steps)


@pytest.mark.parametrize("name", NAMED)
def test_the_velocity_is_the_derivative_of_the_position(name):
    targets = path(references(name), 40, num=16)
    for before, now, after in zip(targets, targets[1:], targets[2:], strict=False):
        moved = (after.position - before.position) / (2 * DT)
        smooth = (after.position - now.position).norm(dim=-1) < 0.1  # a step jumps, and has no velocity
        torch.testing.assert_close(moved[smooth], now.velocity[smooth], atol=2e-3, rtol=0)


@pytest.mark.parametrize("name", NAMED)
def test_an_episode_begins_at_the_origin_wherever_on_the_trajectory_it_begins(name):
    reference = begin(references(name))
    assert (reference.position == 0).all()
    assert reference.course[0].begin.unique().numel() == 64
    assert reference.velocity.isfinite().all()


def test_a_circle_is_round_and_flown_at_its_speed():
    config = references("circle", extra=[find_term("circle")(radius=2.0, period=4.0)], **AT_THE_START)
    targets = path(config, 400, num=1)
    places = torch.cat([target.position for target in targets])
    torch.testing.assert_close((places - torch.tensor([0.0, 2.0, 0.0])).norm(dim=-1), torch.full((401,), 2.0).double())
    torch.testing.assert_close(targets[7].velocity.norm(), torch.tensor(math.pi, dtype=torch.float64))


def test_a_ramp_leads_from_rest_to_full_speed():
    targets = path(references("circle", random_start=False), 300, num=1)
    speed = torch.stack([target.velocity.norm() for target in targets])
    torch.testing.assert_close(speed[[0, 100, 200, 300]], 2 * math.pi / 6 * torch.tensor([0, 0.5, 1, 1]).double())
    assert Trajectory("circle").ramp_s == RAMP
    assert Trajectory("steps").ramp_s == 0


def test_settings_that_are_ranges_are_drawn_for_each_episode():
    config = references("circle", extra=[find_term("circle")(radius=(0.5, 2.0))], **AT_THE_START)
    speeds = begin(config, 500).velocity.norm(dim=-1) * 6 / (2 * math.pi)
    assert 0.5 <= speeds.min() < 0.6
    assert 1.9 < speeds.max() <= 2.0


def test_the_other_references_divide_the_episodes_that_the_trajectory_leaves():
    config = References(langevin_share=0.5, lissajous_share=0.5, trajectory_share=0.4, trajectory=Trajectory("circle"))
    reference = begin(config, 20_000)
    kinds = reference.course[0].scale != 0, reference.langevin_sigma != 0, reference.amplitude.norm(dim=-1) != 0
    assert [kind.double().mean().item() for kind in kinds] == pytest.approx([0.4, 0.3, 0.3], abs=0.015)
    assert (torch.stack(kinds).sum(0) == 1).all()


def test_a_task_without_a_trajectory_draws_what_it_drew_before():
    config = References(langevin_share=0.4, lissajous_share=0.3)
    other = dataclasses.replace(config, trajectory=Trajectory("circle"))
    generators = [torch.Generator().manual_seed(3) for _ in range(2)]
    plain, followed = (
        sample_reference((8,), each, torch.zeros(8), generator)
        for each, generator in zip((config, other), generators, strict=True)
    )
    assert plain.course == ()
    assert plain.yaw is None
    torch.testing.assert_close(plain.ramp, followed.ramp, rtol=0, atol=0)


def test_ones_own_function_of_time_is_followed_with_its_settings():
    config = load_config(Task, None, ["references.trajectory=rising_line", "extra.rising_line.speed=3"])
    (position,), (velocity,) = config.references.trajectory.flown(torch.tensor([0.0, 4.0]), torch.zeros(2, 0))
    torch.testing.assert_close(velocity, torch.tensor([[0.0, 0, 0], [3.0, 0, 0.6]]))  # 3 s into it, after the ramp
    torch.testing.assert_close(position[1], torch.tensor([9.0, 0.0, 0.9]))


def test_settings_with_a_trajectory_are_stored_and_read_back():
    task = load_config(Task, None, ["references.trajectory=circle", "extra.circle.radius=[1, 2]", "dt=0.02"])
    assert load_config(Task, None, [], default=task) == task
    assert hash(task) == hash(load_config(Task, None, [], default=task))
    assert to_dict(task)["references"]["trajectory"]["source"] == "circle"
    assert task.references.trajectory.drawn == {"radius": (1, 2)}


@pytest.mark.parametrize(
    ("function", "complaint"),
    [
        (lambda t: t, r"got shapes \[\(2,\)\] for two times"),
        (lambda t: torch.stack([t, t, t], -1) / 0, "got a number not finite"),
        (lambda t: torch.stack([t, t], -1) + torch.zeros(3), "got RuntimeError"),
        (lambda t: (torch.stack([t, t, t], -1), 0.0), "got AttributeError"),
    ],
)
def test_a_function_that_gives_something_else_is_refused_by_its_name(function, complaint):
    name = f"wrong_{abs(hash(complaint))}"
    term("trajectory", name)(function)
    with pytest.raises(UserError, match=f"the trajectory {name} must map times .*{complaint}"):
        Trajectory(name)


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("ellipse", "there is no term ellipse.*trajectories are figure-eight, circle.*or a CSV file"),
        ("position_error", "position_error is a observation, and a trajectory is expected"),
        ("not/there.csv", r"not/there.csv cannot be read \(No such file or directory\): name a CSV file"),
        ("x" * 5000, r"cannot read the trajectory 'xxx.*\.\.\.': File name too long"),
        ("a\0b", "cannot read the trajectory .*: embedded null byte"),
        (5, "the trajectory must be a name, or that of a CSV file, as text, got 5"),
    ],
)
def test_what_is_no_trajectory_is_refused(source, complaint):
    with pytest.raises(UserError, match=complaint):
        Trajectory(source)


def test_look_ahead_gives_the_target_of_later():
    config = references("helix")
    targets = path(config, 30)
    ahead = look_ahead(targets[10], config, 20 * DT)
    torch.testing.assert_close(ahead.position, targets[30].position)
    torch.testing.assert_close(ahead.velocity, targets[30].velocity)


def test_vehicles_start_about_the_motion_and_the_yaw_of_their_target():
    hovering = find_term("hover")(yaw=(-3.0, 3.0), yaw_rate=0.7)
    config = References(langevin_share=0.0, trajectory_share=0.5, trajectory=Trajectory("hover"))
    task = Task(references=config, extra=[hovering])
    plain = dataclasses.replace(task, references=References(langevin_share=0.0))
    quadrotors = load_platform("crazyflie").repeat_interleave(64)
    own, other = (begin_episode(each, quadrotors, torch.Generator().manual_seed(0)) for each in (task, plain))
    turned = own.reference.orientation_from_world(own.state.orientation)
    torch.testing.assert_close(turned, other.state.orientation, atol=1e-6, rtol=0)
    vertical = rotation_matrix(own.state.orientation)[:, 6:]
    follows = own.reference.course[0].scale != 0
    spun = other.state.angular_velocity + 0.7 * vertical * follows.unsqueeze(-1)
    torch.testing.assert_close(own.state.angular_velocity, spun)
    assert 16 < follows.sum() < 48
    assert (own.reference.yaw[~follows] == 0).all()

    fast = dataclasses.replace(task, references=references("circle"))
    begun = begin_episode(fast, quadrotors, torch.Generator().manual_seed(0))
    torch.testing.assert_close(begun.state.linear_velocity - begun.reference.velocity, other.state.linear_velocity)
    assert (begun.reference.velocity.norm(dim=-1) > 0.5).any()


def yawing():
    """Vehicles that a yaw of 1 rad and another course are asked of, and the same world turned by 1 rad about z."""
    task = Task(
        references=references("hover", extra=[find_term("hover")(yaw=1.0)]), extra=[find_term("hover")(yaw=1.0)]
    )
    still = Task(references=References(langevin_share=0.0))
    quadrotors = load_platform("crazyflie").repeat_interleave(8)
    turned, plain = (begin_episode(each, quadrotors, torch.Generator().manual_seed(1)) for each in (task, still))
    cos, sin = math.cos(1.0), math.sin(1.0)
    rotation = torch.tensor([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])

    def rotate(vector):
        return vector @ rotation.T

    moved = {name: rotate(getattr(plain.state, name)) for name in ("position", "linear_velocity")}
    return dataclasses.replace(turned, state=dataclasses.replace(turned.state, **moved)), plain, task, still, quadrotors


def test_a_yaw_reference_turns_the_frame_of_the_errors():
    turned, plain, *_ = yawing()
    seen, expected = (sense(each.state, each.reference, True) for each in (turned, plain))
    torch.testing.assert_close(seen, expected, atol=1e-6, rtol=0)
    hidden = sense(turned.state, turned.reference, target_visible=False)
    torch.testing.assert_close(
        hidden[:, :12], torch.cat([turned.state.position, rotation_matrix(turned.state.orientation)], -1)
    )


def test_a_yaw_reference_turns_the_heading_that_is_rated():
    turned, plain, *_ = yawing()
    angles = [heading_angle(each.reference.orientation_from_world(each.state.orientation)) for each in (turned, plain)]
    torch.testing.assert_close(*angles, atol=1e-5, rtol=0)
    zero = torch.zeros(8, 4)
    step = StepView(None, turned.state, turned.reference, zero, zero, turned.state, turned.reference, DT)
    torch.testing.assert_close(COSTS["orientation"](step), angles[1], atol=1e-5, rtol=0)


def test_flying_with_a_yaw_reference_is_flying_in_a_turned_world():
    turned, plain, task, still, quadrotors = yawing()
    action = torch.linspace(-0.5, 0.5, 32).reshape(8, 4)
    noise = draw_noise(task, quadrotors.mass, torch.Generator().manual_seed(0), 20)
    lifted = dataclasses.replace(turned, force=turned.force * 0), dataclasses.replace(plain, force=plain.force * 0)
    for drawn in noise:
        lifted = tuple(
            advance(each, quadrotors, episode, action, drawn)[0]
            for each, episode in zip((task, still), lifted, strict=True)
        )
    torch.testing.assert_close(lifted[0].sensed[0], lifted[1].sensed[0], atol=2e-4, rtol=0)


def test_bounds_about_the_target_allow_its_speed():
    time = torch.arange(0, 3, 0.02)
    line = trajectory_from_array(torch.stack([6 * time, 0 * time, 0 * time], -1), time)
    task = Task(references=references(line, **AT_THE_START))
    quadrotors = load_platform("crazyflie").repeat_interleave(4)
    episode = begin_episode(task, quadrotors, torch.Generator().manual_seed(0))
    assert (episode.reference.velocity[:, 0] > 5.9).all()
    over = [
        terminated(config, quadrotors, episode.state, episode.reference).all().item()
        for config in (Termination(), Termination(about_target=True))
    ]
    assert over == [True, False]
    slow = dataclasses.replace(episode.state, linear_velocity=torch.zeros(4, 3))
    assert terminated(Termination(about_target=True), quadrotors, slow, episode.reference).all()


def test_trajectories_with_other_settings_are_other_tasks():
    slow, fast = (
        Task(references=References(trajectory=Trajectory("circle")), extra=[find_term("circle")(period=period)])
        for period in (9.0, 4.0)
    )
    alone = [dataclasses.replace(task, extra=Terms()) for task in (slow, fast)]
    assert alone[0] != alone[1]
    assert Trajectory("circle") == Trajectory("circle")
    assert hash(Trajectory("circle")) == hash(Trajectory("circle"))


def test_the_summary_says_what_a_trajectory_asks_of_a_vehicle():
    circle = find_term("circle")(radius=2.0, period=4.0)
    task = Task(references=References(trajectory=Trajectory("circle", scale=0.5, duration=8.0)), extra=[circle])
    speed = 2 * math.pi / 4
    most = math.hypot(speed**2, speed / RAMP)  # at the end of the ramp
    assert task.references.trajectory.summary == f"circle: 9 s, at most {speed:.2g} m/s and {most:.2g} m/s²"
