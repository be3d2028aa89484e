"""Settings of `raptor distill` and `raptor distill-isaac`."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from raptor.config.settings import at_least, between, optional, positive, setting
from raptor.rl.imitation import ImitationConfig
from raptor.training.distillation.config import StudentConfig


@dataclasses.dataclass(frozen=True)
class EnvDistillConfig(ImitationConfig):
    """Settings of `raptor distill` and `raptor distill-isaac`, the most important ones of which are flags too."""

    JOB: ClassVar[str] = "distill"
    RENAMED: ClassVar[dict[str, str]] = {"n_epochs": "num_epochs"}

    task: str | None = setting(None, "name of the environment; null where a program hands it over")
    teacher_checkpoint: str | None = setting(None, "file of the teacher; null where a program hands it over", free=True)
    teacher_activation: str | None = setting(
        None, "activation function of the teacher; null: that in its file", free=True
    )
    teacher_normalizer: str | None = setting(
        None, "file of the VecNormalize that the teacher was trained with", free=True
    )
    task_settings: tuple[str, ...] = setting((), "key=value each, of the environment")
    num_envs: int | None = setting(None, "parallel environments; null: those of the task, or 16", optional(at_least(1)))
    seed: int = setting(0, "of the weights, the episodes and the order of training", between(0, 2**31 - 1))
    device: str = setting("cpu", "cpu, cuda, or cuda:1 and so on")
    num_epochs: int = setting(60, "collection in all environments, then training", at_least(1))
    num_episodes: int = setting(64, "of an epoch, rounded up to whole episodes of each environment", at_least(1))
    batch_size: int = setting(32)
    sequence_length: int = setting(64)
    final_learning_rate: float = setting(0.05)
    epoch_teacher_forcing: int = setting(
        5, "epochs at the beginning in which the teacher acts; then the student does", at_least(0)
    )
    on_policy: bool = setting(False, "whether an epoch trains on its own data only, instead of on all that is kept")
    num_data_epochs: int = setting(10, "whose data is kept with on_policy=false, the newest ones", at_least(1))
    teacher_deterministic: bool = setting(
        True, "false: the teacher acts with its exploration noise; labels never have any"
    )
    student_group: str = setting("policy", "group of observations that the student sees")
    teacher_group: str | None = setting(None, "that the teacher sees; null: the first that fits of TEACHER_GROUPS")
    normalize_observations: bool = setting(True, "whether the first layer normalises observations")
    validation_interval: int = setting(
        5, "epochs between two evaluations, the last epoch being evaluated too", at_least(1)
    )
    num_validation_episodes: int = setting(
        32, "of an evaluation, and of the teacher's test at the beginning", at_least(2)
    )
    checkpoint_interval: int = setting(5, "epochs between two checkpoints", at_least(1), free=True)
    keep_checkpoints: int = setting(3, "how many of the newest checkpoints stay", at_least(1), free=True)
    video: bool = setting(False, "whether videos of the first environment are recorded", free=True)
    video_length: int = setting(200, "steps of a video", at_least(1), free=True)
    video_interval: int = setting(2000, "steps from the start of one video to that of the next", at_least(1), free=True)
    experiment_name: str | None = setting(None, "folder in logs/distillation; null: the name of the environment")
    run_name: str | None = setting(None, "end of the name of the run's folder; null: date and time alone")
    memory_gib: float | None = setting(
        None, "that training may take; null: most of what is free", optional(positive), free=True
    )
    student: StudentConfig = StudentConfig()

    @property
    def num_slots(self) -> int:
        """How many epochs' flights are kept."""
        return 1 if self.on_policy else self.num_data_epochs
