"""`raptor pre-train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from raptor.cli import options
from raptor.cli.options import overrides
from raptor.cli.train import INTERRUPTED


def pre_train(
    output: options.Output,
    settings: options.Settings = None,
    quadrotors: Annotated[
        Path | None,
        typer.Option("--quadrotors", "-q", metavar="DIR", help="Folder of JSON files, one teacher for each."),
    ] = None,
    generate: Annotated[
        int | None, typer.Option("--generate", "-g", min=1, metavar="N", help="Draw N quadrotors instead.")
    ] = None,
    num_teachers: Annotated[
        int | None, typer.Option("--num-teachers", min=1, metavar="N", help="Only for the first N.")
    ] = None,
    algorithm: Annotated[
        str | None, typer.Option("--algorithm", "-a", metavar="NAME", help="Same as algorithm=NAME: apg or sac.")
    ] = None,
    config: options.PaperConfig = None,
    seed: options.Seed = None,
    device: options.Device = None,
    resume: options.Resume = False,
    overwrite: options.Overwrite = False,
) -> None:
    """Train one teacher for each quadrotor of a population.

    The population is cut into shards, each of which is trained as one program: through the simulator's gradient (apg),
    or by soft actor-critic (sac). Teachers that are not solved, or weak, are trained again, longer; which remain is
    said. Ctrl-C writes checkpoints and stops; --resume goes on, also after a kill, to the result that the run would
    have had without.

    ```
    raptor sample --num 1000 --output quadrotors
    raptor pre-train --quadrotors quadrotors --output teachers engine=processes
    raptor pre-train --generate 16 --output teachers apg.num_updates=300
    raptor pre-train --generate 4 --output sac --config paper        # as published
    raptor pre-train --quadrotors quadrotors --output teachers --device cuda
    raptor pre-train --quadrotors quadrotors --output teachers engine=ray engine.address=auto
    raptor pre-train --output teachers --resume                      # after Ctrl-C or a kill
    ```

    In Python: `raptor.load_teachers("teachers")`. All settings are in docs/reference/configuration.md.
    """
    from rich.console import Console

    from raptor.cli.progress import duration, pre_training_progress, quantity
    from raptor.training.teachers import job as pre_training

    given = [*overrides(settings, seed, device), *([] if algorithm is None else [f"algorithm={algorithm}"])]
    resolved = pre_training.load_pre_train_config(output, config, given, resume)
    how = f"go on with: raptor pre-train --output {output} --resume"
    console = Console(stderr=True)
    try:
        with pre_training_progress(console, resolved.compile) as progress:
            summary = pre_training.pre_train(
                output,
                quadrotors,
                resolved,
                generate,
                num_teachers,
                resume,
                overwrite,
                progress,
                announce=lambda plan: console.print(plan, highlight=False, soft_wrap=True),
            )
    except KeyboardInterrupt:
        typer.echo(f"interrupted; {how}", err=True)
        raise typer.Exit(INTERRUPTED) from None
    if not summary.finished:
        typer.echo(f"stopped, with checkpoints; {how}", err=True)
        raise typer.Exit(INTERRUPTED)
    typer.echo(
        f"{summary.num_solved} of {summary.num_teachers} teachers solved: mean return {summary.mean_return:.1f}, "
        f"worst {summary.worst_return:.1f}, {summary.share_terminated:.2%} terminated; "
        f"{quantity(summary.env_steps)} env-steps in {duration(summary.wall_clock_s)}: {summary.output}"
    )
    if summary.skipped:
        typer.echo(f"{summary.skipped} updates of single teachers were not finite and came to nothing")
    if summary.unsolved:
        typer.echo(f"not solved: {', '.join(summary.unsolved)}")
    typer.echo(f"look at {summary.output / 'teachers.png'} and {summary.output / 'curves.png'}")
