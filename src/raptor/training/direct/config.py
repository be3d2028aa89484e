"""Settings of training through the simulator's gradient, and its task."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

from raptor.config.settings import (
    Limit,
    Settings,
    ascending,
    at_least,
    between,
    not_negative,
    optional,
    positive,
    setting,
)
from raptor.core.errors import UserError
from raptor.nn.stacked_mlp import Precision
from raptor.quadrotor.around import Spread
from raptor.quadrotor.dynamics import Method
from raptor.quadrotor.population import Distribution
from raptor.rl.curriculum import CurriculumConfig
from raptor.rl.objective import Objective
from raptor.tasks.imperfections import Air, Deployment, Motors
from raptor.tasks.observation import Sensing
from raptor.tasks.reference import Lissajous, References
from raptor.tasks.task import Task

TRAINING_TASK = Task(
    references=References(
        langevin_share=0.3,
        lissajous_share=0.5,
        lissajous=Lissajous(amplitude=((0.2, 0.4, 0.0), (0.6, 1.0, 0.3)), interval=(4.5, 11.0), ramp=(1.0, 3.0)),
    ),
    sensing=Sensing(
        position_noise=0.01,
        orientation_noise=0.02,
        linear_velocity_noise=0.05,
        angular_velocity_noise=0.1,
        noise_scale=(0.0, 1.2),
        position_bias=0.01,
        orientation_bias=0.01,
        linear_velocity_bias=0.02,
        angular_velocity_bias=0.02,
        lost=(0.0, 0.2),
        observation_delay=(0, 3),
        velocity_delay=(0, 3),
        action_delay=(0, 2),
    ),
    motors=Motors(thrust=(0.7, 2.4), weakest=(0.8, 1.0), sag=(0.0, 0.1)),
    air=Air(drag=(0.0, 0.3), wind=(0.0, 3.0), gusts=(0.0, 1.0)),
    deployment=Deployment(
        position_limit=(0.5, 1.0),
        velocity_limit=(1.0, 2.0),
        first_action=("held", -1, 0, 0.32),
        dt_factor=(0.8, 1.0),
    ),
    clean_share=0.25,
    each_share=0.4,
    noise_share=0.8,
)
"""The task that training flies: RAPTOR's, with figure eights among the references, and with what real vehicles, sensors
and flight controllers do to a policy."""

TRAINING_OBJECTIVE = Objective(velocity=0.2, tracking=3.0, speed=20.0, box=0.0)
"""The cost that training descends: errors of the velocity damp, and errors of the position count more in motion."""


@dataclasses.dataclass(frozen=True)
class GradientConfig(Settings):
    """Settings of training through the gradient of the simulator."""

    RENAMED: ClassVar[dict[str, str]] = {"accumulation": "block_size"}

    num_updates: int = setting(600, "steps of the optimiser; the learning rate falls to its end over all", at_least(1))
    batch_size: int = setting(1024, "parallel vehicles", at_least(1))
    segment_steps: int = setting(200, "steps between two updates, over which the gradient is propagated", at_least(1))
    optimizer: Literal["soap", "adam"] = setting("soap", "soap: Adam in axes that turn with the gradient; adam")
    learning_rate: float = setting(3e-2, "of the optimiser, at its highest", positive)
    final_learning_rate: float = setting(0.02, "fraction of the learning rate at the end of the cosine", between(0, 1))
    warm_up_updates: int = setting(20, "updates over which the learning rate rises", not_negative)
    gradient_norm: float = setting(0.5, "bound on the norm of the gradient", positive)
    gradient_decay: float = setting(0.998, "factor on each vehicle's adjoint per step backwards", between(0, 1))
    adjoint_limit: float = setting(1000.0, "bound on the norm of each vehicle's adjoint", positive)
    distrust: tuple[float, float] = setting(
        (0.2, 0.4),
        "parts of the updates at which imperfections begin and are as frequent as the task says; clean flight before",
        ascending(between(0, 1)),
    )
    method: Method = setting("midpoint", "integrator")
    block_size: int | None = setting(
        None, "most vehicles flown together, fewer save memory; null: 512, GPU: all", optional(at_least(1)), free=True
    )
    precision: Precision = setting("float32", "of the policy's products in training; all else is float32")
    distribution: Distribution = Distribution()
    task: Task = TRAINING_TASK
    objective: Objective = TRAINING_OBJECTIVE
    curriculum: CurriculumConfig = CurriculumConfig(per="population", window=2048)

    def __post_init__(self) -> None:
        super().__post_init__()
        most, window = self.num_updates * self.batch_size, self.curriculum.window
        if not (self.curriculum.enabled and self.num_updates):
            return
        if self.curriculum.per == "vehicle":
            why = "each of its vehicles flies a single episode"
            raise UserError(f'curriculum.per must be "population" for train-direct, got "vehicle": {why}')
        if window > most:
            why = f"{self.num_updates} updates of {self.batch_size} vehicles end no more episodes than that"
            raise UserError(f"curriculum.window must be at most {most}, got {window}: {why}")


Processes = int | Literal["auto"]
PROCESSES = Limit("auto or at least 1", lambda asked: asked == "auto" or asked >= 1)


@dataclasses.dataclass(frozen=True)
class TrainDirectConfig(GradientConfig):
    """Settings of `raptor train-direct`: those of the learner, and those of the run."""

    JOB: ClassVar[str] = "train-direct"
    LENGTH: ClassVar[tuple[str, str]] = ("num_updates", "final_learning_rate")

    hidden_dim: int = setting(16, "width of both hidden layers of the policy", at_least(1))
    initial_policy: str | None = setting(None, "name, run or file of the first policy; null: a random one", free=True)
    quadrotors: tuple[str, ...] = setting((), "names, files or folders of vehicles to train around; none: for all")
    spread: Spread = Spread()
    seed: int = setting(0, "of the weights, the vehicles and their episodes", between(0, 999_999))
    device: str = setting("cpu", "cpu, cuda, or cuda:1 and so on")
    compile: bool = setting(True, "false runs uncompiled: at once, but several times slower")
    processes: Processes = setting("auto", "that share each batch; auto: on idle cores", PROCESSES, free=True)
    checkpoint_interval: int = setting(50, "updates between two checkpoints", at_least(1), free=True)
    keep_checkpoints: int = setting(3, "how many of the newest checkpoints stay", at_least(1), free=True)
    validation_interval: int = setting(50, "updates between two validations; 0: none", at_least(0))
    num_validation: int = setting(2048, "vehicles of a validation, one episode each", at_least(1))

    @property
    def unused(self) -> tuple[str, ...]:
        """Groups that make no difference to this run."""
        vehicles = "distribution" if self.quadrotors else "spread"
        return (vehicles,) if self.curriculum.enabled else (vehicles, "curriculum")
