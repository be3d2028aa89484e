"""`raptor post-train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from raptor.cli import options
from raptor.cli.options import overrides
from raptor.cli.train import INTERRUPTED
from raptor.runs.manifest import MANIFEST


def post_train(
    output: options.Output,
    settings: options.Settings = None,
    teachers: Annotated[
        list[Path] | None,
        typer.Option("--teachers", "-t", metavar="DIR", help="Folder of teachers; may be given several times."),
    ] = None,
    teacher: Annotated[
        list[str] | None,
        typer.Option(
            "--teacher",
            metavar="CHECKPOINT",
            help="One third-party teacher: of rsl_rl, stable-baselines3 or rl-tools; may be given several times.",
        ),
    ] = None,
    quadrotor: Annotated[
        list[str] | None,
        typer.Option(
            "--quadrotor",
            metavar="NAME|FILE",
            help="Vehicle that this teacher was trained on: a platform or a JSON file; once for all, or once for each.",
        ),
    ] = None,
    teacher_activation: Annotated[
        str | None,
        typer.Option(
            "--teacher-activation",
            metavar="NAME",
            help="Activation function of --teacher, where its file does not contain it: elu, relu, tanh, ...",
        ),
    ] = None,
    teacher_normalizer: Annotated[
        Path | None,
        typer.Option(
            "--teacher-normalizer",
            metavar="FILE",
            help="VecNormalize of stable-baselines3 (.pkl) that --teacher was trained with; nothing in it is executed.",
        ),
    ] = None,
    config: options.PaperConfig = None,
    seed: options.Seed = None,
    device: options.Device = None,
    largest_batch: options.LargestBatch = False,
    resume: options.Resume = False,
    overwrite: options.Overwrite = False,
) -> None:
    """Distil one policy from many teachers, then fine-tune it through the simulator's gradient.

    First the teachers act (behaviour cloning), then the student does, and the teacher of each vehicle labels the states
    (DAgger). At last the student is fine-tuned through the simulator, with a falling weight on the teachers' actions.
    Ctrl-C writes a checkpoint and stops; --resume goes on, also after a kill, to the same result.

    ```
    raptor post-train --teachers teachers --output student
    raptor post-train --teachers teachers --output student fine_tune.num_updates=0    # imitation only
    raptor post-train --teachers teachers --output student num_epochs=0               # gradient only
    raptor post-train --teachers teachers --output student student.hidden_dim=32 num_epochs=100
    raptor post-train --teachers teachers --output student --config paper             # as published
    raptor post-train --teacher model_1499.pt --quadrotor crazyflie --output student   # of rsl_rl, and others
    raptor post-train --output student --resume                                       # after Ctrl-C or a kill
    torchrun --nproc-per-node=4 -m raptor post-train --teachers teachers --output student device=cuda    # four GPUs
    raptor evaluate student                                                           # see how good it is
    ```

    All settings are in docs/reference/configuration.md; those of a run in its run.yaml.
    """
    from rich.console import Console

    from raptor.cli.progress import duration, training_progress
    from raptor.training.distillation import job as post_training
    from raptor.training.distillation.teacher_sources import teacher_files

    resolved = post_training.load_post_train_config(output, config, overrides(settings, seed, device), resume)
    how = f"go on with: raptor post-train --output {output} --resume"
    console, settled = Console(stderr=True), output / MANIFEST
    before = _written(settled)
    try:
        with training_progress(console) as progress:
            summary = post_training.post_train(
                output,
                [
                    *(teachers or ()),
                    *teacher_files(teacher or (), quadrotor or (), teacher_activation, teacher_normalizer),
                ]
                or None,
                resolved,
                resume,
                overwrite,
                progress,
                announce=lambda words: console.print(words, highlight=False, soft_wrap=True),
                largest=largest_batch,
            )
    except KeyboardInterrupt:
        begun = settled.exists() and (resume or _written(settled) != before)
        typer.echo(f"interrupted; {how}" if begun else "interrupted before anything was written", err=True)
        raise typer.Exit(INTERRUPTED) from None
    if not summary.finished:
        typer.echo(f"stopped after epoch {summary.num_steps}, with a checkpoint; {how}", err=True)
        raise typer.Exit(INTERRUPTED)
    typer.echo(
        f"trained {summary.num_steps} epochs in {duration(summary.wall_clock_s)}: {summary.output}; the "
        f"{summary.num_teachers} teachers return {summary.teacher_return:.1f}"
    )
    for what, found in (("best imitation", summary.imitated), ("best", summary.best)):
        if found and not (what == "best" and found == summary.imitated):
            typer.echo(
                f"{what} by {summary.best_by}: return {found['mean_return']:.1f}, "
                f"{found['termination_rate']:.1%} terminated, at epoch {found['epoch']:.0f}"
            )
    typer.echo(f"next: raptor evaluate {summary.output}")


def _written(file: Path) -> int | None:
    """When a file was written; None where it is not there."""
    return file.stat().st_mtime_ns if file.exists() else None
