"""The parameters of N vehicles as tensors, and what follows from them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from raptor.quadrotor.schema import FIELDS
from raptor.quadrotor.state import component_major

NUM_ROTORS = 4

LONGEST_STEP = 0.8
"""Step over time constant up to which one Runge-Kutta step of fourth order follows a rotor (to 0.3 % of a jump)."""

V = TypeVar("V", bound="Vehicles")


@dataclasses.dataclass(frozen=True)
class Vehicles:
    """Parameters of N vehicles; the leading axis of every tensor is the population. See `Quadrotors`."""

    mass: Tensor  # (N,) kg
    inertia: Tensor  # (N, 3, 3) kg m^2, body
    inertia_inverse: Tensor  # (N, 3, 3) 1/(kg m^2), body; the authority where a file's inertia was rounded
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
        return {name: getattr(self, name) for name in FIELDS}

    def map(self: V, function: Any) -> V:
        """Apply `function` to every tensor field."""
        return dataclasses.replace(self, **{name: function(tensor) for name, tensor in self.tensors().items()})

    def to(self: V, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> V:
        """The same vehicles on another device or in another floating-point type."""
        return self.map(lambda tensor: tensor.to(device=device, dtype=dtype))

    def component_major(self: V) -> V:
        """The same vehicles in the memory layout that compiled kernels read fastest."""
        moved: dict[str, Any] = {
            name: component_major(getattr(self, name), len(field.shape))
            for name, field in FIELDS.items()
            if field.shape
        }
        return dataclasses.replace(self, **moved)

    def __getitem__(self: V, index: int | slice | Tensor | Sequence[int]) -> V:
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
            self.map(lambda tensor: tensor[index]),
            names=None if self.names is None else tuple(self.names[i] for i in chosen),
            documents=None if self.documents is None else tuple(self.documents[i] for i in chosen),
        )

    def repeat_interleave(self: V, repeats: int) -> V:
        """Each vehicle `repeats` times in a row."""
        return self[torch.arange(len(self), device=self.device).repeat_interleave(repeats)]

    @classmethod
    def concatenate(cls: type[V], populations: Iterable[V]) -> V:
        """One population after another along the leading axis."""
        parts = list(populations)
        if not parts:
            raise ValueError("concatenate needs at least one population")

        def labels(name: str) -> Any:
            columns = [getattr(part, name) for part in parts]
            return None if any(column is None for column in columns) else tuple(x for column in columns for x in column)

        tensors = {name: torch.cat([getattr(part, name) for part in parts]) for name in FIELDS}
        return cls(**tensors, names=labels("names"), documents=labels("documents"))

    def with_thrust_scaled(self: V, factor: float) -> V:
        """The same vehicles with every rotor giving `factor` times the modelled thrust."""
        return dataclasses.replace(self, rotor_thrust_coefficients=self.rotor_thrust_coefficients * factor)

    def thrust(self, rotor_speed: Tensor) -> Tensor:
        """Thrust (N) of each rotor at speeds (..., 4), from the polynomial."""
        c0, c1, c2 = self.rotor_thrust_coefficients.unbind(-1)
        return c0 + rotor_speed * (c1 + rotor_speed * c2)

    @property
    def full_thrust(self) -> Tensor:
        """(N, 4) N; of each rotor at the upper action limit."""
        return self.thrust(self.action_limit[..., 1:].expand(*self.shape, NUM_ROTORS))

    @property
    def weight(self) -> Tensor:
        """(N,) N."""
        return self.mass * torch.linalg.vector_norm(self.gravity, dim=-1)

    @property
    def thrust_to_weight(self) -> Tensor:
        """(N,) total thrust at the upper action limit over weight."""
        return self.full_thrust.sum(-1) / self.weight

    @property
    def torque_to_inertia(self) -> Tensor:
        """(N,) 1/s^2; sqrt(2) |x| F_max / J_xx, the ratio that RAPTOR samples; |x| and F_max are rotors' means."""
        lever = 2**0.5 * self.rotor_positions[..., 0].abs().mean(-1)
        return lever * self.full_thrust.mean(-1) * self.inertia_inverse[..., 0, 0]

    @property
    def shortest_time_constant(self) -> Tensor:
        """(N,) s; of the vehicle's rotors, rising or falling."""
        return torch.minimum(self.rotor_time_constants_rising, self.rotor_time_constants_falling).amin(-1)

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
        vertical = self.rotor_thrust_directions[..., 2:]
        c0, c1, c2 = (self.rotor_thrust_coefficients * vertical).sum(-2).unbind(-1)
        c0 = c0 - self.weight
        # Root of c2 s^2 + c1 s + c0 on the rising branch, in the form that survives c2 = 0.
        discriminant = c1 * c1 - 4 * c2 * c0
        denominator = c1 + torch.sqrt(discriminant.clamp(min=0))
        speed = -2 * c0 / denominator
        reachable = (discriminant >= 0) & (denominator > 0) & (speed >= low) & (speed <= high)
        return torch.where(reachable, (speed - low) / (high - low), torch.full_like(speed, torch.nan))
