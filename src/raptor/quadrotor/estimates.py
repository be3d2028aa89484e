"""Estimates for what the owner of a quadrotor does not know.

The constants are medians over the nine packaged platforms, scaled as physics suggests, within a factor of two or so of
each of them.
"""

from __future__ import annotations

import dataclasses
from typing import Any

GRAVITY = 9.81  # m/s^2
ROTORS = ("front_right", "back_right", "back_left", "front_left")
SIDES = ((1.0, -1.0), (-1.0, -1.0), (-1.0, 1.0), (1.0, 1.0))  # signs of x and y, rotor by rotor
ON_AXIS = 0.1  # how far, in arm lengths, a rotor may be beyond the axis that it is nearest to, as those of a + frame

ARM_PER_CUBE_ROOT_OF_MASS = 0.2  # m kg^(-1/3)
TILT_INERTIA = 0.34  # of mass times the rotors' mean square distance from the roll or pitch axis
YAW_INERTIA = 0.315  # of mass times the rotors' mean square distance from the yaw axis
THRUST_TO_WEIGHT = 3.3
MOTOR_TIME_CONSTANT = 0.04  # s
TORQUE_PER_THRUST = 0.016  # N m per N
TORQUE_PER_THRUST_AND_DIAMETER = 0.07  # C_P / (2 pi C_T) of a propeller at rest, with C_P = 0.44 C_T

MEDIAN = "median of the packaged platforms"
FRAME_INERTIA = (
    f"{TILT_INERTIA:g} mass y^2, {TILT_INERTIA:g} mass x^2 and {YAW_INERTIA:g} mass (x^2 + y^2) "
    "with the motors' mean squares"
)


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A number that a description left out, and where it comes from."""

    field: str
    value: Any
    unit: str
    how: str

    def __str__(self) -> str:
        """One line for people."""
        values = self.value if isinstance(self.value, tuple) else (self.value,)
        numbers = ", ".join(f"{value:.4g}" if isinstance(value, float) else str(value) for value in values)
        return f"{self.field} = {numbers}{' ' if self.unit else ''}{self.unit} ({self.how})"


def x_frame(forward: float, sideways: float) -> list[list[float]]:
    """Positions of the rotors of an X frame from their distances along the two axes, in m."""
    return [[x * forward, y * sideways, 0.0] for x, y in SIDES]


def inertia_of_box(mass: float, length: float, width: float, height: float) -> tuple[float, ...]:
    """Principal moments (kg m^2) of a homogeneous box with the given mass (kg) and edges (m)."""
    return tuple(mass * (a * a + b * b) / 12 for a, b in ((width, height), (length, height), (length, width)))


def inertia_of_frame(mass: float, positions: list[list[float]]) -> tuple[float, ...]:
    """Principal moments (kg m^2) from the mass (kg) and the positions of the rotors (m)."""
    forward, sideways = (sum(position[axis] ** 2 for position in positions) / len(positions) for axis in (0, 1))
    return TILT_INERTIA * mass * sideways, TILT_INERTIA * mass * forward, YAW_INERTIA * mass * (forward + sideways)
