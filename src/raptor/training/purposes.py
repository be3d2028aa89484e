"""What each setting of a job is for: whether the policy is trained on it, rated by it, or both."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Iterator
from typing import Any, Literal

from raptor.config import to_dict
from raptor.config.files import leaves
from raptor.config.settings import show

Purpose = Literal["trained on", "rated by", "both", "of the run"]
PURPOSES: dict[Purpose, str] = {
    "trained on": "what the policy learns from, and how",
    "rated by": "figures of validations, which say what policy is the best, and success in a curriculum; no gradient",
    "both": "what it learns from, and the figures",
    "of the run": "where, how fast, and what is kept",
}
"""What a setting changes."""

_RUNS: Purpose = "of the run"
_RATES: Purpose = "rated by"

_RUN = (
    *("device", "compile", "block_size", "processes"),
    *("checkpoint_interval", "checkpoint_interval_s", "keep_checkpoints", "memory_gib"),
    *("video", "video_length", "video_interval", "experiment_name", "run_name", "engine", "shard_size"),
    "tensorboard_teachers",
)
_RATED = (
    *("validation_interval", "num_validation", "validation_steps", "num_evaluation", "num_validation_episodes"),
    *("best_by", "solved_return", "retrain_below", "num_teacher_episodes"),
)
_COMMON: dict[str, Purpose] = dict.fromkeys(_RUN, _RUNS) | dict.fromkeys(_RATED, _RATES)
_ONLY_RATING: dict[str, Purpose] = dict.fromkeys(("task.reward", "task.extra_rewards", "task.termination"), _RATES)
_OWN_STARTS = (
    *("task.initial_states", "task.disturbances", "task.references.lissajous", "task.references.way_points"),
    *(f"task.references.{name}_share" for name in ("langevin", "lissajous", "way_points")),
)
_OF_GRADIENT: dict[str, Purpose] = {
    **dict.fromkeys(("task", "distribution"), "both"),
    **dict.fromkeys(_OWN_STARTS, "trained on"),  # validation has starts and references of its own
    **_ONLY_RATING,  # episodes go on where the task would end them
    "task.termination.about_target": "both",
}

BY_JOB: dict[str, dict[str, Purpose]] = {
    "train-direct": {"": "trained on", **_COMMON, **_OF_GRADIENT, "quadrotors": "both", "spread": "both"},
    "pre-train": {"": "trained on", **_COMMON, "task": "both", **_ONLY_RATING, "apg.validation_interval": "rated by"},
    "post-train": {
        "": "trained on",
        **_COMMON,
        "task": "both",
        **{key: purpose for key, purpose in _ONLY_RATING.items() if "termination" not in key},
        **{f"fine_tune.{key}": purpose for key, purpose in {**_OF_GRADIENT, "block_size": _RUNS}.items()},
    },
    "distill": {"": "trained on", **_COMMON},
}
"""By job and key, or the group that it is in; the longest one that fits decides. What `objective=reward`, or soft
actor-critic, trains on beside is said by `learns_from_reward`."""

OBJECTIVES = {"train-direct": "objective", "pre-train": "apg.objective", "post-train": "fine_tune.objective"}
"""Where the cost stands that a job minimises."""

INSTEAD = {
    "reward.position": "position",
    "reward.orientation": "heading",
    "reward.action_rate": "action_rate",
    "reward.linear_velocity": "velocity",
    "termination.position": "box_limit",
    "termination.linear_velocity": "speed_limit",
}
"""Settings of the task that only rate a policy, and those of the objective that train it."""


def purpose_of(job: str, key: str) -> Purpose:
    """What a setting is for, by default."""
    path = key
    while path not in BY_JOB[job]:
        path = path.rpartition(".")[0]
    return BY_JOB[job][path]


def learns_from_reward(settings: Any) -> bool:
    """Whether a job with these settings trains on the task's reward: by soft actor-critic, or `objective=reward`."""
    if getattr(settings, "algorithm", "") == "sac":
        return True
    return bool(operator.attrgetter(OBJECTIVES[settings.JOB])(settings).kind == "reward")


def warn_of_idle(settings: Any) -> None:
    """Warn of settings without effect, and of those that only rate the policy; names what would train it."""
    objective, default = OBJECTIVES[settings.JOB], dict(leaves(to_dict(type(settings)())))
    for text in _without_effect(settings):
        warnings.warn(text, stacklevel=3)
    if learns_from_reward(settings):
        return
    task = settings.fine_tune.task if settings.JOB == "post-train" else settings.task
    for use in task.own("reward", "termination"):
        what = f"the {use.term.kind} term {use.term.name} only rates the policy; {settings.JOB} minimises {objective}"
        remedy = f"give {objective}=reward" if use.term.kind == "reward" else "declare a cost beside it"
        warnings.warn(f"{what}: to train on it, {remedy}", stacklevel=3)
    for key, value in leaves(to_dict(settings)):
        name = key.removeprefix("fine_tune.").removeprefix("task.")
        is_asked = name.startswith(("reward.", "extra_rewards.", "termination.")) and default.get(key) != value
        if not is_asked or purpose_of(settings.JOB, key) != "rated by":
            continue
        ends = name.startswith("termination.")
        others = f"a cost term of your own in {objective}.terms" if ends else f"{objective}=reward"
        remedy = f"{objective}.{INSTEAD[name]}, or {others}" if name in INSTEAD else others
        text = f"{key}={show(value)} only rates the policy; {settings.JOB} minimises {objective}"
        warnings.warn(f"{text}: to train on it, give {remedy}", stacklevel=3)


def _without_effect(settings: Any) -> Iterator[str]:
    """Trajectories that nobody follows, and costs that are not minimised, in words."""
    tasks = {"task": settings.task}
    if settings.JOB == "post-train":
        tasks["fine_tune.task"] = settings.fine_tune.task
    for path, task in tasks.items():
        followed = task.references.trajectory
        for use in task.idle_trajectories:
            given, name = f"{path}.extra.{use.term.name}", use.term.name.replace("_", "-")
            yield f"{given} has no effect, since its trajectory is not followed: give --reference {name}"
        if followed.source is None and followed != type(followed)():
            yield f"{path}.references.trajectory has settings, but no trajectory: give --reference FILE|NAME"
    instead = {"post-train": "imitation minimises no cost: give fine_tune.task.extra.{0}"}
    if getattr(settings, "algorithm", "") == "sac":
        instead = {settings.JOB: "soft actor-critic learns from rewards: declare one beside it"}
    for use in settings.task.own("cost"):
        if settings.JOB in instead:
            remedy = instead[settings.JOB].format(use.term.name)
            yield f"the cost term {use.term.name} of task.extra has no effect, since {remedy}"
