"""Rotations in component form: a vector is a tuple of tensors, one per axis, each of the population's shape.

Component form keeps every operation elementwise over the population, so that a compiler fuses a whole integration step
into one loop. Quaternions are (w, x, y, z), body to world.
"""

from __future__ import annotations

import torch
from torch import Tensor

from raptor.quadrotor.state import components, from_components

Vector = tuple[Tensor, Tensor, Tensor]
Quaternion = tuple[Tensor, Tensor, Tensor, Tensor]


def cross(a: Vector, b: Vector) -> Vector:
    """Cross product a x b."""
    ax, ay, az = a
    bx, by, bz = b
    return ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx


def rotate(q: Quaternion, v: Vector) -> Vector:
    """Rotate v by q as v + 2 w (u x v) + 2 u x (u x v), with u = (x, y, z).

    The formula is evaluated as it stands on quaternions that are not quite of unit length, which is what the stages of
    a Runge-Kutta step hand over.
    """
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
    return from_components(
        [
            1 - 2 * (y * y + z * z),
            2 * (x * y - w * z),
            2 * (x * z + w * y),
            2 * (x * y + w * z),
            1 - 2 * (x * x + z * z),
            2 * (y * z - w * x),
            2 * (x * z - w * y),
            2 * (y * z + w * x),
            1 - 2 * (x * x + y * y),
        ]
    )


def from_axis_angle(axis: Tensor, angle: Tensor) -> Tensor:
    """Quaternion (..., 4) of a turn by `angle` (...) rad about the unit vector `axis` (..., 3)."""
    return torch.cat([torch.cos(angle / 2).unsqueeze(-1), torch.sin(angle / 2).unsqueeze(-1) * axis], dim=-1)
