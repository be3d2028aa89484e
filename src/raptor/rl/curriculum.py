"""A curriculum: the task in stages, from easy to hard, passed as vehicles learn to fly them.

All that a stage changes is drawn at the start of an episode, so that the step compiled for the task serves every stage.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from raptor.config.settings import Limit, Settings, at_least, between, not_empty, not_negative, positive, setting
from raptor.core.errors import UserError
from raptor.environments.episode import Episode, begin_episode
from raptor.quadrotor.parameters import Quadrotors
from raptor.quadrotor.state import component_major, components
from raptor.tasks.task import Task


@dataclasses.dataclass(frozen=True)
class Stage(Settings):
    """Difficulty of one stage, as factors on the run's own task. A stage with a name alone is the task itself."""

    name: str = setting(meaning="in the log and in the metrics", limit=not_empty("character"))
    position: float = setting(1.0, "on the distance at which episodes start", not_negative)
    tilt: float = setting(1.0, "on the tilt with which they start", not_negative)
    speed: float = setting(1.0, "on the linear and angular velocities with which they start", not_negative)
    references: float = setting(1.0, "on the rates of episodes whose target moves, not hovers", between(0, 1))
    reference_size: float = setting(1.0, "on how far, and by that how fast, targets move", positive)
    disturbances: float = setting(1.0, "on forces and torques", not_negative)
    noise: float = setting(1.0, "on the noise of the sensors", not_negative)

    def applied_to(self, task: Task) -> Task:
        """The task of this stage. Starts within each vehicle's own box are left to `Curriculum.begin`."""
        starts = _scaled(task.initial_states, self.position, "max_position")
        starts = _scaled(starts, self.tilt, "max_angle")
        starts = _scaled(starts, self.speed, "max_linear_velocity", "max_angular_velocity")
        size, references = self.reference_size, task.references
        references = dataclasses.replace(
            _scaled(references, self.references, *SHARES),
            langevin=_scaled(references.langevin, size, "sigma"),
            lissajous=_scaled(references.lissajous, size, "amplitude"),
            # Faster by as much as they are longer, the legs take the time that the compiled step knows.
            way_points=_scaled(references.way_points, size, "points", "speed"),
            trajectory=_scaled(references.trajectory, size, "scale"),
        )
        return dataclasses.replace(
            task,
            initial_states=starts,
            references=references,
            disturbances=_scaled(task.disturbances, self.disturbances, "force", "torque"),
            sensing=_scaled(task.sensing, self.noise, "noise_scale"),
        )


SHARES = "langevin_share", "lissajous_share", "way_points_share", "trajectory_share"
SomeSettings = TypeVar("SomeSettings", bound=Settings)


def _scaled(settings: SomeSettings, factor: float, *names: str) -> SomeSettings:
    """With these fields multiplied by a factor: numbers, nested tuples of numbers, or None, which stays."""

    def times(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(times, value))
        return None if value is None else factor * value

    return dataclasses.replace(settings, **{name: times(getattr(settings, name)) for name in names})


STAGES = (
    Stage("hover", position=0.3, tilt=0.2, speed=0.2, references=0.0, disturbances=0.0, noise=0.0),
    Stage("recovery", references=0.0, disturbances=0.3, noise=0.5),
    Stage("tracking", reference_size=0.5, disturbances=0.3, noise=0.5),
    Stage("disturbed-tracking"),
)
"""From gentle hover to the task itself."""


@dataclasses.dataclass(frozen=True)
class CurriculumConfig(Settings):
    """Stages, and when vehicles pass from one to another."""

    enabled: bool = setting(False, "false: every episode is one of the task itself")
    stages: tuple[Stage, ...] = setting(STAGES, "in the order in which they are passed", not_empty("stage"))
    advance_at: float = setting(
        0.9, "success rate at which the next stage begins", Limit("above 0 and at most 1", lambda rate: 0 < rate <= 1)
    )
    fall_back_at: float = setting(0.3, "success rate at which the stage before begins again", between(0, 1))
    window: int = setting(100, "newest episodes of the stage that the rate is taken over", at_least(1))
    max_position_error: float = setting(0.3, "m, at the end of an episode that counts as a success", positive)
    per: Literal["vehicle", "population"] = setting("vehicle", "whether each vehicle passes by itself, or all together")

    def __post_init__(self) -> None:
        super().__post_init__()
        name, count = Counter(stage.name for stage in self.stages).most_common(1)[0]
        if count > 1:
            raise UserError(f"stages must have names of their own, and {count} are named {name!r}")
        if self.fall_back_at >= self.advance_at:
            raise UserError(f"fall_back_at must be below advance_at, got {self.fall_back_at:g} and {self.advance_at:g}")


class Curriculum:
    """The stage of each of `num` vehicles, and the episodes that it is given there.

    A vehicle's success rate is taken over its last `window` episodes that began and ended in its present stage. As soon
    as there are so many, it decides whether the vehicle advances or falls back, after which counting restarts.
    """

    def __init__(self, config: CurriculumConfig, task: Task, num: int, device: torch.device | str = "cpu") -> None:
        self.config, self.task = config, task
        rows = num if config.per == "vehicle" else 1
        self.stage = torch.zeros(rows, dtype=torch.long, device=device)  # (num,), or (1,) for the population
        self._began_in = torch.zeros((), dtype=torch.long, device=device)  # stage of the episodes that are under way
        self._count = torch.zeros_like(self.stage)  # episodes since the stage began
        self._outcomes = torch.zeros((rows, config.window), dtype=torch.bool, device=device)  # the last ones, in a ring
        self._tasks = [stage.applied_to(task) for stage in config.stages]
        # The slack makes 0.7 of 10 episodes 7 of them, whatever the last bits of the product.
        self._enough = math.ceil(config.advance_at * config.window - 1e-6)
        self._too_few = math.floor(config.fall_back_at * config.window + 1e-6)

    def _beside(self, num_dims: int) -> Tensor:
        """The stages, broadcasting with a tensor of leading shape (num, ...) and so many axes."""
        return self.stage.reshape(-1, *[1] * (num_dims - 1))

    def begin(self, quadrotors: Quadrotors, generator: torch.Generator, clean_share: float | None = None) -> Episode:
        """Draw an episode for each vehicle (num,) or (num, E), of its present stage; for the population, of any shape.

        All stages draw from the same state of the generator: each episode is that of `begin_episode` with its task,
        but with `clean_share` in place of the task's where it is given.
        """
        state = generator.get_state()
        drawn = []
        for stage, task in zip(self.config.stages, self._tasks, strict=True):
            generator.set_state(state)
            if clean_share is not None:
                task = dataclasses.replace(task, clean_share=clean_share)
            boxed = dataclasses.replace(quadrotors, max_position=stage.position * quadrotors.max_position)
            drawn.append(begin_episode(task, boxed, generator))
        num_dims = len(quadrotors.shape)
        mine = self._beside(num_dims)

        def pick(chosen: Tensor, *others: Tensor) -> Tensor:
            is_vector = chosen.ndim > num_dims
            for number, other in enumerate(others, start=1):
                chosen = torch.where((mine == number).unsqueeze(-1) if is_vector else mine == number, other, chosen)
            return component_major(chosen) if is_vector else chosen

        episode: Episode = pytree.tree_map(pick, *drawn)
        return episode

    def succeeded(self, episode: Episode, terminated: Tensor) -> Tensor:
        """Whether episodes (...) that end here are successes, (...) bool; not those that some step terminated."""
        position, target = components(episode.state.position), components(episode.reference.position)
        square = torch.stack([(x - r) ** 2 for x, r in zip(position, target, strict=True)]).sum(0)
        return (square <= self.config.max_position_error**2) & ~terminated  # not where it is not a number

    def record(self, finished: Tensor, success: Tensor) -> None:
        """Count the episodes that are over; vehicles advance or fall back accordingly.

        Where an episode finished, the next one is taken to begin now. Episodes that began in another stage than the
        present one do not count: otherwise those left of an easy stage would pass the next one. Both are bool, (num,)
        or (num, E), the same at each call, for the population of any shape; `success` is read only where `finished`.
        """
        window, rows = self.config.window, len(self.stage)
        counted = (finished & (self._began_in == self._beside(finished.ndim))).reshape(rows, -1)
        rank = counted.cumsum(-1)  # from 1
        total = rank[:, -1:]
        kept = counted & (rank > total - window)
        place = torch.where(kept, (self._count.unsqueeze(-1) + rank - 1) % window, window)
        ring = torch.cat([self._outcomes, torch.zeros_like(self._outcomes[:, :1])], dim=-1)  # the rest goes to the end
        outcomes = ring.scatter(-1, place, success.reshape(rows, -1))[:, :window]
        count = self._count + total.squeeze(-1)

        successes, judged = outcomes.sum(-1), count >= window
        advance = judged & (successes >= self._enough) & (self.stage < len(self._tasks) - 1)
        fall_back = judged & (successes <= self._too_few) & (self.stage > 0)
        changes = advance | fall_back
        self.stage = self.stage + advance.long() - fall_back.long()
        self._count = count.masked_fill(changes, 0)
        self._outcomes = outcomes.masked_fill(changes.unsqueeze(-1), False)
        self._began_in = torch.where(finished, self._beside(finished.ndim), self._began_in)

    def summary(self) -> dict[str, float]:
        """Mean `stage`, from 0; `fraction/NAME` in each; `success_rate` over all windows, full or not, if any."""
        num_stages, counted = len(self._tasks), self._count.clamp(max=self.config.window).sum()
        in_stage = (self.stage.unsqueeze(-1) == torch.arange(num_stages, device=self.stage.device)).sum(0)
        *numbers, successes, episodes = torch.cat([in_stage, self._outcomes.sum()[None], counted[None]]).tolist()
        fractions = {f"fraction/{s.name}": n / sum(numbers) for s, n in zip(self.config.stages, numbers, strict=True)}
        mean = sum(i * n for i, n in enumerate(numbers)) / sum(numbers)
        return {"stage": mean, **fractions, **({"success_rate": successes / episodes} if episodes else {})}

    def state_dict(self) -> dict[str, Tensor]:
        """All that the next call depends on."""
        return {"stage": self.stage, "began_in": self._began_in, "count": self._count, "outcomes": self._outcomes}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go back to a state that `state_dict` gave."""
        stored = (state[name].to(self.stage.device) for name in self.state_dict())
        self.stage, self._began_in, self._count, self._outcomes = stored
