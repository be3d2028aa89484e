"""What `raptor distill` and `raptor distill-isaac` share: flags spelt as in Isaac Lab, and the work itself."""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from raptor.cli.train import INTERRUPTED

if TYPE_CHECKING:
    from raptor.environments.vec_env import VecEnv
    from raptor.training.distillation.env_job import EnvDistillConfig


class FlagCommand(TyperCommand):
    """A command whose flags may be spelt with hyphens too, and whose switches may be followed by true or false."""

    def parse_args(self, context: Any, args: list[str]) -> list[str]:
        """Spell the arguments as the options are declared, then parse them."""
        declared = {name for option in self.params for name in (*option.opts, *option.secondary_opts)}
        switches = {name for option in self.params if getattr(option, "is_flag", False) for name in option.opts}
        return super().parse_args(context, list(_spelt(args, declared, switches)))


def _spelt(args: Sequence[str], declared: set[str], switches: set[str]) -> list[str]:
    spelt: list[str] = []
    rest = list(args)
    while rest:
        name, equals, value = rest.pop(0).partition("=")
        if name.startswith("--") and name not in declared and name.replace("-", "_").replace("__", "--", 1) in declared:
            name = name.replace("-", "_").replace("__", "--", 1)
        if name in switches and not equals and rest and rest[0].lower() in ("true", "false"):
            equals, value = "=", rest.pop(0)
        if name in switches and equals and value.lower() in ("true", "false"):
            spelt.append(name if value.lower() == "true" else f"--no-{name[2:]}")
        else:
            spelt.append(f"{name}{equals}{value}")
    return spelt


NumEnvs = Annotated[
    int | None, typer.Option("--num_envs", metavar="N", help="Parallel environments.", show_default=False)
]
Seed = Annotated[
    int | None,
    typer.Option("--seed", metavar="SEED", help="Of everything random, the environment included.", show_default=False),
]
Device = Annotated[
    str | None, typer.Option("--device", metavar="DEVICE", help="cpu, cuda, cuda:1.", show_default=False)
]
Video = Annotated[
    bool | None, typer.Option("--video/--no-video", help="Record videos of the first environment.", show_default=False)
]
VideoLength = Annotated[
    int | None, typer.Option("--video_length", metavar="STEPS", help="Steps of a video.", show_default=False)
]
VideoInterval = Annotated[
    int | None,
    typer.Option("--video_interval", metavar="STEPS", help="Steps from one video to the next.", show_default=False),
]
ExperimentName = Annotated[
    str | None,
    typer.Option("--experiment_name", metavar="NAME", help="Folder in logs/distillation.", show_default=False),
]
RunName = Annotated[
    str | None,
    typer.Option("--run_name", metavar="NAME", help="End of the name of the run's folder.", show_default=False),
]
NumEpochs = Annotated[
    int | None,
    typer.Option(
        "--num_epochs",
        "--n_epochs",
        metavar="N",
        help="Collection in all environments, then training.",
        show_default=False,
    ),
]
NumEpisodes = Annotated[
    int | None, typer.Option("--num_episodes", metavar="N", help="Episodes of an epoch.", show_default=False)
]
BatchSize = Annotated[
    int | None, typer.Option("--batch_size", metavar="N", help="Sequences of a batch.", show_default=False)
]
SequenceLength = Annotated[
    int | None, typer.Option("--sequence_length", metavar="STEPS", help="Steps of a sequence.", show_default=False)
]
LearningRate = Annotated[
    float | None, typer.Option("--learning_rate", metavar="RATE", help="Of Adam, at its highest.", show_default=False)
]
TeacherForcing = Annotated[
    int | None,
    typer.Option(
        "--epoch_teacher_forcing",
        metavar="N",
        help="Epochs at the beginning in which the teacher acts.",
        show_default=False,
    ),
]
Shuffle = Annotated[
    bool | None,
    typer.Option("--shuffle/--no-shuffle", help="Pack episodes into sequences in random order.", show_default=False),
]
OnPolicy = Annotated[
    bool | None,
    typer.Option("--on_policy/--no-on_policy", help="Train on the data of the epoch only.", show_default=False),
]
TeacherActivation = Annotated[
    str | None,
    typer.Option(
        "--teacher_activation",
        metavar="NAME",
        help="Activation function of the teacher, where its file does not contain it: elu, relu, tanh, ...",
        show_default=False,
    ),
]
TeacherNormalizer = Annotated[
    Path | None,
    typer.Option(
        "--teacher_normalizer",
        metavar="FILE",
        help="VecNormalize of stable-baselines3 (.pkl) that the teacher was trained with; nothing in it is executed.",
        show_default=False,
    ),
]
Deterministic = Annotated[
    bool | None,
    typer.Option(
        "--teacher_deterministic/--no-teacher_deterministic",
        help="The teacher acts without its exploration noise.",
        show_default=False,
    ),
]
Resume = Annotated[
    Path | None,
    typer.Option("--resume", metavar="DIR", help="Go on with the run in this folder.", show_default=False),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE",
        help="agent.KEY: further settings of the training, agent.student.hidden_dim=32; any other key, with or without "
        "env. before it: of the environment.",
        show_default=False,
    ),
]


def split_overrides(words: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    """Sort what stands on a command line beside the flags.

    Returns:
        Settings of the training; settings of the environment; and what is neither.
    """
    from raptor.training.distillation.env_job import EnvDistillConfig

    own = {*(field.name for field in dataclasses.fields(EnvDistillConfig)), *EnvDistillConfig.RENAMED}
    training, environment, others = [], [], []
    for given in words:
        word = given.lstrip("+")  # with which Hydra adds a setting or overrides it
        key, equals, _ = word.partition("=")
        first = key.split(".")[0]
        if not equals or not re.fullmatch(r"\w[\w.-]*", key):
            others.append(given)
        elif first == "agent":
            training.append(word.removeprefix("agent."))
        elif first in own:
            training.append(word)
        else:
            environment.append(word.removeprefix("env."))
    return training, environment, others


def values_of(settings: Sequence[str]) -> dict[str, Any]:
    """The values of `key=value`s, read as YAML, by their dotted keys."""
    from raptor.config import parse_overrides

    values = {}
    for setting, source in zip(settings, parse_overrides(settings), strict=True):
        key = setting.partition("=")[0].strip()
        value: Any = source.settings
        for name in key.split("."):
            value = value[name]
        values[key] = value
    return values


def settle(
    given: Mapping[str, Any],
    task: str | None,
    teacher: Path | None,
    words: Sequence[str],
    resume: Path | None,
    device: str = "cpu",
) -> EnvDistillConfig:
    """The settings of a command line, over those of the run that is resumed.

    Args:
        given: values of flags by the name of the setting; None where they were not given.
        task: name of the environment.
        teacher: file of the teacher.
        words: `KEY=VALUE`s.
        resume: folder of the run to be resumed.
        device: by default.

    Raises:
        UserError: a setting is unknown or impossible, or the environment or the teacher is not named.
    """
    from raptor.config import load_config
    from raptor.core.errors import UserError
    from raptor.training.distillation.env_job import EnvDistillConfig, load_env_distill_config

    training, environment, others = split_overrides(words)
    if others and others[0].startswith("-"):
        raise UserError(f"there is no option {others[0].partition('=')[0]}: {_near(others[0], given)}")
    if others:
        raise UserError(f"settings are given as key=value, got {others[0]!r}: see --help for the flags")
    names = {field.name for field in dataclasses.fields(EnvDistillConfig)} - {
        "task",
        "teacher_checkpoint",
        "teacher_normalizer",
    }
    flags = [f"{name}={json.dumps(value)}" for name, value in given.items() if name in names and value is not None]
    files = {"teacher_checkpoint": teacher, "teacher_normalizer": given.get("teacher_normalizer")}
    named = {"task": task} | {name: None if file is None else str(file.resolve()) for name, file in files.items()}
    flags += [f"{name}={json.dumps(value)}" for name, value in named.items() if value is not None]
    if environment:
        flags.append(f"task_settings={json.dumps(environment)}")
    if resume is None:
        config = load_config(EnvDistillConfig, None, [f"device={device}", *training, *flags])
    else:
        if not (resume / "params" / "agent.yaml").exists():
            raise UserError(f"there is no run in {resume}: give the folder of one, in logs/distillation")
        config = load_env_distill_config(resume, None, [*training, *flags])
    for option, value in (("the environment", config.task), ("the teacher", config.teacher_checkpoint)):
        if value is None:
            raise UserError(f"{option} is not named: see --help")
    return config


def _near(word: str, given: Mapping[str, Any]) -> str:
    """Which option may have been meant."""
    near = difflib.get_close_matches(word.partition("=")[0].lstrip("-").replace("-", "_"), given, n=1)
    return f"did you mean --{near[0]}?" if near else "see --help"


def distil(
    env: VecEnv,
    expert: Any,
    config: EnvDistillConfig,
    output: Path | None,
    resume: Path | None,
    overwrite: bool = False,
) -> None:
    """Distil with live progress on stderr; leaves the command where someone asked to stop."""
    from rich.console import Console

    from raptor.cli.progress import duration, training_progress
    from raptor.training.distillation import env_job as env_distillation

    folder = resume or output or env_distillation.log_folder(config)
    console, how = Console(stderr=True), f"go on with --resume {folder}"
    try:
        with training_progress(console) as progress:
            summary = env_distillation.distill(
                env, expert, config, folder, resume is not None, overwrite, progress, _teller(console)
            )
    except KeyboardInterrupt:
        typer.echo(f"interrupted; {how}", err=True)
        raise typer.Exit(INTERRUPTED) from None
    if not summary.finished:
        typer.echo(f"stopped after epoch {summary.num_steps}, with a checkpoint; {how}", err=True)
        raise typer.Exit(INTERRUPTED)
    best, teacher = summary.best["mean_return"], summary.teacher["mean_return"]
    typer.echo(f"trained {summary.num_steps} epochs in {duration(summary.wall_clock_s)}: {summary.output}")
    typer.echo(f"the best student returns {best:.1f}, at epoch {summary.best['epoch']:.0f}; the teacher {teacher:.1f}")


def read_teacher(config: EnvDistillConfig) -> Any:
    """Load the teacher, and print what it is."""
    from raptor.formats import load_expert

    assert config.teacher_checkpoint is not None
    expert = load_expert(config.teacher_checkpoint, config.teacher_activation, config.teacher_normalizer)
    typer.echo(expert.description)
    return expert


def _teller(console: Any) -> Callable[[str], None]:
    return lambda words: console.print(words, highlight=False, soft_wrap=True)
