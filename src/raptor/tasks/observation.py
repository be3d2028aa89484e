"""What sensors measure, and the default observations of policies and teachers."""

from __future__ import annotations

import dataclasses

from torch import Tensor

from raptor.config.settings import Settings, ascending, between, not_negative, setting
from raptor.quadrotor.parameters import Quadrotors
from raptor.quadrotor.state import State, components, difference, from_components, rotation_matrix
from raptor.tasks.reference import Reference

NUM_SENSED = 18  # position 3, rotation matrix 9, linear velocity 3, angular velocity 3
STUDENT_DIM = 22
TEACHER_DIM = 26


@dataclasses.dataclass(frozen=True)
class Sensing(Settings):
    """Noise, bias and delays; none by default, as in RAPTOR. All but noise is drawn once per vehicle and episode."""

    position_noise: float = setting(0.0, "m, standard deviation per axis", not_negative)
    orientation_noise: float = setting(0.0, "standard deviation per entry of the rotation matrix", not_negative)
    linear_velocity_noise: float = setting(0.0, "m/s, standard deviation per axis", not_negative)
    angular_velocity_noise: float = setting(0.0, "rad/s, standard deviation per axis", not_negative)
    noise_scale: tuple[float, float] = setting((1.0, 1.0), "factor on all noise", ascending(not_negative))
    position_bias: float = setting(0.0, "m, standard deviation per axis", not_negative)
    orientation_bias: float = setting(0.0, "rad, standard deviation about each axis of the body", not_negative)
    linear_velocity_bias: float = setting(0.0, "m/s, standard deviation per axis", not_negative)
    angular_velocity_bias: float = setting(0.0, "rad/s, standard deviation per axis", not_negative)
    lost: tuple[float, float] = setting(
        (0.0, 0.0), "fraction of samples in whose place the one before is seen", ascending(between(0, 1))
    )
    observation_delay: tuple[int, int] = setting((0, 0), "steps, but for the previous action", ascending(not_negative))
    velocity_delay: tuple[int, int] = setting((0, 0), "steps more for linear velocity alone", ascending(not_negative))
    action_delay: tuple[int, int] = setting((0, 0), "steps until the motors get the action", ascending(not_negative))

    @property
    def noisy(self) -> bool:
        """Whether there is any noise."""
        return max(self.standard_deviations) * self.noise_scale[1] > 0

    @property
    def standard_deviations(self) -> tuple[float, ...]:
        """One per sensed component."""
        position, orientation = [self.position_noise] * 3, [self.orientation_noise] * 9
        return (*position, *orientation, *[self.linear_velocity_noise] * 3, *[self.angular_velocity_noise] * 3)

    @property
    def biases(self) -> tuple[float, ...]:
        """Standard deviations: position 3, rotation vector 3, linear and angular velocity 3 each."""
        of = self.position_bias, self.orientation_bias, self.linear_velocity_bias, self.angular_velocity_bias
        return tuple(deviation for deviation in of for _ in range(3))


def sense(state: State, reference: Reference, target_visible: bool) -> Tensor:
    """Noiseless position, rotation matrix (row major), linear and angular velocity, (..., 18).

    Position and velocity are tracking errors where the target is visible, absolute otherwise (world, m and m/s). The
    yaw of a target that is visible turns the frame of all but the angular velocity, which is in the body frame.
    """
    position, velocity = components(state.position), components(state.linear_velocity)
    orientation = state.orientation
    if target_visible:
        position = reference.from_world(difference(state.position, reference.position))
        velocity = reference.from_world(difference(state.linear_velocity, reference.velocity))
        orientation = reference.orientation_from_world(orientation)
    rotation = components(rotation_matrix(orientation))
    return from_components([*position, *rotation, *velocity, *components(state.angular_velocity)])


def split_sensed(sensed: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Position (..., 3), rotation matrix (..., 9), linear and angular velocity (..., 3) of what `sense` gives."""
    return sensed[..., :3], sensed[..., 3:12], sensed[..., 12:15], sensed[..., 15:]


def student_observation(sensed: Tensor, previous_action: Tensor) -> Tensor:
    """Observation (..., 22) of the student: what was sensed (18) and its previous action (4)."""
    return from_components([*components(sensed), *components(previous_action)])


def teacher_observation(sensed: Tensor, previous_action: Tensor, rotor_speed: Tensor, quadrotors: Quadrotors) -> Tensor:
    """Observation (..., 26) of a teacher: the student's, and the actions that would hold the rotor speeds (4)."""
    scaled = scaled_rotor_speed(rotor_speed, quadrotors)
    return from_components([*components(sensed), *components(previous_action), *scaled])


def scaled_rotor_speed(rotor_speed: Tensor, quadrotors: Quadrotors) -> list[Tensor]:
    """Components of rotor speeds (..., 4) as the actions in [-1, 1] that would hold them."""
    low, high = components(quadrotors.action_limit)
    return [2 * (speed - low) / (high - low) - 1 for speed in components(rotor_speed)]
