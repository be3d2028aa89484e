"""One tiny recurrent policy that flies any quadrotor, trained through a differentiable simulator."""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for type checkers and editors: the names of `_PUBLIC`, which tests/test_public_names.py compares
    from raptor import quadrotor as quadrotor
    from raptor.config import load_config as load_config
    from raptor.core.errors import UserError as UserError
    from raptor.environments import QuadrotorEnv as QuadrotorEnv
    from raptor.evaluation import evaluate as evaluate
    from raptor.export import export_onnx as export_onnx
    from raptor.formats import load_expert as load_expert
    from raptor.formats import load_policy as load_policy
    from raptor.formats import load_teachers as load_teachers
    from raptor.formats import save_policy as save_policy
    from raptor.formats import save_teachers as save_teachers
    from raptor.lab.pipeline import run_pipeline as run_pipeline
    from raptor.nn import RaptorPolicy as RaptorPolicy
    from raptor.nn import TeacherPopulation as TeacherPopulation
    from raptor.quadrotor import PLATFORMS as PLATFORMS
    from raptor.quadrotor import Quadrotors as Quadrotors
    from raptor.quadrotor import from_description as from_description
    from raptor.quadrotor import load_platform as load_platform
    from raptor.quadrotor import load_platforms as load_platforms
    from raptor.quadrotor import load_quadrotors as load_quadrotors
    from raptor.quadrotor import sample_quadrotors as sample_quadrotors
    from raptor.tasks import Task as Task
    from raptor.tasks import term as term
    from raptor.training import EnvDistillConfig as EnvDistillConfig
    from raptor.training import PostTrainConfig as PostTrainConfig
    from raptor.training import PreTrainConfig as PreTrainConfig
    from raptor.training import TrainDirectConfig as TrainDirectConfig
    from raptor.training import distill as distill
    from raptor.training import post_train as post_train
    from raptor.training import pre_train as pre_train
    from raptor.training import train_direct as train_direct

    __version__: str
else:
    _PUBLIC = {
        "config": "load_config",
        "core.errors": "UserError",
        "environments": "QuadrotorEnv",
        "evaluation": "evaluate",
        "export": "export_onnx",
        "formats": "load_expert load_policy load_teachers save_policy save_teachers",
        "lab.pipeline": "run_pipeline",
        "nn": "RaptorPolicy TeacherPopulation",
        "quadrotor": "PLATFORMS Quadrotors from_description load_platform load_platforms load_quadrotors "
        "sample_quadrotors",
        "tasks": "Task term",
        "training": "EnvDistillConfig PostTrainConfig PreTrainConfig TrainDirectConfig "
        "distill post_train pre_train train_direct",
    }  # imported when first used, so that `import raptor` is quick
    _MOVED = {
        "core.errors": "MissingExtraError",
        "evaluation": "Evaluation",
        "formats": "OnnxPolicy",
        "lab.pipeline": "PipelineSummary",
        "nn": "ExpertNetwork MLPPolicy",
        "quadrotor": "Distribution State step",
        "training": "PostTrainSummary PreTrainSummary RunSummary TeacherFile",
    }  # public once
    _HOMES = {name: home for home, names in _PUBLIC.items() for name in names.split()}
    _RENAMED = {name: f"{home}.{name}" for home, names in _MOVED.items() for name in names.split()}
    _RENAMED |= {"platform": "load_platform", "platforms": "load_platforms"}
    _RENAMED |= {"engines": "runs.engines", "films": "viewer.videos", "pipeline": "lab.pipeline"}

    __all__ = [*_HOMES, "__version__"]

    def __getattr__(name: str) -> Any:
        if name in _HOMES:
            value = getattr(importlib.import_module(f"raptor.{_HOMES[name]}"), name)
        elif name == "__version__":
            value = importlib.import_module("importlib.metadata").version("raptor-python")
        elif name in _RENAMED:
            raise AttributeError(f"raptor.{name} is now raptor.{_RENAMED[name]}")
        elif name.startswith("_") or importlib.util.find_spec(f"raptor.{name}") is None:
            raise AttributeError(f"module 'raptor' has no attribute {name!r}")
        else:  # a room, as in raptor.quadrotor.step
            value = importlib.import_module(f"raptor.{name}")
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})


def _register_environments() -> None:
    """Make `gymnasium.make("raptor/Hover-v0")` work, where Gymnasium is installed."""
    try:
        from gymnasium.envs.registration import register, registry
    except ImportError:
        return
    single = "raptor.environments.gymnasium_envs:GymnasiumEnv"
    vector = "raptor.environments.gymnasium_envs:QuadrotorVectorEnv"
    environments = {
        "raptor/Hover-v0": {"task": "hover"},
        "raptor/Track-v0": {"task": "track"},
        "raptor/L2F-v0": {"task": "hover", "simulator": "l2f"},
    }
    for name, keywords in environments.items():
        if name not in registry:  # as it is where the package is imported anew
            register(name, single, vector_entry_point=vector, max_episode_steps=500, kwargs=keywords)


_register_environments()
