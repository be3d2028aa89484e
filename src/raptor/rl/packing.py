"""Packing: episodes of any length, end to end in sequences of equal length, so that no step is padding.

       episode 2            episode 0        episode 3
    |================|===========================|========
    |---- sequence 0 ----|---- sequence 1 ----|---- sequence 2 ----|

The hidden state is reset where an episode begins inside a sequence, and where a sequence begins inside an episode.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class PackedBatch(NamedTuple):
    """Rows of B packed sequences of L steps."""

    row: Tensor  # (L, B) int64, episode * S + step, for episodes (E, S, ...) with their first two axes flattened
    reset: Tensor  # (L, B) bool, True where an episode begins inside a sequence; row 0 begins afresh without it


def pack(
    length: Tensor,
    episode_steps: int,
    sequence_length: int,
    batch_size: int,
    generator: torch.Generator | None,
) -> list[PackedBatch]:
    """Shuffle episodes and cut them into batches of sequences.

    A batch is filled sequence by sequence, each with consecutive steps; the rest of an episode begins the next
    sequence. The last batch is dropped unless an episode is left over once it is full.

    Args:
        length: (E,) int64, steps of each episode, at most S.
        episode_steps: S, rows per stored episode.
        sequence_length: L.
        batch_size: B.
        generator: of the order of the episodes, on the device of `length`; None keeps them in order.

    Returns:
        The batches, in order; none where the episodes do not fill one.

    Source: RAPTOR's post-training.
    """
    order = torch.arange(len(length), device=length.device)
    if generator is not None:
        order = torch.randperm(len(length), generator=generator, device=length.device)
    length = length[order]
    end = length.cumsum(0)
    num_rows = int(end[-1]) if len(end) else 0
    num_batches = max(num_rows - 1, 0) // (batch_size * sequence_length)
    num_packed = num_batches * batch_size * sequence_length
    begin = end - length  # of each episode, among the packed rows
    row = (order * episode_steps - begin).repeat_interleave(length, output_size=num_rows)[:num_packed]
    reset = torch.zeros(num_packed, dtype=torch.bool, device=row.device)
    reset[begin[begin < num_packed]] = True
    reset[::sequence_length] = False
    shape = num_batches, batch_size, sequence_length
    rows = row.new_empty(num_batches, sequence_length, batch_size)
    torch.add(row.view(shape).mT, torch.arange(num_packed, device=row.device).view(shape).mT, out=rows)
    return [PackedBatch(*batch) for batch in zip(rows, reset.view(shape).mT.contiguous(), strict=True)]
