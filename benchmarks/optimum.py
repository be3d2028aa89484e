"""How far the packaged policies are from the best that any controller could do on the same episodes.

    python benchmarks/optimum.py [--num-quadrotors 256] [--updates 500] [--output runs/optimum.json] [POLICY ...]

Corrections of every action of every vehicle of the suite `unseen`, on top of one policy, are optimised by gradient
through whole episodes, the motion of the targets known in advance. The best return of each vehicle, by any policy or
any iterate, is a lower bound of what could be had. Prints mean returns and their shares of the bound with 95 %
intervals over vehicles, and writes them as JSON. Takes ten minutes on one core, and ends earlier after `--minutes`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
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
    begun = time.perf_counter()
    with counting(Console(stderr=True)) as show:

        def progress(update: int, best: Episodes) -> bool:
            elapsed = time.perf_counter() - begun
            left = (
                min(elapsed / max(update, 1) * (updates - update), 60 * minutes - elapsed) if update else 60 * minutes
            )
            rates = f"{update / elapsed:.2f} updates/s, {duration(max(left, 0))} left"
            show(f"update {update} of {updates}: best return {best.returns.mean():.2f}, {rates}", update, updates)
            return elapsed > 60 * minutes

        best, _ = correct(
            *controller_of(policy, len(condition.quadrotors)),
            condition.starts,
            condition.quadrotors,
            start,
            [Noise(step.reference) for step in noise],
            num_updates=updates,
            learning_rate=rate,
            stop=progress,
        )
    return best


def summary(returns: dict[str, torch.Tensor], terminated: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Mean return, share of the optimum and terminations of each policy, with intervals over vehicles."""
    columns = torch.stack([*returns.values(), *terminated.values()], dim=-1).double().numpy()
    means = bootstrap_means(columns, np.zeros(len(columns)))
    points, samples, best, num = means.point[0], means.samples[:, 0], list(returns).index(OPTIMUM), len(returns)
    found = {}
    for place, name in enumerate(returns):
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
    parser.add_argument("--from", dest="corrected", default="large", help="policy whose actions are corrected")
    parser.add_argument("--num-quadrotors", type=int, default=256)
    parser.add_argument("--updates", type=int, default=500)
    parser.add_argument("--learning-rate", type=float, default=0.03)
    parser.add_argument("--minutes", type=float, default=14.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("runs/optimum.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    (condition,) = conditions("unseen", arguments.num_quadrotors, 1, arguments.seed, torch.device("cpu"))
    settings = (arguments.updates, arguments.learning_rate, arguments.minutes)
    flown = {OPTIMUM: optimise(load_policy(arguments.corrected), condition, *settings)}
    for name in arguments.policies:
        policy = load_policy(name)
        seen = condition.seen_by(policy)
        start, generator = seen.begin()
        flown[name], *_ = fly(policy, seen, (seen.quadrotors, start, generator), None, compile=False)
    returns = {name: episodes.returns for name, episodes in flown.items()}
    terminated = {name: episodes.terminated for name, episodes in flown.items()}
    best, which = torch.stack(list(returns.values())).max(0)
    returns[OPTIMUM] = best
    terminated[OPTIMUM] = torch.stack(list(terminated.values())).gather(0, which.unsqueeze(0))[0]
    found = summary(returns, terminated)
    wide_console().print(shown(found, arguments.num_quadrotors))
    told = {key: value for key, value in vars(arguments).items() if key not in ("output", "policies")}
    write_atomically(arguments.output, json.dumps({"policies": found, "settings": told}, indent=2) + "\n")


if __name__ == "__main__":
    main()
