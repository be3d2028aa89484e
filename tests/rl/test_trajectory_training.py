"""Training on a trajectory: bounds about the target, and the stages of a curriculum."""

from __future__ import annotations

import dataclasses

import torch

from raptor.environments.episode import begin_episode
from raptor.quadrotor import sample_quadrotors
from raptor.rl.curriculum import Stage
from raptor.rl.objective import Objective, in_bounds, step_cost
from raptor.tasks import References, Task, Termination, Trajectory
from raptor.tasks.terms import find_term

CIRCLE = find_term("circle")(radius=(0.5, 3.0), period=4.0, facing=True)
ABOUT = Termination(about_target=True)
TASK = Task(
    references=References(langevin_share=0.5, trajectory=Trajectory("circle")),
    termination=ABOUT,
    extra=[CIRCLE],
)


def test_speed_and_box_cost_nothing_to_a_vehicle_that_moves_with_a_fast_target():
    quadrotors = sample_quadrotors(16, seed=0)
    task = dataclasses.replace(TASK, references=dataclasses.replace(TASK.references, trajectory_share=1.0))
    episode = begin_episode(task, quadrotors, torch.Generator().manual_seed(0))
    target = episode.reference
    far = dataclasses.replace(target, position=target.position + 50)
    state = dataclasses.replace(episode.state, position=far.position, linear_velocity=far.velocity)
    moving = dataclasses.replace(episode, state=state, reference=far)
    fast = far.velocity.abs().amax(-1) > 1.7
    assert fast.any()
    objective, action = Objective(position=0, heading=0, action_rate=0), torch.zeros(16, 4)
    still = dataclasses.replace(task, termination=Termination())
    about, absolute = (step_cost(objective, each, quadrotors, moving, action, moving) for each in (task, still))
    assert (about == 0).all()
    assert (absolute > 0).all()
    assert (in_bounds(quadrotors, state, far) == 1).all()
    assert (in_bounds(quadrotors, state) == 0).all()


def test_tracking_weighs_the_error_by_the_speed_of_the_target():
    quadrotors = sample_quadrotors(16, seed=0)
    episode = begin_episode(TASK, quadrotors, torch.Generator().manual_seed(0))
    only = {"position": 0.0, "heading": 0.0, "action_rate": 0.0, "saturation": 0.0, "speed": 0.0, "box": 0.0}
    error, tracking = (
        step_cost(Objective(**only | {name: 3.0}), TASK, quadrotors, episode, torch.zeros(16, 4), episode)
        for name in ("position", "tracking")
    )
    speed = episode.reference.velocity.norm(dim=-1)
    assert (speed == 0).any()
    assert (speed > 1).any()
    torch.testing.assert_close(tracking, error * speed, rtol=1e-3, atol=0.011 * error.max().item())


def test_a_stage_of_a_curriculum_makes_the_trajectory_smaller_and_rarer():
    easy = Stage("easy", reference_size=0.5, references=0.25).applied_to(TASK)
    assert easy.references.trajectory_share == 0.125
    assert easy.references.trajectory.function is TASK.references.trajectory.function
    quadrotors = sample_quadrotors(64, seed=0)
    slow, fast = (begin_episode(task, quadrotors, torch.Generator().manual_seed(0)).reference for task in (easy, TASK))
    both = (slow.course[0].scale != 0) & (fast.course[0].scale != 0)
    assert both.any()
    torch.testing.assert_close(slow.velocity[both], fast.velocity[both] / 2)
