"""What separates an episode from a perfect one: each alone, their shares of the episodes, all together."""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest
import torch
from rollouts import fly_actions as fly

from raptor.core.errors import UserError
from raptor.environments import QuadrotorEnv, begin_episode, observe
from raptor.quadrotor import load_platform, sample_quadrotors
from raptor.quadrotor.state import rotation_matrix
from raptor.tasks import Air, Deployment, Disturbances, Motors, References, Sensing, Task, sense
from raptor.tasks.imperfections import drag_force

STILL = Disturbances(force=0, torque=0)
ALL = Task(
    sensing=Sensing(
        position_noise=0.01,
        position_bias=0.1,
        orientation_bias=0.1,
        linear_velocity_bias=0.1,
        angular_velocity_bias=0.1,
        lost=(0.1, 0.3),
        observation_delay=(0, 2),
        velocity_delay=(0, 2),
        action_delay=(0, 1),
    ),
    motors=Motors(thrust=(0.7, 1.5), weakest=(0.8, 1), sag=(0, 0.1)),
    air=Air(drag=(0, 0.3), wind=(0, 3), gusts=(0, 1)),
    deployment=Deployment(
        position_limit=(0.5, 1), velocity_limit=(1, 2), first_action=("held", -1, 0, 0.32), dt_factor=(0.8, 1)
    ),
)


def seen(episode):
    """What is sensed of the present state, exactly."""
    return sense(episode.state, episode.reference, True)


def test_biases_shift_what_is_sensed_and_turn_the_frame_of_the_body(generator):
    task = Task(
        sensing=Sensing(position_bias=0.1, orientation_bias=0.02, linear_velocity_bias=0.3, angular_velocity_bias=0.4)
    )
    episode = begin_episode(task, load_platform("crazyflie").repeat_interleave(20_000), generator)
    (bias,) = episode.imperfections.bias
    torch.testing.assert_close(
        bias.std(0), torch.tensor([0.1] * 3 + [0.02] * 3 + [0.3] * 3 + [0.4] * 3), rtol=0.03, atol=0
    )
    off = observe(episode)[:, :18] - seen(episode)
    for first, drawn in ((0, bias[:, :3]), (12, bias[:, 6:9]), (15, bias[:, 9:])):
        torch.testing.assert_close(off[:, first : first + 3], drawn, atol=1e-6, rtol=1e-4)
    rotation = rotation_matrix(episode.state.orientation).unflatten(-1, (3, 3))
    turned = observe(episode)[:, 3:12].unflatten(-1, (3, 3))
    turn = bias[:, 3:6]
    expected = rotation @ torch.matrix_exp(
        torch.linalg.cross(torch.eye(3).expand(len(turn), 3, 3), turn.unsqueeze(1), dim=-1)
    )
    torch.testing.assert_close(turned, expected, atol=8e-3, rtol=0)  # to second order in the turn
    assert (turned - rotation).abs().amax() > 0.05


def test_the_bias_of_an_episode_stays(actions):
    task = Task(sensing=Sensing(position_bias=0.1))
    episodes = fly(task, sample_quadrotors(3, seed=0), actions(4, 3))
    off = [(observe(episode)[:, :3] - seen(episode)[:, :3]) for episode in episodes]
    for later in off[1:]:
        torch.testing.assert_close(later, off[0], atol=1e-6, rtol=0)


def test_linear_velocity_alone_is_later_than_the_rest(actions):
    task = Task(sensing=Sensing(observation_delay=(0, 2), velocity_delay=(0, 3)))
    episodes = fly(task, sample_quadrotors(40, seed=0), actions(9, 40))
    (more,) = episodes[0].imperfections.velocity_delay
    assert set(more.tolist()) == {0, 1, 2, 3}
    for vehicle, (late, extra) in enumerate(zip(episodes[0].observation_delay.tolist(), more.tolist(), strict=True)):
        observation = observe(episodes[-1])[vehicle]
        then, before = episodes[8 - int(late) + 1], episodes[8 - int(late + extra) + 1]
        rest = [*range(12), *range(15, 18)]
        assert torch.equal(observation[rest], seen(then)[vehicle, rest])
        assert torch.equal(observation[12:15], seen(before)[vehicle, 12:15])


def test_of_a_lost_sample_the_one_before_is_seen(actions):
    task = Task(sensing=Sensing(lost=(0.25, 0.25)))
    episodes = fly(task, load_platform("crazyflie").repeat_interleave(2000), actions(20, 2000))
    lost = []
    for before, after in itertools.pairwise(episodes):
        same = (observe(after)[:, :18] == observe(before)[:, :18]).all(-1)
        assert torch.equal(observe(after)[~same][:, :18], seen(after)[~same])
        lost.append(same.float().mean())
    assert torch.stack(lost).mean() == pytest.approx(0.25, abs=0.01)


def test_errors_are_seen_within_their_limits(generator):
    task = Task(deployment=Deployment(position_limit=(0.1, 0.2), velocity_limit=(0.3, 0.3)))
    episode = begin_episode(task, load_platform("crazyflie").repeat_interleave(500), generator)
    limit = episode.imperfections.limits[0][:, :1]
    assert limit.min() >= 0.1
    assert limit.max() <= 0.2
    exact, observation = seen(episode), observe(episode)
    assert torch.equal(observation[:, :3], torch.maximum(torch.minimum(exact[:, :3], limit), -limit))
    assert torch.equal(observation[:, 12:15], exact[:, 12:15].clamp(-0.3, 0.3))
    assert torch.equal(observation[:, 3:12], exact[:, 3:12])
    assert (observation[:, :3] != exact[:, :3]).float().mean() > 0.3


def test_a_vehicle_whose_rotors_give_less_moves_as_one_that_is_modelled_so(actions):
    quadrotors = sample_quadrotors(4, seed=3)
    task = Task(motors=Motors(thrust=(0.9, 0.9), thrust_to_weight=1.01), disturbances=STILL)
    weaker = fly(task, quadrotors, actions(5, 4))[-1].state
    modelled = fly(Task(disturbances=STILL), quadrotors.with_thrust_scaled(0.9), actions(5, 4))[-1].state
    torch.testing.assert_close(weaker.as_tensor(), modelled.as_tensor(), rtol=1e-5, atol=1e-6)


def test_one_rotor_is_weaker_and_the_battery_sags_to_the_end(generator):
    task = Task(motors=Motors(weakest=(0.8, 0.8), sag=(0.1, 0.1)))
    quadrotors = load_platform("crazyflie").repeat_interleave(4000)
    episode = begin_episode(task, quadrotors, generator)
    thrust = episode.imperfections.thrust[0]
    weak = (thrust[:, :4] == 0.8).float()
    assert torch.equal(weak.sum(-1), torch.ones(4000))
    assert torch.equal((thrust[:, :4] == 1).float(), 1 - weak)
    torch.testing.assert_close(weak.mean(0), torch.full((4,), 0.25), atol=0.03, rtol=0)
    torch.testing.assert_close(thrust[:, 4], torch.full((4000,), 0.1 / 5.0))


def test_a_vehicle_keeps_the_thrust_to_hover(generator):
    task = Task(motors=Motors(thrust=(0.5, 0.6), weakest=(0.8, 0.8), sag=(0.1, 0.1), thrust_to_weight=1.3))
    quadrotors = sample_quadrotors(500, seed=0)
    rotors = begin_episode(task, quadrotors, generator).imperfections.thrust[0][:, :4].mean(-1)
    left = quadrotors.thrust_to_weight * rotors * 0.9
    assert left.min() > 1.3 - 1e-4
    assert rotors.max() < 1.06 / 0.9 * 0.95
    assert (rotors < 0.6).any()


def test_drag_is_diagonal_in_the_body_and_against_the_moving_air(generator):
    task = Task(air=Air(drag=(0.1, 0.5), wind=(1, 4), gusts=(1, 1)))
    quadrotors = sample_quadrotors(50, seed=0)
    episode = begin_episode(task, quadrotors, generator)
    drawn = episode.imperfections
    force = torch.stack(drag_force(quadrotors, episode.state, drawn), -1)
    rotation = rotation_matrix(episode.state.orientation).unflatten(-1, (3, 3))
    across, along = drawn.drag[0].unbind(-1)
    diagonal = torch.diag_embed(torch.stack([across, across, along], -1))
    air = drawn.wind[0][:, :3] + drawn.gust[0]
    relative = (episode.state.linear_velocity - air).unsqueeze(-1)
    expected = -quadrotors.mass[:, None] * (rotation @ diagonal @ rotation.mT @ relative).squeeze(-1)
    torch.testing.assert_close(force, expected, rtol=1e-4, atol=1e-5)
    speed = drawn.wind[0][:, :2].norm(dim=-1)
    assert speed.min() > 1
    assert speed.max() < 4
    assert (drawn.wind[0][:, 2] == 0).all()


def test_drag_moves_the_vehicle(actions):
    quadrotors, flown = load_platform("crazyflie").repeat_interleave(2), actions(1, 2)
    calm = fly(Task(disturbances=STILL), quadrotors, flown)
    task = Task(disturbances=STILL, air=Air(drag=(0.4, 0.4), wind=(5, 5)))
    windy = fly(task, quadrotors, flown)
    start, drawn = windy[0].state, windy[0].imperfections
    assert torch.equal(start.as_tensor(), calm[0].state.as_tensor())
    gained = (windy[1].state.linear_velocity - calm[1].state.linear_velocity) / 0.01
    torch.testing.assert_close(gained, -0.4 * (start.linear_velocity - drawn.wind[0][:, :3]), rtol=1e-3, atol=1e-3)


def test_gusts_keep_their_deviation_and_their_time(actions):
    task = Task(air=Air(drag=(0.1, 0.1), gusts=(0.8, 0.8), gust_time=0.1))
    episodes = fly(task, load_platform("crazyflie").repeat_interleave(5000), torch.zeros(10, 5000, 4))
    gusts = [episode.imperfections.gust[0] for episode in episodes]
    for gust in (gusts[0], gusts[-1]):
        torch.testing.assert_close(gust.std(0), torch.full((3,), 0.8), rtol=0.03, atol=0)
    correlation = (gusts[0] * gusts[-1]).mean(0) / 0.64
    torch.testing.assert_close(correlation, torch.full((3,), math.exp(-1)), atol=0.05, rtol=0)


def test_a_shorter_step_is_that_of_a_task_with_it(actions):
    quadrotors, flown = sample_quadrotors(3, seed=0), actions(5, 3)
    one = fly(Task(deployment=Deployment(dt_factor=(0.8, 0.8))), quadrotors, flown)
    other = fly(Task(dt=0.008, exact_rotors=False), quadrotors, flown)
    assert one[0].imperfections.dt[0].tolist() == pytest.approx([0.008] * 3)
    torch.testing.assert_close(one[-1].state.as_tensor(), other[-1].state.as_tensor(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(one[-1].reference.time, other[-1].reference.time)


def test_the_first_previous_action_is_one_of_those_given(generator):
    task = Task(deployment=Deployment(first_action=("held", -1, 0.32)))
    first = observe(begin_episode(task, load_platform("crazyflie").repeat_interleave(3000), generator))[:, 18:]
    kinds = [(first == value).all(-1) for value in (-1, 0.32)]
    for kind in kinds:
        assert kind.float().mean() == pytest.approx(1 / 3, abs=0.04)
    held = first[~(kinds[0] | kinds[1])]
    assert held.unique().numel() > 1000


@pytest.mark.parametrize(("clean", "each", "noise"), [(0.4, 1.0, 1.0), (0.0, 0.3, 1.0), (0.25, 0.5, 0.6)])
def test_so_many_episodes_are_clean_and_so_many_have_each_imperfection(generator, clean, each, noise):
    task = dataclasses.replace(ALL, clean_share=clean, each_share=each, noise_share=noise)
    episode = begin_episode(task, load_platform("crazyflie").repeat_interleave(4000), generator)
    drawn = episode.imperfections
    has = torch.stack(
        [
            (drawn.bias[0] != 0).any(-1),
            drawn.lost[0] > -math.inf,
            drawn.limits[0][:, 0] < math.inf,
            drawn.limits[0][:, 1] < math.inf,
            (drawn.thrust[0][:, :4] == 0.0).any(-1) | (drawn.thrust[0][:, 4] != 0),
            (drawn.drag[0] != 0).any(-1),
            drawn.dt[0] < 0.01,
        ]
    ).float()
    torch.testing.assert_close(has.mean(-1), torch.full((len(has),), (1 - clean) * each), atol=0.03, rtol=0)
    none = (1 - has).prod(0).mean()
    assert none == pytest.approx(clean + (1 - clean) * (1 - each) ** len(has), abs=0.03)
    noisy = episode.noise_scale > 0
    assert noisy.float().mean() == pytest.approx((1 - clean) * noise, abs=0.03)
    flawed = has.sum(0) > 0
    assert noisy[flawed].float().mean() == pytest.approx(noise, abs=0.03)
    if each == 1:
        perfect = ~noisy
        assert (observe(episode)[perfect][:, :18] == seen(episode)[perfect]).all()
        assert (episode.observation_delay[perfect] == 0).all()
        assert (episode.action_delay[perfect] == 0).all()
        assert (drawn.thrust[0][perfect][:, :4] == 1).all()


def test_an_episode_without_imperfections_is_that_of_a_task_without(actions):
    quadrotors, flown = sample_quadrotors(4, seed=0), actions(6, 4)
    hover = References(langevin_share=0)
    clean = fly(dataclasses.replace(ALL, references=hover, clean_share=1.0), quadrotors, flown)
    plain = fly(Task(references=hover), quadrotors, flown)
    assert torch.equal(clean[0].state.as_tensor(), plain[0].state.as_tensor())
    for one, other in zip(clean, plain, strict=True):
        torch.testing.assert_close(observe(one), observe(other), rtol=1e-5, atol=1e-5)


def test_the_environment_flies_with_all_of_them():
    env = QuadrotorEnv(sample_quadrotors(5, seed=0), ALL, compile=False)
    observation, _ = env.reset(seed=0)
    for _ in range(5):
        observation = env.step(torch.zeros(5, 4)).observation
    assert observation.shape == (5, 22)
    assert observation.isfinite().all()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Sensing(lost=(0.2, 1.5)), "lost must be"),
        (lambda: Sensing(velocity_delay=(2, 1)), "velocity_delay must be"),
        (lambda: Motors(thrust=(0, 1)), "thrust must be"),
        (lambda: Motors(sag=(0, 0.95)), "sag must be"),
        (lambda: Air(wind=(-1, 1)), "wind must be"),
        (lambda: Deployment(position_limit=(0, 1)), "position_limit must be null, or"),
        (lambda: Deployment(first_action=()), "first_action must be held, or a number"),
        (lambda: Deployment(first_action=("hover",)), "first_action must be held, or a number"),
        (lambda: Deployment(first_action=(2.0,)), "first_action must be held, or a number"),
        (lambda: Deployment(dt_factor=(0.1, 1)), "dt_factor must be"),
        (lambda: Task(clean_share=1.1), "clean_share must be"),
    ],
)
def test_impossible_ranges_are_refused(make, words):
    with pytest.raises(UserError, match=words):
        make()
