"""Distillation in environments from elsewhere: one teacher, one student, any `VecEnv`."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from raptor.config import differences, to_yaml
from raptor.core.atomic import PathLike, write_atomically
from raptor.core.devices import find_device
from raptor.core.errors import UserError
from raptor.core.host import memory_explained
from raptor.environments.vec_env import CheckedVecEnv, VecEnv
from raptor.runs.checkpoints import Checkpoints
from raptor.runs.folder import RunFolder, settings_of
from raptor.runs.progress import ProgressFunction, stop_on_signal
from raptor.training.distillation.env_config import EnvDistillConfig
from raptor.training.distillation.env_learner import episodes_each
from raptor.training.distillation.env_run import BEST, ENVIRONMENT, JOB, OWN, VIDEOS, EnvDistillRun, EnvDistillSummary
from raptor.training.distillation.env_settings import document_of
from raptor.training.distillation.env_teacher import EnvTeacher, Expert
from raptor.training.teachers.memory import BASE_BYTES, GIB, budget_bytes
from raptor.viewer.env_videos import RecordedVecEnv

__all__ = ["EnvDistillConfig", "EnvDistillSummary", "distill", "load_env_distill_config", "log_folder"]

LOGS = Path("logs") / "distillation"
FREE = ("checkpoint_interval", "keep_checkpoints", "memory_gib", "video", "video_length", "video_interval")
"""Settings that may change from session to session, because the result does not depend on them."""


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
    the environment takes a seed and repeats itself; if it does not, the flights that are kept are flown anew.

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
    if output is None:
        output = log_folder(config or EnvDistillConfig())
    folder = _run_folder(output)
    going_on = folder.check(resume, overwrite)
    stored = load_env_distill_config(output) if going_on else None
    config = stored or EnvDistillConfig() if config is None else config
    if stored is not None:
        same = {name: getattr(stored, name) for name in FREE}
        folder.refuse_changes(differences(stored, dataclasses.replace(config, **same)))
    folder.checkpoints.keep = config.keep_checkpoints
    recorded = None
    if config.video:
        recorded = RecordedVecEnv(env, folder.path / VIDEOS, config.video_length, config.video_interval, going_on)
    checked = CheckedVecEnv(env if recorded is None else recorded, find_device(config.device))
    checked.watch(config.student_group)
    teacher = EnvTeacher(expert, checked, config.teacher_group)
    planned = _plan(config, checked)
    if announce is not None:
        announce(planned)
    try:
        folder.open(to_yaml(config), resume, overwrite)
        write_atomically(folder.path / ENVIRONMENT, document_of(env.cfg))
        what = f"num_episodes {config.num_episodes} of {checked.episode_steps} steps"
        with memory_explained(what), stop_on_signal() as stop:
            return EnvDistillRun(folder, config, checked, teacher, progress).run(stop)
    finally:
        if recorded is not None:
            recorded.finish_video()
        folder.close()


def load_env_distill_config(
    run: PathLike, file: str | Path | None = None, overrides: Sequence[str] = (), resume: bool = True
) -> EnvDistillConfig:
    """The settings of the run in a folder; see `raptor.runs.folder.settings_of`."""
    return settings_of(EnvDistillConfig, _run_folder(run), file, overrides, resume)


def log_folder(config: EnvDistillConfig) -> Path:
    """Where a run that begins now goes: `logs/distillation/EXPERIMENT/DATE_TIME[_RUN]`."""
    experiment = config.experiment_name or re.sub(r"[^\w.-]+", "_", config.task or "environment")
    stamp = time.strftime("%Y-%m-%d_%H-%M-%S")
    return LOGS / experiment / (f"{stamp}_{config.run_name}" if config.run_name else stamp)


def _run_folder(output: PathLike) -> RunFolder:
    """The folder of a distillation, as it lays out its files."""
    checkpoints = Checkpoints(Path(output), prefix="checkpoint_epoch_", best=BEST)
    return RunFolder(output, JOB, own=OWN, config="params/agent.yaml", checkpoints=checkpoints)


def _plan(config: EnvDistillConfig, env: CheckedVecEnv) -> str:
    """What will be flown and kept, in words.

    Raises:
        UserError: it does not fit into memory.
    """
    episodes = episodes_each(config.num_episodes, env) * env.num_envs
    steps = episodes * config.num_slots * env.episode_steps
    width = env.widths[config.student_group] + env.num_actions
    batch = config.batch_size * config.sequence_length * (2 * width + 12 * config.student.hidden_dim)
    used = BASE_BYTES + 4.0 * (steps * width + batch) + 20.0 * steps
    budget = budget_bytes(config.memory_gib, config.device)
    if used > budget:
        fewer = "num_episodes" + ("" if config.on_policy else " or num_data_epochs")
        raise UserError(
            f"{episodes * config.num_slots} episodes of up to {env.episode_steps} steps take {used / GIB:.3g} GiB, "
            f"which does not fit into {budget / GIB:.3g} GiB: lower {fewer}, fly fewer environments, or raise "
            "memory_gib"
        )
    seed = "" if env.seedable else "; the environment takes no seed, so that no run repeats another"
    return (
        f"{env.num_envs} environments, groups {env.layout()}, {env.num_actions} actions; {episodes} episodes an epoch, "
        f"{used / GIB:.2g} GiB of {budget / GIB:.3g} GiB{seed}"
    )
