"""`raptor post-train`: one student from many teachers, by imitation, then through the simulator's gradient."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Sequence
from typing import Any

from raptor.core.atomic import PathLike, write_atomically
from raptor.core.devices import find_device, memory_explained
from raptor.core.distributed import World, process_group
from raptor.core.errors import UserError
from raptor.nn.teachers import TeacherPopulation
from raptor.runs.folder import Layout, RunFolder, settings_of
from raptor.runs.job import PolicyFiles, RunSummary, held, run_to_end, settle
from raptor.runs.learner import Learner
from raptor.runs.progress import Clock, ProgressFunction
from raptor.runs.stopping import StopRequest
from raptor.runs.trainer import Phase, Trainer
from raptor.tasks.task import Task
from raptor.training.direct.learner import GradientLearner, shrink_output_layer
from raptor.training.distillation.config import PostTrainConfig
from raptor.training.distillation.learner import Distiller, first_student, guidance_of, shared_evenly
from raptor.training.distillation.plan import check_parts, make_plan, with_largest_batch
from raptor.training.distillation.sources import SimulatorSource
from raptor.training.distillation.teachers import TeacherNote, TeacherSource, examine, read_teachers, select, shortened
from raptor.training.validation import TRAINING_SEEDS, Validation

FINAL, IMITATED, TEACHERS = "final_student.pt", "imitated_student.pt", "params/teachers.json"
OWN = FINAL, IMITATED, "videos/epoch_*.gif", TEACHERS
LAYOUT = Layout("post-train", "epoch", "checkpoint_epoch_", "best_student.pt", own=OWN)


@dataclasses.dataclass(frozen=True)
class PostTrainSummary(RunSummary):
    """What came of `post_train`."""

    num_teachers: int  # that took part
    dropped: tuple[str, ...]  # weak teachers that did not
    teacher_return: float  # mean of the teachers, in their test
    imitated: dict[str, float]  # epoch and figures of the best student before fine-tuning; empty before that


def post_train(
    output: PathLike,
    teachers: TeacherSource | None = None,
    config: PostTrainConfig | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: ProgressFunction | None = None,
    announce: Callable[[str], None] | None = None,
    largest: bool = False,
) -> PostTrainSummary:
    """Teach one student what many teachers do, then train it on through the simulator's gradient.

    A run that was killed at any moment and resumed gives bit for bit what it would have given without, on the same kind
    of machine with as many threads. Where torchrun started several processes, they share rollouts and batches, and the
    first one writes; a run may be resumed by another number of them.

    Teachers are a folder of `raptor pre-train`, a third-party `TeacherFile`, several of these, or a population; by
    default those of the run that is resumed, as are the settings. `announce` is called with the architecture of the
    teachers, with the plan, and with the teachers that are left out; `largest` begins with the largest
    `fine_tune.batch_size` that fits into memory. For all else see `train_direct`.

    Raises:
        UserError: as in `train_direct`; or teachers differ from those of the run to be resumed, cannot be read, are too
            weak or come without vehicles.
    """
    folder, clock = RunFolder(output, LAYOUT), Clock()

    def free() -> Sequence[str]:
        """Fine-tuning may be planned anew as long as it has not begun."""
        return () if "optimizer" in folder.checkpoints.newest().get("learner", {}) else ("fine_tune",)

    config, stored = settle(folder, PostTrainConfig, config, resume, overwrite, free)
    if largest and not config.fine_tune.num_updates:
        raise UserError("--largest-batch seeks fine_tune.batch_size, and fine_tune.num_updates=0 needs none")
    with process_group(config.device) as world:
        find_device(config.device)
        folder.writes = world.is_main_process
        if not world.is_main_process:
            progress = announce = None
        say = announce or (lambda line: None)
        note_file = folder.path / TEACHERS
        noted = TeacherNote.read(note_file) if stored is not None else None
        source = noted.sources(folder.path) if teachers is None and noted is not None else teachers
        if source is None:
            remedy = "give the output folder of raptor pre-train, or teacher files"
            raise UserError(f"there are no teachers to learn from: {remedy}")
        population, lines = read_teachers(source)
        if noted is not None:
            population = noted.restore(population, folder.path)
        if largest and noted is None:
            config = with_largest_batch(config, population, world)
            lines.append(f"the largest batch that fits: fine_tune.batch_size={config.fine_tune.batch_size}")
        for line in (*lines, make_plan(config, population, world)):
            say(line)
        if noted is None:
            population = examine(population, config, progress, world)
        strong, weak = select(population, config)
        if weak:
            plural = "teachers do" if len(weak) > 1 else "teacher does"
            say(f"{len(weak)} {plural} not reach {config.solved_return:g}, left out: {shortened(weak)}")
            check_parts(config, len(strong), world)
        note = noted or TeacherNote.of(teachers, population)
        batches = f"batch_size {config.batch_size} or fine_tune.batch_size {config.fine_tune.batch_size}"
        with held(folder, config, resume, overwrite, world) as stop, memory_explained(batches):
            with world.main_process_first():
                if folder.writes and stored is not None and stored.fine_tune != config.fine_tune:
                    for ending in (folder.summary, folder.path / FINAL):  # imitation is no longer the end of the run
                        ending.unlink(missing_ok=True)
                    folder.write_manifest(config)
                if folder.writes and noted is None:
                    write_atomically(note_file, f"{json.dumps(note._asdict())}\n")
            return _train(folder, config, strong, tuple(weak), stop, progress, world, clock)


load_post_train_config = functools.partial(settings_of, PostTrainConfig, LAYOUT)
"""The settings of the run in a folder; see `settings_of`."""


def _train(
    folder: RunFolder,
    config: PostTrainConfig,
    teachers: TeacherPopulation,
    dropped: tuple[str, ...],
    stop: StopRequest,
    progress: ProgressFunction | None,
    world: World,
    clock: Clock,
) -> PostTrainSummary:
    policy = first_student(config.student, TRAINING_SEEDS + config.seed).to(config.device)
    imitates, num_epochs, last = config.num_epochs > 0, config.num_epochs, config.num_epochs_in_all
    tuning = shared_evenly(config.tuning, len(teachers)) if imitates else config.tuning
    compute: dict[str, Any] = {"device": config.device, "compile": config.compile, "world": world}

    def validation(task: Task) -> Validation:
        return Validation(task, config.num_validation, episode_steps=config.validation_steps, **compute)

    of_imitation, of_tuning = validation(config.flown_task), validation(tuning.task)

    def imitation() -> Learner:
        return Distiller(config, policy, SimulatorSource(config, teachers, world), of_imitation)

    def fine_tuning() -> Learner:
        if not imitates:
            shrink_output_layer(policy)
        guidance = guidance_of(tuning, teachers, config.device, config.compile) if imitates else None
        shown = {"group": "fine_tuning", "updates_per_step": tuning.updates_per_epoch}
        options = {**compute, **shown, "validation": of_tuning, "guidance": guidance}
        return GradientLearner(tuning, policy, config.seed, **options)

    by, interval = config.best_by.replace("_", " "), config.checkpoint_interval
    revalidates = by != "validation" or of_imitation.task != of_tuning.task
    phases = (
        Phase("imitating", num_epochs, imitation, config.validation_interval, interval, best_by=by),
        Phase("fine-tuning", last - num_epochs, fine_tuning, 1, interval, revalidates=revalidates),
    )

    def describe(step: int) -> str:
        then = f", then through the simulator's gradient, {tuning.num_updates} updates" if tuning.num_updates else ""
        return f"distilled from {len(teachers)} teachers, epoch {step} of {last}: imitation in {num_epochs}{then}"

    def record_video(epoch: int, ends_phase: bool) -> None:
        if folder.writes and config.video_interval and (ends_phase or epoch % config.video_interval == 0):
            of_phase = of_imitation if epoch <= num_epochs else of_tuning
            of_phase.record(policy, folder.path / "videos" / f"epoch_{epoch:06d}.gif")

    def own(trainer: Trainer) -> dict[str, Any]:
        has_imitated = imitates and trainer.step >= num_epochs
        return {
            "num_teachers": len(teachers),
            "dropped": dropped,
            "teacher_return": sum(record["return"] for record in teachers.records) / len(teachers),
            "imitated": [*trainer.milestones, trainer.best_figures][0] if has_imitated else {},
        }

    files = PolicyFiles(folder, policy, config, describe, IMITATED, FINAL)
    options = {"world": world, "clock": clock, "after_step": record_video}
    return run_to_end(files, phases, stop, PostTrainSummary, own, progress, **options)
