"""A task: starts, references, disturbances, sensors, reward and termination in one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch

from raptor.config import differences, from_dict, to_dict
from raptor.config.settings import Settings, at_least, between, positive, setting
from raptor.core.errors import UserError
from raptor.quadrotor.around import Around
from raptor.quadrotor.parameters import Quadrotors
from raptor.quadrotor.population import Distribution
from raptor.quadrotor.vehicles import LONGEST_STEP
from raptor.tasks.checks import checked_width
from raptor.tasks.components import DEFAULT, Layout, layout_of, present_only
from raptor.tasks.imperfections import Air, Deployment, Motors
from raptor.tasks.initial_state import Disturbances, InitialStates
from raptor.tasks.observation import STUDENT_DIM, Sensing
from raptor.tasks.reference import Lissajous, References
from raptor.tasks.reward import Reward, Termination
from raptor.tasks.terms import Terms, Use, find_term


@dataclasses.dataclass(frozen=True)
class Task(Settings):
    """What each vehicle has to do. The default is RAPTOR's task with three changes, see `Task.paper`."""

    initial_states: InitialStates = InitialStates()
    references: References = References()
    disturbances: Disturbances = Disturbances()
    sensing: Sensing = Sensing()
    motors: Motors = Motors()
    air: Air = Air()
    deployment: Deployment = Deployment()
    clean_share: float = setting(
        0.0, "fraction of episodes without any imperfection of sensors, motors, air and deployment", between(0, 1)
    )
    each_share: float = setting(1.0, "probability of each imperfection but noise in the other episodes", between(0, 1))
    noise_share: float = setting(1.0, "probability of noise in the other episodes", between(0, 1))
    reward: Reward = Reward()
    termination: Termination = Termination()
    target_visible: bool = setting(True, "whether position and velocity are observed relative to the target")
    clip_previous_action: bool = setting(True, "whether observation and reward have the action clipped to [-1, 1]")
    dt: float = setting(0.01, "s, duration of a step", positive)
    exact_rotors: bool | None = setting(None, "exact, not l2f's, speeds of fast rotors; null: where too fast for dt")
    episode_steps: int = setting(500, "longest episode, in steps", at_least(1))
    observation: tuple[str, ...] = setting(
        DEFAULT, "components, in order, of what a policy observes; NAME@-1 is one step old, NAME@+25 looks ahead"
    )
    extra: Terms = setting(Terms(), "one's own terms by name, `task.extra.NAME.KEY=VALUE`; see --extend")
    extra_rewards: Terms = setting(Terms(), "reward terms of one's own by name; as those in `task.extra`")

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "extra", Terms.over(self.extra))
        object.__setattr__(self, "extra_rewards", Terms.over(self.extra_rewards, "reward"))
        seen = () if self.observes_default else self.layout.uses
        for use in (*self.extra.uses, *self.extra_rewards.uses, *seen):
            checked_width(use, self.dt)
        object.__setattr__(self, "references", self.references.with_settings(self.extra))

    @property
    def layout(self) -> Layout:
        """The components of the observation."""
        return layout_of(self.observation, self.extra)

    @property
    def observes_default(self) -> bool:
        """Whether a policy observes the 22 numbers of the published one."""
        return self.observation == DEFAULT

    def own(self, *kinds: str) -> tuple[Use, ...]:
        """One's own terms of some kinds."""
        return (*self.extra.of_kind(*kinds), *(self.extra_rewards.uses if "reward" in kinds else ()))

    @property
    def idle_trajectories(self) -> tuple[Use, ...]:
        """Trajectories with settings, none of which is the one that is followed."""
        return tuple(use for use in self.own("trajectory") if use not in self.references.trajectory.uses)

    @property
    def observation_dim(self) -> int:
        """Width of the observation."""
        if self.observes_default:
            return STUDENT_DIM
        return sum(checked_width(component.use, self.dt) for component in self.layout.components)

    def place_of(self, name: str) -> int | None:
        """Where a component begins in the observation as it is now; None where it is not observed."""
        place = 0
        for use, lag in self.layout.components:
            if (use.term.name, lag) == (name, 0):
                return place
            place += checked_width(use, self.dt)
        return None

    @property
    def policy_layout(self) -> dict[str, Any]:
        """What a policy of this task carries as its `layout`: plain data, empty for the default observation."""
        if self.observes_default:
            return {}
        used = {use.term.name for use in self.layout.uses}
        own = {name: to_dict(settings) for name, settings in self.extra.items() if name in used}
        return {"observation": list(self.observation), **({"extra": own} if own else {})}

    def observing(self, layout: Mapping[str, Any]) -> Task:
        """The task with the observation of a policy, by its `layout`; `UserError` where a component is not there."""
        names, own = tuple(layout.get("observation", DEFAULT)), layout.get("extra", {})
        uses = [Use(find_term(name), from_dict(find_term(name).settings, own[name])) for name in own]
        kept = [use for use in self.extra.uses if use.term.kind != "observation"]
        return dataclasses.replace(self, observation=names, extra=Terms([*kept, *uses]))

    @property
    def stateful(self) -> tuple[Use, ...]:
        """The terms that may have memory, noise and draws: disturbances of one's own, and components observed."""
        return (*self.own("disturbance"), *(() if self.observes_default else self.layout.uses))

    @property
    def num_noise(self) -> int:
        """How many tensors the noise of a step has."""
        of_terms = any(use.term.noise for use in self.stateful)
        return 1 + self.sensing.noisy + (self.sensing.lost[1] > 0) + self.gusty + of_terms

    @property
    def gusty(self) -> bool:
        """Whether the air changes from step to step."""
        return not self.air.still and self.air.gusts[1] > 0

    @property
    def summary(self) -> str:
        """Length of an episode, and what is followed in which part of them."""
        given, source = self.references, self.references.trajectory.source
        rest = 1.0 if source is None else 1 - given.trajectory_share
        drawn = {
            "langevin": given.langevin_share,
            "lissajous": given.lissajous_share,
            "way-points": given.way_points_share,
        }
        kinds = {"hover": 1 - sum(drawn.values()), **drawn}
        shares = {name: rest * share for name, share in kinds.items()} | {f"trajectory {source}": 1 - rest}
        shown = ", ".join(f"{share:.0%} {name}" for name, share in shares.items() if share > 1e-9)
        return f"episodes of {self.episode_steps} steps of {self.dt:g} s: {shown}"

    def __str__(self) -> str:
        """What is flown, and the settings that differ from RAPTOR's task as it is by default."""
        others = [f"  {setting}" for setting in differences(type(self)(), self)]
        return "\n".join([f"Task of {self.summary}", *(others or ["  all settings as by default"])])

    @property
    def is_perfect(self) -> bool:
        """Whether nothing of sensors, motors, air and deployment is imperfect."""
        groups = self.sensing, self.motors, self.air, self.deployment
        return groups == (Sensing(), Motors(), Air(), Deployment())

    @property
    def simplified(self) -> Task:
        """The same without imperfections that no episode has, so that nothing of them is computed."""
        if self.clean_share < 1:
            return self
        perfect: dict[str, Any] = {"sensing": Sensing(), "motors": Motors(), "air": Air(), "deployment": Deployment()}
        return dataclasses.replace(self, **perfect, clean_share=0.0, each_share=1.0, noise_share=1.0)

    def for_vehicles(self, vehicles: Quadrotors | Distribution | Around) -> Task:
        """The task with `exact_rotors` decided: true where a rotor of the vehicles is too fast for a step of dt."""
        if self.exact_rotors is not None:
            return self
        shortest = torch.as_tensor(vehicles.shortest_time_constant).amin().item()
        longest = self.dt * self.deployment.dt_factor[1]
        return dataclasses.replace(self, exact_rotors=True) if longest > LONGEST_STEP * shortest else self

    @classmethod
    def paper(cls) -> Task:
        """RAPTOR's own training task, to the letter.

        The student does not see the target, though half of the episodes move it, and its raw actions are fed back;
        deployment shows the tracking error and feeds back clipped actions, so the default does too. Rotors too fast for
        a step are integrated as in l2f.
        """
        return cls(target_visible=False, clip_previous_action=False, exact_rotors=False)


_FIGURES = Lissajous(amplitude=((0.0, 0.0, 0.0), (0.5, 1.0, 0.3)), interval=(6.5, 11.0), ramp=(1.0, 3.0))

TASKS = {
    "hover": Task(references=References(langevin_share=0.0)),
    "track": Task(
        references=References(langevin_share=0.5, lissajous_share=0.5, lissajous=_FIGURES),
        termination=Termination(about_target=True),
    ),
    "paper": Task.paper(),
}
"""Tasks by name: hold the origin; follow random walks and figure eights; RAPTOR's own training task."""


def without_preview(layout: Mapping[str, Any]) -> dict[str, Any]:
    """The layout of a policy that looks ahead, for one who shows it the present target in place of future ones."""
    return {**layout, "observation": list(present_only(layout["observation"]))} if layout else {}


def make_task(task: str | Task, overrides: Mapping[str, Any]) -> Task:
    """A task by name or as it is, with some of its fields replaced, or what nested dictionaries say of them."""
    if isinstance(task, str):
        if task not in TASKS:
            raise UserError(f"there is no task {task!r}: choose one of {', '.join(TASKS)}, or give a Task")
        task = TASKS[task]
    fields = [field.name for field in dataclasses.fields(Task)]
    for name in overrides.keys() - fields:
        what = "neither a keyword argument of the environment nor a field of the task"
        raise UserError(f"{name} is {what}: the fields are {', '.join(fields)}")
    nested = {name: value for name, value in overrides.items() if isinstance(value, dict)}
    task = from_dict(Task, nested, task) if nested else task
    return dataclasses.replace(task, **{name: value for name, value in overrides.items() if name not in nested})
