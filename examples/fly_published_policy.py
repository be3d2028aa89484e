"""Fly a policy on a named platform from random starts, and print the results.

python examples/fly_published_policy.py --platform x500_real --policy published --num-episodes 256
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch

import raptor


def main(arguments: Sequence[str] | None = None) -> dict[str, float]:
    """Fly and print; returns the printed figures by name."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--platform", default="x500_real", choices=raptor.PLATFORMS)
    parser.add_argument(
        "--policy", default="published", help="a name, as in `raptor evaluate --help`, a run folder or file"
    )
    parser.add_argument("--num-episodes", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)

    vehicles = raptor.load_platform(options.platform).repeat_interleave(options.num_episodes)
    env = raptor.QuadrotorEnv(vehicles, seed=options.seed, auto_reset=False)
    policy = raptor.load_policy(options.policy)

    observation, _ = env.reset()
    hidden = policy.initial_hidden_state(env.num_envs)
    flying = torch.ones(env.num_envs, dtype=torch.bool)
    returns = torch.zeros(env.num_envs)
    with torch.no_grad():
        for _ in range(env.task.episode_steps):
            action, hidden = policy(observation, hidden)
            result = env.step(action)
            observation = result.observation
            returns += torch.where(flying, result.reward, 0.0)
            flying &= ~result.terminated

    figures = {
        "mean return": returns.mean().item(),
        "termination rate": 1 - flying.float().mean().item(),
        "distance from the target at the end (m)": result.info["position_error"][flying].mean().item(),
    }
    seconds = env.task.episode_steps * env.task.dt
    print(f"{options.policy} on {options.platform}, {env.num_envs} episodes of {seconds:g} s")
    for name, value in figures.items():
        print(f"  {name:40} {value:.3f}")
    return figures


if __name__ == "__main__":
    main()
