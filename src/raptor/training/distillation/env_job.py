"""`raptor distill` and `raptor distill-isaac`: one teacher, one student, in any vector environment."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from raptor.core.atomic import PathLike, write_atomically
from raptor.core.devices import find_device, memory_explained
from raptor.core.errors import UserError
from raptor.environments.vec_env import CheckedVecEnv, VecEnv
from raptor.runs.folder import Layout, RunFolder, settings_of
from raptor.runs.policies import PolicyFiles, RunSummary, policy_card, run_to_end, write_summary
from raptor.runs.progress import Progress, ProgressFunction
from raptor.runs.stopping import stop_on_signal
from raptor.runs.trainer import Phase, Trainer
from raptor.training.distillation.env_config import EnvDistillConfig
from raptor.training.distillation.env_settings import document_of
from raptor.training.distillation.env_teacher import EnvTeacher, Expert
from raptor.training.distillation.learner import Distiller, first_student
from raptor.training.distillation.sources import WEIGHTS, EnvSource, draw_seed, episodes_each
from raptor.training.memory import BASE_BYTES, GIB, budget_bytes
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
    the environment takes a seed and repeats itself; if it does not, the episodes that are kept are flown anew.

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
    stored = folder.settings(EnvDistillConfig) if folder.check(resume, overwrite) else None
    config = stored or EnvDistillConfig() if config is None else config
    if stored is not None:
        folder.refuse_changes(stored, config)
    folder.checkpoints.keep = config.keep_checkpoints
    with _recorded(env, folder, config, resume=stored is not None) as watched:
        checked = CheckedVecEnv(watched, find_device(config.device))
        checked.watch(config.student_group)
        teacher = EnvTeacher(expert, checked, config.teacher_group)
        planned = _plan(config, checked)
        if announce is not None:
            announce(planned)
        try:
            folder.open(config, resume, overwrite)
            write_atomically(folder.path / ENVIRONMENT, document_of(env.cfg))
            with memory_explained(f"num_episodes {config.num_episodes} of {checked.episode_steps} steps"):
                return _train(folder, config, checked, teacher, progress)
        finally:
            folder.close()


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


class _Files(PolicyFiles):
    """The checkpoints of a distillation, which note the teacher and its figures too."""

    teacher: EnvTeacher
    teacher_figures: dict[str, float]

    def write(self, step: int, training: Mapping[str, Any]) -> str:
        """See `PolicyFiles`."""
        own = {"probe": self.teacher.probe(), "teacher": self.teacher_figures}
        return super().write(step, {**training, **own})

    def newest_first(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """See `PolicyFiles`.

        Raises:
            UserError: the run learns from another teacher.
        """
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
    env: CheckedVecEnv,
    teacher: EnvTeacher,
    progress: ProgressFunction | None,
) -> EnvDistillSummary:
    seed, widths = draw_seed(config.seed, WEIGHTS, 0), (env.widths[config.student_group], env.num_actions)
    policy = first_student(config.student, seed, *widths).to(env.device)
    source = EnvSource(config, env, teacher)

    def card(step: int, figures: Mapping[str, float], by: str) -> dict[str, Any]:
        training = (
            f"distilled from one teacher in {config.task or 'a third-party environment'}, epoch {step} of "
            f"{config.num_epochs}; the teacher returns {files.teacher_figures.get('mean_return', float('nan')):.5g}"
        )
        return policy_card(policy, LAYOUT.job, config, training, figures, by)

    files = _Files(folder, policy, card, final=FINAL)
    files.teacher, files.teacher_figures = teacher, {}
    phase = Phase(
        "imitating",
        config.num_epochs,
        lambda: Distiller(config, policy, source, source.evaluate, config.normalize_observations),
        config.validation_interval,
        config.checkpoint_interval,
    )
    with stop_on_signal() as stop:
        trainer = Trainer([phase], folder, files, stop, unit="epoch", device=config.device)
        next(iter(files.newest_first()), None)  # whether it is the same teacher, and what it reached
        if not env.seedable and folder.checkpoints.names():
            folder.log("the environment cannot be set back to a seed: what it showed before is flown anew")
        if not files.teacher_figures:
            if progress is not None:
                progress(Progress("testing teachers", 0, config.num_epochs, "epoch"))
            files.teacher_figures = source.evaluate()
            folder.log(f"teacher {', '.join(f'{name} {v:.5g}' for name, v in files.teacher_figures.items())}")
        found = run_to_end(trainer, folder, progress)
    if found.finished:
        files.write_final(found.num_steps, found.validation)
    summary = EnvDistillSummary(**vars(found), repeatable=env.seedable, teacher=files.teacher_figures)
    write_summary(folder, summary, config.device)
    return summary


@contextlib.contextmanager
def _recorded(env: VecEnv, folder: RunFolder, config: EnvDistillConfig, resume: bool) -> Iterator[VecEnv]:
    """The environment, of which videos are recorded where that is asked for."""
    if not config.video:
        yield env
        return
    recorded = RecordedVecEnv(env, folder.path / VIDEOS, config.video_length, config.video_interval, resume)
    try:
        yield recorded
    finally:
        recorded.finish_video()


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
