"""CUDA graphs: the kernels that a function launches, recorded once and replayed as a whole.

Small kernels take less time than launching them. A graph reads and writes the memory of its recording.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import torch

from raptor.core.errors import first_line

WARM_UP_CALLS = 3


class CapturedGraph:
    """A function without arguments, recorded after its first calls on a GPU and replayed at all later ones.

    The function must work in place on tensors that stay where they are, transfer nothing to the host, and do the same
    at each call. On other devices it is simply called.

    Args:
        function: to be replayed.
        device: that it works on.
        generators: that it draws from; they go on from replay to replay.
        enabled: False calls the function each time.
    """

    def __init__(
        self,
        function: Callable[[], None],
        device: torch.device | str,
        generators: Sequence[torch.Generator] = (),
        enabled: bool = True,
    ) -> None:
        self._function, self._generators = function, tuple(generators)
        self._enabled = enabled and torch.device(device).type == "cuda"
        self._calls = 0
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self) -> None:
        """Call or replay the function."""
        if self._graph is not None:
            self._graph.replay()
            return
        self._calls += 1
        if not self._enabled or self._calls <= WARM_UP_CALLS:  # what is compiled, is compiled now
            self._function()
            return
        try:
            self._record()
        except RuntimeError as error:
            self._enabled = False
            warnings.warn(
                f"the training loop is launched step by step, because it cannot be recorded: {first_line(error)}",
                stacklevel=2,
            )
            torch.cuda.synchronize()
            self._function()

    def _record(self) -> None:
        graph = torch.cuda.CUDAGraph()
        for generator in self._generators:
            graph.register_generator_state(generator)
        torch.cuda.synchronize()
        with torch.cuda.graph(graph):
            self._function()
        self._graph = graph
        graph.replay()  # recording itself does nothing
