"""Train a PPO teacher for one vehicle with rsl_rl, and compare it with one of ours.

    python examples/rsl_rl_teacher.py --num-iterations 500 --compile --ours runs/teachers

Extra `rsl`. The log folder holds the same files as a run of Isaac Lab: `model_*.pt`, `params/agent.yaml`,
`params/env.yaml` and TensorBoard's file.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from rsl_rl.runners import OnPolicyRunner
from torch import Tensor

import raptor
from raptor.environments import observe_as_teacher
from raptor.interop.rsl_rl_env import RslRlVecEnv


def settings(num_steps: int, hidden: Sequence[int]) -> dict[str, Any]:
    """The runner's configuration: both networks see what a teacher sees."""
    network = {"class_name": "MLPModel", "hidden_dims": list(hidden), "activation": "elu", "obs_normalization": True}
    # Exploration costs reward here, because the change of the action does: little noise learns sooner.
    noise = {"class_name": "GaussianDistribution", "init_std": 0.3, "std_type": "log"}
    return {
        "num_steps_per_env": num_steps,
        "save_interval": 100,
        "obs_groups": {"actor": ["teacher"], "critic": ["teacher"]},
        "actor": {**network, "distribution_cfg": noise},
        "critic": network,
        "algorithm": {
            "class_name": "PPO",
            "num_learning_epochs": 4,
            "num_mini_batches": 8,
            "learning_rate": 3e-3,
            "schedule": "adaptive",
            "desired_kl": 0.01,
            # Values begin at zero and returns far below: clipped, they would take a hundred iterations to get there.
            "use_clipped_value_loss": False,
            "gamma": 0.99,
            "lam": 0.95,
            "entropy_coef": 0.0,
        },
    }


def train(env: RslRlVecEnv, config: dict[str, Any], num_iterations: int, folder: Path) -> Path:
    """Train in `folder`; returns the last checkpoint."""
    (folder / "params").mkdir(parents=True, exist_ok=True)
    (folder / "params" / "agent.yaml").write_text(yaml.safe_dump(config))
    (folder / "params" / "env.yaml").write_text(yaml.safe_dump(env.cfg))
    runner = OnPolicyRunner(env, config, str(folder), str(env.device))
    runner.learn(num_iterations, init_at_random_ep_len=True)
    return folder / f"model_{runner.current_learning_iteration}.pt"


def mean_return(act: Callable[[Tensor], Tensor], quadrotor: raptor.Quadrotors, task: raptor.Task, num: int) -> float:
    """Mean return of one episode each of `num` vehicles."""
    vehicles = quadrotor[torch.zeros(num, dtype=torch.int64)]
    env = raptor.QuadrotorEnv(vehicles, task, auto_reset=False)
    env.reset(seed=1)
    total, over = torch.zeros(num), torch.zeros(num, dtype=torch.bool)
    with torch.no_grad():
        for _ in range(task.episode_steps):
            result = env.step(act(observe_as_teacher(env.quadrotors, env.episode)))
            total += torch.where(over, 0.0, result.reward)
            over |= result.done
    return total.mean().item()


def main(arguments: Sequence[str] | None = None) -> dict[str, float]:
    """Train, fly and print; returns the mean returns."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ours", type=Path, help="folder of raptor pre-train: its first teacher and its vehicle")
    parser.add_argument("--num-iterations", type=int, default=500)
    parser.add_argument("--num-envs", type=int, default=256)
    parser.add_argument("--num-steps", type=int, default=64, help="steps of each environment in an iteration")
    parser.add_argument("--hidden", type=int, nargs="+", default=[64, 64])
    parser.add_argument("--reward-scale", type=float, default=0.05, help="PPO learns best with small returns")
    parser.add_argument("--num-episodes", type=int, default=100)
    parser.add_argument("--compile", action="store_true", help="half a minute once, then several times faster")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("logs/rsl_rl/hover"))
    options = parser.parse_args(arguments)

    torch.manual_seed(options.seed)
    ours = raptor.load_teachers(options.ours)[0] if options.ours else None
    quadrotor = raptor.load_platform("crazyflie") if ours is None or ours.quadrotors is None else ours.quadrotors
    env = RslRlVecEnv(
        options.num_envs,
        quadrotor,
        "hover",
        compile=options.compile,
        seed=options.seed,
        reward_scale=options.reward_scale,
    )
    checkpoint = train(env, settings(options.num_steps, options.hidden), options.num_iterations, options.output)

    teacher = raptor.load_expert(checkpoint)
    print(teacher.description)
    task = env.batch.task
    figures = {"rsl_rl": mean_return(teacher, quadrotor, task, options.num_episodes)}
    if ours is not None:
        figures["ours"] = mean_return(lambda seen: ours(seen[None])[0], quadrotor, task, options.num_episodes)
    steps = options.num_iterations * options.num_steps * options.num_envs
    for name, value in figures.items():
        print(f"{name}: mean return {value:.1f} of {task.episode_steps} steps")
    print(f"{steps} steps of training; wrote {checkpoint}")
    return figures


if __name__ == "__main__":
    main()
