"""Replaying what a function launches on a GPU, without launching it anew.

Small kernels take less time than it takes to launch them. A CUDA graph is recorded once and replayed as a whole; it
reads and writes the memory that was read and written while it was recorded.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import torch

WARM_UP_CALLS = 3


class CapturedGraph:
    """A function without arguments, recorded at its first calls on a GPU and replayed at all later ones.

    The function must work in place on tensors that stay where they are, transfer nothing to the host, and do the same
    at each call. Anywhere else than on a GPU it is simply called.

    Args:
        function: what is to be replayed.
        device: where it works.
        generators: whose random numbers it draws, and which must go on from replay to replay.
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
        """Do what the function does."""
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
            reason = (str(error).splitlines() or ["no message"])[0]
            warnings.warn(
                f"the training loop is launched step by step, because it cannot be recorded: {reason}", stacklevel=2
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
