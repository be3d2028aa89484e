"""`raptor train-direct`, `raptor pre-train` and `raptor post-train`; and `raptor run`, which chains all commands."""

from __future__ import annotations

import contextlib
import functools
import json
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from rich.console import Console

from raptor.cli import common, progress
from raptor.cli.common import Run, TeacherRun, argument, option, say, takes_options
from raptor.cli.policies import evaluate_on_own, show_tables
from raptor.cli.progress import cell, counted, duration, plain_table, quantity, wide_console
from raptor.core.errors import UserError

if TYPE_CHECKING:
    from raptor.lab.pipeline import Pipeline, Stage

DONE = {"skip": "unchanged", "run": "run", "resume": "continued", "anew": "run anew"}
PLANNED = {"skip": "nothing", "run": "run", "resume": "go on", "anew": "run anew", "wait": "wait and see"}


@takes_options
def train_direct(
    run: Run,
    quadrotor: common.Quadrotors = None,
    evaluate: Annotated[
        bool, option("--evaluate/--no-evaluate", "End with the tables of your own vehicle.", True)
    ] = True,
    largest_batch: common.LargestBatch = False,
) -> None:
    """Train a policy through the gradient of the simulator, for all quadrotors or for your own.

    With --quadrotor, vehicles are drawn around it: `spread=20%` of each quantity, `spread.mass=5%` of one, else as
    uncertain as its description says. Unless there is a --config, the preset `vehicle` is meant: a packaged policy is
    fine-tuned for a few minutes, and compared on this vehicle with all packaged ones, unless --no-evaluate.

    Ctrl-C writes a checkpoint and stops; --resume goes on, also after a kill, to the same result. The first start
    compiles for about half a minute.

    ```
    raptor train-direct -o runs/mine
    raptor train-direct -o runs/mine --resume       # after Ctrl-C or a kill
    raptor train-direct -o runs/my5 --quadrotor my5.yaml spread=20%
    raptor train-direct -o runs/wide --config large --device cuda
    raptor train-direct -o runs/again --config runs/mine seed=1
    torchrun --nproc-per-node=4 -m raptor train-direct -o runs/four device=cuda    # four GPUs
    tensorboard --logdir runs                       # watch it
    ```

    All settings are in docs/reference/configuration.md; those of a run in its run.yaml.
    """
    from raptor.training.direct import job

    config = run.load(functools.partial(job.load_run_config, quadrotors=quadrotor or ()))
    with common.watched(run.output, run.resume, run.again) as (show, announce):
        followed = config.task.references.trajectory
        lines = [f"minimises in each step: {config.objective.formula(config.task)}"]
        lines += [f"follows {followed.summary}"] if followed.source else []
        show = common.after_saying("\n".join(lines), announce, show)
        resuming: dict[str, Any] = {"resume": run.resume, "overwrite": run.overwrite}
        summary = job.train_direct(run.output, config, **resuming, progress=show, largest=largest_batch)
    common.say_result(summary, run.again)
    if config.quadrotors and evaluate:
        with common.going_on_with(run.again):
            evaluate_on_own(summary.output, config)
    again = [f"--quadrotor={source}" for source in job.sources_of(summary.output, config)]
    if (source := config.task.references.trajectory.source) is not None:
        kept = summary.output / "trajectory.csv"
        again.append(f"--reference={kept if kept.is_file() else source}")
    say(f"next: raptor evaluate {summary.output} {shlex.join(again)}".rstrip() + common.extensions())


@takes_options
def post_train(
    run: TeacherRun,
    teachers: Annotated[list[Path] | None, option("--teachers -t DIR", "Folder of teachers; several times.")] = None,
    teacher: Annotated[
        list[str] | None,
        option("--teacher FILE", "Checkpoint of a teacher of rsl_rl, stable-baselines3, ...; several times."),
    ] = None,
    quadrotor: Annotated[
        list[str] | None,
        option(
            "--quadrotor NAME|FILE",
            "Vehicle it was trained on: a platform, a JSON file or a description; once or for each.",
        ),
    ] = None,
    teacher_activation: Annotated[
        str | None,
        option("--teacher-activation NAME", "Its activation function, where its file lacks it: elu, relu, tanh, ..."),
    ] = None,
    teacher_normalizer: common.TeacherNormalizer = None,
    largest_batch: common.LargestBatch = False,
) -> None:
    """Distil one policy from many teachers, then fine-tune it through the simulator's gradient.

    First the teachers act (behaviour cloning), then the student does, and the teacher of each vehicle labels the states
    (DAgger). Ctrl-C writes a checkpoint and stops; --resume goes on, also after a kill, to the same result.

    ```
    raptor post-train --teachers teachers --output student
    raptor post-train --teachers teachers --output student fine_tune.num_updates=0    # imitation only
    raptor post-train --teachers teachers --output student num_epochs=0               # gradient only
    raptor post-train --teachers teachers --output student --config paper             # as published
    raptor post-train --teacher model_1499.pt --quadrotor crazyflie --output student   # of rsl_rl, and others
    raptor post-train --output student --resume                                       # after Ctrl-C or a kill
    torchrun --nproc-per-node=4 -m raptor post-train --teachers teachers --output student device=cuda    # four GPUs
    ```

    All settings are in docs/reference/configuration.md; those of a run in its run.yaml.
    """
    from raptor.training.distillation import job
    from raptor.training.distillation.teachers import teacher_files

    config = run.load(job.load_post_train_config, tasks=("task", "fine_tune.task"))
    files = teacher_files(teacher or (), quadrotor or (), teacher_activation, teacher_normalizer)
    sources = [*(teachers or ()), *files] or None
    with common.watched(run.output, run.resume, run.again) as (show, announce):
        cost = f"fine-tuning minimises in each step: {config.fine_tune.objective.formula(config.tuning.task)}"
        show = common.after_saying(cost if config.fine_tune.num_updates else "", announce, show)
        how = (run.resume, run.overwrite, show, announce, largest_batch)
        summary = job.post_train(run.output, sources, config, *how)
    the = "the teacher returns" if summary.num_teachers == 1 else f"the {summary.num_teachers} teachers return"
    common.say_result(summary, run.again, f"; {the} {summary.teacher_return:.1f}", summary.imitated)
    say(f"next: raptor evaluate {summary.output}{common.extensions()}")


@takes_options
def pre_train(
    run: TeacherRun,
    quadrotor: common.Quadrotors = None,
    generate: Annotated[int | None, option("--generate -g N", "Sample N quadrotors instead.", min=1)] = None,
    num_teachers: Annotated[int | None, option("--num-teachers N", "Train only for the first N.", min=1)] = None,
    algorithm: Annotated[str | None, option("--algorithm -a NAME", "Same as algorithm=NAME: apg or sac.")] = None,
    shard: Annotated[str | None, option("--shard I/N", "Train only part I of N; --resume joins the parts.")] = None,
) -> None:
    """Train one teacher for each quadrotor of a population.

    The population is cut into shards, each of which is trained as one program: through the simulator's gradient (apg),
    or by soft actor-critic (sac). Weak teachers are trained again, longer. Ctrl-C writes checkpoints and stops;
    --resume goes on, also after a kill, to the same result.

    A job array needs no engine: each of N jobs gets the same command with --shard I/N and the same folder. When all
    have ended, --resume puts the parts together, and trains again what is weak.

    ```
    raptor sample --num 1000 --output quadrotors
    raptor pre-train --quadrotors quadrotors --output teachers engine=processes
    raptor pre-train --generate 16 --output teachers apg.num_updates=300
    raptor pre-train --generate 4 --output sac --config paper        # as published
    raptor pre-train --quadrotors quadrotors --output teachers engine=ray engine.address=auto
    raptor pre-train --output teachers --resume                      # after Ctrl-C or a kill
    raptor pre-train --quadrotors quadrotors --output teachers --shard $SLURM_ARRAY_TASK_ID/20
    raptor pre-train --output teachers --resume                      # after the array: puts its 20 parts together
    ```

    In Python: `raptor.load_teachers("teachers")`. All settings are in docs/reference/configuration.md.
    """
    from raptor.training.teachers import job

    numbers = re.fullmatch(r"(\d+)/(\d+)", shard or "")
    if shard is not None and numbers is None:
        raise UserError(f"--shard must be I/N, such as 3/20 for the third of twenty parts, got {shard!r}")
    part = (int(numbers[1]), int(numbers[2])) if numbers is not None else None
    algorithms = [f"algorithm={algorithm}"] if algorithm is not None else []
    config = run.load(job.load_pre_train_config, *algorithms, resume=part is not None)
    again = run.again if part is None else f"{run.again.removesuffix('--resume')}--shard {shard}"
    with common.watched(run.output, run.resume or part is not None, again) as (show, announce):
        cost = f"minimises in each step: {config.apg.objective.formula(config.task)}"
        show = common.after_saying(cost if config.algorithm == "apg" else "", announce, show)
        given: dict[str, Any] = {"generate": generate, "num_teachers": num_teachers, "part": part}
        how: dict[str, Any] = {"resume": run.resume, "overwrite": run.overwrite, "announce": announce}
        summary = job.pre_train(run.output, quadrotor, config, **given, **how, progress=show)
    if summary.stopped:
        common.leave("stopped, with checkpoints", again)
    if part is not None:
        missing = counted(summary.num_missing, "shard")
        say(f"part {shard} is trained" + (f"; {missing} of other parts not yet" if summary.num_missing else ""))
        say(f"once all parts are: {run.again}")
        return
    solved = f"{summary.num_solved} of {counted(summary.num_teachers, 'teacher')} solved"
    returns = f"mean return {summary.mean_return:.1f}, worst {summary.worst_return:.1f}"
    took = f"{quantity(summary.env_steps)} env-steps in {duration(summary.wall_clock_s)}"
    say(f"{solved}: {returns}, {summary.termination_rate:.2%} terminated; {took}: {summary.output}")
    if summary.skipped:
        say(f"updates of single teachers that were not finite, and were left out: {summary.skipped}")
    if summary.unsolved:
        say(f"not solved: {', '.join(summary.unsolved)}")
    say(f"look at {summary.output / 'teachers.png'} and {summary.output / 'curves.png'}")


def run(
    pipeline: Annotated[str, argument("PIPELINE", "YAML file, or a preset: small, full, paper.")],
    changes: Annotated[
        list[str] | None,
        argument("KEY=VALUE", "Over the file's: evaluation.num_quadrotors=512 teachers.settings.apg.num_updates=100"),
    ] = None,
    output: Annotated[Path | None, option("--output -o DIR", "Folder of all stages; else that in the file.")] = None,
    quadrotor: common.Quadrotors = None,
    reference: common.Reference = None,
    seed: common.Seed = None,
    device: common.Device = None,
    only: Annotated[str | None, option("--only STAGE", "Only this stage, on earlier results of others.")] = None,
    until: Annotated[str | None, option("--until STAGE", "Only this stage and what it needs.")] = None,
    dry_run: Annotated[bool, option("--dry-run", "Print the plan, with reasons; run nothing.")] = False,
    overwrite: Annotated[bool, option("--overwrite", "Replace trainings whose settings changed.")] = False,
) -> None:
    """Run a chain of jobs: sample, pre-train, post-train, train-direct, evaluate, export, report.

    Each stage has a folder of its name in DIR, which the other commands take. Finished stages that have not changed are
    skipped. Ctrl-C stops, and the same command goes on, also after a kill.

    With --quadrotor, pre-train, train-direct and evaluate have these vehicles in place of those that the file says;
    with --reference, all trainings follow this trajectory, and evaluate has the suite of it.

    ```
    raptor run small -o runs/small
    raptor run full -o runs/full --dry-run                          # the plan, with reasons
    raptor run full -o runs/full --until teachers
    raptor run mine.yaml student.settings.num_epochs=50 --overwrite
    ```

    The format of a file is in docs/reference/pipeline.md.
    """
    from raptor.evaluation import Evaluation
    from raptor.lab.pipeline import load_pipeline, make_plan, output_of, run_pipeline

    given = common.overrides(changes, seed, device)
    loaded = load_pipeline(pipeline, given)
    if own := [*_of_ones_own(loaded, quadrotor or (), reference)]:
        loaded = load_pipeline(pipeline, [*own, *given])
    folder = output_of(loaded, output)
    if dry_run:
        table = plain_table("stage", "job", "to do", "why")
        for step in make_plan(loaded, folder, only, until):
            why = f"{step.why}; needs --overwrite" if step.replaces else step.why
            table.add_row(step.stage.name, step.stage.job.NAME, PLANNED[step.action], cell(why))
        wide_console().print(table)
        return
    console = Console(stderr=True)
    words = ["raptor", "run", pipeline, *given, "--output", str(folder)]
    words += [word for each in quadrotor or () for word in ("--quadrotor", each)]
    named = {"--reference": reference, "--only": only, "--until": until}
    words += [word for name, value in named.items() if value for word in (name, value)]
    again = shlex.join(words) + common.extensions()
    tell = progress.announcer(console)
    with common.going_on_with(again):
        summary = run_pipeline(loaded, folder, overwrite, only, until, lambda stage: _shown(stage, console), tell)
    if not summary.finished:
        common.leave(f"stopped in {summary.stages[-1].name}", again)
    table = plain_table("stage", "", "time", "result")
    for name, job, action, _, seconds, result, product in summary.stages:
        if job == "evaluate" and action != "skip":
            show_tables(Evaluation.load(product), details=False)
        time = duration(seconds) if action != "skip" else ""
        table.add_row(name, DONE[action], time, cell(result if job != "report" else ""))
    wide_console().print(table)
    for stage in summary.stages:
        if stage.job in ("report", "export"):
            say(f"{stage.name}: {stage.product}")


def _of_ones_own(pipeline: Pipeline, quadrotors: Sequence[str], reference: str | None) -> Iterator[str]:
    """What --quadrotor and --reference say of each stage that flies, as settings."""
    for name, job, _ in pipeline.stages:
        if quadrotors and "quadrotors" in job.references():
            yield f"{name}.quadrotors={json.dumps(quadrotors)}"
            yield from [f"{name}.generate=null"] * hasattr(job, "generate")
        if reference is not None:
            yield from common.following(reference, [f"{name}.{task}" for task in job.TASKS])
            yield from [f"{name}.trajectory={json.dumps(reference)}"] * hasattr(job, "trajectory")


def _shown(stage: Stage, console: Console) -> contextlib.AbstractContextManager[Callable[..., None]]:
    if stage.job.TRAINS:
        return progress.job_progress(console)
    quick = stage.job.NAME in ("sample", "export")
    return progress.counting(console, "writing", progress.PATIENCE_S if quick else 0.0)
