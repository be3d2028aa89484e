"""The vehicle: parameters, state, dynamics, named platforms, sampling and files."""

from raptor.quadrotor.description import from_description
from raptor.quadrotor.description_file import KEYS as DESCRIPTION_KEYS
from raptor.quadrotor.description_file import Estimate
from raptor.quadrotor.dynamics import rotor_setpoint, step
from raptor.quadrotor.parameters import Quadrotors
from raptor.quadrotor.platforms import PLATFORMS, load_platform, load_platforms
from raptor.quadrotor.rotation import from_axis_angle, rotation_matrix
from raptor.quadrotor.sampling import Distribution, named_distribution, sample_quadrotors
from raptor.quadrotor.state import State
from raptor.quadrotor.validation import QuadrotorWarning, validate

__all__ = [
    "DESCRIPTION_KEYS",
    "PLATFORMS",
    "Distribution",
    "Estimate",
    "QuadrotorWarning",
    "Quadrotors",
    "State",
    "from_axis_angle",
    "from_description",
    "load_platform",
    "load_platforms",
    "named_distribution",
    "rotation_matrix",
    "rotor_setpoint",
    "sample_quadrotors",
    "step",
    "validate",
]
