"""Matrix products in mixed precision."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

Precision = Literal["float32", "bfloat16"]


def product(a: Tensor, b: Tensor, precision: str = "float32") -> Tensor:
    """Multiply, a @ b; `bfloat16` computes in that type, and the result has the type of a in any case."""
    if precision == "bfloat16":
        return (a.bfloat16() @ b.bfloat16()).to(a.dtype)
    return a @ b
