"""Third-party environments are checked against the contract, and those of Gymnasium are made to keep it."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from point_env import PointEnv, teacher

from raptor.core.errors import UserError
from raptor.environments.vec_env import CheckedVecEnv
from raptor.interop.from_gymnasium import FromGymnasium
from raptor.rl.demonstrations import Demonstrations, Record, rollout_vec_env


class Broken(PointEnv):
    """Breaks the contract in one way."""

    def __init__(self, how):
        self.how = None
        super().__init__(num_envs=3, max_episode_length=5, bound=50.0)
        self.how = how

    def get_observations(self):
        shown = super().get_observations()
        if self.how == "observation width":
            shown["policy"] = self.state
        if self.how == "observation rows":
            shown["critic"] = self.state[:2]
        if self.how == "observation NaN":
            shown["policy"] = shown["policy"] * float("nan")
        return self.state.tolist() if self.how == "a list" else shown

    def step(self, actions):
        before = self.episode_length_buf
        shown, reward, done, extras = super().step(actions)
        if self.how == "rewards":
            reward = reward.unsqueeze(-1)
        if self.how == "infinite reward":
            reward = reward / 0
        if self.how == "dones":
            done = done[:2]
        if self.how == "time_outs":
            extras = {"time_outs": True}
        if self.how == "no reset":
            self.episode_length_buf = before + 1
        if self.how == "no end":
            self.episode_length_buf, done = before + 1, torch.zeros_like(done)
        return (shown, reward, done) if self.how == "three values" else (shown, reward, done, extras)


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("observation width", r"observations 'policy' .* must have the shape \(3, 1\) at every step, got \(3, 2\)"),
        ("observation rows", r"observations 'critic' .* must have 3 rows, .* got the shape \(2, 2\)"),
        ("observation NaN", r"observations 'policy' of the environment must be finite"),
        ("a list", r"get_observations .* must return groups of tensors by name, got list"),
        ("rewards", r"rewards .* must be a tensor of shape \(3,\), got the shape \(3, 1\)"),
        ("infinite reward", r"rewards of the environment must be finite"),
        ("dones", r"dones .* must be a tensor of shape \(3,\), got the shape \(2,\)"),
        ("time_outs", r"extras\['time_outs'\] .* must be a tensor of shape \(3,\), got a bool"),
        ("no reset", r"environment 0 said that its episode was over, but its episode_length_buf went on to 5"),
        ("no end", r"an episode went on beyond max_episode_length, which is 5"),
        ("three values", r"step of the environment must return \(observations, rewards, dones, extras\), got 3"),
    ],
)
def test_what_breaks_the_contract_is_refused_in_one_sentence(how, expected):
    env = Broken(None)
    checked = CheckedVecEnv(env)
    checked.begin(seed=0)
    env.how = how
    with pytest.raises(UserError, match=expected):
        rollout_vec_env(checked, lambda seen, begins: torch.zeros(3, 1), num_episodes=2)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("num_envs", 0, "num_envs of the environment must be a whole number of at least 1, got 0"),
        ("num_actions", 1.5, "num_actions of the environment must be a whole number of at least 1, got 1.5"),
        ("max_episode_length", torch.tensor([3, 4]), "must be at least 1, or a tensor of 4 such numbers"),
        ("episode_length_buf", torch.zeros(2), r"episode_length_buf .* must be a tensor of shape \(4,\)"),
    ],
)
def test_impossible_attributes_are_refused(name, value, expected):
    env = PointEnv()
    setattr(env, name, value)
    with pytest.raises(UserError, match=expected):
        CheckedVecEnv(env)


def test_whole_numbers_may_be_those_of_numpy():
    env = PointEnv()
    env.num_envs, env.num_actions = np.int64(4), np.int32(1)
    assert CheckedVecEnv(env).num_envs == 4


def test_a_missing_attribute_and_a_missing_group_are_named():
    class Nothing:
        num_envs, num_actions = 2, 1

    with pytest.raises(UserError, match="the environment Nothing has no device"):
        CheckedVecEnv(Nothing())
    with pytest.raises(UserError, match=r"shows no group 'camera': choose among policy \(1\), critic \(2\)"):
        CheckedVecEnv(PointEnv()).watch("camera")


def test_the_pairs_of_rsl_rl_2_are_understood():
    class Pairs(PointEnv):
        def get_observations(self):
            return self.state[:, :1], {"observations": {"critic": self.state}}

        def step(self, actions):
            (policy, extras), reward, done, more = super().step(actions)
            return policy, reward, done, extras | more

    env = CheckedVecEnv(Pairs())
    assert env.widths == {"policy": 1, "critic": 2}
    assert env.step(torch.zeros(4, 1)).observations["critic"].shape == (4, 2)


def test_episodes_whose_ends_are_spread_are_flown_whole_all_the_same():
    class Spread(PointEnv):
        def step(self, actions):
            answer = super().step(actions)
            if answer[2].all():  # as a simulator does to even out its load
                self.episode_length_buf = torch.tensor([3, 0, 2, 1])
            return answer

    env = CheckedVecEnv(Spread(max_episode_length=6, bound=99.0))
    env.begin(seed=0)
    episodes = rollout_vec_env(env, lambda seen, begins: teacher(seen["critic"]), num_episodes=3)
    assert episodes.lengths.tolist() == [[6, 6, 6]] * 4
    assert not episodes.terminated.any()


class Countdown(gymnasium.Env):
    """Shows the steps since it began, and ends after so many as its number says; the reward is the action."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2, 1), np.float64)
    action_space = gymnasium.spaces.Box(-0.5, 0.5, (1,), np.float32)

    def __init__(self, number):
        self.number, self.count = number, 0

    def _seen(self):
        return np.array([[self.number], [self.count]], np.float64)

    def reset(self, *, seed=None, options=None):
        self.count = 0
        return self._seen(), {}

    def step(self, action):
        self.count += 1
        fallen = self.number == 3 and self.count == 3
        return self._seen(), float(action[0]), fallen, not fallen and self.count == self.number, {}


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_whichever_way_gymnasium_resets_whole_episodes_are_recorded(mode):
    makers = [lambda number=number: Countdown(number) for number in (2, 3, 5)]
    env = CheckedVecEnv(FromGymnasium(SyncVectorEnv(makers, autoreset_mode=mode), max_episode_length=5))
    stored = Demonstrations(torch.zeros(6, 5, 2), torch.zeros(6, 5, 1), torch.zeros(6, dtype=torch.long))
    env.begin(seed=0)
    record = Record(stored, "policy", lambda seen: seen["policy"][:, 1:])
    episodes = rollout_vec_env(env, lambda seen, begins: torch.full((3, 1), 0.75), 2, record)
    assert episodes.lengths.tolist() == [[2, 2], [3, 3], [5, 5]]
    assert episodes.returns.tolist() == [[1.0, 1.0], [1.5, 1.5], [2.5, 2.5]]  # actions are clipped to 0.5
    assert episodes.terminated.tolist() == [[False, False], [True, True], [False, False]]
    for row, number in enumerate((2, 2, 3, 3, 5, 5)):
        assert stored.length[row] == number
        assert stored.observation[row, :number].tolist() == [[number, count] for count in range(number)]
        assert stored.label[row, :number, 0].tolist() == list(range(number))


def test_an_environment_without_a_reset_flies_the_episodes_under_way_to_their_end_first():
    class NoReset:
        def __init__(self, env):
            self.env = env

        def __getattr__(self, name):
            if name == "reset":
                raise AttributeError(name)
            return getattr(self.env, name)

    points = PointEnv(num_envs=2, max_episode_length=4, bound=99.0)
    points.episode_length_buf = torch.tensor([0, 3])
    env = CheckedVecEnv(NoReset(points))
    assert not env.seedable
    env.begin(seed=0)
    episodes = rollout_vec_env(env, lambda seen, begins: teacher(seen["critic"]), num_episodes=1)
    assert episodes.lengths.tolist() == [[4], [4]]
