"""Environments: a task and N vehicles, batched or behind Gymnasium; third-party ones behind one contract."""

from raptor.environments.episode import (
    Episode,
    Noise,
    StepOutcome,
    advance,
    begin_episode,
    draw_noise,
    observe,
    observe_as_teacher,
)
from raptor.environments.quadrotor_env import QuadrotorEnv, Simulator, StepResult

__all__ = [
    "Episode",
    "Noise",
    "QuadrotorEnv",
    "Simulator",
    "StepOutcome",
    "StepResult",
    "advance",
    "begin_episode",
    "draw_noise",
    "observe",
    "observe_as_teacher",
]
