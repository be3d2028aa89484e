"""A tiny environment that keeps the contract of `VecEnv`: points on a line that are to be outputs to rest."""

from __future__ import annotations

import torch


class PointEnv:
    """N points with a position and a velocity, pushed by one number; out of bounds ends an episode.

    The student sees the position alone (`policy`), the teacher the velocity too (`critic`).
    """

    num_actions = 1
    device = "cpu"

    def __init__(self, num_envs=4, max_episode_length=40, bound=2.0):
        self.num_envs, self.max_episode_length, self.bound = num_envs, max_episode_length, bound
        self.cfg = {"num_envs": num_envs, "bound": bound}
        self.generator = torch.Generator()
        self.state = torch.zeros(num_envs, 2)
        self.episode_length_buf = torch.zeros(num_envs, dtype=torch.long)
        self.reset()

    def reset(self, seed=None):
        if seed is not None:
            self.generator.manual_seed(seed)
        self.state = self.drawn()
        self.episode_length_buf = torch.zeros(self.num_envs, dtype=torch.long)
        return self.get_observations(), {}

    def drawn(self):
        return torch.rand(self.num_envs, 2, generator=self.generator) * 2 - 1

    def get_observations(self):
        return {"policy": self.state[:, :1], "critic": self.state}

    def step(self, actions):
        position, velocity = self.state.unbind(-1)
        velocity = velocity + 0.2 * actions[:, 0].clamp(-3, 3)
        self.state = torch.stack([position + 0.2 * velocity, velocity], -1)
        self.episode_length_buf = self.episode_length_buf + 1
        reward = 1 - self.state[:, 0].abs()
        terminated = self.state[:, 0].abs() > self.bound
        timed_out = ~terminated & (self.episode_length_buf >= self.max_episode_length)
        done = terminated | timed_out
        self.state = torch.where(done.unsqueeze(-1), self.drawn(), self.state)
        self.episode_length_buf = self.episode_length_buf.masked_fill(done, 0)
        return self.get_observations(), reward, done, {"time_outs": timed_out}


def teacher(observation):
    """Critically damped."""
    return -observation[..., :1] - 2 * observation[..., 1:]
