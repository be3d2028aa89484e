"""`raptor distill` and `raptor distill-isaac`, whose plain settings are flags, too."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import json
import re
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from raptor.cli import common
from raptor.cli.common import argument, option, say, takes_options
from raptor.core.errors import UserError

if TYPE_CHECKING:
    from raptor.environments.vec_env import VecEnv
    from raptor.nn.expert import ExpertNetwork
    from raptor.training.distillation.config import EnvDistillConfig


OURS = "raptor/"  # what names of the package's own environments begin with


@dataclasses.dataclass(frozen=True)
class Distillation:
    """What both commands take; see `takes_options`."""

    command: str
    context: typer.Context
    overrides: Annotated[
        list[str] | None,
        argument("KEY=VALUE", "agent.KEY: settings of the training; other keys, also after env.: of the environment."),
    ] = None
    teacher_normalizer: common.TeacherNormalizer = None
    output: Annotated[
        Path | None,
        option("--output -o DIR", "Folder of the run; logs/distillation/EXPERIMENT/DATE_TIME by default."),
    ] = None
    resume: common.Resume = False
    overwrite: common.Overwrite = False

    def settle(
        self, words: Sequence[str], task: str | None, teacher: Path | None, device: str = "cpu"
    ) -> tuple[EnvDistillConfig, dict[str, Any], ExpertNetwork]:
        """The settings of a command line over those of a run, those among them for the task, and the teacher."""
        from raptor.config import load_config
        from raptor.config.files import overlay, parse_overrides
        from raptor.formats import load_expert
        from raptor.runs.folder import job_of
        from raptor.training.distillation.env_job import EnvDistillConfig, load_env_distill_config

        training, environment, others = split_overrides(words)
        if others and others[0].startswith("-"):
            option = others[0].partition("=")[0]
            names = [field.name for field in dataclasses.fields(EnvDistillConfig)]
            near = difflib.get_close_matches(option.lstrip("-").replace("-", "_"), names, 1, 0.7)
            hint = f"did you mean --{near[0].replace('_', '-')}?" if near else "see --help"
            raise UserError(f"there is no option {option}: {hint}")
        if others and self.resume:
            raise UserError(f"--resume is a switch: give the folder as --output {others[0]} --resume")
        if others:
            raise UserError(f"settings are given as key=value, got {others[0]!r}: see --help for the flags")
        if self.resume and self.output is None:
            raise UserError("--resume goes on with the run in --output DIR: give its folder, in logs/distillation")
        named: dict[str, Any] = {"task": task, "task_settings": environment}
        for name, file in (("teacher_checkpoint", teacher), ("teacher_normalizer", self.teacher_normalizer)):
            named[name] = file and str(file.expanduser().resolve())
        given = [f"{name}={json.dumps(value)}" for name, value in named.items() if value]
        given = [*training, *self.context.obj, *given]
        if self.resume and self.output is not None and job_of(self.output) is not None:
            config = load_env_distill_config(self.output, None, given)
        else:
            config = load_config(EnvDistillConfig, None, [f"device={device}", *given])
        for what, value in (("environment", config.task), ("teacher", config.teacher_checkpoint)):
            if value is None:
                nothing = f"there is no run in {self.output}, and " if self.resume else ""
                raise UserError(f"{nothing}the {what} is not named: see --help")
        expert = load_expert(str(config.teacher_checkpoint), config.teacher_activation, config.teacher_normalizer)
        say(expert.description)
        settings: dict[str, Any] = {}
        for source in parse_overrides(config.task_settings):
            settings = overlay(settings, source.settings)
        return config, settings, expert

    def train(self, env: VecEnv, expert: ExpertNetwork, config: EnvDistillConfig) -> None:
        """Distil the teacher, and print what came of it."""
        from raptor.training.distillation import env_job

        folder = self.output or env_job.log_folder(config)
        again = f"{self.command} --output {folder} --resume"
        with common.watched(folder, self.resume, again) as (progress, announce):
            how = (self.resume, self.overwrite, progress, announce)
            summary = env_job.distill(env, expert, config, folder, *how)
        common.say_result(summary, again, f"; the teacher returns {summary.teacher['mean_return']:.1f}")
        say(f"next: raptor card {summary.output}")


@takes_options
def distill(
    run: Distillation,
    env: Annotated[str | None, option("--env ID", "Gymnasium's name of the environment.")] = None,
    teacher: Annotated[Path | None, option("--teacher FILE", "The teacher's checkpoint.")] = None,
    quadrotor: common.Quadrotors = None,
    reference: common.Reference = None,
) -> None:
    """Distil a teacher into a recurrent student in any Gymnasium environment.

    The teacher is a file of rsl_rl, stable-baselines3, rl-tools or this package. Ctrl-C writes a checkpoint and stops;
    --resume goes on.

    ```
    raptor distill --env InvertedPendulum-v5 --teacher ppo.zip
    raptor distill --env HalfCheetah-v5 --teacher sac.zip --num-envs 8 --num-epochs 100 agent.student.hidden_dim=64
    raptor distill --env Ant-v5 --teacher sac.zip env.ctrl_cost_weight=0.1       # a keyword argument of Ant-v5
    raptor distill --env Ant-v5 --teacher sac.zip agent.student=mlp              # a student without memory
    raptor distill --env raptor/Hover-v0 --teacher ppo.zip --quadrotor my5.yaml  # of your own vehicle
    raptor distill --env raptor/Track-v0 --teacher ppo.zip --reference my.csv    # on your own trajectory
    raptor distill --output logs/distillation/Ant-v5/2026-01-31_12-00-00 --resume
    ```

    All settings are in docs/reference/configuration.md; those of a run in its run.yaml.
    """
    from raptor.interop.from_gymnasium import make_gymnasium

    own = [f"env.quadrotor={json.dumps([*map(_place, quadrotor)])}"] if quadrotor else []
    own += common.following(reference and _place(reference), ["env"])
    config, settings, expert = run.settle([*(run.overrides or []), *own], env, teacher)
    if own and not str(config.task).startswith(OURS):
        given = "--quadrotor" if quadrotor else "--reference"
        raise UserError(f"{given} is for {OURS}Hover-v0 and its siblings, not for {config.task}: leave it out")
    made = make_gymnasium(str(config.task), config.num_envs, settings, config.device, config.video)
    with contextlib.closing(made):
        run.train(made, expert, config)


@takes_options
def distill_isaac(
    run: Distillation,
    task: Annotated[str | None, option("--task ID", "Name of the Isaac Lab task.")] = None,
    teacher_checkpoint: Annotated[Path | None, option("--teacher-checkpoint FILE", "The teacher's checkpoint.")] = None,
    headless: Annotated[bool, option("--headless/--no-headless", "Without a window.", True)] = True,
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
    from raptor.config.files import leaves
    from raptor.interop.isaac_lab import check_installed, isaac_env, launcher_arguments

    check_installed()
    arguments, words = launcher_arguments(run.overrides or [])
    config, settings, expert = run.settle(words, task, teacher_checkpoint, "cuda:0")
    with isaac_env(config, dict(leaves(settings, take_lists_apart=False)), arguments, headless) as env:
        run.train(env, expert, config)


def _place(quadrotor: str) -> str:
    """A file as an absolute path; a platform, or a trajectory, by its name."""
    path = Path(quadrotor).expanduser()
    return str(path.resolve()) if path.exists() else quadrotor


def split_overrides(words: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    """Sort what stands on a command line beside the flags: training, environment, and neither."""
    from raptor.training.distillation.config import EnvDistillConfig

    own = {"agent", *(field.name for field in dataclasses.fields(EnvDistillConfig)), *EnvDistillConfig.RENAMED}
    training, environment, others = [], [], []
    for given in words:
        word = given.lstrip("+")  # with which Hydra adds a setting or overrides it
        key, equals, _ = word.partition("=")
        if not equals or not re.fullmatch(r"\w[\w.-]*", key):
            others.append(given)
        elif key.split(".")[0] in own:
            training.append(word.removeprefix("agent."))
        else:
            environment.append(word.removeprefix("env."))
    return training, environment, others


class SettingsCommand(TyperCommand):
    """A command with a flag for each plain setting of `raptor distill`; its `context.obj` are those given.

    Flags may be spelled with underscores, as in Isaac Lab's workflows, and switches may be followed by true or false.
    They are made when they are needed, because settings are declared beside what needs torch.
    """

    _flags: tuple[Any, ...] = ()

    def get_params(self, ctx: Any) -> list[Any]:
        """Arguments and options of the command itself, and the flags."""
        if not self._flags:
            self._flags = tuple(_flags(without=("task", "teacher_checkpoint", "teacher_normalizer")))
            self.params = [*self.params, *self._flags]
        return super().get_params(ctx)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Spell the arguments as the options are declared, then parse them."""
        options = self.get_params(ctx)
        declared = {name for option in options for name in (*option.opts, *option.secondary_opts)}
        switches = {name for option in options if getattr(option, "is_flag", False) for name in option.opts}
        rest = super().parse_args(ctx, list(respell(args, declared, switches)))
        given = {flag: value for flag in self._flags if (value := ctx.params.pop(flag.name)) is not None}
        texts = {flag.name: value if flag.metavar in ("N", "X") else json.dumps(value) for flag, value in given.items()}
        ctx.obj = [f"{name}={text}" for name, text in texts.items()]
        return rest


def respell(args: Sequence[str], declared: set[str], switches: set[str]) -> Iterator[str]:
    """Arguments as the options are declared: hyphens for underscores, `--no-x` for `--x false`."""
    rest = list(args)
    while rest:
        name, equals, value = rest.pop(0).partition("=")
        if name.startswith("--") and name.replace("_", "-") in declared:
            name = name.replace("_", "-")
        if name in switches and not equals and rest and rest[0].lower() in ("true", "false"):
            equals, value = "=", rest.pop(0)
        if name in switches and equals and value.lower() in ("true", "false"):
            yield name if value.lower() == "true" else f"--no-{name[2:]}"
        else:
            yield f"{name}{equals}{value}"


def _flags(without: Sequence[str]) -> list[Any]:
    from raptor.config.settings import limits_of, meanings_of
    from raptor.training.distillation.config import EnvDistillConfig as Settings

    hints, limits, meanings = typing.get_type_hints(Settings), limits_of(Settings), meanings_of(Settings)
    parameters: dict[str, tuple[Any, Any]] = {}
    for field in dataclasses.fields(Settings):
        name, kinds = field.name, set(typing.get_args(hints[field.name])) or {hints[field.name]}
        if name in without or not kinds <= {bool, int, float, str, type(None)}:
            continue
        facts = [limits[name].text] if name in limits else []
        facts += [] if field.default is None else [f"{json.dumps(field.default).strip(chr(34))} by default"]
        names = [name, *(old for old, new in Settings.RENAMED.items() if new == name)]
        value = "N" if int in kinds else "X" if float in kinds else "TEXT"
        flags = (
            f"--{name}/--no-{name}" if bool in kinds else " ".join(f"--{spelling}" for spelling in names) + f" {value}"
        )
        meaning = f"{meanings[name]} ({'; '.join(facts)})" if facts else meanings[name]
        made = option(flags.replace("_", "-"), meaning, rich_help_panel="Settings")
        parameters[name] = Annotated[bool | None if bool in kinds else str | None, made], None  # type: ignore[valid-type]
    app = typer.Typer(add_completion=False)
    app.command()(common.with_parameters(lambda: None, parameters))
    return list(typer.main.get_command(app).params)
