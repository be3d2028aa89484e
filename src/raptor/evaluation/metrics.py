"""What a rollout was worth: one number per vehicle and metric."""

from __future__ import annotations

import torch
from torch import Tensor

from raptor.environments.collectors import Episodes, PositionErrors
from raptor.tasks.reference import Reference

METRICS = ("return", "terminated", "length", "position_rmse", "steady_offset")
"""Names, in the order of the columns: the sum of rewards; 1 where the episode ended before its time; steps flown; the
root mean square of the distance from the target, m; the length of the mean position error, m."""

HIGHER_IS_BETTER = frozenset({"return", "length"})
"""Of the other metrics, less is better."""


def table(episodes: Episodes, errors: PositionErrors, reference: Reference, survivors_only: bool = True) -> Tensor:
    """Metrics of each vehicle, (N, 5), in the order of `METRICS` and in float64.

    Args:
        episodes: of N vehicles.
        errors: of the same.
        reference: the references at the start.
        survivors_only: position errors matter only of vehicles that flew to the end, and the steady offset only of
            those whose target stood still; NaN for the others. False: they matter for all.
    """
    offset = torch.linalg.vector_norm(errors.offset, dim=-1)
    returns = episodes.returns.nan_to_num(
        nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf
    )  # not left out: the worst
    columns = [returns, episodes.terminated, episodes.lengths, errors.rmse, offset]
    result = torch.stack([column.double() for column in columns], dim=-1)
    if survivors_only:
        paths = torch.cat([reference.amplitude, reference.legs], dim=-1)
        moving = (reference.langevin_sigma != 0) | (paths != 0).any(dim=-1)
        result[:, 3] = result[:, 3].masked_fill(episodes.terminated, torch.nan)
        result[:, 4] = result[:, 4].masked_fill(episodes.terminated | moving, torch.nan)
    return result
