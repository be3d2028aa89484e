"""A trajectory of one's own: a function of time, flown by a packaged policy.

python examples/my_trajectory.py --platform race --policy default --seconds 10
raptor train-direct -o runs/rose --extend examples/my_trajectory.py --reference rose task.extra.rose.period=8
"""

from __future__ import annotations

import argparse

import torch

import raptor
from raptor.tasks import InitialStates, References, Termination, Trajectory, term


@term("trajectory")
def rose(
    t: torch.Tensor, petals: float = 3.0, size: float = 1.5, period: float = 12.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """A flower from above, with the nose along the ray from its middle."""
    angle = 2 * torch.pi * t / period
    radius = size * torch.sin(petals * angle)
    position = torch.stack([radius * torch.cos(angle), radius * torch.sin(angle), 0.3 * torch.sin(2 * angle)], dim=-1)
    return position, angle


def main(arguments: list[str] | None = None) -> float:
    """Fly it and print how well; returns the root mean square of the distance from the target (m)."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--platform", default="race", choices=raptor.PLATFORMS)
    parser.add_argument("--policy", default="default")
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args(arguments)

    trajectory = Trajectory("rose", random_start=False)
    task = raptor.Task(
        references=References(langevin_share=0.0, trajectory_share=1.0, trajectory=trajectory),
        initial_states=InitialStates(guidance=1.0),
        termination=Termination(about_target=True),
        extra=[rose(period=15.0)],
    )
    env = raptor.QuadrotorEnv(raptor.load_platform(options.platform), task, auto_reset=False, compile=False)
    policy, errors = raptor.load_policy(options.policy), []
    observation, _ = env.reset(seed=0)
    hidden = policy.initial_hidden_state(1)
    with torch.no_grad():
        for _ in range(round(options.seconds / task.dt)):
            action, hidden = policy(observation, hidden)
            observation, *_, info = env.step(action)
            errors.append(info["position_error"])
    rmse = torch.stack(errors).square().mean().sqrt().item()
    print(f"{options.policy} flies the rose with {options.platform}: {100 * rmse:.1f} cm from the target (RMSE)")
    return rmse


if __name__ == "__main__":
    main()
