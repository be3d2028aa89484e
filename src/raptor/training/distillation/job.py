"""`raptor post-train`: one student from many teachers, by imitation, then through the simulator's gradient."""

from __future__ import annotations

import dataclasses
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from raptor.core.atomic import PathLike, write_atomically
from raptor.core.devices import find_device, memory_explained
from raptor.core.distributed import World, process_group
from raptor.core.errors import UserError
from raptor.core.yaml_files import to_plain
from raptor.nn.teachers import TeacherPopulation
from raptor.runs.folder import Layout, RunFolder, settings_of
from raptor.runs.job import RunSummary, held, run_to_end, settle, write_summary
from raptor.runs.learner import Learner
from raptor.runs.policies import PolicyFiles
from raptor.runs.progress import Clock, ProgressFunction
from raptor.runs.stopping import StopRequest
from raptor.runs.trainer import Phase
from raptor.training.direct.learner import GradientLearner, shrink_output_layer
from raptor.training.distillation.config import PostTrainConfig
from raptor.training.distillation.guidance import guidance_of, shared_evenly
from raptor.training.distillation.learner import Distiller, first_student
from raptor.training.distillation.plan import check_parts, make_plan, with_largest_batch
from raptor.training.distillation.selection import examine, select, shortened
from raptor.training.distillation.sources import SimulatorSource
from raptor.training.distillation.teacher_sources import (
    TeacherNote,
    TeacherSource,
    document_of_sources,
    documented,
    fingerprint,
    read_teachers,
)
from raptor.training.validation import TRAINING_SEEDS, Validation

FINAL, IMITATED, TEACHERS = "final_student.pt", "imitated_student.pt", "params/teachers.json"
LAYOUT = Layout(
    "post-train",
    unit="epoch",
    checkpoints="checkpoint_epoch_",
    best="best_student.pt",
    own=(FINAL, IMITATED, "videos/epoch_*.gif", TEACHERS),
)


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

    Args:
        output: the run folder, see `raptor.load_policy`.
        teachers: a folder of `raptor pre-train`, a third-party `TeacherFile`, several of these, or a population; by
            default those of the run that is resumed.
        config: the settings; by default those of the run that is resumed, or else the default ones.
        resume: go on with the run in `output`; start it where there is none.
        overwrite: delete what an earlier run wrote to `output`.
        progress: called after each epoch and around what takes long.
        announce: called with the architecture of the teachers, with the plan, and with the teachers that are left out.
        largest: begin with the largest `fine_tune.batch_size` that fits into memory; a run that is resumed keeps its
            own.

    Raises:
        UserError: the folder holds a run and neither `resume` nor `overwrite` is given, settings or teachers differ
            from those of the run to be resumed, teachers cannot be read, are too weak or come without vehicles, the
            training does not fit into memory or cannot be cut evenly for all processes, one of these ended, the device
            is missing, the disk is full.
    """
    folder, clock = RunFolder(output, LAYOUT), Clock()
    config, stored = settle(
        folder,
        PostTrainConfig,
        config,
        resume,
        overwrite,
        free=lambda: () if _is_fine_tuning(folder) else ("fine_tune",),
    )
    if largest and not config.fine_tune.num_updates:
        raise UserError("--largest-batch seeks fine_tune.batch_size, and fine_tune.num_updates=0 needs none")
    with process_group(config.device) as world:
        find_device(config.device)
        folder.writes = world.is_main_process
        progress = progress if world.is_main_process else None
        say = announce if announce is not None and world.is_main_process else (lambda message: None)
        noted = TeacherNote.read(folder.path / TEACHERS) if stored is not None else None
        population, lines = read_teachers(_source(folder, noted, teachers))
        mark = fingerprint(population)
        if noted is not None and noted.fingerprint != mark:
            raise UserError(f"the run in {folder.path} learns from other teachers: resume it without giving any")
        if largest and noted is None:
            config = with_largest_batch(config, population, world)
            lines.append(f"the largest batch that fits: fine_tune.batch_size={config.fine_tune.batch_size}")
        for line in (*lines, make_plan(config, population, world).describe()):
            say(line)
        if noted is None:
            population = examine(population, config, progress, world)
        else:
            population = dataclasses.replace(population, records=tuple(noted.records))
        strong, weak = select(population, config)
        if weak:
            plural = "teachers do" if len(weak) > 1 else "teacher does"
            say(f"{len(weak)} {plural} not reach {config.solved_return:g}, left out: {shortened(weak)}")
            check_parts(config, len(strong), world)
        records = [to_plain(record, f"records[{i}]") for i, record in enumerate(population.records)]
        note = TeacherNote(document_of_sources(teachers), mark, records)
        batches = f"batch_size {config.batch_size} or fine_tune.batch_size {config.fine_tune.batch_size}"
        with held(folder, config, resume, overwrite, world) as stop, memory_explained(batches):
            with world.main_process_first():
                if stored is not None and stored.fine_tune != config.fine_tune:
                    _plan_anew(folder, config)
                if noted is None and folder.writes:
                    write_atomically(folder.path / TEACHERS, f"{json.dumps(note._asdict())}\n")
            return _train(folder, config, strong, tuple(weak), world, stop, clock, progress)


def load_post_train_config(
    run: PathLike, file: str | Path | None = None, overrides: Sequence[str] = (), resume: bool = True
) -> PostTrainConfig:
    """The settings of the run in a folder; see `raptor.runs.folder.settings_of`."""
    return settings_of(PostTrainConfig, RunFolder(run, LAYOUT), file, overrides, resume)


def _train(
    folder: RunFolder,
    config: PostTrainConfig,
    teachers: TeacherPopulation,
    dropped: tuple[str, ...],
    world: World,
    stop: StopRequest,
    clock: Clock,
    progress: ProgressFunction | None,
) -> PostTrainSummary:
    policy = first_student(config.student, TRAINING_SEEDS + config.seed).to(config.device)
    tuning = shared_evenly(config.tuning, len(teachers)) if config.num_epochs else config.tuning
    of_imitation, of_tuning = (
        Validation(
            task,
            config.num_validation,
            device=config.device,
            compile=config.compile,
            episode_steps=config.validation_steps,
            world=world,
        )
        for task in (config.flown_task, tuning.task)
    )

    def imitation() -> Learner:
        return Distiller(config, policy, SimulatorSource(config, teachers, world), of_imitation)

    def fine_tuning() -> Learner:
        if not config.num_epochs:
            shrink_output_layer(policy)
        return GradientLearner(
            tuning,
            policy,
            config.seed,
            config.device,
            config.compile,
            world,
            validation=of_tuning,
            guidance=guidance_of(tuning, teachers if config.num_epochs else None, config.device, config.compile),
            group="fine_tuning",
            updates_per_step=tuning.updates_per_epoch,
        )

    by, interval = config.best_by.replace("_", " "), config.checkpoint_interval
    phases = (
        Phase("imitating", config.num_epochs, imitation, config.validation_interval, interval, best_by=by),
        Phase(
            "fine-tuning",
            config.num_epochs_in_all - config.num_epochs,
            fine_tuning,
            checkpoint_interval=interval,
            revalidates=by != "validation" or of_imitation.task != of_tuning.task,
        ),
    )

    def describe(step: int) -> str:
        then = f", then through the simulator's gradient, {tuning.num_updates} updates" if tuning.num_updates else ""
        return (
            f"distilled from {len(teachers)} teachers, epoch {step} of {config.num_epochs_in_all}: "
            f"imitation in {config.num_epochs}{then}"
        )

    def record_video(epoch: int, last: bool) -> None:
        if folder.writes and config.video_interval and (last or epoch % config.video_interval == 0):
            validation = of_imitation if epoch <= config.num_epochs else of_tuning
            validation.record(policy, folder.path / "videos" / f"epoch_{epoch:06d}.gif")

    files = PolicyFiles(folder, policy, config, describe, IMITATED, FINAL)
    trainer = run_to_end(files, phases, stop, progress, world, clock, record_video)
    has_imitated = config.num_epochs and trainer.step >= config.num_epochs
    return write_summary(
        files,
        trainer,
        PostTrainSummary,
        num_teachers=len(teachers),
        dropped=dropped,
        teacher_return=sum(record["return"] for record in teachers.records) / len(teachers),
        imitated=[*trainer.milestones, trainer.best_figures][0] if has_imitated else {},
    )


def _is_fine_tuning(folder: RunFolder) -> bool:
    """Whether the newest checkpoint is one of fine-tuning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of damaged checkpoints come when the run goes on
        newest = next(folder.checkpoints.newest_first(), None)
    if newest is None:
        return False
    state = newest[1]["training"].get("learner", {})
    return isinstance(state, Mapping) and "optimizer" in state


def _plan_anew(folder: RunFolder, config: PostTrainConfig) -> None:
    """Note what fine-tuning is to be instead; a run that ended with the imitation has not ended any more."""
    if folder.writes:
        for ending in (folder.summary, folder.path / FINAL):
            ending.unlink(missing_ok=True)
        folder.write_manifest(config)


def _source(folder: RunFolder, noted: TeacherNote | None, teachers: TeacherSource | None) -> TeacherSource:
    if teachers is not None:
        return teachers
    if noted is None:
        raise UserError(
            "there are no teachers to learn from: give the output folder of raptor pre-train, or teacher files"
        )
    if noted.source is None:
        raise UserError(f"the run in {folder.path} began with teachers of no folder: give the same ones to resume it")
    return [documented(source) for source in noted.source]
