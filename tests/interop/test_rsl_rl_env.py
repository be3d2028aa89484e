"""Our environment keeps rsl_rl's contract, and rsl_rl's own PPO learns in it."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys

import pytest
import torch
import yaml

from raptor.core.errors import MissingExtraError, UserError
from raptor.environments import QuadrotorEnv, observe, observe_as_teacher
from raptor.environments.vec_env import CheckedVecEnv
from raptor.interop import rsl_rl_env as module
from raptor.interop.rsl_rl_env import RslRlVecEnv
from raptor.quadrotor import sample_quadrotors
from raptor.tasks.reward import Termination

NEVER = Termination(enabled=False)


def make(num_envs=4, **settings):
    return RslRlVecEnv(num_envs, **{"quadrotor": sample_quadrotors(num_envs, seed=0), "compile": False, **settings})


def test_it_keeps_the_contract_for_whole_episodes():
    env = make(8, episode_steps=20)
    assert (env.num_envs, env.num_actions, env.max_episode_length) == (8, 4, 20)
    assert yaml.safe_load(yaml.safe_dump(env.cfg))["task"]["episode_steps"] == 20
    checked = CheckedVecEnv(env)
    ended = 0
    for _ in range(45):
        ended += int(checked.step(torch.zeros(8, 4)).done.sum())
    assert ended >= 16


def test_each_group_is_what_student_and_teacher_see():
    env = make()
    twin = QuadrotorEnv(sample_quadrotors(4, seed=0), env.batch.task, compile=False)
    twin.reset(0)
    for action in torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(1)):
        twin.step(action)
        observations, rewards, dones, _ = env.step(action)
        assert observations.batch_size == (4,)
        assert torch.equal(observations["policy"], observe(twin.episode))
        assert torch.equal(observations["teacher"], observe_as_teacher(twin.quadrotors, twin.episode))
        assert rewards.shape == dones.shape == (4,)
        assert dones.dtype == torch.int64
        assert torch.equal(env.get_observations()["teacher"], observations["teacher"])


def test_time_outs_are_distinguished_from_vehicles_that_left_their_bounds():
    box = torch.tensor([1e-6, 100.0, 1e-6, 100.0])  # vehicles 0 and 2 end with every step
    vehicles = dataclasses.replace(sample_quadrotors(4, seed=0), position_threshold=box)
    env = make(quadrotor=vehicles, episode_steps=3, reward_scale=0.5, termination=Termination(linear_velocity=100.0))
    extras = {}
    for _ in range(3):
        _, rewards, dones, extras = env.step(torch.zeros(4, 4))
    assert dones.tolist() == [1, 1, 1, 1]
    assert extras["time_outs"].tolist() == [False, True, False, True]
    assert rewards[[0, 2]].tolist() == [-50.0, -50.0]  # scaled; the log is not
    assert extras["log"]["Episode/return"][[0, 2]].tolist() == [-100.0, -100.0]
    assert extras["log"]["Episode/length"].tolist() == [1, 3, 1, 3]
    assert extras["log"]["Episode/termination_rate"].tolist() == [1, 0, 1, 0]
    assert env.episode_length_buf.tolist() == [0, 0, 0, 0]


def test_episodes_go_on_from_the_lengths_that_are_assigned():
    env = make(episode_steps=10, termination=NEVER)
    env.episode_length_buf = torch.tensor([9, 8, 0, 8])
    done = [env.step(torch.zeros(4, 4))[2].tolist() for _ in range(2)]
    assert done == [[1, 0, 0, 0], [0, 1, 0, 1]]
    assert env.episode_length_buf.tolist() == [1, 0, 2, 0]


@pytest.mark.parametrize("lengths", [torch.tensor([0, 0, 0, 10]), torch.zeros(3).long(), torch.zeros(4)])
def test_impossible_episode_lengths_are_refused(lengths):
    env = make(episode_steps=10)
    with pytest.raises(UserError, match="lengths of 4 episodes must be whole numbers from 0 to 9"):
        env.episode_length_buf = lengths


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"num_envs": 0}, "num_envs must be at least 1, got 0"),
        ({"reward_scale": float("nan")}, "reward_scale must be a positive number, got nan"),
        ({"reward_scale": 0.0}, "reward_scale must be a positive number, got 0.0"),
    ],
)
def test_environments_without_vehicles_or_rewards_are_refused(settings, match):
    with pytest.raises(UserError, match=match):
        RslRlVecEnv(**{"num_envs": 2, "compile": False, **settings})


def test_fewer_vehicles_fly_in_turn_and_a_seed_repeats_everything():
    vehicles = sample_quadrotors(2, seed=3)
    first, second = (make(6, quadrotor=vehicles, seed=5) for _ in range(2))
    assert torch.equal(first.batch.quadrotors.mass, vehicles.mass[[0, 1, 0, 1, 0, 1]])
    assert torch.equal(first.step(torch.ones(6, 4))[0]["teacher"], second.step(torch.ones(6, 4))[0]["teacher"])
    again = first.reset(seed=5)[0]["policy"]
    assert torch.equal(again, make(6, quadrotor=vehicles, seed=5).get_observations()["policy"])


def test_without_rsl_rl_it_says_which_extra_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "rsl_rl.env", None)
    spec = importlib.util.spec_from_file_location("without_rsl_rl", module.__file__)
    with pytest.raises(MissingExtraError, match=r"RslRlVecEnv needs rsl-rl-lib.*raptor-python\[rsl\]"):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
