"""Turn a description of a quadrotor into its file, and fly it.

python examples/my_quadrotor.py examples/my_quadrotor.yaml --output my_quadrotor --policy published
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

import raptor


def main(arguments: Sequence[str] | None = None) -> dict[str, float]:
    """Write the file, fly and print; returns the printed figures by name."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("description", nargs="?", type=Path, default=Path(__file__).with_name("my_quadrotor.yaml"))
    parser.add_argument("--output", type=Path, help="folder for the JSON file; nothing is written by default")
    parser.add_argument(
        "--policy", default="published", help="a name, as in `raptor evaluate --help`, a run folder or file"
    )
    parser.add_argument("--num-episodes", type=int, default=100)
    options = parser.parse_args(arguments)

    quadrotor, estimates = raptor.from_description(options.description)
    print("estimated, because the description leaves it out:")
    for estimate in estimates:
        print(f"  {estimate}")
    if options.output is not None:
        (file,) = quadrotor.save(options.output, overwrite=True)
        quadrotor = raptor.Quadrotors.from_json(file)
        print(f"wrote {file}")

    env = raptor.QuadrotorEnv(quadrotor.repeat_interleave(options.num_episodes), auto_reset=False)
    policy = raptor.load_policy(options.policy)
    observation, _ = env.reset()
    hidden = policy.initial_hidden_state(env.num_envs)
    flying = torch.ones(env.num_envs, dtype=torch.bool)
    errors, highest_throttle = [], torch.zeros(env.num_envs)
    with torch.no_grad():
        for _ in range(env.task.episode_steps):
            action, hidden = policy(observation, hidden)
            result = env.step(action)
            observation, flying = result.observation, flying & ~result.terminated
            errors.append(result.info["position_error"])
            highest_throttle = torch.maximum(highest_throttle, (action.clamp(-1, 1).amax(-1) + 1) / 2)

    settled = torch.stack(errors[len(errors) // 2 :])[:, flying]
    figures = {
        "thrust to weight": quadrotor.thrust_to_weight.item(),
        "hover throttle": quadrotor.hover_throttle.item(),
        "termination rate": 1 - flying.float().mean().item(),
        "distance from the target, second half (m)": settled.mean().item(),
        "highest throttle, median episode": highest_throttle.median().item(),
    }
    for name, value in figures.items():
        print(f"{name:42} {value:.3f}")
    return figures


if __name__ == "__main__":
    main()
