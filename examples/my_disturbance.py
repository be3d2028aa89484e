"""Gusts: a disturbance of one's own, which flights are worse in, and which train another policy.

python examples/my_disturbance.py
raptor train-direct -o runs/windy --extend examples/my_disturbance.py task.extra.gusts.strength=0.5
"""

from __future__ import annotations

import math

import torch

import raptor
from raptor.tasks import Wrench
from raptor.training.direct.job import first_policy, make_learner


@raptor.term("disturbance", memory=3, noise=3)
def gusts(view, strength: float = 0.3, time_constant: float = 0.5):
    """A force that wanders, of some strength (standard deviation in weights) and slowness (s)."""
    keep = math.exp(-view.dt / time_constant)
    wind = keep * view.memory + math.sqrt(1 - keep**2) * view.noise
    return Wrench(force=strength * 9.81 * view.quadrotors.mass.unsqueeze(-1) * wind, memory=wind)


def trained(*settings: str):
    """The packaged policy after a few updates of train-direct, always the same but for these settings."""
    small = ["num_updates=4", "batch_size=32", "segment_steps=10", "validation_interval=0", "compile=false"]
    gentle = ["initial_policy=default", "learning_rate=2e-3", "warm_up_updates=0"]
    config = raptor.load_config(raptor.TrainDirectConfig, None, [*small, *gentle, *settings])
    learner = make_learner(config, first_policy(config))
    for _ in range(config.num_updates):
        learner.update()
    return learner.policy


@torch.no_grad()
def distance(policy, task: raptor.Task) -> float:
    """Mean distance (m) of 64 vehicles from their targets, in the second half of their first second."""
    env = raptor.QuadrotorEnv(raptor.sample_quadrotors(64), task, compile=False)
    (observation, _), hidden, distances = env.reset(seed=0), policy.initial_hidden_state(64), []
    for _ in range(100):
        action, hidden = policy(observation, hidden)
        observation, _, _, _, info = env.step(action)
        distances.append(info["position_error"].mean())
    return torch.stack(distances[50:]).mean().item()


def main() -> dict[str, float]:
    """Fly in calm air and in gusts, and in gusts again after training in each; print."""
    default, calm, windy = raptor.load_policy("default"), raptor.Task(), raptor.Task(extra=[gusts])
    distances = {"in calm air": distance(default, calm), "in gusts": distance(default, windy)}
    distances["in gusts, trained in calm air"] = distance(trained(), windy)
    distances["in gusts, trained in gusts"] = distance(trained("task.extra.gusts.strength=0.3"), windy)
    print(*(f"{name}: {metres:.3f} m" for name, metres in distances.items()), sep="\n")
    return distances


if __name__ == "__main__":
    main()
