"""`raptor distill` and `raptor distill-isaac`: one teacher, one student, in any vector environment."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from raptor.core.atomic import PathLike, write_atomically
from raptor.core.devices import find_device, memory_explained
from raptor.core.errors import UserError
from raptor.core.yaml_files import dump_yaml, to_plain
from raptor.environments.vec_env import CheckedVecEnv, VecEnv
from raptor.runs.folder import Layout, RunFolder, settings_of
from raptor.runs.job import RunSummary, held, run_to_end, settle, write_summary
from raptor.runs.policies import PolicyFiles
from raptor.runs.progress import Progress, ProgressFunction
from raptor.runs.stopping import StopRequest
from raptor.runs.trainer import Phase
from raptor.training.distillation.env_config import EnvDistillConfig
from raptor.training.distillation.env_teacher import EnvTeacher, Expert
from raptor.training.distillation.learner import Distiller, first_student
from raptor.training.distillation.plan import imitation_bytes
from raptor.training.distillation.sources import WEIGHTS, EnvSource, draw_seed
from raptor.training.memory import BASE_BYTES, GIB, budget_bytes, refuse_too_large
from raptor.viewer.env_videos import RecordedVecEnv

LOGS = Path("logs") / "distillation"
FINAL, VIDEOS, ENVIRONMENT = "final_student.pt", "videos", "params/env.yaml"
LAYOUT = Layout(
    "distill",
    unit="epoch",
    checkpoints="checkpoint_epoch_",
    best="best_student.pt",
    settings="params/agent.yaml",
    own=(FINAL, f"{VIDEOS}/step_*", ENVIRONMENT),
)


@dataclasses.dataclass(frozen=True)
class EnvDistillSummary(RunSummary):
    """What came of `distill`."""

    repeatable: bool  # whether the environment can be set back to a seed, so that a resumed run is as one in one go
    teacher: dict[str, float]  # figures of the teacher, in the episodes of the evaluations


def distill(
    env: VecEnv,
    expert: Expert,
    config: EnvDistillConfig | None = None,
    output: PathLike | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: ProgressFunction | None = None,
    announce: Callable[[str], None] | None = None,
) -> EnvDistillSummary:
    """Teach a student what one teacher does in an environment.

    A run that was killed at any moment and resumed gives bit for bit what it would have given without, if `reset` of
    the environment takes a seed and repeats itself; if it does not, the episodes that are kept are collected anew.

    Args:
        env: any environment that keeps the contract of `raptor.environments.VecEnv`.
        expert: the teacher, a `raptor.load_expert` or any function from observations (N, D) to actions (N, A).
        config: the settings; by default those of the run that is resumed, or else the default ones.
        output: the run folder, see `raptor.load_policy`; see `log_folder` for the default.
        resume: go on with the run in `output`; start it where there is none.
        overwrite: delete what an earlier run wrote to `output`.
        progress: called after each epoch and around what takes long.
        announce: called with the plan, in words.

    Raises:
        UserError: the environment breaks the contract, the teacher does not fit it, the folder holds a run and neither
            `resume` nor `overwrite` is given, settings or teacher differ from those of the run to be resumed, the data
            does not fit into memory, the device is missing, the disk is full.
    """
    folder = RunFolder(log_folder(config or EnvDistillConfig()) if output is None else output, LAYOUT)
    config, stored = settle(folder, EnvDistillConfig, config, resume, overwrite)
    with contextlib.ExitStack() as closing:
        watched = env
        if config.video:
            length, interval = config.video_length, config.video_interval
            watched = RecordedVecEnv(env, folder.path / VIDEOS, length, interval, resume=stored is not None)
            closing.callback(watched.finish_video)
        checked = CheckedVecEnv(watched, find_device(config.device))
        checked.watch(config.student_group)
        source = EnvSource(config, checked, EnvTeacher(expert, checked, config.teacher_group))
        planned = _plan(config, source)
        if announce is not None:
            announce(planned)
        stop = closing.enter_context(held(folder, config, resume, overwrite))
        write_atomically(folder.path / ENVIRONMENT, dump_yaml(plain_settings(env.cfg)))
        with memory_explained(f"num_episodes {config.num_episodes} of {checked.episode_steps} steps"):
            return _train(folder, config, source, stop, progress)


def load_env_distill_config(
    run: PathLike, file: str | Path | None = None, overrides: Sequence[str] = (), resume: bool = True
) -> EnvDistillConfig:
    """The settings of the run in a folder; see `raptor.runs.folder.settings_of`."""
    return settings_of(EnvDistillConfig, RunFolder(run, LAYOUT), file, overrides, resume)


def log_folder(config: EnvDistillConfig) -> Path:
    """Where a run that begins now goes: `logs/distillation/EXPERIMENT/DATE_TIME[_RUN]`."""
    experiment = config.experiment_name or re.sub(r"[^\w.-]+", "_", config.task or "environment")
    stamp = time.strftime("%Y-%m-%d_%H-%M-%S")
    return LOGS / experiment / (f"{stamp}_{config.run_name}" if config.run_name else stamp)


def plain_settings(settings: Any) -> Any:
    """Settings of a third-party environment as plain data; functions and classes by their names."""

    def stand_in(value: Any) -> Any:
        if isinstance(value, type) or (callable(value) and hasattr(value, "__qualname__")):
            return f"{value.__module__}:{value.__qualname__}"
        if type(value).__module__ != "builtins" and getattr(value, "__dict__", None):
            return {name: inner for name, inner in vars(value).items() if name[:1] != "_"}
        return str(value)

    return to_plain(settings, other=stand_in)


class _Files(PolicyFiles):
    """The checkpoints of a distillation, which note the teacher and its figures too."""

    def __init__(self, teacher: EnvTeacher, *others: Any, **named: Any) -> None:
        super().__init__(*others, **named)
        self.teacher, self.teacher_figures = teacher, dict[str, float]()

    def write(self, step: int, training: Mapping[str, Any]) -> str:
        return super().write(step, {**training, "probe": self.teacher.probe(), "teacher": self.teacher_figures})

    def newest_first(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for name, training in super().newest_first():
            probe = training.get("probe")
            if isinstance(probe, torch.Tensor) and not torch.allclose(probe, self.teacher.probe(), 1e-4, 1e-4):
                raise UserError(
                    f"the run in {self.folder.path} learns from another teacher: give the one that it began with"
                )
            self.teacher_figures = dict(training.get("teacher", {}))
            yield name, training


def _train(
    folder: RunFolder,
    config: EnvDistillConfig,
    source: EnvSource,
    stop: StopRequest,
    progress: ProgressFunction | None,
) -> EnvDistillSummary:
    env, seed = source.env, draw_seed(config.seed, WEIGHTS, 0)
    policy = first_student(config.student, seed, env.widths[config.student_group], env.num_actions).to(env.device)

    def describe(step: int) -> str:
        return (
            f"distilled from one teacher in {config.task or 'a third-party environment'}, epoch {step} of "
            f"{config.num_epochs}; the teacher returns {files.teacher_figures.get('mean_return', math.nan):.5g}"
        )

    files = _Files(source.teacher, folder, policy, config, describe, final=FINAL)
    next(iter(files.newest_first()), None)  # whether it is the same teacher, and what it reached
    if not env.seedable and folder.checkpoints.names():
        folder.log("the environment cannot be set back to a seed: earlier episodes are collected anew")
    if not files.teacher_figures:
        if progress is not None:
            progress(Progress("testing teachers", 0, config.num_epochs, "epoch"))
        files.teacher_figures = source.evaluate()
        folder.log(f"teacher {', '.join(f'{name} {v:.5g}' for name, v in files.teacher_figures.items())}")
    phase = Phase(
        "imitating",
        config.num_epochs,
        lambda: Distiller(config, policy, source, source.evaluate, config.normalize_observations),
        config.validation_interval,
        config.checkpoint_interval,
    )
    trainer = run_to_end(files, [phase], stop, progress)
    own = {"repeatable": env.seedable, "teacher": files.teacher_figures}
    return write_summary(files, trainer, EnvDistillSummary, **own)


def _plan(config: EnvDistillConfig, source: EnvSource) -> str:
    """What will be collected and kept, in words.

    Raises:
        UserError: it does not fit into memory.
    """
    env, kept = source.env, source.num_episodes * config.num_slots
    widths = env.widths[config.student_group], env.num_actions
    used = BASE_BYTES + sum(imitation_bytes(config, kept, env.episode_steps, *widths))
    budget = budget_bytes(config.memory_gib, config.device)
    remedy = f"lower num_episodes{'' if config.on_policy else ' or num_data_epochs'}, take fewer environments"
    refuse_too_large(f"{kept} episodes of up to {env.episode_steps} steps take", used, budget, remedy)
    seed = "" if env.seedable else "; the environment takes no seed, so that no run repeats another"
    return (
        f"{env.num_envs} environments, groups {env.layout()}, {env.num_actions} actions; {source.num_episodes} "
        f"episodes an epoch, {used / GIB:.2g} GiB of {budget / GIB:.3g} GiB{seed}"
    )
