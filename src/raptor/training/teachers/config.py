"""Settings of `raptor pre-train`."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

from raptor.config.limits import above, at_least, between, each, limits, not_negative, optional, positive
from raptor.rl.curriculum import CurriculumConfig, Stage
from raptor.runs.engines import EngineConfig
from raptor.tasks.task import Task
from raptor.training.direct.config import TRAINING_SEEDS
from raptor.training.teachers.gradient import APGConfig
from raptor.training.teachers.sac import SACTeachersConfig


@dataclasses.dataclass(frozen=True)
@limits(
    seed=between(0, TRAINING_SEEDS - 1),
    shard_size=optional(at_least(1)),
    memory_gib=optional(positive),
    num_validation=at_least(1),
    num_evaluation=at_least(2),
    checkpoint_interval_s=not_negative,
    tensorboard_teachers=each(not_negative),
    max_attempts=at_least(1),
    retry_factor=above(0),
)
class PreTrainConfig:
    """Settings of `raptor pre-train`."""

    JOB: ClassVar[str] = "pre-train"

    algorithm: Literal["apg", "sac"] = "apg"  # apg: the simulator's gradient; sac: soft actor-critic
    seed: int = 0  # of all weights, flights and vehicles; beyond its limit it would draw vehicles of validation
    device: str = "cpu"  # cpu, cuda, or cuda:1 and so on
    compile: bool = True  # false runs uncompiled: at once, but several times slower
    shard_size: int | None = None  # teachers trained as one program; null: what memory and processor serve best
    memory_gib: float | None = None  # that the shards may take together; null: most of what is free
    solved_return: float = 300.0  # a teacher whose validation return is below is not solved, and is trained again
    retrain_below: float = 600.0  # teachers whose validation return is below are trained again too
    max_attempts: int = 3  # how often a teacher is trained at most
    retry_factor: float = 2.0  # length of each further training over that of the one before
    num_validation: int = 32  # episodes of each teacher and validation; always the same ones
    num_evaluation: int = 100  # episodes of each teacher's last test, which nothing was chosen by
    checkpoint_interval_s: float = 120.0  # seconds between two checkpoints of a shard
    tensorboard_teachers: tuple[int, ...] = ()  # teachers whose own curves go to TensorBoard
    task: Task = Task()
    curriculum: CurriculumConfig = CurriculumConfig()
    apg: APGConfig = APGConfig()
    sac: SACTeachersConfig = SACTeachersConfig()
    engine: EngineConfig = EngineConfig()

    def curriculum_in_use(self) -> CurriculumConfig:
        """The curriculum, or, where none is asked for, one whose only stage is the task."""
        if self.curriculum.enabled:
            return self.curriculum
        return CurriculumConfig(stages=(Stage("task"),))
