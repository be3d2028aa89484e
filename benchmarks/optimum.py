"""How far the packaged policies are from the best that any controller could do on the same episodes.

    python benchmarks/optimum.py [--num-quadrotors 256] [--updates 300] [--output runs/optimum.json] [POLICY ...]

Corrections of every action of every vehicle of the suite `unseen`, on top of the best policy, are optimised by gradient
through whole episodes, the motion of the targets known in advance. The best return of each vehicle, by any policy or
any iterate, is a lower bound of what could be had. Prints mean returns and their shares of the bound with 95 %
intervals over vehicles, and writes them as JSON. Takes ten minutes on one core, and ends within `--minutes`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from raptor.cli.progress import counting, duration, wide_console
from raptor.core.atomic import write_atomically
from raptor.environments.collectors import Episodes
from raptor.environments.episode import Noise, draw_noise
from raptor.environments.rollout import BLOCK_STEPS, controller_of
from raptor.evaluation import Estimate, Policy, bootstrap_means
from raptor.evaluation.evaluator import fly
from raptor.evaluation.results import column_names
from raptor.evaluation.suites import Condition, conditions
from raptor.formats import load_policy
from raptor.formats.policy_files import POLICY_NAMES
from raptor.rl.corrections import correct

OPTIMUM = "optimum (at least)"


def optimise(policy: Policy, condition: Condition, updates: int, rate: float, minutes: float) -> Episodes:
    """The best that corrections of a policy's actions reach in the episodes of a condition without noise and delays."""
    condition = condition.seen_by(policy)
    start, generator = condition.begin()
    start = dataclasses.replace(start, sensed=start.sensed[:1], commanded=())
    blocks = [BLOCK_STEPS] * (condition.num_steps // BLOCK_STEPS)
    noise = [step for num in blocks for step in draw_noise(condition.task, condition.quadrotors.mass, generator, num)]
    times = [time.perf_counter()]
    with counting(Console(stderr=True)) as show:

        def stop(update: int, best: Episodes) -> bool:
            times.append(time.perf_counter())
            left, rates = times[0] + 60 * minutes - times[-1], ""
            if update > 1:  # after what was compiled in the first
                rate = (update - 1) / (times[-1] - times[2])
                rates = f", {rate:.2f} updates/s, {duration(max(0, min(left, (updates - update) / rate)))} left"
            show(f"update {update} of {updates}: best return {best.returns.mean():.2f}{rates}", update, updates)
            return left < 0

        best, _ = correct(
            *controller_of(policy, len(condition.quadrotors)),
            condition.starts,
            condition.quadrotors,
            start,
            [Noise(step.reference) for step in noise],
            num_updates=updates,
            learning_rate=rate,
            stop=stop,
        )
    return best


def best_of(flown: Sequence[Episodes]) -> Episodes:
    """The episode of each vehicle that returned most."""
    which = torch.stack([episodes.returns for episodes in flown]).argmax(0, keepdim=True)
    return Episodes(*(torch.stack(column).gather(0, which)[0] for column in zip(*flown, strict=True)))


def summary(flown: dict[str, Episodes]) -> dict[str, Any]:
    """Mean return, share of the optimum and terminations of each policy, with intervals over vehicles."""
    columns = [each.returns for each in flown.values()] + [each.terminated for each in flown.values()]
    table = torch.stack([column.double() for column in columns], dim=-1).numpy()
    means = bootstrap_means(table, np.zeros(len(table)))
    points, samples, best, num = means.point[0], means.samples[:, 0], list(flown).index(OPTIMUM), len(flown)
    found = {}
    for place, name in enumerate(flown):
        shares = samples[:, place] / samples[:, best]
        share = Estimate(points[place] / points[best], *np.quantile(shares, [0.025, 0.975]).tolist())
        estimates = {"return": means.estimate(0, place), "terminated": means.estimate(0, num + place), "share": share}
        found[name] = {key: estimate.to_dict() for key, estimate in estimates.items()}
    return found


def shown(found: dict[str, Any], num_quadrotors: int) -> Table:
    """The summary for people."""
    table = Table("", "mean return", "share of the optimum (%)", "terminated (%)", title=f"{num_quadrotors} vehicles")
    for name, row in found.items():
        texts = []
        for key, scale, digits in (("return", 1, 1), ("share", 100, 2), ("terminated", 100, 2)):
            value, low, high = (f"{scale * row[key][part]:.{digits}f}" for part in ("value", "low", "high"))
            texts.append(f"{value} [{low}, {high}]")
        table.add_row(name, *texts)
    return table


def main() -> None:
    """Optimise, fly the policies, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("policies", nargs="*", default=list(POLICY_NAMES), help="to compare, by name, run or file")
    parser.add_argument("--num-quadrotors", type=int, default=256)
    parser.add_argument("--updates", type=int, default=300)
    parser.add_argument("--learning-rate", type=float, default=0.03)
    parser.add_argument("--minutes", type=float, default=14.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("runs/optimum.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    (condition,) = conditions("unseen", arguments.num_quadrotors, 1, arguments.seed, torch.device("cpu"))
    policies: dict[str, Policy] = {n: load_policy(source) for source, n in column_names(arguments.policies).items()}
    flown = {}
    for name, policy in policies.items():
        seen = condition.seen_by(policy)
        flown[name], *_ = fly(policy, seen, (seen.quadrotors, *seen.begin()), None, compile=False)
    corrected = max(flown, key=lambda name: flown[name].returns.mean().item())
    settings = (arguments.updates, arguments.learning_rate, arguments.minutes)
    flown[OPTIMUM] = best_of([*flown.values(), optimise(policies[corrected], condition, *settings)])
    found = summary(flown)
    wide_console().print(shown(found, arguments.num_quadrotors))
    told = {key: value for key, value in vars(arguments).items() if key not in ("output", "policies")}
    document = {"policies": found, "settings": {**told, "corrected": corrected}}
    write_atomically(arguments.output, json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
