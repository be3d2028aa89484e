"""A task: everything that is asked of a vehicle, composed."""

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
    """What is asked of each vehicle. The default is RAPTOR's task with three mends, see `Task.paper`."""

    initial_states: InitialStates = InitialStates()
    references: References = References()
    disturbances: Disturbances = Disturbances()
    sensing: Sensing = Sensing()
    reward: Reward = Reward()
    termination: Termination = Termination()
    target_visible: bool = setting(True, "whether position and velocity are observed relative to the target")
    clip_previous_action: bool = setting(True, "whether the action fed back and rated is the clipped one")
    dt: float = setting(0.01, "s", positive)
    exact_rotors: bool | None = setting(None, "integrate fast rotors exactly, not as l2f; null: if too fast for dt")
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

        Three things differ from the default. The student does not see the target, though half of the episodes move it;
        deployment shows it the tracking error, so the default does too. And raw actions are fed back as the previous
        action, where deployment feeds back clipped ones, so the default clips. Fast rotors are integrated as in l2f.
        """
        return cls(target_visible=False, clip_previous_action=False, exact_rotors=False)
