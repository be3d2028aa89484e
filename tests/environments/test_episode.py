"""Delays, noise and what is fed back, within an episode."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from rollouts import fly_actions as fly

from raptor.environments import QuadrotorEnv, begin_episode, observe, observe_as_teacher
from raptor.quadrotor import load_platform, sample_quadrotors
from raptor.tasks import Reward, Sensing, Task, sense, teacher_observation


@pytest.mark.parametrize("late", [0, 1, 3])
def test_everything_but_the_previous_action_is_observed_late(actions, late):
    task = Task(sensing=Sensing(observation_delay=(late, late)))
    flown = actions(6, 2)
    episodes = fly(task, sample_quadrotors(2, seed=0), flown)
    for step, episode in enumerate(episodes[1:], start=1):
        then = episodes[max(step - late, 0)]
        observation = observe(episode)
        assert torch.equal(observation[:, :18], sense(then.state, then.reference, True))
        assert torch.equal(observation[:, 18:], flown[step - 1])


@pytest.mark.parametrize("late", [1, 2])
def test_the_motors_answer_late_but_the_action_is_fed_back_at_once(actions, late):
    quadrotors = sample_quadrotors(2, seed=0)
    flown = actions(6, 2)
    delayed = fly(Task(sensing=Sensing(action_delay=(late, late))), quadrotors, flown)
    held = delayed[0].previous_action  # what the motors do until the first action arrives
    arriving = torch.cat([held.expand(late, 2, 4), flown[:-late]])
    on_time = fly(Task(), quadrotors, arriving)
    for one, other in zip(delayed, on_time, strict=True):
        assert torch.equal(one.state.as_tensor(), other.state.as_tensor())
    assert torch.equal(observe(delayed[-1])[:, 18:], flown[-1])
    # The rotors kept their speed exactly as long as no action had arrived.
    moved = [not torch.allclose(e.state.rotor_speed, delayed[0].state.rotor_speed, atol=1e-6) for e in delayed]
    assert moved.index(True) == late + 1


def test_delays_are_drawn_for_each_vehicle_from_their_whole_range(generator):
    task = Task(sensing=Sensing(observation_delay=(0, 2), action_delay=(1, 3)))
    episode = begin_episode(task, load_platform("crazyflie").repeat_interleave(3000), generator)
    for delay, low in ((episode.observation_delay, 0), (episode.action_delay, 1)):
        counts = torch.bincount(delay.long(), minlength=low + 3)[low:]
        assert counts.sum() == 3000
        assert counts.min() > 900


def test_each_vehicle_has_the_delay_that_was_drawn_for_it(actions):
    task = Task(sensing=Sensing(observation_delay=(0, 2)))
    episodes = fly(task, sample_quadrotors(8, seed=0), actions(4, 8))
    late = episodes[0].observation_delay.long().tolist()
    assert len(set(late)) == 3
    for vehicle, steps in enumerate(late):
        then = episodes[4 - steps]
        expected = sense(then.state, then.reference, True)[vehicle]
        assert torch.equal(observe(episodes[4])[vehicle, :18], expected)


def test_noise_has_the_given_deviation_in_each_component_and_spares_the_previous_action(generator):
    sensing = Sensing(
        position_noise=0.01,
        orientation_noise=0.02,
        linear_velocity_noise=0.05,
        angular_velocity_noise=0.1,
    )
    quadrotors = load_platform("crazyflie").repeat_interleave(20_000)
    episode = begin_episode(Task(sensing=sensing), quadrotors, generator)
    error = observe(episode)[:, :18] - sense(episode.state, episode.reference, True)
    expected = torch.tensor([0.01] * 3 + [0.02] * 9 + [0.05] * 3 + [0.1] * 3)
    torch.testing.assert_close(error.std(0) / expected, torch.ones(18), atol=0.03, rtol=0)
    assert (error.mean(0) / expected).abs().max() < 0.03
    assert torch.corrcoef(error.mT).sub(torch.eye(18)).abs().max() < 0.04
    torch.testing.assert_close(observe(episode)[:, 18:], 2 * episode.state.rotor_speed - 1)


def test_noise_is_fresh_at_every_step_and_its_scale_each_vehicles_own(actions):
    task = Task(sensing=Sensing(position_noise=1.0, noise_scale=(0.0, 2.0)))
    quadrotors = load_platform("crazyflie").repeat_interleave(4000)
    episodes = fly(task, quadrotors, actions(2, 4000))
    errors = [(observe(e)[:, :18] - sense(e.state, e.reference, True))[:, 0] for e in episodes]
    scale = episodes[0].noise_scale
    assert 0 <= scale.min() < 0.1
    assert 1.9 < scale.max() <= 2
    standard = torch.stack([error / scale for error in errors])
    torch.testing.assert_close(standard.std(-1), torch.ones(3), atol=0.06, rtol=0)
    assert torch.corrcoef(standard).sub(torch.eye(3)).abs().max() < 0.06


@pytest.mark.parametrize("clipped", [True, False])
def test_the_action_that_is_fed_back_and_rated_is_clipped_unless_the_task_says_otherwise(clipped):
    quadrotors = sample_quadrotors(1, seed=0)
    task = Task(clip_previous_action=clipped, reward=Reward(position=0.0, orientation=0.0))
    env = QuadrotorEnv(quadrotors, task, compile=False)
    env.reset()
    result = env.step(torch.tensor([[3.0, 0.0, -2.0, 0.0]]))
    fed_back = torch.tensor([[1.0, 0.0, -1.0, 0.0]]) if clipped else torch.tensor([[3.0, 0.0, -2.0, 0.0]])
    assert torch.equal(result.observation[:, 18:], fed_back)
    assert result.reward.item() == pytest.approx(1.5 - fed_back.norm().item())
    assert env.step(fed_back).reward.item() == pytest.approx(1.5)


def test_the_motors_get_the_clipped_action_either_way():
    quadrotors = sample_quadrotors(2, seed=0)
    far, edge = torch.full((1, 2, 4), 3.0), torch.ones(1, 2, 4)
    raw = fly(Task.paper(), quadrotors, far)[-1].state
    assert torch.equal(raw.as_tensor(), fly(Task.paper(), quadrotors, edge)[-1].state.as_tensor())


def test_the_teacher_sees_the_truth_on_time_whatever_the_sensors_do(actions):
    sensing = Sensing(position_noise=1.0, observation_delay=(2, 2))
    quadrotors = sample_quadrotors(3, seed=0)
    task = dataclasses.replace(Task.paper(), sensing=sensing)
    episode = fly(task, quadrotors, actions(4, 3))[-1]
    truth = sense(episode.state, episode.reference, target_visible=True)
    expected = teacher_observation(truth, episode.previous_action, episode.state.rotor_speed, quadrotors)
    assert torch.equal(observe_as_teacher(quadrotors, episode), expected)


def test_an_episodes_force_is_constant_and_pushes_the_vehicle(actions):
    quadrotors = dataclasses.replace(sample_quadrotors(2, seed=0), random_force=torch.tensor([[0.0, 0.0], [0.5, 0.0]]))
    still = fly(Task(), dataclasses.replace(quadrotors, random_force=torch.zeros(2, 2)), actions(3, 2))
    pushed = fly(Task(), quadrotors, actions(3, 2))
    assert all(torch.equal(episode.force, pushed[0].force) for episode in pushed)
    difference = pushed[-1].state.linear_velocity - still[-1].state.linear_velocity
    assert (difference[0] == 0).all()
    torch.testing.assert_close(difference[1], 0.03 * pushed[0].force[1] / quadrotors.mass[1], rtol=1e-3, atol=1e-5)
