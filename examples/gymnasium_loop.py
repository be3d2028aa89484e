"""Fly with Gymnasium: one vehicle for an episode, then many at once with new vehicles where episodes end.

python examples/gymnasium_loop.py --num-envs 64 --num-steps 1000
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import gymnasium
import numpy as np
import torch

import raptor
from raptor.formats import OnnxPolicy


def fly_one(policy: raptor.RaptorPolicy | OnnxPolicy) -> float:
    """One episode on the X500; returns its return."""
    env = gymnasium.make("raptor/Hover-v0", quadrotor="x500_real")
    observation, info = env.reset(seed=0)
    policy.reset()
    total, over = 0.0, False
    while not over:
        action = policy.evaluate_step(torch.from_numpy(observation)).numpy()
        observation, reward, terminated, truncated, info = env.step(action.clip(-1, 1))
        total, over = total + float(reward), terminated or truncated
    print(f"one x500_real: return {total:.1f}, {info['position_error']:.3f} m from the target at the end")
    env.close()
    return total


def fly_many(policy: raptor.RaptorPolicy | OnnxPolicy, num_envs: int, num_steps: int) -> list[float]:
    """Episodes on random vehicles; returns the returns of those that ended."""
    envs = gymnasium.make_vec("raptor/Track-v0", num_envs=num_envs, quadrotor="random")
    observations, _ = envs.reset(seed=0)
    hidden = policy.initial_hidden_state(num_envs)
    running, finished = np.zeros(num_envs), []
    for _ in range(num_steps):
        with torch.no_grad():
            actions, hidden = policy(torch.from_numpy(observations), hidden)
        observations, rewards, terminated, truncated, _ = envs.step(actions.clamp(-1, 1).numpy())
        running += rewards
        ended = terminated | truncated
        finished += running[ended].tolist()
        running[ended] = 0.0
        # A new episode has a new vehicle: reset the hidden state.
        hidden = torch.where(torch.from_numpy(ended)[:, None], policy.initial_hidden_state(num_envs), hidden)
    envs.close()
    print(f"{num_envs} random vehicles: {len(finished)} episodes ended, mean return {np.mean(finished):.1f}")
    return finished


def main(arguments: Sequence[str] | None = None) -> tuple[float, list[float]]:
    """Fly and print; returns the return of the one episode, and those of the many."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--policy", default="published", help="a name, as in `raptor evaluate --help`, a run folder or file"
    )
    parser.add_argument("--num-envs", type=int, default=16)
    parser.add_argument("--num-steps", type=int, default=501)
    options = parser.parse_args(arguments)
    policy = raptor.load_policy(options.policy)
    return fly_one(policy), fly_many(policy, options.num_envs, options.num_steps)


if __name__ == "__main__":
    main()
