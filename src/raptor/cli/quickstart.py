"""`raptor quickstart`."""

from __future__ import annotations

from pathlib import Path

from raptor.cli import options
from raptor.cli.evaluate import PUBLISHED, evaluate_columns, load_columns
from raptor.cli.jobs import going_on_with, say, say_result, watched


def quickstart(
    output: options.Output,
    settings: options.Settings = None,
    config: options.Config = None,
    seed: options.Seed = None,
    device: options.Device = None,
    resume: options.Resume = False,
    overwrite: options.Overwrite = False,
    suite: options.Suites = None,
    num_quadrotors: options.NumQuadrotors = 1024,
) -> None:
    """Train a policy, compare it with the published one, export it, and write report.html: about five minutes.

    ```
    raptor quickstart -o runs/demo
    raptor quickstart -o runs/look num_updates=200    # a quick look
    raptor quickstart -o runs/demo --resume           # after Ctrl-C or a kill
    ```

    Each step is a command of its own, too: train-direct, evaluate, export.
    """
    import torch
    from rich.console import Console

    from raptor.cli.progress import counting
    from raptor.config import to_dict
    from raptor.evaluation import SUITES
    from raptor.evaluation.report import write_report
    from raptor.evaluation.suites import conditions
    from raptor.export import export_onnx
    from raptor.formats import load_policy
    from raptor.runs import read_curve
    from raptor.training.direct import job

    for name in suite or SUITES:
        conditions(name, num_quadrotors, 1, 0, torch.device("cpu"))  # a mistake shall not come out after the training
    again = f"raptor quickstart --output {output} --resume"
    resolved = job.load_run_config(output, config, options.overrides(settings, seed, device), resume)
    with watched(output, resume, again) as (show, _):
        summary = job.train_direct(output, resolved, resume=resume, overwrite=overwrite, progress=show)
    say_result(summary, again)
    trained, compile = job.load_run_config(output), None if resolved.compile else False
    with going_on_with(again):
        columns = load_columns([PUBLISHED, str(output)], trained.device)
        say("evaluating it beside the published policy")
        evaluation = evaluate_columns(columns, suite, num_quadrotors, 1, 0, trained.device, compile)
        evaluation.save(output / "evaluation.json")
        error = export_onnx(load_policy(output), output / "policy.onnx")
        say(f"exported it: the ONNX file differs from the policy by at most {error:.1e} over 500 recurrent steps")
        say("writing the report, with flights of both policies")
        with counting(Console(stderr=True)) as progress:
            write_report(
                output / "report.html",
                title=f"A policy for any quadrotor: {output.name}",
                settings=to_dict(trained),
                curve=read_curve(output),
                evaluation=evaluation,
                policies=columns,
                seed=trained.seed,
                progress=progress,
                compile=compile,
            )
    _say_what_next(output)


def _say_what_next(output: Path) -> None:
    files = {
        "report": output / "report.html",
        "policy": output / "checkpoints" / "best.pt",
        "ONNX": output / "policy.onnx",
        "evaluation": output / "evaluation.json",
    }
    commands = {
        f"raptor card {output}": "what this policy is",
        f"raptor evaluate default large {output}": "beside the policies that come with the package",
        "raptor train-direct -o runs/longer num_updates=10000": "a better one, given more time",
        "raptor describe my_quadrotor.yaml": "your own quadrotor, from what you know of it",
        f"tensorboard --logdir {output}": "how the training went",
    }
    width = max(map(len, commands))
    say("")
    for name, path in files.items():
        say(f"{name:<12}{path}")
    say("\nwhat to try next:")
    for command, why in commands.items():
        say(f"  {command:<{width}}  # {why}")
