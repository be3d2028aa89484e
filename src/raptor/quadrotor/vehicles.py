"""The parameters of N vehicles as tensors: one table of fields, and what follows from them."""

from __future__ import annotations

import dataclasses
import functools
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from raptor.quadrotor.state import component_major

NUM_ROTORS = 4
SIDES = ((1.0, -1.0), (-1.0, -1.0), (-1.0, 1.0), (1.0, 1.0))  # signs of x and y, rotor by rotor
ON_AXIS = 0.1  # how far, in arm lengths, a rotor may be beyond the axis that it is nearest to, as those of a + frame
SHORTEST_TIME_CONSTANT = 1e-3  # s; of a rotor. A step of 0.01 s integrates shorter ones as if they were this long

LONGEST_STEP = 0.8
"""Step over time constant up to which one Runge-Kutta step of fourth order follows a rotor (to 0.3 % of a jump)."""

V = TypeVar("V", bound="Vehicles")

Rule = tuple[str, Callable[[Tensor], Tensor]]
"""What completes the name of a field to a sentence, and where it holds: in the field's shape, or its first axes."""


class Field(NamedTuple):
    """A tensor field of one vehicle, as documents and validation know it."""

    unit: str
    rules: tuple[Rule, ...]
    shape: tuple[int, ...]
    path: str  # where it stands in l2f's document
    keys: tuple[str, ...]  # of the object that holds it there, in the order of the tensor

    def read(self, document: Any) -> Any:
        """The numbers in a document, nested as in the tensor."""
        found = functools.reduce(operator.getitem, self.path.split("."), document)
        return [found[key] for key in self.keys] or found

    def write(self, document: Any, value: Any) -> None:
        """Put numbers into a complete document."""
        *groups, leaf = self.path.split(".")
        group = functools.reduce(operator.getitem, groups, document)
        group[leaf] = {**group[leaf], **dict(zip(self.keys, value, strict=True))} if self.keys else value


def _field(unit: str, *rules: Rule, shape: tuple[int, ...] = (), path: str = "", keys: tuple[str, ...] = ()) -> Any:
    return dataclasses.field(metadata={"field": Field(unit, rules, shape, path, keys)})


_POSITIVE = ("must be positive", lambda x: x > 0)
_NOT_NEGATIVE = ("must not be negative", lambda x: x >= 0)
_LONG = f"must be at least {SHORTEST_TIME_CONSTANT:g} s, the shortest that can be simulated"
_LONG_ENOUGH = (_LONG, lambda x: x >= SHORTEST_TIME_CONSTANT)
_NO_SIGN = ("must not be negative (rotor_torque_directions give the sign)", lambda x: x >= 0)
_UNIT = ("must be a unit vector", lambda x: (torch.linalg.vector_norm(x, dim=-1) - 1).abs() <= 1e-4)
_ORDERED = ("must be two numbers, the lower one first", lambda x: x[..., 0] < x[..., 1])
_DOWN = ("must point down, along negative z", lambda x: x[..., 2] < 0)
_STD = "has a standard deviation (std) that must not be negative"
_SPREAD = (_STD, lambda x: (x >= 0) | torch.tensor([True, False]))
_MOMENTS = ("mean", "std")  # per axis, constant in an episode


@dataclasses.dataclass(frozen=True)
class Vehicles:
    """Parameters of N vehicles; the leading axis of every tensor is the population. See `Quadrotors`."""

    mass: Tensor = _field("kg", _POSITIVE)  # (N,)
    inertia: Tensor = _field("kg m^2", shape=(3, 3), path="dynamics.J")  # (N, 3, 3) body
    inertia_inverse: Tensor = _field("1/(kg m^2)", shape=(3, 3), path="dynamics.J_inv")  # body; authority of the two
    rotor_positions: Tensor = _field("m", shape=(4, 3))  # (N, 4, 3) body, from the centre of mass
    rotor_thrust_directions: Tensor = _field("", _UNIT, shape=(4, 3))  # body
    rotor_torque_directions: Tensor = _field("", _UNIT, shape=(4, 3))  # body; reaction torque per positive thrust
    rotor_thrust_coefficients: Tensor = _field("N", shape=(4, 3))  # thrust = c0 + c1 speed + c2 speed^2
    rotor_torque_constants: Tensor = _field("N m per N", _NO_SIGN, shape=(4,))
    rotor_time_constants_rising: Tensor = _field("s", _POSITIVE, _LONG_ENOUGH, shape=(4,))
    rotor_time_constants_falling: Tensor = _field("s", _POSITIVE, _LONG_ENOUGH, shape=(4,))
    action_limit: Tensor = _field("", _ORDERED, shape=(2,), keys=("min", "max"))  # rotor speed, as in the thrust curve
    gravity: Tensor = _field("m/s^2", _DOWN, shape=(3,))  # world
    random_force: Tensor = _field("N", _SPREAD, shape=(2,), path="disturbances.random_force", keys=_MOMENTS)
    random_torque: Tensor = _field("N m", _SPREAD, shape=(2,), path="disturbances.random_torque", keys=_MOMENTS)
    position_threshold: Tensor = _field("m", _POSITIVE, path="mdp.termination.position_threshold")  # half its box
    max_position: Tensor = _field("m", _NOT_NEGATIVE, path="mdp.init.max_position")  # half the box of starts that fits
    names: tuple[str, ...] | None = None  # one per vehicle
    documents: tuple[Mapping[str, Any], ...] | None = None  # complete JSON document that each vehicle was read from

    def __len__(self) -> int:
        return len(self.mass)

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

    def tensors(self) -> dict[str, Tensor]:
        """The tensor fields by name."""
        return {name: getattr(self, name) for name in FIELDS}

    def map(self: V, function: Callable[[Tensor], Tensor]) -> V:
        """Apply `function` to every tensor field."""
        mapped: dict[str, Any] = {name: function(tensor) for name, tensor in self.tensors().items()}
        return dataclasses.replace(self, **mapped)

    def to(self: V, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> V:
        """The same vehicles on another device or in another floating-point type."""
        return self.map(lambda tensor: tensor.to(device=device, dtype=dtype))

    def component_major(self: V) -> V:
        """The same vehicles in the memory layout that compiled kernels read fastest."""
        return self.map(lambda tensor: component_major(tensor, tensor.ndim - self.mass.ndim))

    def __getitem__(self: V, index: int | slice | Tensor | Sequence[int]) -> V:
        """Index the population; an integer gives a population of one, so that the leading axis stays."""
        places = torch.arange(len(self), device=self.device)[index].reshape(-1)

        def chosen(column: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
            return None if column is None else tuple(column[i] for i in places.tolist())

        part = self.map(lambda tensor: tensor[places])
        return dataclasses.replace(part, names=chosen(self.names), documents=chosen(self.documents))

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
    def disturbance_to_weight(self) -> Tensor:
        """(N,) standard deviation of the disturbance force over weight."""
        return self.random_force[..., 1] / self.weight

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
        """(N,) common rotor speed that carries the weight, as a fraction of the action range; NaN where none does."""
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


FIELDS: dict[str, Field] = {
    field.name: found._replace(path=found.path or f"dynamics.{field.name}")
    for field in dataclasses.fields(Vehicles)
    if (found := field.metadata.get("field"))
}
"""All tensor fields, in their order."""
