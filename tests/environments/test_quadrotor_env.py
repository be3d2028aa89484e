"""N vehicles at once: episodes, statistics, seeds."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from raptor.core.errors import UserError
from raptor.environments import QuadrotorEnv
from raptor.quadrotor import Quadrotors, load_platform, sample_quadrotors
from raptor.tasks import InitialStates, References, Reward, Task, Termination

ENDING = torch.tensor([True, False, True, False])


def equal(one, other, where=slice(None)):
    return all(torch.equal(a[where], b[where]) for a, b in zip(one, other, strict=True))


def tensors(result):
    return [*result[:4], *result.info.values()]


def test_reset_and_step_give_what_a_gymnasium_user_expects(half_ending, actions):
    env = half_ending()
    assert env.num_envs == len(env) == 4
    observation, info = env.reset(seed=0)
    assert observation.shape == (4, 22)
    assert torch.equal(info["position_error"], env.position_error)
    observation, reward, terminated, truncated, info = env.step(actions(1, 4)[0])
    assert observation.shape == (4, 22)
    assert reward.dtype == torch.float32
    assert terminated.tolist() == ENDING.tolist()
    assert truncated.tolist() == [False] * 4
    assert sorted(info) == ["episode_length", "episode_return", "final_observation", "position_error"]


def test_only_vehicles_whose_episode_ended_begin_anew(half_ending, actions):
    env, twin = half_ending(), half_ending(auto_reset=False)
    env.reset()
    twin.reset()
    action = actions(1, 4)[0]
    result, undisturbed = env.step(action), twin.step(action)
    assert torch.equal(result.done, ENDING)
    state, flown_on = env.episode.state.parts(), twin.episode.state.parts()
    assert equal(state, flown_on, ~ENDING)
    assert not any((a[ENDING] == b[ENDING]).all(-1).any() for a, b in zip(state, flown_on, strict=True))
    assert torch.equal(env.episode.reference.time > 0, ~ENDING)
    assert torch.equal(result.reward, undisturbed.reward)


def test_the_true_last_observation_is_kept_where_an_episode_ended(half_ending, actions):
    env, twin = half_ending(), half_ending(auto_reset=False)
    env.reset()
    twin.reset()
    action = actions(1, 4)[0]
    result, undisturbed = env.step(action), twin.step(action)
    assert torch.equal(result.info["final_observation"], undisturbed.observation)
    assert torch.equal(result.observation[~ENDING], result.info["final_observation"][~ENDING])
    assert (result.observation[ENDING] != result.info["final_observation"][ENDING]).any(-1).all()
    assert torch.equal(result.observation, env.observation)
    assert torch.equal(result.info["position_error"], undisturbed.info["position_error"])


def test_statistics_are_those_of_the_episode_that_the_step_belongs_to(half_ending, actions):
    env = half_ending()
    env.reset()
    rewards = []
    for step, action in enumerate(actions(5, 4), start=1):
        result = env.step(action)
        rewards.append(result.reward)
        lengths = torch.where(ENDING, torch.ones(4), torch.full((4,), step))
        assert torch.equal(result.info["episode_length"], lengths.long())
        torch.testing.assert_close(result.info["episode_return"][ENDING], result.reward[ENDING])
        torch.testing.assert_close(result.info["episode_return"][~ENDING], torch.stack(rewards).sum(0)[~ENDING])


def test_episodes_are_truncated_at_exactly_their_last_step():
    task = Task(termination=Termination(enabled=False))
    env = QuadrotorEnv(load_platform("crazyflie"), task, compile=False, method="midpoint")
    env.reset()
    action = torch.full((1, 4), 2 * load_platform("crazyflie").hover_throttle.item() - 1)
    with torch.no_grad():
        truncated = [env.step(action).truncated.item() for _ in range(501)]
    assert [step for step, flag in enumerate(truncated, start=1) if flag] == [500]


def test_a_truncated_step_is_rated_like_any_other_and_a_terminated_one_is_not_truncated(half_ending, actions):
    env, twin = half_ending(task=Task(episode_steps=1)), half_ending(task=Task(episode_steps=9))
    env.reset()
    twin.reset()
    action = actions(1, 4)[0]
    result = env.step(action)
    assert torch.equal(result.terminated, ENDING)
    assert torch.equal(result.truncated, ~ENDING)
    assert torch.equal(result.reward, twin.step(action).reward)
    assert (result.reward[ENDING] == Reward().termination_penalty).all()


def test_without_auto_reset_vehicles_fly_on_until_they_are_reset(half_ending, actions):
    env = half_ending(auto_reset=False)
    env.reset()
    for action in actions(3, 4):
        result = env.step(action)
    assert result.info["episode_length"].tolist() == [3, 3, 3, 3]
    before = env.episode.state.parts()
    observation, _ = env.reset(mask=result.done)
    assert equal(env.episode.state.parts(), before, ~ENDING)
    assert torch.equal(observation[~ENDING], result.observation[~ENDING])
    assert (observation[ENDING] != result.observation[ENDING]).any(-1).all()
    assert env.step(action).info["episode_length"].tolist() == [1, 4, 1, 4]


def fly(env, actions, seed=None):
    trace = [env.reset(seed=seed)[0]]
    for action in actions:
        trace += tensors(env.step(action))
    return trace


def test_a_seed_decides_everything_and_the_global_generator_nothing(half_ending, actions):
    flown = actions(6, 4)
    before = torch.random.get_rng_state()
    env = half_ending(seed=3)
    first = fly(env, flown)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(123)
    assert equal(first, fly(half_ending(seed=3), flown))
    assert equal(first, fly(env, flown, seed=3))
    assert not torch.equal(first[0], fly(half_ending(seed=4), flown)[0])


def test_each_new_episode_starts_elsewhere(half_ending, actions):
    env = half_ending()
    starts = [env.reset()[0][ENDING]]
    starts += [env.step(action).observation[ENDING] for action in actions(5, 4)]
    assert len({tuple(row.tolist()) for start in starts for row in start}) == 12


def test_nothing_that_was_handed_out_changes_later(half_ending, actions):
    env = half_ending()
    held = [env.reset()[0], *env.episode.state.parts()]
    copies = [tensor.clone() for tensor in held]
    for action in actions(4, 4):
        result = env.step(action)
        held += [*tensors(result), *env.episode.state.parts(), env.episode.force]
        copies += [tensor.clone() for tensor in held[len(copies) :]]
    assert equal(held, copies)


def test_the_first_previous_action_would_hold_the_rotors_but_the_first_change_counts_from_zero():
    env = QuadrotorEnv(load_platform("mrs"), Task(initial_states=InitialStates(guidance=1.0)), compile=False)
    observation, _ = env.reset()
    speed = env.episode.state.rotor_speed
    torch.testing.assert_close(observation[:, 18:], speed / 1000 - 1)
    assert (env.step(torch.zeros(1, 4)).reward == 1.5).all()
    env.reset()
    assert env.step(torch.full((1, 4), 0.1)).reward.item() == pytest.approx(1.5 - 0.2)


def test_a_hidden_target_is_not_seen_but_counts(actions):
    references = References(langevin_share=1.0)
    quadrotors = sample_quadrotors(6, seed=0)
    visible, hidden = (
        QuadrotorEnv(quadrotors, Task(references=references, target_visible=seen), seed=1, compile=False)
        for seen in (True, False)
    )
    visible.reset()
    hidden.reset()
    for action in actions(8, 6):
        seen, unseen = visible.step(action), hidden.step(action)
    state, target = hidden.episode.state, hidden.episode.reference
    assert (target.position.norm(dim=-1) > 0).all()
    torch.testing.assert_close(unseen.observation[:, :3], state.position)
    torch.testing.assert_close(unseen.observation[:, 12:15], state.linear_velocity)
    torch.testing.assert_close(seen.observation[:, :3], state.position - target.position)
    torch.testing.assert_close(seen.observation[:, 12:15], state.linear_velocity - target.velocity)
    torch.testing.assert_close(unseen.info["position_error"], (state.position - target.position).norm(dim=-1))
    assert torch.equal(seen.reward, unseen.reward)


def test_resampling_exchanges_the_vehicles_whose_episode_ended(half_ending, actions):
    box = half_ending().quadrotors.position_threshold
    handed_out = []

    def draw(num, generator):
        drawn = sample_quadrotors(num, generator=generator)
        handed_out.append(drawn)
        return dataclasses.replace(drawn, position_threshold=box[:num])

    env = half_ending(resample=draw)
    env.reset()
    assert torch.equal(env.quadrotors.mass, handed_out[0].mass)
    env.step(actions(1, 4)[0])
    assert len(handed_out[1]) == 2
    assert torch.equal(env.quadrotors.mass[ENDING], handed_out[1].mass)
    assert torch.equal(env.quadrotors.mass[~ENDING], handed_out[0].mass[~ENDING])
    first = env.quadrotors.mass
    env.reset()
    assert (env.quadrotors.mass != first).all()


def test_resampling_by_flag_draws_from_the_published_distribution_in_the_given_precision(make_env):
    env = make_env(3, torch.float64, resample=True)
    assert env.reset(seed=5)[0].dtype == torch.float64
    first = env.quadrotors
    assert first.names is None
    assert ((first.thrust_to_weight >= 1.5) & (first.thrust_to_weight <= 5)).all()
    env.reset()
    assert (env.quadrotors.mass != first.mass).all()
    env.reset(seed=5)
    assert torch.equal(env.quadrotors.mass, first.mass)


def test_a_resampling_function_must_return_as_many_vehicles_as_asked_for(make_env):
    env = make_env(4, resample=lambda num, generator: sample_quadrotors(num + 1, generator=generator))
    with pytest.raises(UserError, match="asked for 4 vehicles and returned 5"):
        env.reset()


def test_one_vehicle_that_is_not_finite_leaves_the_others_alone(make_env, actions):
    env, twin = make_env(), make_env()
    env.reset()
    twin.reset()
    action = actions(1, 4)[0]
    poisoned = action.clone()
    poisoned[1] = torch.nan
    result, clean = env.step(poisoned), twin.step(action)
    assert result.terminated.tolist() == [False, True, False, False]
    assert result.reward[1] == Reward().termination_penalty
    others = torch.tensor([True, False, True, True])
    assert equal(tensors(result), tensors(clean), others)
    assert result.observation.isfinite().all()
    assert result.info["position_error"][1].isnan()


def test_no_measure_of_a_lost_vehicle_looks_good(make_env):
    env = make_env(2, task=Task(termination=Termination(enabled=False)))
    env.reset()
    for _ in range(2):
        result = env.step(torch.full((2, 4), torch.nan))
    assert result.reward.isnan().all()
    assert result.info["position_error"].isnan().all()
    assert result.info["episode_return"].isnan().all()
    assert env.position_error.isnan().all()


def test_a_step_needs_an_episode_and_an_action_of_the_right_shape(make_env):
    env = make_env()
    with pytest.raises(UserError, match="call reset"):
        env.step(torch.zeros(4, 4))
    with pytest.raises(UserError, match="call reset"):
        _ = env.observation
    env.reset()
    with pytest.raises(UserError, match=r"must have shape \(4, 4\), got \(4,\)"):
        env.step(torch.zeros(4))


def test_an_unknown_device_is_refused():
    with pytest.raises(UserError, match="device"):
        QuadrotorEnv(sample_quadrotors(1, seed=0), device="warp")


def test_the_vehicles_keep_their_names_until_others_are_drawn(make_env):
    both = Quadrotors.concatenate([load_platform("crazyflie"), load_platform("race")])
    assert QuadrotorEnv(both, compile=False).quadrotors.names == ("crazyflie", "race")


def with_fast_motors(tau):
    mrs = load_platform("mrs", torch.float64)
    taus = torch.full_like(mrs.rotor_time_constants_rising, tau)
    return dataclasses.replace(mrs, rotor_time_constants_rising=taus, rotor_time_constants_falling=taus)


@pytest.mark.parametrize("tau", [2e-3, 4e-3, 5e-3, 7.5e-3])
def test_fast_motors_are_flown_exactly_and_in_the_paper_as_l2f_does(tau):
    standing = InitialStates(guidance=1.0, rotor_speed=(0.0, 0.0))
    share = {}
    for name, task in (("default", Task()), ("paper", Task.paper())):
        env = QuadrotorEnv(with_fast_motors(tau), dataclasses.replace(task, initial_states=standing), compile=False)
        env.reset(seed=0)
        env.step(torch.ones(1, 4))
        share[name] = env.episode.state.rotor_speed[0, 0].item() / 2000
    h = 0.01 / tau
    assert share["default"] == pytest.approx(1 - math.exp(-h), rel=1e-9)
    assert share["paper"] == pytest.approx(min(1.0, max(0.0, h - h**2 / 2 + h**3 / 6 - h**4 / 24)), rel=1e-9)


def test_a_vehicle_with_fast_motors_that_is_drawn_later_is_flown_exactly_too():
    drawn = [load_platform("mrs", torch.float64), with_fast_motors(2e-3)]
    task = Task(initial_states=InitialStates(guidance=1.0, rotor_speed=(0.0, 0.0)))
    env = QuadrotorEnv(drawn[0], task, compile=False, resample=lambda num, generator: drawn.pop(0))
    env.reset(seed=0)
    env.step(torch.ones(1, 4))
    assert env.episode.state.rotor_speed[0, 0].item() < 600
    env.reset()
    env.step(torch.ones(1, 4))
    assert env.episode.state.rotor_speed[0, 0].item() == pytest.approx(2000 * (1 - math.exp(-5)), rel=1e-9)


def test_state_reference_and_quadrotors_are_those_of_the_present_episodes(make_env):
    env = make_env(3, resample=True)
    env.reset()
    assert torch.equal(env.state.position, env.episode.state.position)
    assert torch.equal(env.reference.position, env.episode.reference.position)
    error = torch.linalg.vector_norm(env.state.position - env.reference.position, dim=-1)
    torch.testing.assert_close(env.position_error, error)
    before = env.quadrotors.mass
    env.reset()
    assert not torch.equal(env.quadrotors.mass, before)


def test_print_says_what_flies_and_where_the_episodes_stand(make_env):
    env = make_env(2)
    assert "none has begun" in str(env)
    env.reset()
    env.step(torch.zeros(2, 4))
    first, quadrotors, task, step, episodes = str(env).splitlines()
    assert first == "QuadrotorEnv of 2 vehicles on cpu"
    mass = sorted(env.quadrotors.mass.tolist())
    assert f"mass {mass[0]:.3g} to {mass[1]:.3g} kg" in quadrotors
    assert "episodes of 500 steps of 0.01 s: 50% hover, 50% langevin" in task
    assert "rk4, eager" in step
    assert "step 1, " in episodes
    assert "observation (2, 22)" in episodes
