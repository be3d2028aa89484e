"""The state of N quadrotors, and rotations, in the component form that every kernel works in.

A vector is a tuple of tensors, one for each axis, each of the population's shape: every operation is elementwise over
the population, so that a compiler fuses a whole integration step into one loop. Quaternions are (w, x, y, z), body to
world.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from raptor.core.compilation import register

Vector = tuple[Tensor, Tensor, Tensor]
Quaternion = tuple[Tensor, Tensor, Tensor, Tensor]


def components(tensor: Tensor) -> tuple[Tensor, ...]:
    """Split (..., K) into K tensors of shape (...); undoes `from_components`, in the layout of the gradient too."""
    return tensor.movedim(-1, 0).unbind(0)


def from_components(parts: Sequence[Tensor]) -> Tensor:
    """Stack K tensors of shape (...) into one of shape (..., K), each component contiguous over the population.

    Compiled kernels therefore load and store whole vector registers instead of gathering every K-th number.
    """
    return torch.stack(tuple(parts), dim=0).movedim(0, -1)


def component_major(tensor: Tensor, component_dims: int = 1) -> Tensor:
    """Copy a tensor whose last `component_dims` axes are those of a vehicle into the layout of `from_components`."""
    trailing, leading = tuple(range(-component_dims, 0)), tuple(range(component_dims))
    moved = tensor.movedim(trailing, leading)
    if moved.is_contiguous() and 1 in moved.shape:  # whose strides may be anything, and kernels compare them
        moved = moved.clone(memory_format=torch.contiguous_format)
    return moved.contiguous().movedim(leading, trailing)


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


def difference(a: Tensor, b: Tensor) -> tuple[Tensor, ...]:
    """Components of a - b."""
    return tuple(x - y for x, y in zip(components(a), components(b), strict=True))


def norm(parts: tuple[Tensor, ...]) -> Tensor:
    """Euclidean norm of a vector in component form: gradient zero, not NaN, at the origin; NaN where a component is."""
    square = sum((part * part for part in parts[1:]), parts[0] * parts[0])
    positive = square > 0
    return torch.where(positive, torch.sqrt(torch.where(positive, square, 1.0)), square.detach())


def cross(a: Vector, b: Vector) -> Vector:
    """Cross product a x b."""
    ax, ay, az = a
    bx, by, bz = b
    return ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx


def rotate(q: Quaternion, v: Vector) -> Vector:
    """Rotate v by q as v + 2 w (u x v) + 2 u x (u x v), u = (x, y, z); as it stands for q that is not quite a unit."""
    w, u = q[0], (q[1], q[2], q[3])
    t = cross(u, v)
    s = cross(u, t)
    return v[0] + 2 * (w * t[0] + s[0]), v[1] + 2 * (w * t[1] + s[1]), v[2] + 2 * (w * t[2] + s[2])


def quaternion_derivative(q: Quaternion, angular_velocity: Vector) -> Quaternion:
    """Time derivative 1/2 q (0, omega) of an orientation under body rates omega (rad/s)."""
    w, x, y, z = q
    p, r, s = angular_velocity
    return (
        -0.5 * (x * p + y * r + z * s),
        0.5 * (w * p + y * s - z * r),
        0.5 * (w * r + z * p - x * s),
        0.5 * (w * s + x * r - y * p),
    )


def rotation_matrix(orientation: Tensor) -> Tensor:
    """Row-major rotation matrix of unit quaternions, (..., 4) -> (..., 9), body to world."""
    w, x, y, z = components(orientation)
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    return from_components([entry for row in rows for entry in row])


def from_axis_angle(axis: Tensor, angle: Tensor) -> Tensor:
    """Quaternion (..., 4) of a turn by `angle` (...) rad about the unit vector `axis` (..., 3)."""
    return torch.cat([torch.cos(angle / 2).unsqueeze(-1), torch.sin(angle / 2).unsqueeze(-1) * axis], dim=-1)
