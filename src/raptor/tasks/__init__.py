"""Tasks: starts, references, disturbances, observations, reward and termination."""

from raptor.tasks.initial_state import Disturbances as Disturbances
from raptor.tasks.initial_state import InitialStates as InitialStates
from raptor.tasks.initial_state import sample_disturbance as sample_disturbance
from raptor.tasks.initial_state import sample_initial_state as sample_initial_state
from raptor.tasks.observation import STUDENT_DIM as STUDENT_DIM
from raptor.tasks.observation import TEACHER_DIM as TEACHER_DIM
from raptor.tasks.observation import Sensing as Sensing
from raptor.tasks.observation import sense as sense
from raptor.tasks.observation import student_observation as student_observation
from raptor.tasks.observation import teacher_observation as teacher_observation
from raptor.tasks.reference import Langevin as Langevin
from raptor.tasks.reference import Lissajous as Lissajous
from raptor.tasks.reference import Reference as Reference
from raptor.tasks.reference import References as References
from raptor.tasks.reference import WayPoints as WayPoints
from raptor.tasks.reference import advance_reference as advance_reference
from raptor.tasks.reference import sample_reference as sample_reference
from raptor.tasks.reward import Reward as Reward
from raptor.tasks.reward import Termination as Termination
from raptor.tasks.reward import reward as reward
from raptor.tasks.reward import terminated as terminated
from raptor.tasks.task import Task as Task
from raptor.tasks.trajectories import Trajectory as Trajectory
from raptor.tasks.trajectory_files import trajectory_from_array as trajectory_from_array
