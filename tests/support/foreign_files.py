"""Files of experts as other libraries write them, tiny ones, beside what those libraries do with an observation."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from torch import Tensor

Forward = Callable[[Tensor], Tensor]

OBSERVATIONS = 2.0 * torch.randn(50, 26, generator=torch.Generator().manual_seed(5))


class Box(gymnasium.Env[Any, Any]):
    """Boxes in and out, for the constructors of stable-baselines3."""

    def __init__(self, observations: int = 26, low: float = -1.0, high: float = 1.0) -> None:
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (observations,), np.float32)
        self.action_space = gymnasium.spaces.Box(np.float32([low, -1, -1, -1]), np.float32([high, 1, 1, 1]))


def seen(module: torch.nn.Module) -> torch.nn.Module:
    """A normaliser of rsl_rl that has seen skewed observations."""
    module.train()
    generator = torch.Generator().manual_seed(1)
    for _ in range(3):
        module.update(1.5 * torch.randn(64, 26, generator=generator) + torch.linspace(-1, 2, 26))
    return module.eval()


def scattered(module: torch.nn.Module) -> torch.nn.Module:
    """Weights and biases that are far from those of a beginning."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return module


def rsl_rl_5(path: Path, settings: dict[str, Any] | None = None, normal: bool = True) -> Forward:
    """A checkpoint of version 5, by its own model class."""
    models = pytest.importorskip("rsl_rl.models", reason="needs rsl-rl-lib")
    from tensordict import TensorDict

    wanted = {"hidden_dims": (12, 8, 6), "activation": "elu", "distribution_cfg": {"class_name": GAUSSIAN}}
    groups = TensorDict({"teacher": OBSERVATIONS}, batch_size=[len(OBSERVATIONS)])
    model = models.MLPModel(
        groups, {"actor": ["teacher"]}, "actor", 4, obs_normalization=normal, **{**wanted, **(settings or {})}
    )
    scattered(model)
    if normal:
        seen(model.obs_normalizer)
    optimizer = torch.optim.Adam(model.parameters()).state_dict()
    whole = {"actor_state_dict": model.state_dict(), "critic_state_dict": {}, "optimizer_state_dict": optimizer}
    torch.save({**whole, "iter": 7, "infos": None}, path)
    return lambda x: model(TensorDict({"teacher": x}, batch_size=[len(x)])).detach()


GAUSSIAN = "rsl_rl.modules.distribution:GaussianDistribution"
HETEROSCEDASTIC = "rsl_rl.modules.distribution:HeteroscedasticGaussianDistribution"


def rsl_rl_3(path: Path, activation: str = "elu", width: int = 26, legacy: bool = False) -> Forward:
    """A checkpoint of version 3 (`legacy`: of version 2), by the classes of layers that these versions share with 5."""
    modules = pytest.importorskip("rsl_rl.modules", reason="needs rsl-rl-lib")
    actor = scattered(modules.MLP(width, 4, [10, 7], activation))
    normalizer = seen(modules.EmpiricalNormalization(26)) if width == 26 else torch.nn.Identity()
    model = {f"actor.{name}": tensor for name, tensor in actor.state_dict().items()}
    model |= {f"critic.{name}": tensor for name, tensor in modules.MLP(width, 1, [5], activation).state_dict().items()}
    model |= {"std": torch.full((4,), 0.3)}
    document: dict[str, Any] = {"optimizer_state_dict": {}, "iter": 7, "infos": None}
    if legacy:
        document |= {"model_state_dict": model, "obs_norm_state_dict": normalizer.state_dict()}
    else:
        own = {f"actor_obs_normalizer.{name}": tensor for name, tensor in normalizer.state_dict().items()}
        document["model_state_dict"] = model | own
    torch.save(document, path)
    return lambda x: actor(normalizer(x)).detach()


def stable_baselines3(path: Path, algorithm: str, env: Box | None = None, **settings: Any) -> Forward:
    """An archive of stable-baselines3."""
    library = pytest.importorskip("stable_baselines3", reason="needs the extra sb3")
    few = {} if algorithm in ("PPO", "A2C") else {"buffer_size": 1}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = getattr(library, algorithm)("MlpPolicy", env or Box(), device="cpu", seed=3, **few, **settings)
    scattered(model.policy)
    model.save(path)
    return lambda x: torch.from_numpy(model.predict(x.numpy(), deterministic=True)[0])
