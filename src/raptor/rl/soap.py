"""SOAP: Adam in the eigenbasis of the second moments of each layer's gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class Soap(torch.optim.Optimizer):
    """Adam whose axes turn: those of the rows and of the columns of a weight are where its gradient varies most.

    For networks of a few thousand weights turning them costs next to nothing. The axes of vectors stay, as in Adam, and
    those of matrices for the first steps, until their second moments have full rank. Along axes on which there is no
    gradient Adam would follow its rounding errors; `epsilon` is relative to all axes, so that these stay small.
    Source: N. Vyas et al., SOAP: Improving and Stabilizing Shampoo using Adam (2024).
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float,
        *,
        betas: tuple[float, float] = (0.9, 0.99),
        axes_beta: float = 0.95,
        axes_interval: int = 5,
        epsilon: float = 1e-4,
    ) -> None:
        options = {"lr": lr, "betas": betas, "axes_beta": axes_beta, "axes_interval": axes_interval}
        super().__init__(params, {**options, "epsilon": epsilon})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move each parameter that has a gradient."""
        assert closure is None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    change = self._change(parameter, self.state[parameter], group)
                    parameter.add_(change.view_as(parameter), alpha=-group["lr"])

    def _change(self, parameter: Tensor, state: dict[str, Any], options: dict[str, Any]) -> Tensor:
        """Direction of the step, shaped as the parameter or as a matrix of one column."""
        assert parameter.grad is not None
        slope = parameter.grad if parameter.ndim > 1 else parameter.grad.unsqueeze(-1)
        if not state:
            rows, columns = (torch.eye(size, dtype=slope.dtype, device=slope.device) for size in slope.shape)
            state |= {"step": 0, "rows": rows, "columns": columns}
            state |= {"row_moment": torch.zeros_like(rows), "column_moment": torch.zeros_like(columns)}
            state |= {"mean": torch.zeros_like(slope), "square": torch.zeros_like(slope), "remains": 1.0}
        state["step"] += 1
        if parameter.ndim > 1:
            self._turn(slope, state, options)
        rows, columns, (first, second) = state["rows"], state["columns"], options["betas"]
        state["mean"].lerp_(slope, 1 - first)
        state["square"].lerp_((rows.mT @ slope @ columns).square(), 1 - second)
        state["remains"] *= second
        mean = rows.mT @ state["mean"] @ columns / (1 - first ** state["step"])
        size = (state["square"] / (1 - state["remains"])).sqrt()
        least = options["epsilon"] * size.square().mean().sqrt() + 1e-12
        return rows @ (mean / (size + least)) @ columns.mT

    def _turn(self, slope: Tensor, state: dict[str, Any], options: dict[str, Any]) -> None:
        """Note a gradient (rows, columns), and now and then turn the axes."""
        fresh = 1 - options["axes_beta"]
        state["row_moment"].lerp_(slope @ slope.mT, fresh)
        state["column_moment"].lerp_(slope.mT @ slope, fresh)
        if state["step"] % options["axes_interval"] == 0:
            for axes in ("row", "column"):
                state[f"{axes}s"] = _turned(state[f"{axes}s"], state[f"{axes}_moment"])
        if state["step"] == options["axes_interval"]:  # what was measured along others
            state["square"].zero_()
            state["remains"] = 1.0


def _turned(axes: Tensor, moment: Tensor) -> Tensor:
    """Axes (columns) turned towards the eigenvectors of a moment by one step of orthogonal iteration.

    They change gradually, so that what was measured along them goes on to hold; eigenvectors might change their order.
    """
    return torch.linalg.qr(moment @ axes)[0]
