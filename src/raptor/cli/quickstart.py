"""`raptor quickstart`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from raptor.cli import options
from raptor.cli.evaluate import PUBLISHED, load_columns
from raptor.cli.options import overrides
from raptor.cli.train import run_training

if TYPE_CHECKING:
    from raptor.evaluation import Evaluation, Policy


def quickstart(
    output: options.Output,
    settings: options.Settings = None,
    config: options.Config = None,
    seed: options.Seed = None,
    device: options.Device = None,
    resume: options.Resume = False,
    overwrite: options.Overwrite = False,
    num_quadrotors: Annotated[
        int, typer.Option("--num-quadrotors", min=1, metavar="N", help="Vehicles drawn for each suite.")
    ] = 1024,
) -> None:
    """Train a policy, hold it against the published one, export it, and write report.html: about five minutes.

    ```
    raptor quickstart -o runs/demo
    raptor quickstart -o runs/look num_updates=200    # a quick look
    raptor quickstart -o runs/demo --resume           # after Ctrl-C or a kill
    ```

    Each step is a command of its own, too: train-direct, evaluate, export.
    """
    typer.echo("1 of 4: train a policy from nothing, through the gradient of the simulator")
    run_training(output, config, overrides(settings, seed, device), resume, overwrite, "quickstart")
    columns = load_columns([PUBLISHED, str(output)])  # TODO device
    typer.echo("2 of 4: fly it beside the published policy")
    evaluation = _evaluate(columns, output, num_quadrotors)
    typer.echo("3 of 4: export it")
    error = _export(output)
    typer.echo(f"differs from the policy by at most {error:.1e} over 500 recurrent steps")
    typer.echo("4 of 4: write the report")
    _report(columns, evaluation, output)
    typer.echo(_farewell(output))


def _evaluate(columns: dict[str, Policy], output: Path, num_quadrotors: int) -> Evaluation:
    from rich.console import Console

    from raptor.cli.progress import evaluation_progress, wide_console
    from raptor.evaluation import SUITES, evaluate
    from raptor.training import load_run_config

    config = load_run_config(output)
    with evaluation_progress(Console(stderr=True)) as progress:
        evaluation = evaluate(
            columns, SUITES, num_quadrotors, device=config.device, progress=progress, compile=config.compile
        )
    wide_console().print(evaluation.table())
    evaluation.save(output / "evaluation.json")
    return evaluation


def _export(output: Path) -> float:
    from raptor.export import export_onnx
    from raptor.nn import load_policy

    return export_onnx(load_policy(output), output / "policy.onnx")


def _report(columns: dict[str, Policy], evaluation: Evaluation, output: Path) -> None:
    from raptor.config import to_dict
    from raptor.evaluation.report import write_report
    from raptor.training import load_run_config, read_curve

    config = load_run_config(output)
    write_report(
        output / "report.html",
        title=f"A policy for any quadrotor: {output.name}",
        settings=to_dict(config),
        curve=read_curve(output),
        evaluation=evaluation,
        policies=columns,
        seed=config.seed,
    )


def _farewell(output: Path) -> str:
    return f"""
report       {output / "report.html"}
policy       {output / "checkpoints" / "best.pt"}
ONNX         {output / "policy.onnx"}
evaluation   {output / "evaluation.json"}

What to try next:
  raptor card {output}                                  what this policy is
  raptor evaluate default large {output}                beside the policies that come with the package
  raptor train-direct -o runs/longer num_updates=10000    a better one, given more time
  raptor describe my_quadrotor.yaml -o my_quadrotor.json  your own quadrotor, from what you know of it
  tensorboard --logdir {output.parent}                  how the training went"""
