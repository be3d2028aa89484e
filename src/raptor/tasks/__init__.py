"""Tasks: starts, references, disturbances, observations, reward and termination."""

from raptor.tasks.disturbance import Disturbances, sample_disturbance
from raptor.tasks.initial_state import InitialStates, sample_initial_state
from raptor.tasks.observation import STUDENT_DIM, TEACHER_DIM, Sensing, sense, student_observation, teacher_observation
from raptor.tasks.reference import (
    Langevin,
    Lissajous,
    Reference,
    References,
    WayPoints,
    advance_reference,
    sample_reference,
)
from raptor.tasks.reward import Reward, reward
from raptor.tasks.task import Task
from raptor.tasks.termination import Termination, terminated

__all__ = [
    "STUDENT_DIM",
    "TEACHER_DIM",
    "Disturbances",
    "InitialStates",
    "Langevin",
    "Lissajous",
    "Reference",
    "References",
    "Reward",
    "Sensing",
    "Task",
    "Termination",
    "WayPoints",
    "advance_reference",
    "reward",
    "sample_disturbance",
    "sample_initial_state",
    "sample_reference",
    "sense",
    "student_observation",
    "teacher_observation",
    "terminated",
]
