"""A learner of one's own: the gradient of the environment's reward, in a few lines of torch.

python examples/my_learner.py --platform race --num-updates 60
"""

from __future__ import annotations

import argparse

import torch

import raptor
from raptor.tasks import References, Reward, Termination


def fly(env: raptor.QuadrotorEnv, network: torch.nn.Module, num_steps: int, seed: int | None = None):
    """Fly all vehicles from new starts; returns the mean reward of a step, and the mean distance (m) at the end."""
    observation, info = env.reset(seed)
    rewards = []
    for _ in range(num_steps):
        observation, reward, _, _, info = env.step(network(observation))
        rewards.append(reward)
    return torch.stack(rewards).mean(), info["position_error"].mean().item()


def main(arguments: list[str] | None = None) -> tuple[float, float]:
    """Train and print; returns the mean distance from the target after a second, before and after training (m)."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--platform", default="crazyflie", choices=raptor.PLATFORMS)
    parser.add_argument("--num-updates", type=int, default=40)
    options = parser.parse_args(arguments)

    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(22, 32), torch.nn.ReLU(), torch.nn.Linear(32, 4), torch.nn.Tanh())
    optimizer = torch.optim.Adam(network.parameters(), lr=0.03)
    task = raptor.Task(
        references=References(langevin_share=0.0),
        reward=Reward(action_rate=0.1, linear_velocity=0.3, angular_velocity=0.05),
        termination=Termination(enabled=False),
    )
    vehicles = raptor.load_platform(options.platform).repeat_interleave(64)
    env = raptor.QuadrotorEnv(vehicles, task, compile=False, method="euler")
    with torch.no_grad():
        _, before = fly(env, network, 100, seed=1)
    for update in range(1, options.num_updates + 1):
        reward, _ = fly(env, network, 25)
        optimizer.zero_grad()
        (-reward).backward()  # through every step of the simulator
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        print(f"update {update}: reward {reward.item():.2f} a step")
    with torch.no_grad():
        _, after = fly(env, network, 100, seed=1)
    print(f"{after:.2f} m from the target after a second, {before:.2f} m before training")
    return before, after


if __name__ == "__main__":
    main()
