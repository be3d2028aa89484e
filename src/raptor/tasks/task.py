"""A task: starts, references, disturbances, sensors, reward and termination in one."""

from __future__ import annotations

import dataclasses

import torch

from raptor.config.settings import Settings, at_least, positive, setting
from raptor.quadrotor.parameters import Quadrotors
from raptor.quadrotor.sampling import Distribution
from raptor.quadrotor.vehicles import LONGEST_STEP
from raptor.tasks.disturbance import Disturbances
from raptor.tasks.initial_state import InitialStates
from raptor.tasks.observation import Sensing
from raptor.tasks.reference import References
from raptor.tasks.reward import Reward
from raptor.tasks.termination import Termination


@dataclasses.dataclass(frozen=True)
class Task(Settings):
    """What each vehicle has to do. The default is RAPTOR's task with three changes, see `Task.paper`."""

    initial_states: InitialStates = InitialStates()
    references: References = References()
    disturbances: Disturbances = Disturbances()
    sensing: Sensing = Sensing()
    reward: Reward = Reward()
    termination: Termination = Termination()
    target_visible: bool = setting(True, "whether position and velocity are observed relative to the target")
    clip_previous_action: bool = setting(True, "whether observation and reward have the action clipped to [-1, 1]")
    dt: float = setting(0.01, "s, duration of a step", positive)
    exact_rotors: bool | None = setting(None, "exact, not l2f's, speeds of fast rotors; null: where too fast for dt")
    episode_steps: int = setting(500, "longest episode, in steps", at_least(1))

    def for_vehicles(self, vehicles: Quadrotors | Distribution) -> Task:
        """The task with `exact_rotors` decided: true where a rotor of the vehicles is too fast for a step of dt."""
        if self.exact_rotors is not None:
            return self
        shortest = torch.as_tensor(vehicles.shortest_time_constant).amin().item()
        return dataclasses.replace(self, exact_rotors=True) if self.dt > LONGEST_STEP * shortest else self

    @classmethod
    def paper(cls) -> Task:
        """RAPTOR's own training task, to the letter.

        The student does not see the target, though half of the episodes move it, and its raw actions are fed back;
        deployment shows the tracking error and feeds back clipped actions, so the default does too. Rotors too fast for
        a step are integrated as in l2f.
        """
        return cls(target_visible=False, clip_previous_action=False, exact_rotors=False)
