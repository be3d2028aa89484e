"""`raptor distill` and `raptor distill-isaac`: one teacher, one student, in any vector environment."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from raptor.core.atomic import PathLike, write_atomically
from raptor.core.devices import find_device, memory_explained
from raptor.core.errors import UserError
from raptor.core.threads import few_threads
from raptor.core.yaml_files import dump_yaml, to_plain
from raptor.environments.vec_env import CheckedVecEnv, VecEnv
from raptor.runs.callbacks import Callback, Callbacks
from raptor.runs.folder import Layout, RunFolder, settings_of
from raptor.runs.job import PolicyFiles, RunSummary, held, run_to_end, settle
from raptor.runs.progress import Progress, ProgressFunction
from raptor.runs.stopping import StopRequest
from raptor.runs.trainer import Phase
from raptor.training import memory
from raptor.training.distillation.config import EnvDistillConfig
from raptor.training.distillation.learner import Distiller, first_student, imitation_bytes
from raptor.training.distillation.sources import WEIGHTS, EnvSource, Expert, draw_seed

LOGS = Path("logs") / "distillation"
FINAL, VIDEOS, ENVIRONMENT = "final_student.pt", "videos", "params/env.yaml"
OWN = FINAL, f"{VIDEOS}/step_*", ENVIRONMENT
LAYOUT = Layout("distill", "epoch", "checkpoint_epoch_", "best_student.pt", settings="params/agent.yaml", own=OWN)


@dataclasses.dataclass(frozen=True)
class EnvDistillSummary(RunSummary):
    """What came of `distill`."""

    repeatable: bool  # whether the environment can be set back to a seed, so that a resumed run is as one in one go
    teacher: dict[str, float]  # figures of the teacher, in the episodes of the evaluations


@few_threads()
def distill(
    env: VecEnv,
    expert: Expert,
    config: EnvDistillConfig | None = None,
    output: PathLike | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: ProgressFunction | None = None,
    announce: Callable[[str], None] | None = None,
    callbacks: Sequence[Callback] = (),
) -> EnvDistillSummary:
    """Teach a student what one teacher does in an environment.

    A run that was killed at any moment and resumed gives bit for bit what it would have given without, if `reset` of
    the environment takes a seed and repeats itself; if it does not, the episodes that are kept are collected anew.

    The environment keeps the contract of `raptor.environments.vec_env.VecEnv`. The teacher is a `raptor.load_expert` or
    any function from observations (N, D) to actions (N, A). Where no `output` is given, see `log_folder`. `announce` is
    called with the plan, in words. For all else see `train_direct`.

    Raises:
        UserError: as in `train_direct`; or the environment breaks the contract, the teacher does not fit it or is not
            that of the run to be resumed.
    """
    folder = RunFolder(log_folder(config or EnvDistillConfig()) if output is None else output, LAYOUT)
    called = Callbacks(callbacks, folder.path)
    config, stored = settle(folder, EnvDistillConfig, config, resume, overwrite)
    with contextlib.ExitStack() as closing:
        watched = env
        if config.video:
            from raptor.viewer.videos import RecordedVecEnv

            length, interval = config.video_length, config.video_interval
            watched = RecordedVecEnv(env, folder.path / VIDEOS, length, interval, resume=stored is not None)
            closing.callback(watched.finish_video)
        source = EnvSource(config, CheckedVecEnv(watched, find_device(config.device)), expert)
        planned = _plan(config, source)
        if announce is not None:
            announce(planned)
        closing.enter_context(memory_explained(f"num_episodes {config.num_episodes} of {source.shape[0]} steps"))
        stop = closing.enter_context(held(folder, config, resume, overwrite))
        write_atomically(folder.path / ENVIRONMENT, dump_yaml(plain_settings(env.cfg)))
        return _train(folder, config, source, stop, progress, called)


load_env_distill_config = functools.partial(settings_of, EnvDistillConfig, LAYOUT)
"""The settings of the run in a folder; see `settings_of`."""


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


def _train(
    folder: RunFolder,
    config: EnvDistillConfig,
    source: EnvSource,
    stop: StopRequest,
    progress: ProgressFunction | None,
    callbacks: Callbacks,
) -> EnvDistillSummary:
    env, seed = source.env, draw_seed(config.seed, WEIGHTS, 0)
    policy = first_student(config.student, seed, *source.shape[1:]).to(env.device)
    before, probe = folder.checkpoints.newest(), source.probe()
    if isinstance(known := before.get("probe"), torch.Tensor) and not torch.allclose(known, probe, 1e-4, 1e-4):
        raise UserError(f"the run in {folder.path} learns from another teacher: give the one that it began with")
    if before and not env.seedable:
        folder.log("the environment cannot be set back to a seed: earlier episodes are collected anew")
    teacher = dict(before.get("teacher", {}))
    if not teacher:
        if progress is not None:
            progress(Progress("testing teachers", 0, config.num_epochs, "epoch"))
        teacher = source.evaluate()
        folder.log(f"teacher {', '.join(f'{name} {value:.5g}' for name, value in teacher.items())}")

    def describe(step: int) -> str:
        where = config.task or "a third-party environment"
        epoch = f"epoch {step} of {config.num_epochs}; the teacher returns {teacher['mean_return']:.5g}"
        return f"distilled from one teacher in {where}, {epoch}"

    def imitation() -> Distiller:
        return Distiller(config, policy, source, source.evaluate, config.normalize_observations)

    phase = Phase("imitating", config.num_epochs, imitation, config.validation_interval, config.checkpoint_interval)
    files = PolicyFiles(folder, policy, config, describe, final=FINAL, beside={"probe": probe, "teacher": teacher})
    own = {"repeatable": env.seedable, "teacher": teacher}
    return run_to_end(files, [phase], stop, EnvDistillSummary, lambda trainer: own, progress, callbacks=callbacks)


def _plan(config: EnvDistillConfig, source: EnvSource) -> str:
    """What will be collected and kept, in words; refused where it does not fit into memory."""
    env, kept = source.env, source.num_episodes * config.num_slots
    used = memory.BASE_BYTES + sum(imitation_bytes(config, kept, source.shape))
    budget = memory.budget_bytes(config.memory_gib, config.device)
    remedy = f"lower num_episodes{'' if config.on_policy else ' or num_data_epochs'}, take fewer environments"
    memory.refuse_too_large(f"{kept} episodes of up to {env.episode_steps} steps take", used, budget, remedy)
    seed = "" if env.seedable else "; the environment takes no seed, so that no run repeats another"
    return (
        f"{env.num_envs} environments, groups {env.layout()}, {env.num_actions} actions; {source.num_episodes} "
        f"episodes an epoch, {used / memory.GIB:.2g} GiB of {budget / memory.GIB:.3g} GiB{seed}"
    )
