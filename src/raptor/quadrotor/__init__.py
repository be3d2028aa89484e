"""The vehicle: parameters, state, dynamics, named platforms, sampling and files."""

from raptor.quadrotor.around import Spread as Spread
from raptor.quadrotor.around import sample_around as sample_around
from raptor.quadrotor.description import DESCRIPTION_KEYS as DESCRIPTION_KEYS
from raptor.quadrotor.description import Estimate as Estimate
from raptor.quadrotor.description import from_description as from_description
from raptor.quadrotor.dynamics import rotor_setpoint as rotor_setpoint
from raptor.quadrotor.dynamics import step as step
from raptor.quadrotor.parameters import PLATFORMS as PLATFORMS
from raptor.quadrotor.parameters import Quadrotors as Quadrotors
from raptor.quadrotor.parameters import load_platform as load_platform
from raptor.quadrotor.parameters import load_platforms as load_platforms
from raptor.quadrotor.population import Distribution as Distribution
from raptor.quadrotor.population import named_distribution as named_distribution
from raptor.quadrotor.population import sample_quadrotors as sample_quadrotors
from raptor.quadrotor.reader import load_quadrotors as load_quadrotors
from raptor.quadrotor.state import State as State
from raptor.quadrotor.state import from_axis_angle as from_axis_angle
from raptor.quadrotor.state import rotation_matrix as rotation_matrix
from raptor.quadrotor.validation import QuadrotorWarning as QuadrotorWarning
from raptor.quadrotor.validation import validate as validate
