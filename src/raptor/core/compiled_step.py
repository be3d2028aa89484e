"""A step that carries tensors from call to call, compiled with little to do at each call.

`compile_pure` looks at the structure of its arguments whenever it is called, which takes longer than the step of a
single vehicle. Here the structure is fixed, the tensors that a step hands on unchanged never pass through
the compiled code, and one graph serves whether or not the tensors it is called with happen to carry a gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from raptor.core.compilation import FlatFunction, compile_flat

Tensors = list[Tensor]
FlatStep = Callable[[Tensors, Tensors], tuple[Tensors, Tensors]]


class _Graph(NamedTuple):
    function: FlatFunction
    changes: tuple[bool, ...]  # per carried tensor: whether the step replaces it


class CompiledStep:
    """A pure function (carried, given) -> (carried, outputs) of lists of tensors, each of fixed length.

    Args:
        function: the step.
        compile: False runs eagerly.
    """

    def __init__(self, function: FlatStep, compile: bool = True) -> None:
        self._function, self._compile = function, compile
        self._graphs: dict[Any, _Graph] = {}

    def __call__(self, carried: Tensors, given: Tensors) -> tuple[Tensors, Tensors]:
        """Run the step; shapes and types must be those of the first call."""
        if not self._compile:
            return self._function(carried, given)
        arguments = [*carried, *given]
        requiring: frozenset[int] = frozenset()
        if torch.is_grad_enabled():
            requiring = frozenset(i for i, tensor in enumerate(arguments) if tensor.requires_grad)
        key = (requiring, tuple(tensor.stride() for tensor in given))
        if key not in self._graphs:
            self._graphs[key] = self._graph(arguments, len(carried), requiring, key[1])
        graph = self._graphs[key]
        outputs = iter(graph.function(*arguments))
        moved = [next(outputs) if changes else old for old, changes in zip(carried, graph.changes, strict=True)]
        return moved, list(outputs)

    def _graph(self, arguments: Tensors, num_carried: int, requiring: frozenset[int], layout: Any) -> _Graph:
        """Compile for these arguments, or for more of them carrying a gradient, so that later steps need no other."""
        closed = requiring
        while requiring:
            example = [tensor.detach().requires_grad_(i in closed) for i, tensor in enumerate(arguments)]
            moved, _ = self._function(example[:num_carried], example[num_carried:])
            closed = requiring | {i for i, tensor in enumerate(moved) if tensor.requires_grad}
            if closed == requiring:
                break
            requiring = closed
        if (closed, layout) in self._graphs:
            return self._graphs[closed, layout]
        changes: list[bool] = []

        def flat(*tensors: Tensor) -> Tensors:
            carried, given = list(tensors[:num_carried]), list(tensors[num_carried:])
            moved, outputs = self._function(carried, given)
            changes[:] = [new is not old for new, old in zip(moved, carried, strict=True)]
            return [*(tensor for tensor, changed in zip(moved, changes, strict=True) if changed), *outputs]

        example = [tensor.detach().requires_grad_(i in closed) for i, tensor in enumerate(arguments)]
        function = compile_flat(flat, example)
        if not changes:  # running eagerly: nothing was traced
            flat(*example)
        graph = self._graphs[closed, layout] = _Graph(function, tuple(changes))
        return graph
