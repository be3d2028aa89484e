"""`raptor post-train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from raptor.cli import options
from raptor.cli.jobs import say, say_result, watched
from raptor.cli.options import option, overrides


def post_train(
    output: options.Output,
    settings: options.Settings = None,
    teachers: Annotated[
        list[Path] | None, option("--teachers -t", "DIR", "Folder of teachers; may be given several times.")
    ] = None,
    teacher: Annotated[
        list[str] | None,
        option("--teacher", "FILE", "Checkpoint of a teacher of rsl_rl, stable-baselines3, ...; several times."),
    ] = None,
    quadrotor: Annotated[
        list[str] | None,
        option("--quadrotor", "NAME|FILE", "Vehicle it was trained on: a platform or a JSON file; once or for each."),
    ] = None,
    teacher_activation: Annotated[
        str | None,
        option(
            "--teacher-activation",
            "NAME",
            "Its activation function, where its file lacks it: elu, relu, tanh, ...",
        ),
    ] = None,
    teacher_normalizer: options.TeacherNormalizer = None,
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
    from raptor.training.distillation import job
    from raptor.training.distillation.teachers import teacher_files

    given = overrides(settings, seed, device)
    again = f"raptor post-train --output {output} --resume"
    resolved = job.load_post_train_config(output, config, given, resume)
    files = teacher_files(teacher or (), quadrotor or (), teacher_activation, teacher_normalizer)
    with watched(output, resume, again) as (progress, announce):
        summary = job.post_train(
            output,
            [*(teachers or ()), *files] or None,
            resolved,
            resume,
            overwrite,
            progress,
            announce=announce,
            largest=largest_batch,
        )
    the = "the teacher returns" if summary.num_teachers == 1 else f"the {summary.num_teachers} teachers return"
    say_result(summary, again, f"; {the} {summary.teacher_return:.1f}", summary.imitated)
    say(f"next: raptor evaluate {summary.output}")
