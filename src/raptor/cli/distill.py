"""`raptor distill` and `raptor distill-isaac`."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import functools
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raptor.cli import options
from raptor.cli.jobs import say, say_result, watched
from raptor.cli.options import argument, option
from raptor.cli.setting_flags import given_flags
from raptor.core.errors import UserError

if TYPE_CHECKING:
    from raptor.environments.vec_env import VecEnv
    from raptor.training.distillation.config import EnvDistillConfig

Output = Annotated[
    Path | None, option("--output -o", "DIR", "Folder of the run; logs/distillation/EXPERIMENT/DATE_TIME by default.")
]
Overrides = Annotated[
    list[str] | None,
    argument("KEY=VALUE", "agent.KEY: settings of the training; other keys, also after env.: of the environment."),
]


def distill(
    context: typer.Context,
    overrides: Overrides = None,
    env: Annotated[str | None, option("--env", "ID", "Gymnasium's name of the environment.")] = None,
    teacher: Annotated[Path | None, option("--teacher", "FILE", "Checkpoint of the teacher.")] = None,
    teacher_normalizer: options.TeacherNormalizer = None,
    output: Output = None,
    resume: options.Resume = False,
    overwrite: options.Overwrite = False,
) -> None:
    """Distil a teacher into a recurrent student in any Gymnasium environment.

    The teacher is a file of rsl_rl, stable-baselines3, rl-tools or this package. Ctrl-C writes a checkpoint and stops;
    --resume goes on.

    ```
    raptor distill --env InvertedPendulum-v5 --teacher ppo.zip
    raptor distill --env HalfCheetah-v5 --teacher sac.zip --num-envs 8 --num-epochs 100 agent.student.hidden_dim=64
    raptor distill --env Ant-v5 --teacher sac.zip env.ctrl_cost_weight=0.1       # a keyword argument of Ant-v5
    raptor distill --env Ant-v5 --teacher sac.zip agent.student=mlp              # a student without memory
    raptor distill --output logs/distillation/Ant-v5/2026-01-31_12-00-00 --resume
    ```

    All settings are in docs/reference/configuration.md; those of a run in its run.yaml.
    """
    from raptor.interop.from_gymnasium import make_gymnasium

    files = {"teacher_checkpoint": teacher, "teacher_normalizer": teacher_normalizer}
    config = settle(overrides or [], env, files, given_flags(context), output, resume)
    expert = _read_teacher(config)
    assert config.task is not None
    made = make_gymnasium(config.task, config.num_envs, values_of(config.task_settings), config.device, config.video)
    with contextlib.closing(made):
        _carry_out(context, made, expert, config, output, resume, overwrite)


def distill_isaac(
    context: typer.Context,
    overrides: Overrides = None,
    task: Annotated[str | None, option("--task", "ID", "Name of the Isaac Lab task.")] = None,
    teacher_checkpoint: Annotated[
        Path | None, option("--teacher-checkpoint", "FILE", "Checkpoint of the teacher.")
    ] = None,
    teacher_normalizer: options.TeacherNormalizer = None,
    output: Output = None,
    resume: options.Resume = False,
    overwrite: options.Overwrite = False,
    headless: Annotated[bool, option("--headless/--no-headless", None, "Without a window.", True)] = True,
) -> None:
    """Distil a teacher into a recurrent student in an Isaac Lab task: manager-based, direct or multi-agent.

    Run it with the Python of Isaac Lab. Flags may be spelled with underscores, as there. Options that are not listed
    here are those of Isaac Lab's AppLauncher; KEY=VALUE settings go to the task's configuration, as with Hydra.

    ```
    raptor distill-isaac --task Isaac-Quadcopter-Direct-v0 --teacher_checkpoint logs/rsl_rl/quadcopter/model_999.pt
    raptor distill-isaac --task Isaac-Ant-v0 --teacher_checkpoint ant.pt --num_envs 2048 --num_epochs 100 --video
    raptor distill-isaac --task Isaac-Ant-v0 --teacher_checkpoint ant.pt scene.num_envs=2048 agent.student.hidden_dim=64
    raptor distill-isaac --output logs/distillation/Isaac-Ant-v0/2026-01-31_12-00-00 --resume
    ```

    All settings are in docs/reference/configuration.md; those of a run in its run.yaml.
    """
    from raptor.interop.isaac_lab import IsaacTask, check_installed, isaac_env, launcher_arguments

    check_installed()
    arguments, words = launcher_arguments(overrides or [])
    files = {"teacher_checkpoint": teacher_checkpoint, "teacher_normalizer": teacher_normalizer}
    config = settle(words, task, files, given_flags(context), output, resume, device="cuda:0")
    expert = _read_teacher(config)
    assert config.task is not None
    settings = values_of(config.task_settings)
    wanted = IsaacTask(config.task, config.num_envs, config.seed, config.device, settings, config.video)
    with isaac_env(wanted, arguments, headless) as env:
        _carry_out(context, env, expert, config, output, resume, overwrite)


def settle(
    words: Sequence[str],
    task: str | None,
    files: Mapping[str, Path | None],
    flags: Sequence[str],
    output: Path | None,
    resume: bool,
    device: str = "cpu",
) -> EnvDistillConfig:
    """The settings of a command line: words, environment, files of the teacher and flags, over those of a run."""
    from raptor.config import load_config
    from raptor.runs.folder import job_of
    from raptor.training.distillation.env_job import EnvDistillConfig, load_env_distill_config

    training, environment, others = split_overrides(words)
    if others and others[0].startswith("-"):
        option = others[0].partition("=")[0]
        names = [field.name for field in dataclasses.fields(EnvDistillConfig)]
        near = difflib.get_close_matches(option.lstrip("-").replace("-", "_"), names, 1, 0.7)
        hint = f"did you mean --{near[0].replace('_', '-')}?" if near else "see --help"
        raise UserError(f"there is no option {option}: {hint}")
    if others and resume:
        raise UserError(f"--resume is a switch: give the folder as --output {others[0]} --resume")
    if others:
        raise UserError(f"settings are given as key=value, got {others[0]!r}: see --help for the flags")
    if resume and output is None:
        raise UserError("--resume goes on with the run in --output DIR: give its folder, in logs/distillation")
    named = {"task": task} | {name: file and str(file.expanduser().resolve()) for name, file in files.items()}
    given = [*training, *flags, *(f"{name}={json.dumps(value)}" for name, value in named.items() if value)]
    if environment:
        given.append(f"task_settings={json.dumps(environment)}")
    if resume and output is not None and job_of(output) is not None:
        config = load_env_distill_config(output, None, given)
    else:
        config = load_config(EnvDistillConfig, None, [f"device={device}", *given])
    for what, value in (("environment", config.task), ("teacher", config.teacher_checkpoint)):
        if value is None:
            nothing = f"there is no run in {output}, and " if resume else ""
            raise UserError(f"{nothing}the {what} is not named: see --help")
    return config


def split_overrides(words: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    """Sort what stands on a command line beside the flags: training, environment, and neither."""
    from raptor.training.distillation.config import EnvDistillConfig

    own = {*(field.name for field in dataclasses.fields(EnvDistillConfig)), *EnvDistillConfig.RENAMED}
    training, environment, others = [], [], []
    for given in words:
        word = given.lstrip("+")  # with which Hydra adds a setting or overrides it
        key, equals, _ = word.partition("=")
        first = key.split(".")[0]
        if not equals or not re.fullmatch(r"\w[\w.-]*", key):
            others.append(given)
        elif first == "agent" or first in own:
            training.append(word.removeprefix("agent."))
        else:
            environment.append(word.removeprefix("env."))
    return training, environment, others


def values_of(settings: Sequence[str]) -> dict[str, Any]:
    """The values of `key=value`s, read as YAML, by their dotted keys."""
    from raptor.config import parse_overrides

    values = {}
    for setting, source in zip(settings, parse_overrides(settings), strict=True):
        key = setting.partition("=")[0].strip()
        values[key] = functools.reduce(lambda group, name: group[name], key.split("."), source.settings)
    return values


def _read_teacher(config: EnvDistillConfig) -> Any:
    """Load the teacher, and print what it is."""
    from raptor.formats import load_expert

    assert config.teacher_checkpoint is not None
    expert = load_expert(config.teacher_checkpoint, config.teacher_activation, config.teacher_normalizer)
    say(expert.description)
    return expert


def _carry_out(
    context: typer.Context,
    env: VecEnv,
    expert: Any,
    config: EnvDistillConfig,
    output: Path | None,
    resume: bool,
    overwrite: bool,
) -> None:
    from raptor.training.distillation import env_job

    folder = output or env_job.log_folder(config)
    again = f"{context.command_path} --output {folder} --resume"
    with watched(folder, resume, again) as (progress, announce):
        summary = env_job.distill(env, expert, config, folder, resume, overwrite, progress, announce)
    say_result(summary, again, f"; the teacher returns {summary.teacher['mean_return']:.1f}")
    say(f"next: raptor card {summary.output}")
