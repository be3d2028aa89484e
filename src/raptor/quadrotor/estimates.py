"""Estimates for what the owner of a quadrotor does not know.

The constants are medians over the nine packaged platforms, scaled as physics suggests; they are within a factor of two
or so of each of them.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

GRAVITY = 9.81  # m/s^2
ROTORS = ("front_right", "back_right", "back_left", "front_left")
SIDES = ((1.0, -1.0), (-1.0, -1.0), (-1.0, 1.0), (1.0, 1.0))  # signs of x and y, rotor by rotor
ON_AXIS = 0.1  # how far, in arm lengths, a rotor may be beyond the axis that it is nearest to, as those of a + frame

ARM_PER_CUBE_ROOT_OF_MASS = 0.2  # m kg^(-1/3)
TILT_INERTIA_SHARE = 0.34  # of mass times the rotors' mean square distance from the roll or pitch axis
YAW_INERTIA_SHARE = 0.315  # of mass times the rotors' mean square distance from the yaw axis
THRUST_TO_WEIGHT = 3.3
MOTOR_TIME_CONSTANT = 0.04  # s
TORQUE_PER_THRUST = 0.016  # N m per N
TORQUE_PER_THRUST_AND_DIAMETER = 0.07  # C_P / (2 pi C_T) of a propeller at rest, with C_P = 0.44 C_T

Positions = list[list[float]]  # per rotor: x, y, z in m, body, from the centre of mass


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
        shown = ", ".join(f"{value:.4g}" if isinstance(value, float) else str(value) for value in values)
        return f"{self.field} = {shown}{' ' if self.unit else ''}{self.unit} ({self.how})"


def x_frame(forward: float, sideways: float) -> Positions:
    """Positions of the rotors of an X frame from their distances along the two axes, in m."""
    return [[x * forward, y * sideways, 0.0] for x, y in SIDES]


def arm_length(mass: float) -> Estimate:
    """Length of the arms (m) from the mass (kg)."""
    how = f"{ARM_PER_CUBE_ROOT_OF_MASS:g} m times the cube root of the mass in kg"
    return Estimate("arm_length", ARM_PER_CUBE_ROOT_OF_MASS * mass ** (1 / 3), "m", how)


def arm_offset_of_size(length: float, width: float) -> Estimate:
    """Forward and sideways distance of the motors (m) from the length and width (m)."""
    return Estimate("arm_offset", (length / 2, width / 2), "m", "motors at the corners of the size")


def inertia_of_box(mass: float, length: float, width: float, height: float) -> Estimate:
    """Principal moments (kg m^2) of a homogeneous box with the given mass (kg) and edges (m)."""
    moments = tuple(mass * (a * a + b * b) / 12 for a, b in ((width, height), (length, height), (length, width)))
    return Estimate("inertia", moments, "kg m^2", "mass spread evenly over a box of the size")


def inertia_of_frame(mass: float, positions: Positions) -> Estimate:
    """Principal moments (kg m^2) from the mass (kg) and the positions of the rotors (m)."""
    forward = sum(x * x for x, _, _ in positions) / len(positions)
    sideways = sum(y * y for _, y, _ in positions) / len(positions)
    moments = (
        TILT_INERTIA_SHARE * mass * sideways,
        TILT_INERTIA_SHARE * mass * forward,
        YAW_INERTIA_SHARE * mass * (forward + sideways),
    )
    how = (
        f"{TILT_INERTIA_SHARE:g} mass y^2, {TILT_INERTIA_SHARE:g} mass x^2 and {YAW_INERTIA_SHARE:g} mass (x^2 + y^2) "
        "with the motors' mean squares"
    )
    return Estimate("inertia", moments, "kg m^2", how)


def thrust_to_weight(hover_throttle: float | None) -> Estimate:
    """Full thrust over weight, from the hover throttle where it is known."""
    if hover_throttle is not None:
        return Estimate("thrust_to_weight", 1 / hover_throttle**2, "", "1 / hover_throttle^2")
    return Estimate("thrust_to_weight", THRUST_TO_WEIGHT, "", "median of the packaged platforms")


def hover_throttle(ratio: float) -> Estimate:
    """Share of full throttle that hovers, from full thrust over weight."""
    how = "thrust grows with the square of the throttle: 1 / sqrt(thrust_to_weight)"
    return Estimate("hover_throttle", math.sqrt(1 / ratio), "", how)


def motor_time_constant() -> Estimate:
    """Time constant of the motors (s)."""
    return Estimate("motor_time_constant", MOTOR_TIME_CONSTANT, "s", "median of the packaged platforms")


def torque_constant(propeller_diameter: float | None) -> Estimate:
    """Reaction torque per thrust (N m per N), from the propeller's diameter (m) where it is known."""
    if propeller_diameter is None:
        how = "median of the packaged platforms"
        return Estimate("propeller_torque_constant", TORQUE_PER_THRUST, "N m per N", how)
    value = TORQUE_PER_THRUST_AND_DIAMETER * propeller_diameter
    how = f"{TORQUE_PER_THRUST_AND_DIAMETER:g} times the diameter of the propeller"
    return Estimate("propeller_torque_constant", value, "N m per N", how)


def front_right_spin() -> Estimate:
    """Sense of rotation of the front-right rotor."""
    how = "as in PX4's and the Crazyflie's X layout"
    return Estimate("front_right_spin", "counterclockwise", "", how)
