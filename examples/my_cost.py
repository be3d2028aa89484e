"""A cost and a reward of one's own: the policy that is trained with the cost rolls slower.

python examples/my_cost.py
raptor train-direct -o runs/calm --extend examples/my_cost.py task.extra.roll_rate.weight=0.5
"""

from __future__ import annotations

import torch

import raptor
from raptor.training.direct.job import first_policy, make_learner


@raptor.term("cost", weight=0.5)
def roll_rate(step, limit: float = 0.0):
    """Roll rate beyond a limit (rad/s)."""
    return torch.relu(step.next_state.angular_velocity[..., 0].abs() - limit)


@raptor.term("reward", weight=0.5)
def slow_roll(step, scale: float = 2.0):
    """1 where the vehicle does not roll, and less than a half beyond a roll rate (rad/s)."""
    return 1 / (1 + (step.next_state.angular_velocity[..., 0] / scale) ** 2)


def trained(*settings: str):
    """The packaged policy after a few updates of train-direct, always the same but for these settings."""
    small = ["num_updates=5", "batch_size=32", "segment_steps=10", "validation_interval=0", "compile=false"]
    gentle = ["initial_policy=default", "learning_rate=3e-3", "warm_up_updates=0"]
    config = raptor.load_config(raptor.TrainDirectConfig, None, [*small, *gentle, *settings])
    learner = make_learner(config, first_policy(config))
    for _ in range(config.num_updates):
        learner.update()
    return learner.policy


@torch.no_grad()
def flown(policy) -> tuple[float, float]:
    """Mean roll rate (rad/s) and mean reward of a step, of 64 vehicles in their first second."""
    env = raptor.QuadrotorEnv(raptor.sample_quadrotors(64), raptor.Task(extra=[slow_roll]), compile=False)
    (observation, _), hidden, figures = env.reset(seed=0), policy.initial_hidden_state(64), []
    for _ in range(100):
        action, hidden = policy(observation, hidden)
        observation, reward, *_ = env.step(action)
        figures.append((env.state.angular_velocity[:, 0].abs().mean(), reward.mean()))
    return tuple(torch.tensor(figures).mean(0).tolist())


def main() -> list[tuple[float, float]]:
    """Train without and with the cost, and print."""
    results = []
    for name, settings in {"without": [], "with": ["task.extra.roll_rate.weight=0.5"]}.items():
        results.append(flown(trained(*settings)))
        print("trained {} the cost: {:.2f} rad/s, reward {:.2f} a step".format(name, *results[-1]))
    return results


if __name__ == "__main__":
    main()
