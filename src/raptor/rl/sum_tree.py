"""Sum trees: draw leaves in proportion to their values, in many trees at once.

A node holds the sum of its 16 children, which lie in one cache line of 64 bytes, so a million leaves are five levels.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

FAN_OUT = 16


def level_sizes(num_leaves: int) -> list[int]:
    """Number of nodes of each level, leaves first, each padded to whole groups of siblings; the last is one group."""
    sizes = [_padded(num_leaves)]
    while sizes[-1] > FAN_OUT:
        sizes.append(_padded(sizes[-1] // FAN_OUT))
    return sizes


def _padded(num: int) -> int:
    return -(-num // FAN_OUT) * FAN_OUT


def _sum(children: Sequence[Tensor]) -> Tensor:
    """Always in this order, so that a node depends on its children's values alone, to the last bit."""
    total = children[0]
    for child in children[1:]:
        total = total + child
    return total


def _groups(level: Tensor) -> Tensor:
    """(T, nodes) as groups of siblings (T, groups, FAN_OUT)."""
    return level.unflatten(-1, (-1, FAN_OUT))


def _trees(like: Tensor) -> Tensor:
    """The tree that each entry of `like` (T, B) belongs to, (T, B)."""
    return torch.arange(like.shape[0], device=like.device).unsqueeze(-1).expand_as(like)


def set_leaves(levels: Sequence[Tensor], index: Tensor, value: Tensor) -> None:
    """Write leaves in place and recompute every node above them from its children.

    Setting twice is the same as setting once, and of equal indices any one wins. Shapes as in `SumTree.set`.
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


def find_leaves(levels: Sequence[Tensor], mass: Tensor) -> Tensor:
    """The leaves at which the cumulative sums pass `mass`; arguments and guarantees as in `SumTree.find`."""
    tree, rest = _trees(mass), mass
    node = torch.zeros_like(mass, dtype=torch.int64)
    for depth, level in enumerate(reversed(levels)):
        if depth == 0:
            children = level.to(mass.dtype).unsqueeze(1).unbind(-1)
        else:
            rest = rest.to(level.dtype)
            children = _groups(level)[tree, node].unbind(-1)
        sums = [children[0]]
        for child in children[1:]:
            sums.append(sums[-1] + child)
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


class SumTree:
    """T trees of the same size; all leaves start at zero.

    Sums are float32 and are recomputed from the children at every change, so that errors do not build up: a node is
    off by at most 15 roundings per level, 5e-6 of its value in a tree of a million leaves. What rounding moves is the
    share of a leaf at the end of its group, by that part of the group's sum; a leaf of zero is never found.

    Args:
        num_trees: T.
        num_leaves: of each tree.
        device: where the trees live.
    """

    def __init__(self, num_trees: int, num_leaves: int, device: torch.device | str = "cpu") -> None:
        self.num_leaves = num_leaves
        self.levels = tuple(torch.zeros(num_trees, size, device=device) for size in level_sizes(num_leaves))
        """Of shape (T, nodes), leaves first. Written in place, never replaced."""

    @property
    def total(self) -> Tensor:
        """Sum of all leaves of each tree, (T,)."""
        return self.levels[-1].sum(-1)

    @property
    def leaves(self) -> Tensor:
        """All leaves, (T, num_leaves)."""
        return self.levels[0][:, : self.num_leaves]

    @property
    def nbytes(self) -> int:
        """Memory of all levels, in bytes."""
        return sum(level.nbytes for level in self.levels)

    def value(self, index: Tensor) -> Tensor:
        """Values of the leaves `index` (T, B), (T, B)."""
        return self.levels[0].gather(-1, index)

    def set(self, index: Tensor, value: Tensor) -> None:
        """Set leaves.

        Args:
            index: (T, B) int64; of equal ones any one wins.
            value: (T, B) zero, or from 1e-30 to 1e30.
        """
        set_leaves(self.levels, index, value)

    def find(self, mass: Tensor) -> Tensor:
        """Find the leaf that each mass falls on when the leaves are laid end to end.

        Args:
            mass: (T, B) from 0 to the total of the tree; rounding may carry it a little beyond. In float64 the first
                16 children are told apart in float64, which leaves each of a million equal leaves about 256 float32
                numbers.

        Returns:
            Indices (T, B) int64 of leaves that are not zero; 0 where all are.
        """
        return find_leaves(self.levels, mass)

    def recompute(self) -> None:
        """Recompute every node from the leaves; each becomes what setting the leaves one by one would have made it."""
        for children, parents in itertools.pairwise(self.levels):
            parents[:, : children.shape[-1] // FAN_OUT].copy_(_sum(_groups(children).unbind(-1)))
