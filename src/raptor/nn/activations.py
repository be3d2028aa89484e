"""Activation functions by name, and the names that other libraries have for them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn import functional

from raptor.core.atomic import PathLike
from raptor.core.errors import UserError


def gelu_tanh(x: Tensor) -> Tensor:
    """GELU by its approximation with tanh; rl-tools calls it GELU."""
    return functional.gelu(x, approximate="tanh")


def fast_tanh(x: Tensor) -> Tensor:
    """Rational approximation of tanh, FAST_TANH of rl-tools."""
    x = x.clamp(-3, 3)
    return x * (27 + x * x) / (27 + 9 * x * x)


_TORCH = "relu elu selu celu leaky_relu tanh sigmoid softplus softsign gelu silu mish"
ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = MappingProxyType(
    {name: getattr(functional, name) for name in _TORCH.split()}
    | {"fast_tanh": fast_tanh, "gelu_tanh": gelu_tanh, "identity": lambda x: x}
)
"""Functions between the layers, with the constants that torch has by default."""

_ALIASES = {"lrelu": "leaky_relu", "leakyrelu": "leaky_relu", "crelu": "celu", "swish": "silu", "fasttanh": "fast_tanh"}


def activation_name(name: str, where: PathLike) -> str:
    """Name in `ACTIVATIONS` of a function of rsl_rl, rl-tools or torch in any case: ELU, lrelu, LeakyReLU, FAST_TANH.

    Where there is none, a `UserError` names `where`, the file or the option.
    """
    lower = name.strip().lower()
    found = _ALIASES.get(lower.replace("_", ""), lower)
    return known("activation", found, tuple(ACTIVATIONS), f"{name!r} ({where})")


def known(what: str, name: str, names: tuple[str, ...], got: str = "") -> str:
    """The name, if it is one of those, else a `UserError`."""
    if name not in names:
        raise UserError(f"{what} must be one of {', '.join(names)}, got {got or repr(name)}")
    return name


@dataclasses.dataclass(frozen=True)
class Activations:
    """Function between the layers of a teacher, and the one that brings its output into [-1, 1]."""

    hidden: str = "relu"  # one of `ACTIVATIONS`
    output: str = "tanh"  # tanh, or clip

    def __post_init__(self) -> None:
        """Refuse unknown names."""
        known("activations.hidden", self.hidden, tuple(ACTIVATIONS))
        known("activations.output", self.output, ("tanh", "clip"))

    def squash(self, output: Tensor) -> Tensor:
        """Action in [-1, 1]."""
        return torch.tanh(output) if self.output == "tanh" else output.clamp(-1.0, 1.0)


RELU_TANH = Activations()
"""Those of the teachers of `raptor pre-train`."""
