"""The state of N quadrotors, and the component layout that every kernel works in."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from raptor.core.compilation import register


def components(tensor: Tensor) -> tuple[Tensor, ...]:
    """Split (..., K) into K tensors of shape (...); undoes `from_components`, in the layout of the gradient too."""
    return tensor.movedim(-1, 0).unbind(0)


def from_components(parts: Sequence[Tensor]) -> Tensor:
    """Stack K tensors of shape (...) into one of shape (..., K), each component contiguous over the population.

    Compiled kernels therefore load and store whole vector registers instead of gathering every K-th number.
    """
    return torch.stack(tuple(parts), dim=0).movedim(0, -1)


def component_major(tensor: Tensor, component_dims: int = 1) -> Tensor:
    """Copy a (..., K) tensor into the memory layout of `from_components`, values and shape unchanged.

    Args:
        tensor: any tensor whose last `component_dims` axes are components of one vehicle.
        component_dims: how many trailing axes are components: 1 for (..., 3), 2 for (..., 4, 3).
    """
    trailing, leading = tuple(range(-component_dims, 0)), tuple(range(component_dims))
    return tensor.movedim(trailing, leading).contiguous().movedim(leading, trailing)


@register()
@dataclasses.dataclass(frozen=True)
class State:
    """State of N quadrotors. The leading shape (...) is the population."""

    position: Tensor  # (..., 3) m, world FLU (x forward, y left, z up)
    orientation: Tensor  # (..., 4) unit quaternion (w, x, y, z), body FLU -> world
    linear_velocity: Tensor  # (..., 3) m/s, world
    angular_velocity: Tensor  # (..., 3) rad/s, body
    rotor_speed: Tensor  # (..., 4) in the unit of the vehicle's action_limit

    @property
    def shape(self) -> torch.Size:
        """Leading shape of the population."""
        return self.position.shape[:-1]

    def parts(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """The five tensors in the order of the fields."""
        return self.position, self.orientation, self.linear_velocity, self.angular_velocity, self.rotor_speed

    def as_tensor(self) -> Tensor:
        """All 17 numbers in the order of the fields, shape (..., 17)."""
        return torch.cat(self.parts(), dim=-1)

    @classmethod
    def from_tensor(cls, tensor: Tensor) -> State:
        """Split (..., 17) into a state: position 3, orientation 4, velocity 3, rates 3, rotor speed 4."""
        if tensor.shape[-1] != 17:
            raise ValueError(f"a state has 17 components, got a tensor of shape {tuple(tensor.shape)}")
        return cls(*(component_major(part) for part in tensor.split((3, 4, 3, 3, 4), dim=-1)))

    def __getitem__(self, index: Any) -> State:
        """Index the population, as one would index a tensor of the leading shape."""
        return State(*(part[index] for part in self.parts()))

    def detach(self) -> State:
        """The same numbers, cut off from the gradient."""
        return State(*(part.detach() for part in self.parts()))
