"""The three kinds of environments, flown by `raptor.QuadrotorEnv`."""

from __future__ import annotations

import dataclasses

import gymnasium
import numpy as np
import torch

from isaaclab.app import SimulationApp, events

if not SimulationApp.running:
    raise ModuleNotFoundError("No module named 'omni.physics': the simulator has not been launched")

from raptor.environments import QuadrotorEnv, observe_as_teacher
from raptor.quadrotor import load_platform
from raptor.tasks import Task


@dataclasses.dataclass
class SimCfg:
    device: str = "cuda:0"
    dt: float = 0.01
    gravity: tuple[float, float, float] = (0.0, 0.0, -9.81)


@dataclasses.dataclass
class SceneCfg:
    num_envs: int = 8
    env_spacing: float = 2.5


@dataclasses.dataclass
class EnvCfg:
    seed: int | None = None
    sim: SimCfg = dataclasses.field(default_factory=SimCfg)
    scene: SceneCfg = dataclasses.field(default_factory=SceneCfg)
    episode_steps: int = 12
    is_finite_horizon: bool = False
    rewards: dict = dataclasses.field(default_factory=lambda: {"alive": {"weight": 1.0, "func": print}})


class _Quadrotors(gymnasium.Env):
    """What all kinds share. A reset of everything sets the seed, a reset of some does not."""

    metadata = {"render_modes": [None, "rgb_array"], "render_fps": 50}  # noqa: RUF012

    def __init__(self, cfg, render_mode=None, **kwargs):
        assert set(kwargs) <= {"env_cfg_entry_point", "rsl_rl_cfg_entry_point"}, kwargs
        self.cfg, self.render_mode = cfg, render_mode
        self.num_envs, self.device = cfg.scene.num_envs, cfg.sim.device
        self.max_episode_length = cfg.episode_steps
        task = Task(episode_steps=cfg.episode_steps, dt=cfg.sim.dt)
        vehicles = load_platform("crazyflie")[torch.zeros(self.num_envs, dtype=torch.long)]
        self.batch = QuadrotorEnv(vehicles, task, seed=cfg.seed or 0, device=self.device, compile=False)
        self.single_action_space = gymnasium.spaces.Box(-np.inf, np.inf, (4,), np.float32)
        self.batch.reset()
        events.append(f"{type(self).__name__} with {self.num_envs} environments, seed {cfg.seed}")

    @property
    def episode_length_buf(self):
        return self.batch.episode_length

    @episode_length_buf.setter
    def episode_length_buf(self, lengths):
        self.batch.episode_length = lengths

    def _reset(self, seed):
        self.batch.reset(seed)
        # As in Isaac-Quadcopter-Direct-v0: who begins all at once spreads the ends of the episodes.
        high = self.max_episode_length
        self.episode_length_buf = torch.randint(high, (self.num_envs,), generator=self.batch.generator)

    def _step(self, action):
        result = self.batch.step(action.to(self.device))
        return result.reward * self.cfg.rewards["alive"]["weight"], result.terminated, result.truncated

    def _groups(self):
        critic = observe_as_teacher(self.batch.quadrotors, self.batch.episode)
        return {"policy": self.batch.observation, "critic": critic}

    def render(self, recompute=False):
        if self.render_mode != "rgb_array":
            return None
        height = float(self.batch.episode.state.position[0, 2].clamp(-1, 1))
        return np.full((24, 32, 3), round(127 * (1 + height)), np.uint8)

    def close(self):
        events.append("environment closed")


class ManagerBasedRLEnv(_Quadrotors):
    def __init__(self, cfg, render_mode=None, **kwargs):
        super().__init__(cfg, render_mode, **kwargs)
        env = self

        class ObservationManager:
            def compute(self):
                return env._groups()

        class ActionManager:
            total_action_dim = 4

        self.observation_manager, self.action_manager = ObservationManager(), ActionManager()

    def reset(self, seed=None, env_ids=None, options=None):
        self._reset(seed)
        return self._groups(), {}

    def step(self, action):
        reward, terminated, truncated = self._step(action)
        return self._groups(), reward, terminated, truncated, {"log": {}}


class DirectRLEnv(_Quadrotors):
    def _get_observations(self):
        return self._groups()

    def reset(self, seed=None, options=None):
        self._reset(seed)
        return self._get_observations(), {}

    def step(self, action):
        reward, terminated, truncated = self._step(action)
        return self._get_observations(), reward, terminated, truncated, {}


class DirectMARLEnv(_Quadrotors):
    """Two agents for the left and the right rotors; they see half of the observation each."""

    possible_agents = ("left", "right")

    def __init__(self, cfg, render_mode=None, **kwargs):
        super().__init__(cfg, render_mode, **kwargs)
        self.observation_spaces = {
            agent: gymnasium.spaces.Box(-np.inf, np.inf, (11,), np.float32) for agent in self.possible_agents
        }
        self.action_spaces = {agent: gymnasium.spaces.Box(-1, 1, (2,), np.float32) for agent in self.possible_agents}
        self.single_action_space = None  # there is none

    def _seen(self):
        return dict(zip(self.possible_agents, self.batch.observation.split(11, -1), strict=True))

    def reset(self, seed=None, options=None):
        self._reset(seed)
        return self._seen(), {}

    def step(self, actions):
        reward, terminated, truncated = self._step(torch.cat([actions[agent] for agent in self.possible_agents], -1))
        half = dict.fromkeys(self.possible_agents, reward / 2)
        return (
            self._seen(),
            half,
            dict.fromkeys(self.possible_agents, terminated),
            dict.fromkeys(self.possible_agents, truncated),
            {},
        )


def multi_agent_to_single_agent(env, state_as_observation=False):
    class Single(DirectRLEnv):
        def __init__(self, env):
            self.env = env.unwrapped
            self.cfg, self.render_mode, self.device = self.env.cfg, self.env.render_mode, self.env.device
            self.num_envs, self.max_episode_length = self.env.num_envs, self.env.max_episode_length
            self.single_action_space = gymnasium.spaces.Box(-1, 1, (4,), np.float32)
            events.append("single agent")

        @property
        def batch(self):
            return self.env.batch

        def _join(self, seen):
            return {"policy": torch.cat([seen[agent] for agent in self.env.possible_agents], -1)}

        def _get_observations(self):
            return self._join(self.env._seen())

        def reset(self, seed=None, options=None):
            seen, extras = self.env.reset(seed, options)
            return self._join(seen), extras

        def step(self, action):
            left, right = action.split(2, -1)
            seen, reward, terminated, truncated, extras = self.env.step({"left": left, "right": right})
            return self._join(seen), sum(reward.values()), terminated["left"], truncated["left"], extras

        def render(self, recompute=False):
            return self.env.render(recompute)

        def close(self):
            self.env.close()

    return Single(env)
