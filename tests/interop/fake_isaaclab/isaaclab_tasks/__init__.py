"""Registers tasks."""

import gymnasium
from isaaclab.envs import EnvCfg


class AgentCfg:
    clip_actions = 1.0


for name, kind in (
    ("Isaac-Quadcopter-v0", "ManagerBasedRLEnv"),
    ("Isaac-Quadcopter-Direct-v0", "DirectRLEnv"),
    ("Isaac-Quadcopter-Pair-Direct-v0", "DirectMARLEnv"),
):
    gymnasium.register(
        id=name,
        entry_point=f"isaaclab.envs:{kind}",
        disable_env_checker=True,
        kwargs={"env_cfg_entry_point": EnvCfg, "rsl_rl_cfg_entry_point": AgentCfg},
    )
