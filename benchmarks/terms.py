"""What terms of one's own cost: compiled speed of train-direct with them, beside the same without or built in.

    python benchmarks/terms.py [--vehicles 1024] [--updates 9] [--device cpu]

A cost of one's own is compared with the same cost built in (position and velocity error); a reward, an observation
and a disturbance with a training without them. Updates of both alternate, so that a busy machine slows both.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time

import torch

import raptor
from raptor.config import load_config
from raptor.tasks import Wrench
from raptor.training.direct.job import first_policy, make_learner


@raptor.term("cost")
def own_position(step, rounding: float = 1e-2):
    """`objective.position`, as a term of one's own."""
    return torch.sqrt((step.position_error**2).sum(-1) + rounding**2)


@raptor.term("cost", weight=0.2)
def own_velocity(step, rounding: float = 1e-2):
    """`objective.velocity`, as a term of one's own."""
    return torch.sqrt((step.velocity_error**2).sum(-1) + rounding**2)


@raptor.term("reward", weight=0.5)
def slow_roll(step, scale: float = 2.0):
    """1 where the vehicle does not roll."""
    return 1 / (1 + (step.next_state.angular_velocity[..., 0] / scale) ** 2)


@raptor.term("observation", memory=1)
def voltage(view, full: float = 4.2, drop: float = 0.05):
    """Voltage of a cell."""
    used = view.memory + view.dt * ((view.previous_action + 1) / 2).mean(-1, keepdim=True)
    return full - drop * used, used


@raptor.term("disturbance", memory=3, noise=3)
def gusts(view, strength: float = 0.3, time_constant: float = 0.5):
    """A force that wanders."""
    keep = math.exp(-view.dt / time_constant)
    wind = keep * view.memory + math.sqrt(1 - keep**2) * view.noise
    return Wrench(force=strength * 9.81 * view.quadrotors.mass.unsqueeze(-1) * wind, memory=wind)


SEES = "task.observation=[position_error, rotation, linear_velocity, angular_velocity, previous_action, voltage]"
PAIRS = {
    "own position error / built in": ([], ["objective.position=0", "task.extra=[own_position]"]),
    "own velocity error / built in": (["objective.velocity=0.2"], ["task.extra=[own_velocity]"]),
    "own reward / without": ([], ["task.extra=[slow_roll]"]),
    "own observation / without": ([], [SEES, "task.extra=[voltage]"]),
    "own disturbance / without": ([], ["task.extra=[gusts]"]),
}
"""Settings without and with a term of one's own."""


def seconds(settings: tuple[list[str], list[str]], common: list[str], updates: int) -> list[float]:
    """Median seconds of an update with each of two settings, taken in turn."""
    learners, times = [], [list[float](), list[float]()]
    for each in settings:
        config = load_config(raptor.TrainDirectConfig, None, [*common, *each])
        learners.append(make_learner(config, first_policy(config)))
        learners[-1].update()  # compiles
    for _ in range(updates):
        for learner, taken in zip(learners, times, strict=True):
            start = time.perf_counter()
            learner.update()  # ends with figures on the host
            taken.append(time.perf_counter() - start)
    return [statistics.median(taken) for taken in times]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vehicles", type=int, default=1024)
    parser.add_argument("--updates", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(1)
    common = [f"batch_size={options.vehicles}", f"device={options.device}", "validation_interval=0"]
    for name, settings in PAIRS.items():
        before, after = seconds(settings, common, options.updates)
        print(f"{name:32} {before:.3f} s -> {after:.3f} s an update, ratio {after / before:.3f}", flush=True)


if __name__ == "__main__":
    main()
