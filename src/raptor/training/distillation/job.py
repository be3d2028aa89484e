"""`raptor post-train`: one student from many teachers, by imitation, then through the simulator's gradient."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from raptor.core.atomic import PathLike, write_atomically
from raptor.core.devices import find_device, memory_explained
from raptor.core.distributed import ALONE, Parts, World, process_group
from raptor.core.errors import UserError
from raptor.core.pool import Pool, num_processes
from raptor.core.threads import few_threads
from raptor.environments.episode import begin_episode
from raptor.formats.checkpoint import StudentPolicy
from raptor.nn.teachers import TeacherPopulation
from raptor.quadrotor.parameters import NUM_ROTORS
from raptor.quadrotor.population import sample_quadrotors
from raptor.rl.demonstrations import BLOCK_STEPS
from raptor.runs.callbacks import Callback, Callbacks, RunContext
from raptor.runs.folder import Layout, RunFolder, settings_of
from raptor.runs.job import PolicyFiles, RunSummary, held, run_to_end, settle
from raptor.runs.learner import Learner
from raptor.runs.progress import Clock, ProgressFunction
from raptor.runs.stopping import StopRequest
from raptor.runs.trainer import Phase, Trainer
from raptor.tasks.observation import TEACHER_DIM
from raptor.tasks.task import Task
from raptor.training import memory
from raptor.training.direct.learner import GradientLearner, shrink_output_layer
from raptor.training.distillation.config import PostTrainConfig
from raptor.training.distillation.learner import Distiller, first_student, guidance_of, imitation_bytes, shared_evenly
from raptor.training.distillation.sources import SimulatorSource
from raptor.training.distillation.teachers import TeacherNote, TeacherSource, examine, read_teachers, select, shortened
from raptor.training.purposes import warn_of_idle
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


@few_threads()
def post_train(
    output: PathLike,
    teachers: TeacherSource | None = None,
    config: PostTrainConfig | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: ProgressFunction | None = None,
    announce: Callable[[str], None] | None = None,
    largest: bool = False,
    callbacks: Sequence[Callback] = (),
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
    folder, called, clock = RunFolder(output, LAYOUT), Callbacks(callbacks, output), Clock()

    def free() -> Sequence[str]:
        """Fine-tuning may be planned anew as long as it has not begun."""
        return () if "optimizer" in folder.checkpoints.newest().get("learner", {}) else ("fine_tune",)

    config, stored = settle(folder, PostTrainConfig, config, resume, overwrite, free)
    warn_of_idle(config)
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
        processes = num_processes(config.processes, config.device, world.size)
        with (
            held(folder, config, resume, overwrite, world) as stop,
            memory_explained(batches),
            Pool(processes, folder.log) as pool,
        ):
            with world.main_process_first():
                if folder.writes and stored is not None and stored.fine_tune != config.fine_tune:
                    for ending in (folder.summary, folder.path / FINAL):  # imitation is no longer the end of the run
                        ending.unlink(missing_ok=True)
                    folder.write_manifest(config)
                if folder.writes and noted is None:
                    write_atomically(note_file, f"{json.dumps(note._asdict())}\n")
            return _train(folder, config, strong, tuple(weak), stop, progress, world, clock, called, pool)


@dataclasses.dataclass
class Videos(Callback):
    """Records episodes of the validation."""

    interval: int  # epochs between two videos; there is one at the end of a phase, too
    validations: Mapping[int, Validation]  # of each phase, by its last epoch

    def on_update(self, run: RunContext) -> None:
        """Write a video."""
        epoch = round(run.step)
        if epoch in self.validations or epoch % self.interval == 0:
            validation = next(each for last, each in self.validations.items() if epoch <= last)
            validation.record(run.policy, run.folder / "videos" / f"epoch_{epoch:06d}.gif")


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
    callbacks: Callbacks,
    pool: Pool,
) -> PostTrainSummary:
    policy = untrained(config, TRAINING_SEEDS + config.seed).to(config.device)
    imitates, num_epochs = config.num_epochs > 0, config.num_epochs
    tuning = shared_evenly(config.tuning, len(teachers)) if imitates else config.tuning
    last = num_epochs + math.ceil(tuning.num_updates / tuning.updates_per_epoch)
    compute: dict[str, Any] = {"device": config.device, "compile": config.compile, "world": world}

    def validation(task: Task) -> Validation:
        return Validation(task, config.num_validation, episode_steps=config.validation_steps, **compute)

    of_imitation, of_tuning = validation(config.flown_task), validation(tuning.task)

    def imitation() -> Learner:
        return Distiller(config, policy, SimulatorSource(config, teachers, world, pool), of_imitation)

    def fine_tuning() -> Learner:
        if not imitates:
            shrink_output_layer(policy)
        guidance = guidance_of(tuning, teachers, config.device, config.compile) if imitates else None
        shown = {"group": "fine_tuning", "updates_per_step": tuning.updates_per_epoch}
        options = {**compute, **shown, "validation": of_tuning, "guidance": guidance, "pool": pool}
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

    def own(trainer: Trainer) -> dict[str, Any]:
        has_imitated = imitates and trainer.step >= num_epochs
        return {
            "num_teachers": len(teachers),
            "dropped": dropped,
            "teacher_return": sum(record["return"] for record in teachers.records) / len(teachers),
            "imitated": [*trainer.milestones, trainer.best_figures][0] if has_imitated else {},
        }

    files = PolicyFiles(folder, policy, config, describe, IMITATED, FINAL)
    if config.video_interval:
        callbacks.callbacks += (Videos(config.video_interval, {num_epochs: of_imitation, last: of_tuning}),)
    options = {"world": world, "clock": clock, "callbacks": callbacks}
    return run_to_end(files, phases, stop, PostTrainSummary, own, progress, **options)


def make_plan(config: PostTrainConfig, teachers: TeacherPopulation, world: World = ALONE) -> str:
    """What will be collected and kept, in words; each process holds all data and its share of all else.

    What does not fit into memory, or cannot be cut into parts, is refused by the settings to change.
    """
    check_parts(config, len(teachers), world)
    budget = memory.budget_of_each(config.memory_gib, config.device, world)
    episode, tuned, collected = _episode_bytes(config), config.fine_tune, "no imitation"
    imitation = tuning = memory.BASE_BYTES + config.num_validation * episode  # the one is over when the other begins
    if config.num_epochs:
        num, steps = config.num_active(len(teachers)) * config.num_episodes, config.task.episode_steps
        kept = num * config.num_slots
        shape = (steps, config.task.observation_dim, NUM_ROTORS)
        together = min(math.ceil(config.batch_size / world.size), config.block_size or config.batch_size)
        data, learning = imitation_bytes(config, kept, shape, together)
        imitation += data + learning + num * (episode + 4.0 * BLOCK_STEPS * (TEACHER_DIM + 24)) / world.size
        fewer = "num_episodes, num_active_teachers" + ("" if config.on_policy else ", num_data_epochs")
        what = f"{kept} episodes of {steps} steps and batches of {config.batch_size} sequences take"
        memory.refuse_too_large(what, imitation, budget, f"lower {fewer} or batch_size")
        collected = f"{num} episodes an epoch: {data / memory.GIB:.2g} GiB of data"
    if tuned.num_updates:
        labels = _labels_bytes(config, teachers)
        tuning += memory.batch_bytes(config.tuning, untrained(config), tuned.batch_size, world, labels)
        what = f"fine-tuning with {tuned.batch_size} quadrotors at once through {tuned.segment_steps} steps takes"
        memory.refuse_too_large(what, tuning, budget, "lower fine_tune.batch_size or fine_tune.segment_steps")
    used = f"{max(imitation, tuning) / memory.GIB:.2g} GiB in all of {budget / memory.GIB:.3g} GiB"
    return f"{len(teachers)} teachers, {collected}, {used}"


def untrained(config: PostTrainConfig, seed: int = 0) -> StudentPolicy:
    """An untrained student of the task's observation."""
    policy = first_student(config.student, seed, config.task.observation_dim)
    policy.layout = config.task.policy_layout
    return policy


def check_parts(config: PostTrainConfig, num_teachers: int, world: World) -> None:
    """Check that all processes get something to do, and equal parts of a batch; names what is too few or uneven."""
    Parts(world).refuse_fewer("validation vehicles", config.num_validation)
    if config.num_epochs:
        Parts(world).refuse_uneven("batch_size", config.batch_size)
        Parts(world).refuse_fewer("teachers", config.num_active(num_teachers))
    if config.fine_tune.num_updates:
        Parts(world).refuse_uneven("fine_tune.batch_size", config.fine_tune.batch_size)
        tuning = shared_evenly(config.tuning, num_teachers) if config.num_epochs else config.tuning
        Parts(world).refuse_fewer("vehicles flown at once", tuning.batch_size)


def with_largest_batch(config: PostTrainConfig, teachers: TeacherPopulation, world: World) -> PostTrainConfig:
    """The settings with the largest `fine_tune.batch_size` that fits."""
    besides, labels = config.num_validation * _episode_bytes(config), _labels_bytes(config, teachers)
    policy = untrained(config)
    num = memory.largest_batch(config.tuning, policy, config.device, world, config.memory_gib, besides, labels)
    return dataclasses.replace(config, fine_tune=dataclasses.replace(config.fine_tune, batch_size=num))


def _episode_bytes(config: PostTrainConfig) -> float:
    """Of a vehicle and its episode, before a step and after it."""
    vehicles = sample_quadrotors(memory.SAMPLE_VEHICLES, seed=0)
    episode = begin_episode(config.flown_task, vehicles, torch.Generator().manual_seed(0))
    return 2 * memory.nbytes((vehicles, episode)) / memory.SAMPLE_VEHICLES


def _labels_bytes(config: PostTrainConfig, teachers: TeacherPopulation) -> float:
    """Of what teachers see and do along a segment, for each vehicle that is flown."""
    tuned = config.fine_tune
    if not (config.num_epochs and tuned.is_guided):
        return 0.0
    numbers = 2 * TEACHER_DIM + 2 * max(teachers.widths) + 8
    return 4.0 * numbers * tuned.segment_steps
