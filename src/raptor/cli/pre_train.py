"""`raptor pre-train`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from raptor.cli import options
from raptor.cli.options import overrides
from raptor.cli.train import INTERRUPTED
from raptor.core.errors import UserError


def pre_train(
    output: options.Output,
    settings: options.Settings = None,
    quadrotors: Annotated[
        Path | None,
        typer.Option("--quadrotors", "-q", metavar="DIR", help="Folder of JSON files, one teacher for each."),
    ] = None,
    generate: Annotated[
        int | None, typer.Option("--generate", "-g", min=1, metavar="N", help="Sample N quadrotors instead.")
    ] = None,
    num_teachers: Annotated[
        int | None, typer.Option("--num-teachers", min=1, metavar="N", help="Train only for the first N.")
    ] = None,
    algorithm: Annotated[
        str | None, typer.Option("--algorithm", "-a", metavar="NAME", help="Same as algorithm=NAME: apg or sac.")
    ] = None,
    config: options.PaperConfig = None,
    seed: options.Seed = None,
    device: options.Device = None,
    shard: Annotated[
        str | None,
        typer.Option("--shard", metavar="I/N", help="Train only the I-th of N parts; --resume puts them together."),
    ] = None,
    resume: options.Resume = False,
    overwrite: options.Overwrite = False,
) -> None:
    """Train one teacher for each quadrotor of a population.

    The population is cut into shards, each of which is trained as one program: through the simulator's gradient (apg),
    or by soft actor-critic (sac). Teachers that are not solved, or weak, are trained again, longer. Ctrl-C writes
    checkpoints and stops; --resume goes on, also after a kill, to the same result.

    A job array needs no engine: each of N jobs gets the same command with --shard I/N and the same folder, and goes on
    where it was if it is started again. When all have ended, --resume puts the parts together, and trains again what is
    weak (or start the array once more for that), to the result that one job would have had.

    ```
    raptor sample --num 1000 --output quadrotors
    raptor pre-train --quadrotors quadrotors --output teachers engine=processes
    raptor pre-train --generate 16 --output teachers apg.num_updates=300
    raptor pre-train --generate 4 --output sac --config paper        # as published
    raptor pre-train --quadrotors quadrotors --output teachers --device cuda
    raptor pre-train --quadrotors quadrotors --output teachers engine=ray engine.address=auto
    raptor pre-train --output teachers --resume                      # after Ctrl-C or a kill
    raptor pre-train --quadrotors quadrotors --output teachers --shard $SLURM_ARRAY_TASK_ID/20
    raptor pre-train --output teachers --resume                      # after the array: puts its 20 parts together
    ```

    In Python: `raptor.load_teachers("teachers")`. All settings are in docs/reference/configuration.md.
    """
    from rich.console import Console

    from raptor.cli.progress import duration, pre_training_progress, quantity
    from raptor.training.teachers import job as pre_training

    part = None if shard is None else _part(shard)
    given = [*overrides(settings, seed, device), *([] if algorithm is None else [f"algorithm={algorithm}"])]
    resolved = pre_training.load_pre_train_config(output, config, given, resume or part is not None)
    how = f"go on with: raptor pre-train --output {output} {'--resume' if part is None else f'--shard {shard}'}"
    console = Console(stderr=True)
    try:
        with pre_training_progress(console, resolved.compile) as progress:
            summary = pre_training.pre_train(
                output,
                quadrotors,
                resolved,
                generate=generate,
                num_teachers=num_teachers,
                resume=resume,
                overwrite=overwrite,
                part=part,
                progress=progress,
                announce=lambda plan: console.print(plan, highlight=False, soft_wrap=True),
            )
    except KeyboardInterrupt:
        typer.echo(f"interrupted; {how}", err=True)
        raise typer.Exit(INTERRUPTED) from None
    if summary.stopped:
        typer.echo(f"stopped, with checkpoints; {how}", err=True)
        raise typer.Exit(INTERRUPTED)
    if part is not None:
        missing = f"; {summary.num_missing} shards of other parts are not trained yet" if summary.num_missing else ""
        typer.echo(f"part {shard} is trained{missing}")
        typer.echo(f"once all parts are: raptor pre-train --output {output} --resume")
        return
    typer.echo(
        f"{summary.num_solved} of {summary.num_teachers} teachers solved: mean return {summary.mean_return:.1f}, "
        f"worst {summary.worst_return:.1f}, {summary.termination_rate:.2%} terminated; "
        f"{quantity(summary.env_steps)} env-steps in {duration(summary.wall_clock_s)}: {summary.output}"
    )
    if summary.skipped:
        typer.echo(f"{summary.skipped} updates of single teachers were not finite and came to nothing")
    if summary.unsolved:
        typer.echo(f"not solved: {', '.join(summary.unsolved)}")
    typer.echo(f"look at {summary.output / 'teachers.png'} and {summary.output / 'curves.png'}")


def _part(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if match is None:
        raise UserError(f"--shard must be I/N, such as 3/20 for the third of twenty parts, got {text!r}")
    return int(match[1]), int(match[2])
