"""Teachers through the gradient: they start at hover, learn, go on exactly, and contain what blows up."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from torch.utils import _pytree as pytree

from raptor.environments.episode import observe_as_teacher
from raptor.nn.stacked_mlp import forward
from raptor.quadrotor import Quadrotors, sample_quadrotors
from raptor.rl.curriculum import Curriculum, CurriculumConfig, Stage
from raptor.rl.teacher_test import TeacherTest
from raptor.tasks.task import Task
from raptor.training.teachers.gradient import APGConfig, APGTeachers

NUM = 2
TASK = Task(episode_steps=8)
SMALL = APGConfig(num_updates=6, num_envs=4, segment_steps=2, widths=(8,), warm_up_updates=1, shared_updates=2)


def vehicles() -> Quadrotors:
    return sample_quadrotors(NUM, seed=2)


def learner(config: APGConfig = SMALL, task: Task = TASK, seed: int = 0, **curriculum: float) -> APGTeachers:
    stages = CurriculumConfig(stages=(Stage("task"),), **curriculum)
    return APGTeachers(config, task, vehicles(), Curriculum(stages, task, NUM), seed, compile=False)


def leaves(teachers: APGTeachers) -> list[torch.Tensor]:
    return pytree.tree_leaves((teachers.layers, teachers.adam, teachers.episode, teachers.age))


@pytest.mark.parametrize("shared_updates", [0, 2])
def test_the_first_actions_are_those_at_which_each_vehicle_hovers(shared_updates: int) -> None:
    teachers = learner(dataclasses.replace(SMALL, shared_updates=shared_updates, initial_scale=1e-6))
    action = torch.tanh(forward(teachers.layers, observe_as_teacher(teachers.quadrotors, teachers.episode)))
    hover = (2 * vehicles().hover_throttle - 1).view(-1, 1, 1)
    torch.testing.assert_close(action, hover.expand_as(action), rtol=1e-3, atol=1e-3)


def test_teachers_learn_to_fly() -> None:
    task = Task(episode_steps=50)
    config = APGConfig(
        num_updates=16,
        num_envs=6,
        segment_steps=10,
        widths=(16,),
        warm_up_updates=2,
        shared_updates=0,
        learning_rate=2e-2,
    )
    teachers = learner(config, task)
    test = TeacherTest(task, vehicles(), 16, seed=99, compile=False)
    before = test(teachers.teachers())
    while teachers.step_count < teachers.config.num_updates:
        teachers.update()
    after = test(teachers.teachers())
    assert (after.returns.mean(1) > before.returns.mean(1) + 5).all(), (before.returns.mean(1), after.returns.mean(1))


@pytest.mark.parametrize("before", [1, 2, 4])
def test_resumed_teachers_go_on_bit_for_bit(before: int) -> None:
    straight = learner()
    for _ in range(before):
        straight.update()
    state = copy.deepcopy(straight.state_dict())
    resumed = learner(seed=9)
    resumed.update()
    resumed.load_state_dict(state)
    for _ in range(2):
        straight.update()
        resumed.update()
    assert resumed.step_count == straight.step_count == before + 2
    assert all(torch.equal(a, b) for a, b in zip(leaves(resumed), leaves(straight), strict=True))
    assert torch.equal(resumed.diverged, straight.diverged)


def test_while_they_learn_together_all_take_the_same_step_and_then_each_its_own() -> None:
    teachers = learner()
    steps = []
    for _ in range(3):
        before = teachers.layers[0].weight.clone()
        teachers.update()
        steps.append(teachers.layers[0].weight - before)
    for step in steps[:2]:
        assert step.any()
        torch.testing.assert_close(step[0], step[1])
    assert (steps[2][0] - steps[2][1]).abs().max() > 1e-4


def test_a_flight_that_blows_up_begins_anew_and_no_weight_notices() -> None:
    teachers = learner()
    teachers.episode.state.angular_velocity[0, 1] = 1e25
    teachers.update()
    assert teachers.diverged.tolist() == [1, 0]
    assert teachers.skipped.tolist() == [0, 0]
    assert all(tensor.isfinite().all() for tensor in leaves(teachers))
    assert teachers.age[0].tolist().count(0) == 1 + teachers.age[1].tolist().count(0)


def test_episodes_are_spread_over_their_age_and_end_with_it() -> None:
    teachers = learner()
    assert teachers.age[0].tolist() == [0, 2, 4, 6]
    for number in range(1, 5):
        ended = teachers.age == TASK.episode_steps - SMALL.segment_steps
        previous = teachers.episode.reference.time.clone()
        teachers.update()
        assert torch.equal(teachers.age == 0, ended), number
        assert ((teachers.episode.reference.time > previous) == ~ended).all()


def layouts(teachers: APGTeachers) -> list[tuple[int, ...]]:
    """Of all tensors but empty ones, which the gradient lays out by itself."""
    return [leaf.stride() for leaf in leaves(teachers) if leaf.numel()]


def test_everything_keeps_the_memory_layout_for_which_it_was_compiled() -> None:
    teachers = learner()
    before = layouts(teachers)
    for _ in range(4):
        teachers.update()
        assert layouts(teachers) == before
    teachers.load_state_dict(copy.deepcopy(teachers.state_dict()))
    assert layouts(teachers) == before


def test_no_step_is_longer_than_the_bound_on_the_gradient_allows() -> None:
    teachers = learner(dataclasses.replace(SMALL, gradient_norm=1e-3, shared_updates=0))
    norm = teachers.update()["gradient_norm"]
    assert (norm > 1e-3).all()
    first_moment = pytree.tree_leaves(teachers.adam.mean)
    held = torch.stack([(g * g).flatten(1).sum(1) for g in first_moment]).sum(0).sqrt() / 0.1
    torch.testing.assert_close(held, torch.full((NUM,), 1e-3), rtol=1e-3, atol=0)


def test_successes_move_a_vehicle_through_the_curriculum() -> None:
    stages = CurriculumConfig(enabled=True, window=2, advance_at=0.5, fall_back_at=0.0, max_position_error=100.0)
    curriculum = Curriculum(stages, TASK, NUM)
    teachers = APGTeachers(SMALL, TASK, vehicles(), curriculum, 0, compile=False)
    for _ in range(6):
        teachers.update()
    assert curriculum.stage.min() >= 1


def test_steps_are_counted_for_each_teacher() -> None:
    teachers = learner()
    teachers.update()
    assert (teachers.env_steps, teachers.step_count) == (8, 1)


def test_vehicles_with_fast_motors_do_not_blow_up() -> None:
    taus = torch.full((NUM, 4), 1e-3)
    fast = dataclasses.replace(vehicles(), rotor_time_constants_rising=taus, rotor_time_constants_falling=taus)
    stages = CurriculumConfig(stages=(Stage("task"),))
    teachers = APGTeachers(SMALL, TASK, fast, Curriculum(stages, TASK, NUM), 0, compile=False)
    norms = torch.stack([teachers.update()["gradient_norm"] for _ in range(4)])
    assert norms.isfinite().all()
    assert norms.max() < 1e3
    assert teachers.skipped.sum() == 0
