"""Transitions that l2f 2.0.18 made."""

from __future__ import annotations

import dataclasses
import pathlib

import numpy as np
import torch

from raptor.quadrotor import Quadrotors

DATA = pathlib.Path(__file__).parents[1] / "data" / "l2f_transitions.npz"


@dataclasses.dataclass(frozen=True)
class Recording:
    """What l2f 2.0.18 did with 512 random vehicles in one step, and with 16 in 100."""

    arrays: dict[str, np.ndarray]

    def tensor(self, key: str, dtype: torch.dtype) -> torch.Tensor:
        return torch.as_tensor(self.arrays[key]).to(dtype)

    def quadrotors(self, prefix: str, dtype: torch.dtype) -> Quadrotors:
        renamed = {"inertia": "J", "inertia_inverse": "J_inv"}
        fields = {}
        for field in dataclasses.fields(Quadrotors):
            key = prefix + renamed.get(field.name, field.name)
            if key in self.arrays:
                fields[field.name] = self.tensor(key, dtype)
        pair = torch.zeros(len(fields["mass"]), 2, dtype=dtype)
        return Quadrotors(
            **fields, random_force=pair, random_torque=pair, max_position=fields["position_threshold"] / 2
        )


def recorded() -> Recording:
    """What is in the file."""
    with np.load(DATA) as file:
        return Recording(dict(file))
