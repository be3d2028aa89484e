"""`raptor pre-train`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from raptor.cli import options
from raptor.cli.jobs import announcer, going_on_with, leave, say
from raptor.cli.options import option, overrides
from raptor.core.errors import UserError


def pre_train(
    output: options.Output,
    settings: options.Settings = None,
    quadrotors: Annotated[
        Path | None, option("--quadrotors -q", "DIR", "Folder of JSON files, one teacher for each.")
    ] = None,
    generate: Annotated[int | None, option("--generate -g", "N", "Sample N quadrotors instead.", min=1)] = None,
    num_teachers: Annotated[int | None, option("--num-teachers", "N", "Train only for the first N.", min=1)] = None,
    algorithm: Annotated[str | None, option("--algorithm -a", "NAME", "Same as algorithm=NAME: apg or sac.")] = None,
    config: options.PaperConfig = None,
    seed: options.Seed = None,
    device: options.Device = None,
    shard: Annotated[
        str | None, option("--shard", "I/N", "Train only the I-th of N parts; --resume puts them together.")
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

    from raptor.cli.progress import counted, duration, pre_training_progress, quantity
    from raptor.training.teachers import job as pre_training

    part = None if shard is None else _part(shard)
    given = [*overrides(settings, seed, device), *([] if algorithm is None else [f"algorithm={algorithm}"])]
    resolved = pre_training.load_pre_train_config(output, config, given, resume or part is not None)
    again = f"raptor pre-train --output {output} {'--resume' if part is None else f'--shard {shard}'}"
    console = Console(stderr=True)
    with going_on_with(again), pre_training_progress(console, resolved.compile) as progress:
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
            announce=announcer(console),
        )
    if summary.stopped:
        leave("stopped, with checkpoints", again)
    if part is not None:
        missing = counted(summary.num_missing, "shard")
        say(f"part {shard} is trained" + (f"; {missing} of other parts not yet" if summary.num_missing else ""))
        say(f"once all parts are: raptor pre-train --output {output} --resume")
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


def _part(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if match is None:
        raise UserError(f"--shard must be I/N, such as 3/20 for the third of twenty parts, got {text!r}")
    return int(match[1]), int(match[2])
