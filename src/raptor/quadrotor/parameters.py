"""The parameters of N quadrotors as one frozen dataclass of tensors."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from raptor.core.compilation import register
from raptor.quadrotor.state import component_major

NUM_ROTORS = 4

SHAPES: dict[str, tuple[int, ...]] = {
    "mass": (),
    "inertia": (3, 3),
    "inertia_inverse": (3, 3),
    "rotor_positions": (4, 3),
    "rotor_thrust_directions": (4, 3),
    "rotor_torque_directions": (4, 3),
    "rotor_thrust_coefficients": (4, 3),
    "rotor_torque_constants": (4,),
    "rotor_time_constants_rising": (4,),
    "rotor_time_constants_falling": (4,),
    "action_limit": (2,),
    "gravity": (3,),
    "random_force": (2,),
    "random_torque": (2,),
    "position_threshold": (),
    "max_position": (),
}
"""Shape of each tensor field for one vehicle."""


@register(constant=("names", "documents"))
@dataclasses.dataclass(frozen=True)
class Quadrotors:
    """Parameters of N quadrotors; the leading axis of every tensor is the population.

    Rotors are in crazyflie order: front-right, back-right, back-left, front-left. Body frame FLU. The last four tensor
    fields are not dynamics; they travel with a vehicle because each is scaled to it.
    """

    mass: Tensor  # (N,) kg
    inertia: Tensor  # (N, 3, 3) kg m^2, body
    inertia_inverse: Tensor  # (N, 3, 3) 1/(kg m^2), body; the authority where a file's inertia was truncated
    rotor_positions: Tensor  # (N, 4, 3) m, body, from the centre of mass
    rotor_thrust_directions: Tensor  # (N, 4, 3) unit vectors, body
    rotor_torque_directions: Tensor  # (N, 4, 3) unit vectors, body; reaction torque per positive thrust
    rotor_thrust_coefficients: Tensor  # (N, 4, 3) N; thrust = c0 + c1 speed + c2 speed^2
    rotor_torque_constants: Tensor  # (N, 4) N m per N
    rotor_time_constants_rising: Tensor  # (N, 4) s
    rotor_time_constants_falling: Tensor  # (N, 4) s
    action_limit: Tensor  # (N, 2) lowest and highest rotor speed, in the unit of the thrust curve
    gravity: Tensor  # (N, 3) m/s^2, world
    random_force: Tensor  # (N, 2) N; mean and standard deviation, per axis, of an episode's constant force
    random_torque: Tensor  # (N, 2) N m; the same of an episode's constant torque
    position_threshold: Tensor  # (N,) m; half the side of the box that ends an episode
    max_position: Tensor  # (N,) m; half the side of the box of starts that fits the vehicle
    names: tuple[str, ...] | None = None  # one per vehicle
    documents: tuple[Mapping[str, Any], ...] | None = None  # complete JSON document that each vehicle was read from

    @property
    def shape(self) -> torch.Size:
        """Leading shape of the population."""
        return self.mass.shape

    @property
    def device(self) -> torch.device:
        """Device of the tensors."""
        return self.mass.device

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the tensors."""
        return self.mass.dtype

    def __len__(self) -> int:
        """Number of vehicles."""
        return len(self.mass)

    def tensors(self) -> dict[str, Tensor]:
        """The tensor fields by name."""
        return {name: getattr(self, name) for name in SHAPES}

    def map(self, function: Any) -> Quadrotors:
        """Apply `function` to every tensor field."""
        return dataclasses.replace(self, **{name: function(tensor) for name, tensor in self.tensors().items()})

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Quadrotors:
        """The same vehicles on another device or in another floating-point type."""
        return self.map(lambda tensor: tensor.to(device=device, dtype=dtype))

    def component_major(self) -> Quadrotors:
        """The same vehicles in the memory layout that compiled kernels read fastest."""
        return dataclasses.replace(
            self,
            **{name: component_major(getattr(self, name), len(shape)) for name, shape in SHAPES.items() if shape},
            names=self.names,
            documents=self.documents,
        )

    def __getitem__(self, index: int | slice | Tensor | Sequence[int]) -> Quadrotors:
        """Index the population; an integer gives a population of one, so that the leading axis stays."""
        if isinstance(index, int):
            index = range(len(self))[index]
            index = slice(index, index + 1)
        elif not isinstance(index, slice):
            index = torch.as_tensor(index, device=self.device).reshape(-1)
            index = index if index.numel() else index.long()
        chosen: list[int] = []
        if self.names is not None or self.documents is not None:
            chosen = torch.arange(len(self))[index if isinstance(index, slice) else index.cpu()].tolist()
        return dataclasses.replace(
            self,
            **{name: tensor[index] for name, tensor in self.tensors().items()},
            names=None if self.names is None else tuple(self.names[i] for i in chosen),
            documents=None if self.documents is None else tuple(self.documents[i] for i in chosen),
        )

    def repeat_interleave(self, repeats: int) -> Quadrotors:
        """Each vehicle `repeats` times in a row."""
        return self[torch.arange(len(self), device=self.device).repeat_interleave(repeats)]

    @staticmethod
    def concatenate(populations: Iterable[Quadrotors]) -> Quadrotors:
        """One population after another along the leading axis."""
        parts = list(populations)
        if not parts:
            raise ValueError("concatenate needs at least one population")

        def labels(name: str) -> Any:
            columns = [getattr(part, name) for part in parts]
            return None if any(column is None for column in columns) else tuple(x for column in columns for x in column)

        return Quadrotors(
            **{name: torch.cat([getattr(part, name) for part in parts]) for name in SHAPES},
            names=labels("names"),
            documents=labels("documents"),
        )

    def with_thrust_scaled(self, factor: float) -> Quadrotors:
        """The same vehicles with every rotor giving `factor` times the modelled thrust."""
        return dataclasses.replace(self, rotor_thrust_coefficients=self.rotor_thrust_coefficients * factor)

    @classmethod
    def from_json(
        cls,
        paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> Quadrotors:
        """Read a file, a list of files, or a folder of files in l2f's schema; see `raptor.quadrotor.files.read`."""
        from raptor.quadrotor import files

        return files.read(paths, dtype, device)

    @classmethod
    def from_dicts(
        cls,
        documents: Iterable[Mapping[str, Any]],
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
        names: Sequence[str] | None = None,
    ) -> Quadrotors:
        """Build vehicles from documents in l2f's schema; see `raptor.quadrotor.documents.from_dicts`."""
        from raptor.quadrotor import documents as convert

        return convert.from_dicts(documents, dtype, device, names)

    def to_dicts(self) -> list[dict[str, Any]]:
        """One document in l2f's schema for each vehicle; see `raptor.quadrotor.documents.to_dicts`."""
        from raptor.quadrotor import documents

        return documents.to_dicts(self)

    def save(self, folder: str | os.PathLike[str], overwrite: bool = False) -> list[Path]:
        """Write one JSON file for each vehicle into a folder; see `raptor.quadrotor.files.save`."""
        from raptor.quadrotor import files

        return files.save(self, folder, overwrite)

    def thrust(self, rotor_speed: Tensor) -> Tensor:
        """Thrust (N) of each rotor at speeds (..., 4), from the polynomial."""
        c0, c1, c2 = self.rotor_thrust_coefficients.unbind(-1)
        return c0 + rotor_speed * (c1 + rotor_speed * c2)

    @property
    def thrust_to_weight(self) -> Tensor:
        """(N,) total thrust at the upper action limit over weight."""
        full = self.thrust(self.action_limit[..., 1:].expand(*self.shape, NUM_ROTORS)).sum(-1)
        return full / (self.mass * torch.linalg.vector_norm(self.gravity, dim=-1))

    @property
    def torque_to_inertia(self) -> Tensor:
        """(N,) 1/s^2; sqrt(2) |x_0| F_max / J_xx, the ratio that RAPTOR samples (F_max: full thrust of one rotor)."""
        full = self.thrust(self.action_limit[..., 1:].expand(*self.shape, NUM_ROTORS)).mean(-1)
        return 2**0.5 * self.rotor_positions[..., 0, 0].abs() * full * self.inertia_inverse[..., 0, 0]

    @property
    def arm_length(self) -> Tensor:
        """(N,) m; largest distance of a rotor from the centre of mass."""
        return torch.linalg.vector_norm(self.rotor_positions, dim=-1).amax(-1)

    @property
    def hover_throttle(self) -> Tensor:
        """(N,) common rotor speed whose thrust carries the weight, as a fraction of the action range; from the curve.

        NaN where no common rotor speed within the limits does.
        """
        low, high = self.action_limit.unbind(-1)
        weight = self.mass * torch.linalg.vector_norm(self.gravity, dim=-1)
        vertical = self.rotor_thrust_directions[..., 2:]
        c0, c1, c2 = (self.rotor_thrust_coefficients * vertical).sum(-2).unbind(-1)
        c0 = c0 - weight
        # Root of c2 s^2 + c1 s + c0 on the rising branch, in the form that survives c2 = 0.
        discriminant = c1 * c1 - 4 * c2 * c0
        denominator = c1 + torch.sqrt(discriminant.clamp(min=0))
        speed = -2 * c0 / denominator
        reachable = (discriminant >= 0) & (denominator > 0) & (speed >= low) & (speed <= high)
        return torch.where(reachable, (speed - low) / (high - low), torch.full_like(speed, torch.nan))
