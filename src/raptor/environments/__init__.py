"""Environments: a task and N vehicles, batched or behind Gymnasium; third-party ones behind one contract."""

from raptor.environments.episode import Episode as Episode
from raptor.environments.episode import Noise as Noise
from raptor.environments.episode import StepOutcome as StepOutcome
from raptor.environments.episode import advance as advance
from raptor.environments.episode import begin_episode as begin_episode
from raptor.environments.episode import draw_noise as draw_noise
from raptor.environments.episode import observe as observe
from raptor.environments.episode import observe_as_teacher as observe_as_teacher
from raptor.environments.quadrotor_env import QuadrotorEnv as QuadrotorEnv
from raptor.environments.quadrotor_env import StepResult as StepResult
from raptor.environments.quadrotor_env import make_env as make_env
