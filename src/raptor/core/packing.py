"""Many small tensors of a population in few: handing one to compiled code takes longer than computing with it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class Rows:
    """Tensors (..., K...) of one leading shape and type as the rows of one tensor (R, ...), component by component."""

    def __init__(self, tensors: Sequence[Tensor], num_axes: int) -> None:
        """Take the shapes of these tensors, whose first `num_axes` axes are the population's."""
        self._shapes = [tensor.shape[num_axes:] for tensor in tensors]

    def pack(self, tensors: Sequence[Tensor]) -> Tensor:
        """Copy the tensors into rows."""
        return torch.stack([row for pair in zip(tensors, self._shapes, strict=True) for row in _components(*pair)])

    def unpack(self, rows: Tensor) -> list[Tensor]:
        """Views of the tensors, in component-major layout."""
        parts = rows.split([shape.numel() for shape in self._shapes])
        return [_view(part, shape) for part, shape in zip(parts, self._shapes, strict=True)]


def _components(tensor: Tensor, shape: torch.Size) -> Sequence[Tensor]:
    return tensor.flatten(-len(shape)).movedim(-1, 0).unbind(0) if shape else [tensor]


def _view(rows: Tensor, shape: torch.Size) -> Tensor:
    if not shape:
        return rows[0]
    axes = range(len(shape))
    return rows.unflatten(0, shape).movedim(tuple(axes), tuple(axis - len(shape) for axis in axes))


class Packing:
    """How the tensors that a step carries are packed, by what a step does to them.

    What stays the same are rows of one tensor, packed once, and what changes rows of another. By themselves stay
    tensors that do not hold numbers of a population, and histories, whose entries move on without a copy.
    """

    def __init__(self, before: Sequence[Tensor], after: Sequence[Tensor], like: Tensor, num_alone: int = 0) -> None:
        """Look at what is carried before and after a step; `like` (...) has the shape and type of the population.

        The first `num_alone` tensors stay by themselves in any case.
        """
        places = {id(tensor): i for i, tensor in enumerate(before)}
        sources = [places.get(id(tensor)) for tensor in after]
        handed_on = {place for i, source in enumerate(sources) if source not in (None, i) for place in (i, source)}
        self._constant: list[int] = []
        self._moving: list[int] = []
        self._alone: list[int] = []
        for i, tensor in enumerate(before):
            of_population = tensor.shape[: like.ndim] == like.shape and tensor.dtype == like.dtype
            if i < num_alone or i in handed_on or not of_population:
                self._alone.append(i)
            else:
                (self._constant if sources[i] == i else self._moving).append(i)
        self._rows = [Rows([before[i] for i in group], like.ndim) for group in (self._constant, self._moving)]

    @property
    def num_packed(self) -> int:
        """How many tensors `pack` gives."""
        return 2 + len(self._alone)

    def pack(self, tensors: Sequence[Tensor], constant: Tensor | None = None) -> list[Tensor]:
        """The same in few tensors; the first of them is `constant`, if that is given."""
        if constant is None:
            constant = self._rows[0].pack([tensors[i] for i in self._constant])
        moving = self._rows[1].pack([tensors[i] for i in self._moving])
        return [constant, moving, *(tensors[i] for i in self._alone)]

    def unpack(self, packed: Sequence[Tensor]) -> list[Tensor]:
        """The tensors that were packed; of the population they are views, in component-major layout."""
        parts = [*self._rows[0].unpack(packed[0]), *self._rows[1].unpack(packed[1]), *packed[2:]]
        places = [*self._constant, *self._moving, *self._alone]
        return [part for _, part in sorted(zip(places, parts, strict=True), key=lambda pair: pair[0])]
