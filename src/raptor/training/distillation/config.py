"""Settings of `raptor post-train`."""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar, Literal

from raptor.config.settings import Settings, at_least, between, not_negative, optional, positive, setting
from raptor.core.errors import UserError
from raptor.nn.precision import Precision
from raptor.quadrotor.dynamics import Method
from raptor.tasks.task import Task
from raptor.training.direct.config import TRAINING_SEEDS, VALIDATION_SEED, validation_task
from raptor.training.distillation.fine_tuning import FineTuneConfig


@dataclasses.dataclass(frozen=True)
class StudentConfig(Settings):
    """The policy that learns. `student=mlp` is short for `student.kind=mlp`."""

    SHORTHAND: ClassVar[str] = "kind"

    kind: Literal["gru", "mlp"] = setting("gru", "recurrent, the policy of RAPTOR, or without memory")
    hidden_dim: int = setting(16, "width of both hidden layers", at_least(1))


@dataclasses.dataclass(frozen=True)
class PostTrainConfig(Settings):
    """Settings of `raptor post-train`.

    In fine-tuning, `target_visible` and `task.clip_previous_action` are those of imitation, whatever `fine_tune.task`
    says: the student goes on with the observation that it knows.
    """

    JOB: ClassVar[str] = "post-train"

    seed: int = setting(
        0, "of the weights, the flights and the order of training", between(0, VALIDATION_SEED - TRAINING_SEEDS - 1)
    )
    device: str = setting("cpu", "cpu, cuda, or cuda:1 and so on")
    compile: bool = setting(True, "false runs uncompiled: at once, but several times slower")
    num_epochs: int = setting(
        150, "of imitation: flights of all active teachers' vehicles, then training on them; 0: none", at_least(0)
    )
    num_episodes: int = setting(3, "of each active teacher and epoch", at_least(1))
    batch_size: int = setting(192, "sequences between two steps of the optimiser", at_least(1))
    sequence_length: int = setting(160, "steps of a sequence, through which the gradient flows", at_least(1))
    accumulation: int = setting(
        1, "parts of a process's share of a batch, computed one after another to take less memory", at_least(1)
    )
    precision: Precision = setting("float32", "of the student's products in training; all else is float32")
    learning_rate: float = setting(1e-2, "of Adam, at its highest", positive)
    final_learning_rate: float = setting(
        0.02, "share of the learning rate that is left at the end of the cosine; 1: constant", between(0, 1)
    )
    warm_up_batches: int = setting(20, "batches over which the learning rate rises", not_negative)
    gradient_norm: float | None = setting(1.0, "bound on the norm of the gradient; null: none", optional(positive))
    epsilon: float = setting(1e-8, "of Adam", positive)
    variance_floor: float = setting(0.0, "lower bound on Adam's second moment", not_negative)
    epoch_teacher_forcing: int = setting(
        3, "epochs at the beginning in which the teachers fly; then the student does", at_least(0)
    )
    shuffle: bool = setting(True, "whether episodes are packed into sequences in random order")
    on_policy: bool = setting(False, "whether an epoch trains on its own flights only, instead of on all that are kept")
    num_data_epochs: int = setting(8, "whose flights are kept with on_policy=false, the newest ones", at_least(1))
    teacher_deterministic: bool = setting(
        True, "false: teachers fly with noise on their actions; labels never have any"
    )
    teacher_noise: float = setting(0.1, "its standard deviation", not_negative)
    num_active_teachers: int | None = setting(
        None, "that an epoch flies: those with whom the student is worst; null: all", optional(at_least(1))
    )
    num_teacher_episodes: int = setting(32, "of each teacher's test before anything begins", at_least(2))
    solved_return: float = setting(300.0, "a teacher whose return in that test is below is weak")
    weak_teachers: Literal["drop", "refuse"] = setting("drop", "go on without them, or not at all")
    steady_state_position_correction: bool = setting(
        True, "whether the student learns to rest where the teacher's target is"
    )
    target_visible: bool = setting(True, "whether the student sees position and velocity relative to the target")
    best_by: Literal["validation", "data_collection"] = setting(
        "validation", "whose mean return tells the best student"
    )
    validation_interval: int = setting(10, "epochs between two validations", at_least(1))
    num_validation: int = setting(1024, "validation vehicles, none of which has a teacher", at_least(2))
    validation_steps: int = setting(
        500, "longest flight of a validation; its sensors are those of task, then of fine_tune.task", at_least(1)
    )
    checkpoint_interval: int = setting(10, "epochs between two checkpoints", at_least(1))
    keep_checkpoints: int = setting(3, "how many of the newest checkpoints stay", at_least(1))
    video_interval: int = setting(0, "epochs between two videos of a validation flight; 0: none", at_least(0))
    memory_gib: float | None = setting(None, "that training may take; null: most of what is free", optional(positive))
    method: Method = setting("rk4", "integrator of the flights")
    task: Task = Task(episode_steps=160)
    student: StudentConfig = StudentConfig()
    fine_tune: FineTuneConfig = FineTuneConfig()

    def __post_init__(self) -> None:
        """Refuse settings that do not go together."""
        super().__post_init__()
        if self.sequence_length > self.task.episode_steps:
            raise UserError(
                f"sequence_length must be at most task.episode_steps, which is {self.task.episode_steps}, "
                f"got {self.sequence_length}"
            )
        if self.target_visible and not self.task.target_visible:
            raise UserError("task.target_visible is false, but target_visible is true: set target_visible=false")
        if self.num_epochs == 0 and self.fine_tune.num_updates == 0:
            raise UserError("num_epochs and fine_tune.num_updates must not both be 0: there is nothing to train")
        if self.num_epochs and self.epoch_teacher_forcing > self.num_epochs:
            raise UserError(
                f"epoch_teacher_forcing must be at most num_epochs, which is {self.num_epochs}, "
                f"got {self.epoch_teacher_forcing}"
            )

    @property
    def flown_task(self) -> Task:
        """The task as the student flies it."""
        return dataclasses.replace(self.task, target_visible=self.target_visible)

    @property
    def tuning(self) -> FineTuneConfig:
        """Fine-tuning, with the observation of imitation."""
        task = dataclasses.replace(
            self.fine_tune.task,
            target_visible=self.target_visible,
            clip_previous_action=self.task.clip_previous_action,
        )
        return dataclasses.replace(self.fine_tune, task=task)

    def validation_task(self, tuning: bool) -> Task:
        """What a validation flies: with the sensors of imitation, or with those that the student is fine-tuned for."""
        trained_in = self.tuning.task if tuning else self.flown_task
        return dataclasses.replace(validation_task(trained_in), episode_steps=self.validation_steps)

    @property
    def num_epochs_in_all(self) -> int:
        """Of imitation and of fine-tuning."""
        return self.num_epochs + math.ceil(self.fine_tune.num_updates / self.fine_tune.updates_per_epoch)
