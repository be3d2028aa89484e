"""An observation of one's own: a policy that sees the voltage of its battery.

python examples/my_observation.py
raptor train-direct -o runs/volt --extend examples/my_observation.py "task.observation=[position_error, rotation,
    linear_velocity, angular_velocity, previous_action, voltage]" task.extra.voltage.drop=0.2
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import raptor
from raptor.training.direct.job import first_policy, make_learner


@raptor.term("observation", memory=1)
def voltage(view, full: float = 4.2, drop: float = 0.05):
    """Voltage of a cell, less what it drops (V) for each second of full throttle, about its middle."""
    throttle = ((view.previous_action + 1) / 2).mean(-1, keepdim=True)
    used = view.memory + view.dt * throttle
    return full - drop * used - 3.7, used


def main(arguments: Sequence[str] | None = None) -> raptor.RaptorPolicy:
    """Train for a few updates, save the policy, and look at what it observes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("volt.pt"))
    options = parser.parse_args(arguments)

    task = raptor.Task(observation=(*raptor.Task().observation, "voltage"), extra=[voltage(drop=0.2)])
    small = {"num_updates": 2, "batch_size": 16, "segment_steps": 10, "validation_interval": 0}
    config = raptor.TrainDirectConfig(task=task, compile=False, **small)
    learner = make_learner(config, first_policy(config))
    for _ in range(config.num_updates):
        learner.update()
    raptor.save_policy(learner.policy, options.output, {"what": "an example, hardly trained"})

    policy = raptor.load_policy(options.output)
    env = raptor.QuadrotorEnv(raptor.sample_quadrotors(4), raptor.Task().observing(policy.layout), compile=False)
    observation, _ = env.reset(seed=0)
    action, _ = policy(observation, policy.initial_hidden_state(4))
    after = env.step(action.detach()).observation
    print(f"{policy.observation_dim} numbers, by name: {', '.join(policy.layout['observation'])}")
    print(f"voltage, less 3.7 V: {observation[0, -1]:.4f} V, a step later {after[0, -1]:.4f} V")
    return policy


if __name__ == "__main__":
    main()
