"""Settings of `raptor pre-train`."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

from raptor.config.settings import Settings, above, at_least, between, each, not_negative, optional, positive, setting
from raptor.rl.curriculum import CurriculumConfig, Stage
from raptor.runs.engines import EngineConfig
from raptor.tasks.task import Task
from raptor.training.teachers.gradient import APGConfig
from raptor.training.teachers.sac import SACTeachersConfig
from raptor.training.validation import TRAINING_SEEDS


@dataclasses.dataclass(frozen=True)
class PreTrainConfig(Settings):
    """Settings of `raptor pre-train`."""

    JOB: ClassVar[str] = "pre-train"

    algorithm: Literal["apg", "sac"] = setting("apg", "apg: the simulator's gradient; sac: soft actor-critic")
    seed: int = setting(0, "of weights, episodes, vehicles; beyond: validation", between(0, TRAINING_SEEDS - 1))
    device: str = setting("cpu", "cpu, cuda, or cuda:1 and so on")
    compile: bool = setting(True, "false runs uncompiled: at once, but several times slower")
    shard_size: int | None = setting(None, "teachers as one program; null: by memory and cores", optional(at_least(1)))
    memory_gib: float | None = setting(None, "of all shards; null: most of what is free", optional(positive), free=True)
    solved_return: float = setting(300.0, "teachers whose validation return is below are not solved, and trained again")
    retrain_below: float = setting(600.0, "teachers whose validation return is below are trained again too")
    max_attempts: int = setting(3, "how often a teacher is trained at most", at_least(1))
    retry_factor: float = setting(2.0, "length of each further training over that of the one before", above(0))
    num_validation: int = setting(32, "episodes of each teacher and validation; always the same ones", at_least(1))
    num_evaluation: int = setting(100, "episodes of each teacher's last test, on which no choice is based", at_least(2))
    validation_steps: int = setting(500, "longest episode of validations and tests", at_least(1))
    checkpoint_interval_s: float = setting(120.0, "seconds between two checkpoints of a shard", not_negative, free=True)
    tensorboard_teachers: tuple[int, ...] = setting((), "whose own curves go to TensorBoard", each(not_negative))
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
