"""Train a policy through the simulator's gradient for a few updates, without a run folder, and save it.

    python examples/train_tiny_policy.py --num-updates 200 --batch-size 512 --segment-steps 100 --compile

`raptor train-direct` does the same with checkpoints, validation and resuming.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import raptor
from raptor.training.direct.job import first_policy, make_learner


def main(arguments: Sequence[str] | None = None) -> tuple[float, float]:
    """Train, save and print; returns the mean length of validation episodes before and after, in seconds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num-updates", type=int, default=40)
    parser.add_argument("--batch-size", type=int, default=32, help="vehicles flown at once")
    parser.add_argument("--segment-steps", type=int, default=25, help="steps between two updates")
    parser.add_argument("--compile", action="store_true", help="half a minute once, then many times faster")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("tiny.pt"))
    options = parser.parse_args(arguments)

    config = raptor.TrainDirectConfig(
        num_updates=options.num_updates,
        batch_size=options.batch_size,
        segment_steps=options.segment_steps,
        optimizer="adam",  # SOAP, the default, wants hundreds of vehicles in each update
        learning_rate=3e-2,
        warm_up_updates=2,
        num_validation=options.batch_size,
        seed=options.seed,
        compile=options.compile,
    )
    learner = make_learner(config, first_policy(config))
    before = learner.validate()["mean_length"] * config.task.dt
    for update in range(1, options.num_updates + 1):
        figures = learner.update()
        if update % max(options.num_updates // 5, 1) == 0:
            norm, cost = figures["training/gradient_norm"], figures["training/loss"]
            print(f"update {update}: gradient norm {norm:.3g}, cost per step {cost:.2f}")
    after = learner.validate()["mean_length"] * config.task.dt
    print(f"episodes of unseen vehicles last {after:.2f} s of 5 s, {before:.2f} s before training")

    card = {"what": "an example, hardly trained", "training": f"{options.num_updates} updates", "licence": "MIT"}
    raptor.save_policy(learner.policy, options.output, card)
    print(f"wrote {options.output}; see it fly: python examples/fly_published_policy.py --policy {options.output}")
    return before, after


if __name__ == "__main__":
    main()
