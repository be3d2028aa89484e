"""Settings of `raptor distill` and `raptor distill-isaac`."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from raptor.config.settings import at_least, between, optional, setting
from raptor.nn.stacked_mlp import Precision
from raptor.training.distillation.config import DistillConfig


@dataclasses.dataclass(frozen=True)
class EnvDistillConfig(DistillConfig):
    """Settings of `raptor distill` and `raptor distill-isaac`, the most important ones of which are flags too."""

    JOB: ClassVar[str] = "distill"
    RENAMED: ClassVar[dict[str, str]] = {"n_epochs": "num_epochs"}

    precision: ClassVar[Precision] = "float32"
    best_by: ClassVar[str] = "validation"

    task: str | None = setting(None, "name of the environment; null where a program hands it over")
    teacher_checkpoint: str | None = setting(None, "file of the teacher; null where a program hands it over", free=True)
    teacher_activation: str | None = setting(
        None, "activation function of the teacher; null: that in its file", free=True
    )
    teacher_normalizer: str | None = setting(
        None, "file of the VecNormalize that the teacher was trained with", free=True
    )
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
    normalize_observations: bool = setting(
        True, "whether the first layer is trained for the mean and scale of what is seen"
    )
    validation_interval: int = setting(5)
    num_validation_episodes: int = setting(
        32, "of a validation, and of the teacher's test before anything begins", at_least(2)
    )
    checkpoint_interval: int = setting(5, free=True)
    video: bool = setting(False, "whether videos of the first environment are recorded", free=True)
    video_length: int = setting(200, "steps of a video", at_least(1), free=True)
    video_interval: int = setting(
        2000, "steps from the beginning of one video to that of the next", at_least(1), free=True
    )
    experiment_name: str | None = setting(None, "folder in logs/distillation; null: the name of the environment")
    run_name: str | None = setting(None, "end of the name of the run's folder; null: date and time alone")
