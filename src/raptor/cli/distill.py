"""`raptor distill`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from raptor.cli import distill_options as flags
from raptor.cli import options
from raptor.core.errors import UserError


def distill(
    context: typer.Context,
    env: Annotated[
        str | None,
        typer.Option("--env", metavar="ID", help="Gymnasium's name of the environment.", show_default=False),
    ] = None,
    teacher: Annotated[
        Path | None,
        typer.Option("--teacher", metavar="FILE", help="Checkpoint of the teacher.", show_default=False),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            help="Folder of the run; logs/distillation/EXPERIMENT/DATE_TIME by default.",
            show_default=False,
        ),
    ] = None,
    resume: flags.Resume = None,
    overwrite: options.Overwrite = False,
    num_envs: flags.NumEnvs = None,
    seed: flags.Seed = None,
    device: flags.Device = None,
    video: flags.Video = None,
    video_length: flags.VideoLength = None,
    video_interval: flags.VideoInterval = None,
    experiment_name: flags.ExperimentName = None,
    run_name: flags.RunName = None,
    num_epochs: flags.NumEpochs = None,
    num_episodes: flags.NumEpisodes = None,
    batch_size: flags.BatchSize = None,
    sequence_length: flags.SequenceLength = None,
    learning_rate: flags.LearningRate = None,
    epoch_teacher_forcing: flags.TeacherForcing = None,
    shuffle: flags.Shuffle = None,
    on_policy: flags.OnPolicy = None,
    teacher_activation: flags.TeacherActivation = None,
    teacher_normalizer: flags.TeacherNormalizer = None,
    teacher_deterministic: flags.Deterministic = None,
    overrides: flags.Overrides = None,
) -> None:
    """Distil a teacher into a recurrent student in any Gymnasium environment.

    The teacher is a file of rsl_rl, stable-baselines3, rl-tools or this package. Ctrl-C writes a checkpoint and stops;
    --resume goes on.

    ```
    raptor distill --env InvertedPendulum-v5 --teacher ppo.zip
    raptor distill --env HalfCheetah-v5 --teacher sac.zip --num-envs 8 --num-epochs 100 agent.student.hidden_dim=64
    raptor distill --env Ant-v5 --teacher sac.zip env.ctrl_cost_weight=0.1       # a keyword argument of Ant-v5
    raptor distill --env Ant-v5 --teacher sac.zip agent.student=mlp              # a student without memory
    raptor distill --resume logs/distillation/Ant-v5/2026-01-31_12-00-00
    ```

    All settings are in docs/reference/configuration.md; those of a run in its run.yaml.
    """
    from raptor.interop.from_gymnasium import make_gymnasium

    if resume is not None and (output is not None or overwrite):
        raise UserError("--resume goes on in the folder that it names: leave out --output and --overwrite")
    config = flags.settle(context.params, env, teacher, overrides or [], resume)
    expert = flags.read_teacher(config)
    assert config.task is not None
    settings = flags.values_of(config.task_settings)
    made = make_gymnasium(config.task, config.num_envs, settings, config.device, config.video)
    try:
        flags.distil(made, expert, config, output, resume, overwrite)
    finally:
        made.close()
