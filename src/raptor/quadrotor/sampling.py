"""Random quadrotors: the nominal Crazyflie, rescaled.

Source: `sample_dynamics_parameters` of rl-tools, and the RAPTOR paper for the variant that it describes.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Literal

import torch
from torch import Tensor

from raptor.config.settings import Settings, above, ascending, at_least, not_negative, one_of, positive, setting
from raptor.core.errors import UserError
from raptor.quadrotor.parameters import Quadrotors, load_platform
from raptor.quadrotor.vehicles import SHORTEST_TIME_CONSTANT

Range = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Distribution(Settings):
    """What vehicles are drawn from; each range is uniform. The defaults are those of the published policy's training.

    RAPTOR's code and its paper differ in two things. With d = `mass_size_deviation` and u uniform in
    [0, `disturbance_force`], in the code the size deviation is normal with mean -d and standard deviation d, and the
    standard deviation of the disturbance is u (thrust_to_weight - 1) thrust_to_weight mass / 3, without gravity; in the
    paper, they are uniform in +-d, and u (thrust_to_weight - 1) mass gravity / 3.
    """

    thrust_to_weight: Range = setting((1.5, 5.0), "at full throttle", ascending(above(1)))
    torque_to_inertia: Range = setting((40.0, 1200.0), "1/s^2", ascending(positive))
    mass: Range = setting((0.02, 5.0), "kg; uniform in the cube root, that is in size", ascending(positive))
    mass_size_deviation: float = setting(0.1, "how far the size departs from the cube root of the mass", not_negative)
    rotor_time_constant_rising: Range = setting((0.03, 0.10), "s", ascending(at_least(SHORTEST_TIME_CONSTANT)))
    rotor_time_constant_falling: Range = setting((0.03, 0.30), "s", ascending(at_least(SHORTEST_TIME_CONSTANT)))
    rotor_torque_constant: Range = setting((0.005, 0.05), "N m per N", ascending(positive))
    disturbance_force: float = setting(0.3, "largest fraction of the surplus thrust", not_negative)
    size_law: Literal["normal", "uniform"] = setting("normal", "of the size deviation", one_of("normal", "uniform"))
    disturbance_law: Literal["published", "surplus"] = setting(
        "published", "standard deviation of the disturbance", one_of("published", "surplus")
    )

    def __post_init__(self) -> None:
        """Refuse ranges that no vehicle can have; lists become tuples."""
        super().__post_init__()
        for name, value in vars(self).copy().items():
            if isinstance(value, list):
                object.__setattr__(self, name, tuple(value))
        if self.thrust_to_weight[1] > (most := _most_thrust_to_weight()):
            raise UserError(
                f"thrust_to_weight must not exceed {most:.4g}, where the lowest thrust of the curve exceeds the "
                f"weight, got {self.thrust_to_weight!r}"
            )

    @property
    def shortest_time_constant(self) -> float:
        """Shortest time constant (s) of a rotor that can be drawn."""
        return min(self.rotor_time_constant_rising[0], self.rotor_time_constant_falling[0])


def named_distribution(distribution: str | Distribution) -> Distribution:
    """The distribution `published` (of the code) or `paper` (of the text), or the given one itself."""
    if isinstance(distribution, Distribution):
        return distribution
    if distribution == "published":
        return Distribution()
    if distribution == "paper":
        return Distribution(size_law="uniform", disturbance_law="surplus")
    raise UserError(f"distribution must be published, paper or a Distribution, got {distribution!r}")


def sample_quadrotors(
    num: int,
    seed: int | None = None,
    generator: torch.Generator | None = None,
    distribution: str | Distribution = "published",
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Quadrotors:
    """Draw `num` vehicles from a seed, by default 0, or a generator; from `published`, `paper`, or a `Distribution`.

    Numbers are drawn where the generator lives and in float64, so that a seed gives the same vehicles in every `dtype`
    and on every `device`; the first vehicles of a larger population are those of a smaller one. They come with RAPTOR's
    box of starts (10 arm lengths), termination box (20 arm lengths) and standard deviation of the disturbance force.
    """
    if isinstance(num, bool) or not isinstance(num, int) or num < 1:
        raise UserError(f"num must be a positive integer, got {num!r}")
    if seed is not None and generator is not None:
        raise UserError("sample_quadrotors takes a seed or a generator, got both")
    generator = generator or torch.Generator().manual_seed(seed or 0)
    ranges = named_distribution(distribution)
    draws = torch.rand((num, 8), generator=generator, dtype=torch.float64, device=generator.device)
    return _rescale(_nominal(draws.device), ranges, draws).to(dtype=dtype).to(device)


def _rescale(nominal: Quadrotors, ranges: Distribution, draws: Tensor) -> Quadrotors:
    """Turn uniform numbers (N, 8) in [0, 1) into vehicles."""
    u_thrust, u_mass, u_torque, u_size, u_constant, u_force, u_rising, u_falling = draws.unbind(-1)
    thrust_to_weight = _between(ranges.thrust_to_weight, u_thrust)
    cube_root = _between((ranges.mass[0] ** (1 / 3), ranges.mass[1] ** (1 / 3)), u_mass)
    mass = (cube_root**3).clamp(*ranges.mass)
    gravity = torch.linalg.vector_norm(nominal.gravity)
    full_thrust = thrust_to_weight * mass * gravity / 4  # of one rotor
    thrust_factor = (thrust_to_weight / nominal.thrust_to_weight) * (mass / nominal.mass)
    lever = math.sqrt(2) * nominal.rotor_positions[0, 0, 0].abs()
    torque_factor = _between(ranges.torque_to_inertia, u_torque) / (lever * full_thrust / nominal.inertia[0, 0, 0])
    size = (mass / nominal.mass) ** (1 / 3) * _size_deviation(ranges, u_size)
    inertia_factor = (size / torque_factor)[:, None, None]
    positions = nominal.rotor_positions * size[:, None, None]
    radius = torch.linalg.vector_norm(positions, dim=-1).amax(-1)
    surplus = u_force * ranges.disturbance_force * (thrust_to_weight - 1)
    deviation = surplus * mass * (gravity if ranges.disturbance_law == "surplus" else thrust_to_weight) / 3

    def per_rotor(limits: Range, u: Tensor) -> Tensor:
        return _between(limits, u).unsqueeze(-1).repeat(1, 4)

    alike = dataclasses.replace(nominal, names=None, documents=None)[torch.zeros(len(draws), dtype=torch.long)]
    return dataclasses.replace(
        alike,
        mass=mass,
        inertia=nominal.inertia * inertia_factor,
        inertia_inverse=nominal.inertia_inverse / inertia_factor,
        rotor_positions=positions,
        rotor_thrust_coefficients=nominal.rotor_thrust_coefficients * thrust_factor[:, None, None],
        rotor_torque_constants=per_rotor(ranges.rotor_torque_constant, u_constant),
        rotor_time_constants_rising=per_rotor(ranges.rotor_time_constant_rising, u_rising),
        rotor_time_constants_falling=per_rotor(ranges.rotor_time_constant_falling, u_falling),
        random_force=torch.stack([torch.zeros_like(deviation), deviation], dim=-1),
        position_threshold=20 * radius,
        max_position=10 * radius,
    )


def _size_deviation(ranges: Distribution, u: Tensor) -> Tensor:
    unit = 2 * u - 1 if ranges.size_law == "uniform" else torch.special.ndtri(u.clamp(1e-16, 1 - 2e-16)) - 1
    x = ranges.mass_size_deviation * unit
    return torch.where(x >= 0, 1 + x, 1 / (1 - x))


def _between(limits: Range, u: Tensor) -> Tensor:
    low, high = limits
    return low + (high - low) * u


@functools.cache
def _nominal(device: torch.device) -> Quadrotors:
    return load_platform("crazyflie", torch.float64).to(device)


@functools.cache
def _most_thrust_to_weight() -> float:
    """Where the thrust at the lowest rotor speed, which is scaled along with the rest, would carry the weight."""
    nominal = _nominal(torch.device("cpu"))
    lowest = nominal.thrust(nominal.action_limit[:, :1].expand(1, 4)).sum(-1)
    return float(nominal.full_thrust.sum(-1) / lowest)
