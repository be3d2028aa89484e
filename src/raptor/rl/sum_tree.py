"""Sum trees: draw leaves in proportion to their values, in T trees at once.

A tree is its levels, each (T, nodes), leaves first. A node holds the sum of its 16 children, which lie in one cache
line of 64 bytes, so a million leaves are five levels. Sums are float32 and are recomputed from the children at every
change, so that errors do not build up: a node is off by at most 15 roundings per level, 5e-6 of its value in a tree of
a million leaves. Rounding moves the probability of a leaf at the end of its group, by that part of the group's sum; a
leaf of zero is never found.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

FAN_OUT = 16


def empty_levels(num_trees: int, num_leaves: int, device: torch.device | str = "cpu") -> tuple[Tensor, ...]:
    """Trees whose leaves are all zero; each level is padded to whole groups of siblings, and the last is one group."""
    sizes = [_padded(num_leaves)]
    while sizes[-1] > FAN_OUT:
        sizes.append(_padded(sizes[-1] // FAN_OUT))
    return tuple(torch.zeros(num_trees, size, device=device) for size in sizes)


def set_leaves(levels: Sequence[Tensor], index: Tensor, value: Tensor) -> None:
    """Write leaves in place and recompute every node above them; setting twice is the same as setting once.

    Of equal entries of `index` (T, B) any one wins; each `value` (T, B) is zero, or from 1e-30 to 1e30.
    """
    tree, node = _trees(index), index
    levels[0].index_put_((tree, index), value)
    for children, parents in itertools.pairwise(levels):
        num = children.shape[-1] // FAN_OUT
        node = node // FAN_OUT
        if num <= 2 * index.shape[-1]:
            parents[:, :num].copy_(_sum(_groups(children).unbind(-1)))
        else:
            parents.index_put_((tree, node), _sum(_groups(children)[tree, node].unbind(-1)))


def recompute(levels: Sequence[Tensor]) -> None:
    """Recompute every node from the leaves; each becomes what setting the leaves one by one would have made it."""
    for children, parents in itertools.pairwise(levels):
        parents[:, : children.shape[-1] // FAN_OUT].copy_(_sum(_groups(children).unbind(-1)))


def find_leaves(levels: Sequence[Tensor], mass: Tensor) -> Tensor:
    """Indices (T, B) int64 of the leaves that each mass falls on when they are laid end to end; never one of zero.

    A mass (T, B) is from 0 to the total of the tree; rounding may carry it a little beyond. In float64 the first 16
    children are distinguished in float64, which leaves each of a million equal leaves about 256 float32 numbers.
    """
    tree, rest = _trees(mass), mass
    node = torch.zeros_like(mass, dtype=torch.int64)
    for depth, level in enumerate(reversed(levels)):
        if depth == 0:
            children = level.to(mass.dtype).unsqueeze(1).unbind(-1)
        else:
            rest = rest.to(level.dtype)
            children = _groups(level)[tree, node].unbind(-1)
        sums = list(itertools.accumulate(children))
        # Kept below the last sum: the first sum beyond `rest` is then that of a child that adds something, whatever was
        # rounded above, and the first child's where all are zero.
        number = torch.finfo(rest.dtype)
        rest = torch.minimum(rest, sums[-1] * (1 - number.eps / 2) - number.tiny)
        passed = [s <= rest for s in sums[:-1]]
        start = torch.zeros_like(rest)
        for s, p in zip(sums[:-1], passed, strict=True):
            start = torch.where(p, s, start)
        node = node * FAN_OUT + _sum([p.to(rest.dtype) for p in passed]).long()
        rest = rest - start
    return node


def _padded(num: int) -> int:
    return -(-num // FAN_OUT) * FAN_OUT


def _sum(children: Sequence[Tensor]) -> Tensor:
    """Always in this order, so that a node depends on its children's values alone, to the last bit."""
    *_, total = itertools.accumulate(children)
    return total


def _groups(level: Tensor) -> Tensor:
    return level.unflatten(-1, (-1, FAN_OUT))


def _trees(like: Tensor) -> Tensor:
    return torch.arange(like.shape[0], device=like.device).unsqueeze(-1).expand_as(like)
