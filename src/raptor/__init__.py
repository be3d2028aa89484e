"""One tiny recurrent policy that flies any quadrotor, trained through a differentiable simulator."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raptor.config import load_config
    from raptor.core.errors import MissingExtraError, UserError
    from raptor.environments import QuadrotorEnv
    from raptor.evaluation import Evaluation, evaluate
    from raptor.export import export_onnx
    from raptor.formats import OnnxPolicy, load_expert, load_policy, load_teachers, save_policy
    from raptor.lab.pipeline import PipelineSummary, run_pipeline
    from raptor.nn import ExpertNetwork, MLPPolicy, RaptorPolicy, TeacherPopulation
    from raptor.quadrotor import (
        PLATFORMS,
        Distribution,
        Quadrotors,
        State,
        from_description,
        platform,
        platforms,
        sample_quadrotors,
        step,
    )
    from raptor.tasks import Task
    from raptor.training.direct.job import RunSummary, TrainDirectConfig, train_direct
    from raptor.training.distillation.env_job import EnvDistillConfig, distill
    from raptor.training.distillation.job import PostTrainConfig, PostTrainSummary, post_train
    from raptor.training.distillation.teacher_sources import TeacherFile
    from raptor.training.teachers.job import PreTrainConfig, PreTrainSummary, pre_train

_HOMES = {
    "Distribution": "raptor.quadrotor",
    "EnvDistillConfig": "raptor.training",
    "Evaluation": "raptor.evaluation",
    "ExpertNetwork": "raptor.nn",
    "MissingExtraError": "raptor.core.errors",
    "MLPPolicy": "raptor.nn",
    "OnnxPolicy": "raptor.formats",
    "PLATFORMS": "raptor.quadrotor",
    "PipelineSummary": "raptor.lab.pipeline",
    "PostTrainConfig": "raptor.training",
    "PostTrainSummary": "raptor.training",
    "QuadrotorEnv": "raptor.environments",
    "PreTrainConfig": "raptor.training",
    "PreTrainSummary": "raptor.training",
    "Quadrotors": "raptor.quadrotor",
    "RaptorPolicy": "raptor.nn",
    "RunSummary": "raptor.training",
    "State": "raptor.quadrotor",
    "Task": "raptor.tasks",
    "TeacherFile": "raptor.training",
    "TeacherPopulation": "raptor.nn",
    "TrainDirectConfig": "raptor.training",
    "UserError": "raptor.core.errors",
    "distill": "raptor.training",
    "evaluate": "raptor.evaluation",
    "export_onnx": "raptor.export",
    "from_description": "raptor.quadrotor",
    "load_config": "raptor.config",
    "load_expert": "raptor.formats",
    "load_policy": "raptor.formats",
    "load_teachers": "raptor.formats",
    "platform": "raptor.quadrotor",
    "platforms": "raptor.quadrotor",
    "post_train": "raptor.training",
    "pre_train": "raptor.training",
    "run_pipeline": "raptor.lab.pipeline",
    "sample_quadrotors": "raptor.quadrotor",
    "save_policy": "raptor.formats",
    "step": "raptor.quadrotor",
    "train_direct": "raptor.training",
}
"""Where each public name lives; it is imported when it is first used, so that `import raptor` is quick."""

__all__ = [
    "PLATFORMS",
    "Distribution",
    "EnvDistillConfig",
    "Evaluation",
    "ExpertNetwork",
    "MLPPolicy",
    "MissingExtraError",
    "OnnxPolicy",
    "PipelineSummary",
    "PostTrainConfig",
    "PostTrainSummary",
    "PreTrainConfig",
    "PreTrainSummary",
    "QuadrotorEnv",
    "Quadrotors",
    "RaptorPolicy",
    "RunSummary",
    "State",
    "Task",
    "TeacherFile",
    "TeacherPopulation",
    "TrainDirectConfig",
    "UserError",
    "__version__",
    "distill",
    "evaluate",
    "export_onnx",
    "from_description",
    "load_config",
    "load_expert",
    "load_policy",
    "load_teachers",
    "platform",
    "platforms",
    "post_train",
    "pre_train",
    "run_pipeline",
    "sample_quadrotors",
    "save_policy",
    "step",
    "train_direct",
]

__version__ = importlib.metadata.version("raptor-python")


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'raptor' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _register_environments() -> None:
    """Make `gymnasium.make("raptor/Hover-v0")` work after `import raptor`."""
    # By its file, because the room around it imports torch, for which `raptor --help` cannot wait.
    file = Path(__file__).parent / "environments" / "registration.py"
    spec = importlib.util.spec_from_file_location("raptor._registration", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.register_environments()


_register_environments()
