"""`raptor train-direct`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from raptor.cli import options
from raptor.cli.options import overrides

if TYPE_CHECKING:
    from raptor.training.direct.job import TrainDirectSummary

INTERRUPTED = 130


def train_direct(
    output: options.Output,
    settings: options.Settings = None,
    config: options.Config = None,
    seed: options.Seed = None,
    device: options.Device = None,
    largest_batch: options.LargestBatch = False,
    resume: options.Resume = False,
    overwrite: options.Overwrite = False,
) -> None:
    """Train a policy through the gradient of the simulator.

    The run is a folder: settings, log, TensorBoard scalars and checkpoints. Ctrl-C writes a checkpoint and stops;
    --resume goes on, also after a kill, to the same result.

    ```
    raptor train-direct -o runs/mine
    raptor train-direct -o runs/mine --resume       # after Ctrl-C or a kill
    raptor train-direct -o runs/short num_updates=500 batch_size=4096
    raptor train-direct -o runs/wide --config large --device cuda
    raptor train-direct -o runs/again --config runs/mine seed=1
    torchrun --nproc-per-node=4 -m raptor train-direct -o runs/four device=cuda    # four GPUs
    tensorboard --logdir runs                       # watch it
    raptor evaluate runs/mine                       # see how good it is
    ```

    All settings, with their meaning and defaults, are in docs/reference/configuration.md; those of a run in its
    run.yaml. Logs of a run are in its train.log and metrics.jsonl.
    """
    summary = run_training(
        output, config, overrides(settings, seed, device), resume, overwrite, "train-direct", largest_batch
    )
    typer.echo(f"next: raptor evaluate {summary.output}")


def run_training(
    output: options.Path,
    config: str | None,
    settings: list[str],
    resume: bool,
    overwrite: bool,
    command: str,
    largest_batch: bool = False,
) -> TrainDirectSummary:
    """Train with live progress on stderr; leaves the command where someone asked to stop."""
    from rich.console import Console

    from raptor.cli.progress import duration, quantity, training_progress
    from raptor.training.direct import job as jobs

    resolved = jobs.load_run_config(output, config, settings, resume)
    how = f"go on with: raptor {command} --output {output} --resume"
    try:
        with training_progress(Console(stderr=True)) as progress:
            summary = jobs.train_direct(
                output,
                resolved,
                resume=resume,
                overwrite=overwrite,
                progress=progress,
                largest=largest_batch,
            )
    except KeyboardInterrupt:
        typer.echo(f"interrupted; {how}", err=True)
        raise typer.Exit(INTERRUPTED) from None
    if not summary.finished:
        typer.echo(
            f"stopped after update {summary.num_steps} of {resolved.num_updates}, with a checkpoint; {how}", err=True
        )
        raise typer.Exit(INTERRUPTED)
    rate = summary.rate * summary.env_steps / max(summary.num_steps, 1)
    speed = f" ({summary.rate:.3g} updates/s, {quantity(rate)} env-steps/s)" if rate else ""
    typer.echo(f"trained {summary.num_steps} updates in {duration(summary.wall_clock_s)}{speed}: {summary.output}")
    if summary.best:
        typer.echo(
            f"best by validation: return {summary.best['mean_return']:.1f}, "
            f"{summary.best['termination_rate']:.1%} terminated, at update {summary.best['update']:.0f}"
        )
    return summary
