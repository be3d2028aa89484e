"""Settings of distillation: of `raptor post-train`, and of `raptor distill` and `raptor distill-isaac`."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

from raptor.config.settings import Settings, at_least, between, not_negative, optional, positive, setting
from raptor.core.errors import UserError
from raptor.nn.stacked_mlp import Precision
from raptor.quadrotor.dynamics import Method
from raptor.rl.imitation import ImitationConfig
from raptor.tasks.task import Task
from raptor.training.direct.config import PROCESSES, GradientConfig, Processes


@dataclasses.dataclass(frozen=True)
class StudentConfig(Settings):
    """The policy that learns. `student=mlp` is short for `student.kind=mlp`."""

    SHORTHAND: ClassVar[str] = "kind"

    kind: Literal["gru", "mlp"] = setting("gru", "recurrent, the policy of RAPTOR, or without memory")
    hidden_dim: int = setting(16, "width of both hidden layers", at_least(1))


@dataclasses.dataclass(frozen=True)
class DistillConfig(ImitationConfig):
    """Settings of imitation whose demonstrations are collected epoch by epoch."""

    seed: int = setting(0, "of the weights, the episodes and the order of training", between(0, 999_999))
    device: str = setting("cpu", "cpu, cuda, or cuda:1 and so on")
    epoch_teacher_forcing: int = setting(3, "first epochs, in which teachers act; then the student does", at_least(0))
    on_policy: bool = setting(False, "whether an epoch trains on its own episodes only, not on all that are kept")
    num_data_epochs: int = setting(8, "whose episodes are kept with on_policy=false, the newest ones", at_least(1))
    teacher_deterministic: bool = setting(True, "false: teachers act with noise; labels never have any")
    validation_interval: int = setting(10, "epochs between two validations; the last one is validated too", at_least(1))
    checkpoint_interval: int = setting(10, "epochs between two checkpoints", at_least(1), free=True)
    keep_checkpoints: int = setting(3, "how many of the newest checkpoints stay", at_least(1), free=True)
    memory_gib: float | None = setting(None, "for training; null: most of what is free", optional(positive), free=True)
    student: StudentConfig = StudentConfig()

    @property
    def num_slots(self) -> int:
        """How many epochs' episodes are kept."""
        return 1 if self.on_policy else self.num_data_epochs


@dataclasses.dataclass(frozen=True)
class FineTuneConfig(GradientConfig):
    """Settings of what follows imitation, training through the simulator's gradient."""

    num_updates: int = setting(1500, "steps of the optimiser; 0: imitation only", at_least(0))
    batch_size: int = setting(1024, "parallel vehicles; rounded to a multiple of the teachers while these take part")
    learning_rate: float = setting(2e-2, "of the optimiser, at its highest")
    updates_per_epoch: int = setting(50, "updates that are validated and written as one epoch", at_least(1))
    imitation: float = setting(1.0, "initial weight of the mean squared error to the teachers' actions", not_negative)
    imitation_updates: int = setting(150, "updates over which that weight falls to zero; 0: no teachers", at_least(0))

    @property
    def is_guided(self) -> bool:
        """Whether teachers take part."""
        return bool(self.num_updates and self.imitation and self.imitation_updates)


@dataclasses.dataclass(frozen=True)
class PostTrainConfig(DistillConfig):
    """Settings of `raptor post-train`.

    In fine-tuning, `target_visible`, `task.observation` and `task.clip_previous_action` are those of imitation,
    whatever `fine_tune.task` says: the student goes on with the observation that it knows.
    """

    JOB: ClassVar[str] = "post-train"
    RENAMED: ClassVar[dict[str, str]] = {"accumulation": "block_size"}

    num_epochs: int = setting(150, "of imitation: episodes of all active teachers' vehicles, then training; 0: none")
    num_episodes: int = setting(3, "of each active teacher and epoch", at_least(1))
    block_size: int | None = setting(
        None, "most sequences learnt from together, fewer save memory; null: all", optional(at_least(1)), free=True
    )
    processes: Processes = setting(
        "auto", "that share flights and fine-tuning, one thread each; auto: idle cores", PROCESSES, free=True
    )
    precision: Precision = setting("float32", "of the student's products in training; all else is float32")
    teacher_noise: float = setting(0.1, "standard deviation of noise with teacher_deterministic=false", not_negative)
    num_active_teachers: int | None = setting(
        None, "that take part in an epoch: those with whom the student is worst; null: all", optional(at_least(1))
    )
    num_teacher_episodes: int = setting(32, "of each teacher's test at the beginning", at_least(2))
    solved_return: float = setting(300.0, "a teacher whose return in that test is below is weak")
    weak_teachers: Literal["drop", "refuse"] = setting("drop", "drop them, or refuse the run")
    steady_state_position_correction: bool = setting(True, "whether the student learns to rest at the teacher's target")
    target_visible: bool = setting(True, "whether the student sees position and velocity relative to the target")
    best_by: Literal["validation", "data_collection"] = setting("validation", "whose mean return says which is best")
    num_validation: int = setting(1024, "validation vehicles, none of which has a teacher", at_least(2))
    validation_steps: int = setting(
        500, "longest episode of a validation; its sensors are those of task, then of fine_tune.task", at_least(1)
    )
    video_interval: int = setting(0, "epochs between two videos of a validation; 0: none", at_least(0), free=True)
    method: Method = setting("rk4", "integrator of the episodes")
    task: Task = Task(episode_steps=160)
    fine_tune: FineTuneConfig = FineTuneConfig()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sequence_length > self.task.episode_steps:
            most = f"task.episode_steps, which is {self.task.episode_steps}"
            raise UserError(f"sequence_length must be at most {most}, got {self.sequence_length}")
        if self.target_visible and not self.task.target_visible:
            raise UserError("task.target_visible is false, but target_visible is true: set target_visible=false")
        if self.num_epochs == 0 and self.fine_tune.num_updates == 0:
            raise UserError("num_epochs and fine_tune.num_updates must not both be 0: there is nothing to train")
        if self.num_epochs and self.epoch_teacher_forcing > self.num_epochs:
            most = f"num_epochs, which is {self.num_epochs}"
            raise UserError(f"epoch_teacher_forcing must be at most {most}, got {self.epoch_teacher_forcing}")

    @property
    def flown_task(self) -> Task:
        """The task as the student flies it."""
        return dataclasses.replace(self.task, target_visible=self.target_visible)

    @property
    def tuning(self) -> FineTuneConfig:
        """Fine-tuning, with the observation of imitation."""
        visible, clips = self.target_visible, self.task.clip_previous_action
        task = self.fine_tune.task.observing(self.task.policy_layout)
        task = dataclasses.replace(task, target_visible=visible, clip_previous_action=clips)
        return dataclasses.replace(self.fine_tune, task=task)

    def num_active(self, num_teachers: int) -> int:
        """How many teachers take part in an epoch."""
        return min(self.num_active_teachers or num_teachers, num_teachers)


@dataclasses.dataclass(frozen=True)
class EnvDistillConfig(DistillConfig):
    """Settings of `raptor distill` and `raptor distill-isaac`, the most important ones of which are flags too."""

    JOB: ClassVar[str] = "distill"
    LENGTH: ClassVar[tuple[str, str]] = ("num_epochs", "final_learning_rate")
    RENAMED: ClassVar[dict[str, str]] = {"n_epochs": "num_epochs"}

    precision: ClassVar[Precision] = "float32"
    best_by: ClassVar[str] = "validation"

    task: str | None = setting(None, "name of the environment; null where a program hands it over")
    teacher_checkpoint: str | None = setting(None, "file of the teacher; null where a program hands it over", free=True)
    teacher_activation: str | None = setting(None, "activation of the teacher; null: that in its file", free=True)
    teacher_normalizer: str | None = setting(None, "file of the VecNormalize the teacher was trained with", free=True)
    task_settings: tuple[str, ...] = setting((), "key=value each, of the environment")
    num_envs: int | None = setting(None, "environments; null: what the task says, or 16", optional(at_least(1)))
    seed: int = setting(0, "", between(0, 2**31 - 1))
    num_epochs: int = setting(60, "episodes in all environments, then training on them", at_least(1))
    num_episodes: int = setting(64, "of an epoch, rounded up to whole episodes of each environment", at_least(1))
    batch_size: int = setting(32)
    sequence_length: int = setting(64)
    final_learning_rate: float = setting(0.05)
    epoch_teacher_forcing: int = setting(5)
    num_data_epochs: int = setting(10)
    student_group: str = setting("policy", "group of observations that the student sees")
    teacher_group: str | None = setting(None, "that the teacher sees; null: the first that fits of TEACHER_GROUPS")
    normalize_observations: bool = setting(True, "whether the first layer is trained for the mean and scale of inputs")
    validation_interval: int = setting(5)
    num_validation_episodes: int = setting(32, "of a validation, and of the teacher's test at first", at_least(2))
    checkpoint_interval: int = setting(5, free=True)
    video: bool = setting(False, "whether videos of the first environment are recorded", free=True)
    video_length: int = setting(200, "steps of a video", at_least(1), free=True)
    video_interval: int = setting(2000, "steps from the start of one video to that of the next", at_least(1), free=True)
    experiment_name: str | None = setting(None, "folder in logs/distillation; null: the name of the environment")
    run_name: str | None = setting(None, "end of the name of the run's folder; null: date and time alone")
