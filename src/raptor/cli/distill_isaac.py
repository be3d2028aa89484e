"""`raptor distill-isaac`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from raptor.cli import distill_options as flags


def distill_isaac(
    context: typer.Context,
    task: Annotated[
        str | None, typer.Option("--task", metavar="ID", help="Name of the Isaac Lab task.", show_default=False)
    ] = None,
    teacher_checkpoint: Annotated[
        Path | None,
        typer.Option("--teacher_checkpoint", metavar="FILE", help="Checkpoint of the teacher.", show_default=False),
    ] = None,
    resume: flags.Resume = None,
    headless: Annotated[bool, typer.Option("--headless/--no-headless", help="Without a window.")] = True,
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
    """Distil a teacher into a recurrent student in an Isaac Lab task: manager-based, direct or multi-agent.

    Run it with the Python of Isaac Lab. Options that are not listed here are those of Isaac Lab's AppLauncher;
    KEY=VALUE settings go to the task's configuration, as with Hydra.

    ```
    raptor distill-isaac --task Isaac-Quadcopter-Direct-v0 --teacher_checkpoint logs/rsl_rl/quadcopter/model_999.pt
    raptor distill-isaac --task Isaac-Ant-v0 --teacher_checkpoint ant.pt --num_envs 2048 --num_epochs 100 --video
    raptor distill-isaac --task Isaac-Ant-v0 --teacher_checkpoint ant.pt scene.num_envs=2048 agent.student.hidden_dim=64
    raptor distill-isaac --resume logs/distillation/Isaac-Ant-v0/2026-01-31_12-00-00
    ```

    All settings are in docs/reference/configuration.md; those of a run in its params/agent.yaml.
    """
    from raptor.interop.isaac_lab import IsaacTask, check_installed, isaac_env, launcher_arguments

    check_installed()
    arguments, words = launcher_arguments(overrides or [])
    config = flags.settle(context.params, task, teacher_checkpoint, words, resume, device="cuda:0")
    expert = flags.read_teacher(config)
    assert config.task is not None
    wanted = IsaacTask(
        config.task, config.num_envs, config.seed, config.device, flags.values_of(config.task_settings), config.video
    )
    with isaac_env(wanted, arguments, headless) as env:
        flags.distil(env, expert, config, None, resume)
