"""The environments' names in Gymnasium."""

from __future__ import annotations

import importlib

SINGLE = "raptor.environments.gymnasium_env:GymnasiumEnv"
VECTOR = "raptor.environments.gymnasium_vector_env:QuadrotorVectorEnv"

ENVIRONMENTS: dict[str, dict[str, str]] = {
    "raptor/Hover-v0": {"task": "hover"},
    "raptor/Track-v0": {"task": "track"},
    "raptor/L2F-v0": {"task": "hover", "simulator": "l2f"},
}
"""Names and what they say in place of the default keyword arguments."""


def register_environments() -> None:
    """Make the environments known to `gymnasium.make` and `gymnasium.make_vec`; `import raptor` does it.

    Nothing happens where Gymnasium is not installed, or where they are known already.
    """
    try:
        registration = importlib.import_module("gymnasium.envs.registration")
    except ImportError:
        return
    for name, keywords in ENVIRONMENTS.items():
        if name not in registration.registry:
            registration.register(name, entry_point=SINGLE, vector_entry_point=VECTOR, kwargs=dict(keywords))
