"""Isaac Lab's environments for rsl_rl."""

import gymnasium
import torch
from isaaclab.envs import DirectRLEnv, ManagerBasedRLEnv
from tensordict import TensorDict


class RslRlVecEnvWrapper:
    def __init__(self, env, clip_actions=None):
        if not isinstance(env.unwrapped, (ManagerBasedRLEnv, DirectRLEnv)):
            raise ValueError(
                f"The environment must be inherited from ManagerBasedRLEnv or DirectRLEnv, got {type(env)}"
            )
        self.env, self.clip_actions = env, clip_actions
        self.num_envs, self.device = self.unwrapped.num_envs, self.unwrapped.device
        self.max_episode_length = self.unwrapped.max_episode_length
        if hasattr(self.unwrapped, "action_manager"):
            self.num_actions = self.unwrapped.action_manager.total_action_dim
        else:
            self.num_actions = gymnasium.spaces.flatdim(self.unwrapped.single_action_space)
        self.env.reset()

    @property
    def cfg(self):
        return self.unwrapped.cfg

    @property
    def unwrapped(self):
        return self.env.unwrapped

    @property
    def episode_length_buf(self):
        return self.unwrapped.episode_length_buf

    @episode_length_buf.setter
    def episode_length_buf(self, value):
        self.unwrapped.episode_length_buf = value

    def get_observations(self):
        if hasattr(self.unwrapped, "observation_manager"):
            groups = self.unwrapped.observation_manager.compute()
        else:
            groups = self.unwrapped._get_observations()
        return TensorDict(groups, batch_size=[self.num_envs])

    def step(self, actions):
        if self.clip_actions is not None:
            actions = torch.clamp(actions, -self.clip_actions, self.clip_actions)
        groups, reward, terminated, truncated, extras = self.env.step(actions)
        if not self.unwrapped.cfg.is_finite_horizon:
            extras["time_outs"] = truncated
        done = (terminated | truncated).to(dtype=torch.long)
        return TensorDict(groups, batch_size=[self.num_envs]), reward, done, extras

    def close(self):
        return self.env.close()
