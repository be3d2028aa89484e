"""The original simulator behind our interfaces; most of it only where l2f is installed."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import sys
import warnings

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

import raptor  # noqa: F401  # registers the environments
from raptor.core.errors import MissingExtraError, UserError
from raptor.environments import QuadrotorEnv
from raptor.interop.l2f import L2FSimulator, document_for_l2f
from raptor.quadrotor import sample_quadrotors
from raptor.tasks import Disturbances, Lissajous, References, Task
from raptor.tasks.imperfections import Motors

INSTALLED = importlib.util.find_spec("l2f") is not None
needs_l2f = pytest.mark.skipif(not INSTALLED, reason="the extra l2f is not installed")


def test_without_the_extra_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "l2f", None)
    with pytest.raises(MissingExtraError, match=r"raptor/L2F-v0 needs l2f.*raptor-python\[l2f\]"):
        gymnasium.make("raptor/L2F-v0")


def test_a_document_for_l2f_has_the_tasks_step_and_disturbances_and_no_noise_of_its_own():
    document = sample_quadrotors(1, seed=0).to_dicts()[0]
    document["mdp"]["action_noise"]["normalized_rpm"] = 0.3
    task = Task(dt=0.005, disturbances=Disturbances(force=2.0, torque=0.0))
    written = document_for_l2f(document, task)
    assert written["integration"] == {"dt": 0.005}
    assert written["disturbances"]["random_force"]["std"] == 2 * document["disturbances"]["random_force"]["std"]
    assert written["mdp"]["action_noise"]["normalized_rpm"] == 0
    assert written["trajectory"]["mixture"] == [1.0, 0.0]
    assert written["dynamics"] == document["dynamics"]
    assert document["mdp"]["action_noise"]["normalized_rpm"] == 0.3  # the given one is untouched
    assert json.loads(json.dumps(written, allow_nan=False)) == written


def calm(num):
    """Vehicles without disturbances."""
    return dataclasses.replace(sample_quadrotors(num, seed=0), random_force=torch.zeros(num, 2))


@needs_l2f
@pytest.mark.parametrize("num", [1, 5])
def test_an_episode_in_l2f_is_an_episode_in_our_own_simulator(num, actions):
    task = Task(references=References(langevin_share=0.5, lissajous_share=0.5, lissajous=Lissajous(ramp=(0.1, 0.1))))
    theirs = QuadrotorEnv(calm(num), task, simulator=L2FSimulator(num, task), auto_reset=False)
    ours = QuadrotorEnv(calm(num), task, compile=False, auto_reset=False)
    theirs.reset(seed=1)
    ours.reset(seed=1)
    # l2f takes one number from the generator, so that the starts differ: fly ours from theirs.
    ours._leaves, ours._structure = list(theirs._leaves), theirs._structure
    ours.generator.set_state(theirs.generator.get_state())
    for action in 2 * actions(30, num) - 0.5:
        one, other = theirs.step(action), ours.step(action)
        torch.testing.assert_close(one.observation, other.observation, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(one.reward, other.reward, rtol=1e-4, atol=1e-4)
        assert torch.equal(one.done, other.done)


@needs_l2f
def test_l2f_draws_a_force_for_each_episode_that_stays_for_the_episode():
    quadrotors = dataclasses.replace(calm(6), random_force=torch.tensor([[0.0, 0.2]]).expand(6, 2))
    task = Task(references=References(langevin_share=0.0))
    env = QuadrotorEnv(quadrotors, task, simulator=L2FSimulator(6, task), auto_reset=False)

    def pushes():
        """Force (N) that explains where l2f goes and our simulator, without any, does not."""
        twin = QuadrotorEnv(calm(6), task, compile=False, auto_reset=False)
        twin.reset()
        twin._leaves, twin._structure = list(env._leaves), env._structure
        ours, theirs = twin.step(torch.zeros(6, 4)), env.step(torch.zeros(6, 4))
        difference = theirs.observation[:, 12:15] - ours.observation[:, 12:15]
        return difference / 0.01 * quadrotors.mass[:, None]

    env.reset(seed=0)
    first, second = pushes(), pushes()
    torch.testing.assert_close(first, second, rtol=0.05, atol=0.02)
    assert 0.05 < first.std() < 0.5
    env.reset(mask=torch.tensor([True, False, False, False, False, False]))
    third = pushes()
    torch.testing.assert_close(third[1:], first[1:], rtol=0.05, atol=0.02)
    assert (third[0] - first[0]).abs().max() > 0.02


@needs_l2f
def test_new_vehicles_reach_l2f(actions):
    task = Task()
    env = QuadrotorEnv(calm(3), task, resample=lambda num, _: calm(num + 4)[4:], simulator=L2FSimulator(3, task))
    env.reset()
    twin = QuadrotorEnv(calm(7)[4:], task, compile=False)
    twin.reset()
    twin._leaves, twin._structure = list(env._leaves), env._structure
    twin.generator.set_state(env.generator.get_state())
    action = actions(1, 3)[0]
    one, other = (which.step(action).info["final_observation"] for which in (env, twin))
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@needs_l2f
def test_l2f_is_limited_in_number_and_in_its_step():
    with pytest.raises(UserError, match="at most 8192 vehicles at once, got 8193"):
        L2FSimulator(8193, Task())
    with pytest.raises(UserError, match=r"leave task.motors, task.air and task.deployment.dt_factor as by default"):
        L2FSimulator(1, Task(motors=Motors(sag=(0.0, 0.1))))
    env = QuadrotorEnv(calm(1), Task(dt=0.02), simulator=L2FSimulator(1, Task()))
    env.reset()
    with pytest.raises(UserError, match=r"dt = 0\.02"):
        env.step(torch.zeros(1, 4))


@needs_l2f
def test_gymnasium_makes_it_single_and_vectorised():
    env = gymnasium.make("raptor/L2F-v0")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env.unwrapped)
    vector = gymnasium.make_vec("raptor/L2F-v0", num_envs=3, quadrotor="random")
    vector.action_space.seed(0)
    vector.reset(seed=0)
    ended = np.zeros(3, bool)
    for _ in range(60):
        observation, reward, terminated, truncated, _ = vector.step(vector.action_space.sample())
        assert np.isfinite(observation).all()
        assert ((reward == -100) == terminated).all()
        ended |= terminated | truncated
    assert ended.any()
