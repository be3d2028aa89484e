"""A task and N vehicles put together: batched, Gymnasium and l2f environments."""

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
