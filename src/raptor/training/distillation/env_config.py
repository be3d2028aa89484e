"""Settings of `raptor distill` and `raptor distill-isaac`."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from raptor.config.limits import at_least, between, limits, not_negative, optional, positive
from raptor.training.distillation.config import StudentConfig


@dataclasses.dataclass(frozen=True)
@limits(
    num_envs=optional(at_least(1)),
    seed=between(0, 2**31 - 1),
    n_epochs=at_least(1),
    num_episodes=at_least(1),
    batch_size=at_least(1),
    sequence_length=at_least(1),
    learning_rate=positive,
    final_learning_rate=between(0, 1),
    warm_up_batches=not_negative,
    gradient_norm=optional(positive),
    epsilon=positive,
    variance_floor=not_negative,
    epoch_teacher_forcing=at_least(0),
    num_data_epochs=at_least(1),
    validation_interval=at_least(1),
    num_validation_episodes=at_least(2),
    checkpoint_interval=at_least(1),
    keep_checkpoints=at_least(1),
    video_length=at_least(1),
    video_interval=at_least(1),
    memory_gib=optional(positive),
)
class EnvDistillConfig:
    """Settings of `raptor distill` and `raptor distill-isaac`, the most important ones of which are flags too."""

    JOB: ClassVar[str] = "distill"

    task: str | None = None  # name of the environment; null where a program hands it over
    teacher_checkpoint: str | None = None  # file of the teacher; null where a program hands it over
    task_settings: tuple[str, ...] = ()  # key=value each, of the environment
    num_envs: int | None = None  # environments flown at once; null: what the task says, or 16
    seed: int = 0  # of the weights, the flights and the order of training
    device: str = "cpu"  # cpu, cuda, or cuda:1 and so on
    compile: bool = True  # false runs uncompiled: at once, but slower
    n_epochs: int = 60  # flights of all environments, then training on them
    num_episodes: int = 64  # of an epoch, rounded up to whole episodes of each environment
    batch_size: int = 32  # sequences between two steps of the optimiser
    sequence_length: int = 64  # steps of a sequence, through which the gradient flows
    learning_rate: float = 1e-2  # of Adam, at its highest
    final_learning_rate: float = 0.05  # share of the learning rate that is left at the end of the cosine; 1: constant
    warm_up_batches: int = 20  # batches over which the learning rate rises
    gradient_norm: float | None = 1.0  # bound on the norm of the gradient; null: none
    epsilon: float = 1e-8  # of Adam
    variance_floor: float = 0.0  # lower bound on Adam's second moment
    epoch_teacher_forcing: int = 5  # epochs at the beginning in which the teacher flies; then the student does
    shuffle: bool = True  # whether episodes are packed into sequences in random order
    on_policy: bool = False  # whether an epoch trains on its own flights only, instead of on all that are kept
    num_data_epochs: int = 10  # whose flights are kept with on_policy=false, the newest ones
    teacher_deterministic: bool = True  # false: the teacher flies with its exploration noise; labels never have any
    student_group: str = "policy"  # group of observations that the student sees
    teacher_group: str | None = None  # that the teacher sees; null: the first that fits of TEACHER_GROUPS
    normalize_observations: bool = True  # whether the first layer is trained for the mean and scale of what is seen
    validation_interval: int = 5  # epochs between two evaluations, the last epoch being evaluated too
    num_validation_episodes: int = 32  # of an evaluation, and of the teacher's test before anything begins
    checkpoint_interval: int = 5  # epochs between two checkpoints
    keep_checkpoints: int = 3  # how many of the newest checkpoints stay
    video: bool = False  # whether the first environment is filmed
    video_length: int = 200  # steps of a film
    video_interval: int = 2000  # steps from the beginning of one film to that of the next
    experiment_name: str | None = None  # folder in logs/distillation; null: the name of the environment
    run_name: str | None = None  # end of the name of the run's folder; null: date and time alone
    memory_gib: float | None = None  # that training may take; null: most of what is free
    student: StudentConfig = StudentConfig()

    @property
    def num_epochs(self) -> int:
        """The same as `n_epochs`, by the name that `raptor post-train` has for it."""
        return self.n_epochs

    @property
    def num_slots(self) -> int:
        """How many epochs' flights are kept."""
        return 1 if self.on_policy else self.num_data_epochs
