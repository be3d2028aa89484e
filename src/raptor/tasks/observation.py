"""What a policy sees."""

from __future__ import annotations

import dataclasses

from torch import Tensor

from raptor.config.settings import Settings, ascending, not_negative, setting
from raptor.quadrotor.parameters import Quadrotors
from raptor.quadrotor.rotation import rotation_matrix
from raptor.quadrotor.state import State, components, from_components
from raptor.tasks.reference import Reference

NUM_SENSED = 18
"""Position 3, rotation matrix 9, linear velocity 3, angular velocity 3."""

STUDENT_DIM = 22
TEACHER_DIM = 26


@dataclasses.dataclass(frozen=True)
class Sensing(Settings):
    """Imperfections of the sensors and of the way to the motors. All are off by default, as in RAPTOR.

    The ranges are drawn once per vehicle and episode. Delays are whole steps.
    """

    position_noise: float = setting(0.0, "m, standard deviation", not_negative)
    orientation_noise: float = setting(0.0, "per entry of the rotation matrix", not_negative)
    linear_velocity_noise: float = setting(0.0, "m/s", not_negative)
    angular_velocity_noise: float = setting(0.0, "rad/s", not_negative)
    noise_scale: tuple[float, float] = setting((1.0, 1.0), "factor on all of the above", ascending(not_negative))
    observation_delay: tuple[int, int] = setting(
        (0, 0), "steps; the previous action is never late", ascending(not_negative)
    )
    action_delay: tuple[int, int] = setting(
        (0, 0), "steps between the action and the motors' answer", ascending(not_negative)
    )

    @property
    def noisy(self) -> bool:
        """Whether any noise can come up."""
        return max(self.standard_deviations) * self.noise_scale[1] > 0

    @property
    def standard_deviations(self) -> tuple[float, ...]:
        """One per sensed component."""
        return (
            *[self.position_noise] * 3,
            *[self.orientation_noise] * 9,
            *[self.linear_velocity_noise] * 3,
            *[self.angular_velocity_noise] * 3,
        )


def sense(state: State, reference: Reference, target_visible: bool) -> Tensor:
    """What perfect sensors give, (..., 18): position, rotation matrix (row major), linear and angular velocity.

    Position and velocity are tracking errors where the target is visible, absolute otherwise (world, m and m/s).
    """
    position, velocity = components(state.position), components(state.linear_velocity)
    if target_visible:
        position = tuple(x - target for x, target in zip(position, components(reference.position), strict=True))
        velocity = tuple(v - target for v, target in zip(velocity, components(reference.velocity), strict=True))
    return from_components(
        [
            *position,
            *components(rotation_matrix(state.orientation)),
            *velocity,
            *components(state.angular_velocity),
        ]
    )


def student_observation(sensed: Tensor, previous_action: Tensor) -> Tensor:
    """The 22 numbers that the student sees: what was sensed (18) and its previous action (4)."""
    return from_components([*components(sensed), *components(previous_action)])


def teacher_observation(sensed: Tensor, previous_action: Tensor, rotor_speed: Tensor, quadrotors: Quadrotors) -> Tensor:
    """The 26 numbers that a teacher sees: the student's, and the rotor speeds scaled to [-1, 1] by the limits."""
    low, high = components(quadrotors.action_limit)
    scaled = [2 * (speed - low) / (high - low) - 1 for speed in components(rotor_speed)]
    return from_components([*components(sensed), *components(previous_action), *scaled])
