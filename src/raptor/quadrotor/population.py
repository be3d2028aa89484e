"""Populations: random quadrotors, which are the nominal Crazyflie rescaled, and those in a folder.

Source: `sample_dynamics_parameters` of rl-tools, and the RAPTOR paper for the variant that it describes.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from raptor.config import to_dict
from raptor.config.settings import Settings, above, ascending, at_least, not_negative, one_of, positive, setting
from raptor.core.atomic import PathLike, write_atomically
from raptor.core.errors import UserError
from raptor.core.yaml_files import dump_yaml
from raptor.quadrotor.parameters import Quadrotors, is_finite_number, load_platform, shown
from raptor.quadrotor.validation import cannot_hover, characteristics
from raptor.quadrotor.vehicles import SHORTEST_TIME_CONSTANT

Range = tuple[float, float]

SUMMARY, PICTURE = "summary.yaml", "summary.png"
QUANTILES = {"min": 0.0, "p5": 0.05, "p50": 0.5, "p95": 0.95, "max": 1.0}

QUANTITIES = {
    "mass": ("mass",),
    "arm_length": ("rotor_positions",),
    "inertia": ("inertia",),
    "thrust": ("rotor_thrust_coefficients",),
    "motor_time_constant": ("rotor_time_constants_rising", "rotor_time_constants_falling"),
    "torque_constant": ("rotor_torque_constants",),
}
"""What is uncertain about a vehicle, and the fields that are proportional to it."""

UNCERTAINTY = 0.2  # of a quantity whose uncertainty nobody gives, as a fraction

NUM_REASONS, NUM_NAMES = 3, 20  # of how many broken files an error gives the reason, and of how many more the name


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
    if distribution == "paper":
        return Distribution(size_law="uniform", disturbance_law="surplus")
    if distribution != "published" and not isinstance(distribution, Distribution):
        raise UserError(f"distribution must be published, paper or a Distribution, got {distribution!r}")
    return distribution if isinstance(distribution, Distribution) else Distribution()


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
    unit = 2 * u_size - 1 if ranges.size_law == "uniform" else torch.special.ndtri(u_size.clamp(1e-16, 1 - 2e-16)) - 1
    x = ranges.mass_size_deviation * unit
    size = (mass / nominal.mass) ** (1 / 3) * torch.where(x >= 0, 1 + x, 1 / (1 - x))
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


def scale_quantity(quadrotors: Quadrotors, quantity: str, factor: float | Tensor) -> Quadrotors:
    """The same vehicles with one of `QUANTITIES` times a factor, or one for each vehicle (N,); the others stay.

    Boxes of starts and terminations stay, too. Time constants end at the shortest that can be simulated.
    """
    if quantity not in QUANTITIES:
        raise UserError(f"there is no quantity {quantity!r}: choose one of {', '.join(QUANTITIES)}")
    factors = torch.as_tensor(factor, dtype=quadrotors.dtype, device=quadrotors.device).expand(len(quadrotors))

    def times(name: str, by: Tensor) -> Tensor:
        tensor: Tensor = getattr(quadrotors, name)
        return tensor * by.reshape(-1, *[1] * (tensor.ndim - 1))

    changed = {name: times(name, factors) for name in QUANTITIES[quantity]}
    if quantity == "inertia":
        changed["inertia_inverse"] = times("inertia_inverse", 1 / factors)
    if quantity == "motor_time_constant":
        changed = {name: tensor.clamp(min=SHORTEST_TIME_CONSTANT) for name, tensor in changed.items()}
    scaled: dict[str, Any] = changed
    return dataclasses.replace(quadrotors, **scaled)


def uncertainty_of(quadrotors: Quadrotors, default: float = UNCERTAINTY) -> dict[str, Tensor]:
    """How uncertain each of `QUANTITIES` is, (N,) as a fraction: as the vehicle's document says, else `default`."""
    found: dict[str, list[float]] = {name: [] for name in QUANTITIES}
    for place, document in enumerate(quadrotors.documents or [{}] * len(quadrotors)):
        said = document.get("uncertainty") or {}
        for name, column in found.items():
            value = said.get(name, default)
            if not (is_finite_number(value) and 0 <= value < 1):
                vehicle = quadrotors.names[place] if quadrotors.names else place
                raise UserError(
                    f"uncertainty.{name} must be at least 0 and below 1, got {shown(value)} (vehicle {vehicle})"
                )
            column.append(value)
    return {name: torch.tensor(column, dtype=torch.float64) for name, column in found.items()}


def write_population(
    quadrotors: Quadrotors,
    folder: PathLike,
    overwrite: bool = False,
    seed: int | None = None,
    distribution: Distribution | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Write 0000.json, ... as `Quadrotors.save` does, then `summary.yaml` and `summary.png`.

    The summary notes the seed and the distribution that the vehicles were drawn with.
    """
    from raptor.core.plotting import to_png
    from raptor.quadrotor.plots import plot_population

    target = Path(folder)
    paths = quadrotors.save(target, overwrite, numbered=True, progress=progress)
    origin: dict[str, Any] = {} if seed is None else {"seed": seed}
    if distribution is not None:
        origin["distribution"] = to_dict(distribution)
    write_atomically(target / PICTURE, to_png(plot_population(quadrotors)))
    write_atomically(target / SUMMARY, dump_yaml(summarise(quadrotors, origin)))
    return paths


def read_population(folder: PathLike, num: int | None = None) -> Quadrotors:
    """Read the vehicles of a folder of JSON files, or the first `num`, in natural order; each is named by its file.

    An error names every file that cannot be read or cannot hover.
    """
    source = Path(folder)
    if not source.is_dir():
        raise UserError(f"{source} is no folder of quadrotors: make one with raptor sample, or give another")
    try:
        quadrotors = Quadrotors.from_json(source)
    except UserError:
        refuse_broken(source, sorted(source.glob("*.json")))
        raise  # the folder holds nothing to read
    if cannot_hover(quadrotors).any():
        refuse_broken(source, sorted(source.glob("*.json")))
    if num is None:
        return quadrotors
    if isinstance(num, bool) or not isinstance(num, int) or not 1 <= num <= len(quadrotors):
        raise UserError(f"num must be between 1 and the {len(quadrotors)} quadrotors in {source}, got {num!r}")
    return quadrotors[:num]


def summarise(quadrotors: Quadrotors, origin: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What `summary.yaml` holds: number, origin, the fraction that cannot hover, and quantiles in their units."""

    def quantiles(values: Tensor) -> dict[str, float]:
        exact = values.detach().double().cpu()
        return {name: _rounded(torch.nanquantile(exact, share)) for name, share in QUANTILES.items()}

    traits = characteristics(quadrotors).items()
    return {
        "number": len(quadrotors),
        **(origin or {}),
        "share_that_cannot_hover": _rounded(cannot_hover(quadrotors).double().mean()),
        "quantiles": {name: {"unit": trait.unit or "1"} | quantiles(trait.values) for name, trait in traits},
    }


def _rounded(number: Tensor) -> float:
    return float(f"{number.item():.6g}")


def refuse_broken(
    folder: Path, files: Sequence[Path], read: Callable[[Path], Quadrotors] = Quadrotors.from_json
) -> None:
    """Name every file of a folder that cannot be read, or cannot hover, the first ones with the reason."""
    reasons: dict[str, str] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for path in files:
            try:
                quadrotor = read(path)
                if cannot_hover(quadrotor).any():
                    ratio = f"{quadrotor.thrust_to_weight.item():.4g}"
                    raise UserError(f"thrust_to_weight must be above 1 to hover, got {ratio} ({path})")
            except UserError as error:
                reasons[path.name] = str(error)
    if len(reasons) == 1:
        raise UserError(*reasons.values())
    if reasons:
        told, named = list(reasons.values())[:NUM_REASONS], list(reasons)[NUM_REASONS : NUM_REASONS + NUM_NAMES]
        text = "; also ".join(filter(None, ("; ".join(told), ", ".join(named))))
        left = len(reasons) - len(told) - len(named)
        text += f" and {left} more" if left else ""
        raise UserError(f"{len(reasons)} quadrotors in {folder} cannot be used: {text}")
