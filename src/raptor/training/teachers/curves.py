"""Learning curves of a population, from those of its shards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

QUANTILES = {"p10": 0.1, "p50": 0.5, "p90": 0.9}


def point_of(curves: Sequence[Mapping[str, Any]], teacher: int, env_steps: float) -> float | None:
    """The validation return of one teacher after so many steps, None where it was not validated then."""
    for shard in curves:
        if teacher in shard["teachers"]:
            place = shard["teachers"].index(teacher)
            for point in shard["points"]:
                if point["env_steps"] == env_steps:
                    value: float | None = point["returns"][place]
                    return value
    return None


def population_curve(curves: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    """The validation returns of a whole population over steps: mean, quantiles, and mean of the worst ten.

    Args:
        curves: of `curves.json`: one for each shard, with the numbers of its `teachers` and the `points`.

    Returns:
        Points that every shard has, in the order of steps; `elapsed_s` is what shards took together.
    """
    by_steps: dict[float, list[Mapping[str, Any]]] = {}
    for shard in curves:
        for point in shard["points"]:
            by_steps.setdefault(point["env_steps"], []).append(point)
    rows = []
    for steps, points in sorted(by_steps.items()):
        returns = torch.tensor([v for p in points for v in p["returns"] if v is not None], dtype=torch.float64)
        if len(points) < len(curves) or not len(returns):
            continue
        quantiles = {name: float(returns.quantile(share)) for name, share in QUANTILES.items()}
        rows.append(
            {
                "env_steps": steps,
                "elapsed_s": sum(point["elapsed_s"] for point in points),
                "mean": float(returns.mean()),
                **quantiles,
                "worst": float(returns.sort().values[:10].mean()),
            }
        )
    return rows
