"""Settings of tasks by the names that they are registered under."""

import gymnasium


def load_cfg_from_registry(task_name, entry_point_key):
    entry = gymnasium.spec(task_name).kwargs.get(entry_point_key)
    if entry is None:
        raise ValueError(f"Could not find configuration for the environment: '{task_name}'.")
    return entry()


def parse_env_cfg(task_name, device="cuda:0", num_envs=None, use_fabric=None):
    cfg = load_cfg_from_registry(task_name, "env_cfg_entry_point")
    cfg.sim.device = device
    if num_envs is not None:
        cfg.scene.num_envs = num_envs
    return cfg
