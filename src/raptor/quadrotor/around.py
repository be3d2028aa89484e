"""Vehicles around given ones: what a vehicle may really be that is known from a description or a measurement."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from raptor.config.settings import Limit, Settings, optional, setting
from raptor.quadrotor.parameters import Quadrotors
from raptor.quadrotor.population import QUANTITIES, Distribution, sample_quadrotors, scale_quantity, uncertainty_of

DISTURBANCE_FORCE, STRONGEST = 0.3, 5.0  # of RAPTOR's training: fraction of the surplus, and largest thrust-to-weight
_FRACTION = optional(Limit("at least 0 and below 1, such as 0.2 or 20%", lambda x: 0 <= x < 1))


@dataclasses.dataclass(frozen=True)
class Spread(Settings):
    """How far each quantity may be from a vehicle's own, as a fraction of it (0.2 or 20%); uniform.

    Where null, it is `every`; where that is null, too, the `uncertainty` in the vehicle's document, else 20 %.
    """

    SHORTHAND = "every"

    every: float | None = setting(None, "of all quantities that are not given; the same as spread=20%", _FRACTION)
    mass: float | None = setting(None, "of the whole vehicle", _FRACTION)
    arm_length: float | None = setting(None, "of the distances of the rotors", _FRACTION)
    inertia: float | None = setting(None, "of all axes alike", _FRACTION)
    thrust: float | None = setting(None, "of all rotors alike", _FRACTION)
    motor_time_constant: float | None = setting(None, "rising and falling", _FRACTION)
    torque_constant: float | None = setting(None, "of all rotors alike", _FRACTION)

    def of(self, quadrotors: Quadrotors) -> dict[str, Tensor]:
        """(N,) the fraction of each of `QUANTITIES` for each vehicle."""
        known = uncertainty_of(quadrotors)
        given = {name: self.every if getattr(self, name) is None else getattr(self, name) for name in QUANTITIES}
        return {name: known[name] if x is None else torch.full_like(known[name], x) for name, x in given.items()}


def sample_around(quadrotors: Quadrotors, spread: Spread, num: int, generator: torch.Generator) -> Quadrotors:
    """Draw `num` vehicles around given ones: around each of these in turn, from one that is drawn, too.

    Each quantity is multiplied by 1 + fraction * uniform(-1, 1), but thrust is raised where a vehicle would keep less
    than half of its surplus over the weight. Disturbance force and the boxes of starts and terminations are those of
    RAPTOR's training for such a vehicle. Numbers are drawn in float64 and where the generator lives.
    """
    where = generator.device
    first = torch.randint(len(quadrotors), (1,), generator=generator, device=where)
    draws = torch.rand((num, len(QUANTITIES) + 1), generator=generator, dtype=torch.float64, device=where)
    turn = ((first + torch.arange(num, device=where)) % len(quadrotors)).to(quadrotors.device)
    plain = dataclasses.replace(quadrotors, names=None, documents=None)[turn].to(dtype=torch.float64)
    u = draws.to(quadrotors.device).unbind(-1)
    fractions = {name: x.to(plain.mass)[turn] for name, x in spread.of(quadrotors).items()}
    factors = {name: 1 + fractions[name] * (2 * x - 1) for name, x in zip(QUANTITIES, u, strict=False)}
    least = (1 + 1 / plain.thrust_to_weight) / 2
    factors["thrust"] = torch.maximum(factors["thrust"], least * factors["mass"])
    around = plain
    for name, factor in factors.items():
        around = scale_quantity(around, name, factor)
    ratio = around.thrust_to_weight.clamp(max=STRONGEST)
    deviation = u[-1] * DISTURBANCE_FORCE * (ratio - 1) * ratio * around.mass / 3
    scaled = dataclasses.replace(
        around,
        random_force=torch.stack([torch.zeros_like(deviation), deviation], dim=-1),
        position_threshold=20 * around.arm_length,
        max_position=10 * around.arm_length,
    )
    return scaled.to(dtype=quadrotors.dtype)


@dataclasses.dataclass(frozen=True)
class Around:
    """The vehicles around given ones, to be drawn in the place of those of a `Distribution`."""

    quadrotors: Quadrotors
    spread: Spread = Spread()

    @property
    def shortest_time_constant(self) -> float:
        """Shortest time constant (s) of a rotor that can be drawn."""
        fraction = self.spread.of(self.quadrotors)["motor_time_constant"]
        return float((self.quadrotors.shortest_time_constant.double().cpu() * (1 - fraction)).amin())


def draw_vehicles(
    source: Distribution | Around, num: int, generator: torch.Generator, device: torch.device | str | None = None
) -> Quadrotors:
    """Draw vehicles from a distribution, or around given vehicles."""
    if isinstance(source, Around):
        return sample_around(source.quadrotors, source.spread, num, generator).to(device)
    return sample_quadrotors(num, None, generator, source, device)
