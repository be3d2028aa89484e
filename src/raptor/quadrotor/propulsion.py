"""Motors and propellers of a described quadrotor: thrust over throttle, reaction torque, and lag.

The thrust of a propeller at rest is C_T rho n^2 D^4, with n in turns per second. Momentum theory gives its induced
power as T sqrt(T / (2 rho A)), and a real propeller needs more, by its figure of merit.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import NamedTuple

from raptor.core.errors import UserError
from raptor.quadrotor.known import Description
from raptor.quadrotor.thrust_tables import fit_thrust, thrust_table
from raptor.quadrotor.units import KGF

GRAVITY = 9.81  # m/s^2
AIR_DENSITY = 1.225  # kg/m^3, at sea level and 15 degrees Celsius
THRUST_TO_WEIGHT = 3.3
MOST_THRUST_TO_WEIGHT = 50.0  # of anything that carries its own battery
MOTOR_TIME_CONSTANT = 0.04  # s
TORQUE_PER_THRUST = 0.016  # N m per N
TORQUE_PER_THRUST_AND_DIAMETER = 0.07  # of a propeller of average pitch, by the formula of `_torque_per_diameter`
MEDIAN = "median of the packaged platforms"

# Fitted to full throttle of three motors with nine propellers of 8 to 15 inches (CTU Prague, MRS group), to data sheets
# of two with 5 inches and to the platform x500_real: all lie within a factor of 1.4.
CELL_VOLTAGE = 3.7  # V, nominal
LOADED_SPEED = 0.77  # of KV times nominal voltage, that a motor reaches with a propeller that suits it
THRUST_COEFFICIENT = 0.05, 0.11  # C_T of two blades = the first + the second times pitch over diameter
BLADES = 0.7  # C_T grows with this power of the number of blades
FIGURE_OF_MERIT = 0.6
POWERS = {
    "thrust_coefficient": {"thrust_coefficient": 1, "max_rotor_speed": 2},
    "motor_kv": {"motor_kv": 2, "battery_cells": 2, "battery_voltage": 2},
    "propeller_diameter": {"propeller_diameter": 4, "propeller_pitch": 1},
}
"""By the first of keys that give the thrust together, the powers with which it goes with each (at most, of pitch)."""

MISMATCH = 2.5  # factor between what is given and what its parts suggest, from which on it is doubted

THRUST_KEYS = (
    "thrust_table",
    "max_thrust_per_motor",
    "thrust_coefficient",
    "thrust_to_weight",
    "hover_throttle",
    "motor_kv",
)
"""Keys that give the thrust of a motor, the surest first."""

_INCH = 0.0254  # m
_RPM = 2 * math.pi / 60  # rad/s


class Propeller(NamedTuple):
    """Diameter and, where it is known, pitch, in m."""

    diameter: float
    pitch: float | None = None
    blades: int = 2

    @property
    def thrust_coefficient(self) -> float:
        """C_T at rest, from typical propellers; of a pitch of half the diameter where it is not known."""
        (base, slope), pitch = THRUST_COEFFICIENT, self.pitch or self.diameter / 2
        return (base + slope * pitch / self.diameter) * (self.blades / 2) ** BLADES


def thrust_curve(known: Description, mass: float, propeller: Propeller | None) -> list[float]:
    """Coefficients (N) of a motor's thrust over throttle."""
    weight = mass * GRAVITY
    hover, ratio = known.number("hover_throttle"), known.number("thrust_to_weight")
    if hover is not None and hover >= 1:
        raise known.wrong("hover_throttle", "must be between 0 and 1")
    if ratio is not None and ratio <= 1:
        raise known.wrong("thrust_to_weight", "must be above 1 for the vehicle to hover")
    table = thrust_table(known)
    curve = None if table is None else fit_thrust(known, table)
    full = _full_thrust(known, weight, propeller, None if curve is None else sum(curve))
    _check_full_thrust(known, mass, full)
    if curve is not None:
        _, linear, square = curve
        implied = weight / (2 * linear + math.sqrt(4 * linear**2 + 4 * square * weight))
        if hover is not None and not 1 / 1.3 < hover / implied < 1.3:
            known.doubts.append(f"hover_throttle is {hover:.3g}, but by thrust_table it hovers at {implied:.3g}")
        return curve
    ratio = 4 * full / weight
    if hover is None:
        how = f"thrust grows with the square of the throttle: 1 / sqrt(thrust_to_weight {ratio:.4g})"
        known.estimate("hover_throttle", math.sqrt(1 / ratio), "", how)
        return [0.0, 0.0, full]
    # thrust = full (a u + (1 - a) u^2), through full / ratio at hover; rising on the whole range for 0 <= a <= 2
    least, most = 1 - math.sqrt(1 - 1 / ratio), math.sqrt(1 / ratio)
    if not least - 1e-9 <= hover <= most + 1e-9:
        allowed = f"must be between {least:.3g} and {most:.3g} where full thrust is {ratio:.3g} times the weight"
        raise known.wrong("hover_throttle", allowed)
    linear = (1 / ratio - hover**2) / (hover - hover**2)
    return [0.0, full * linear, full * (1 - linear)]


def _full_thrust(known: Description, weight: float, propeller: Propeller | None, measured: float | None) -> float:
    """N, of a motor; all ways to know it must agree."""
    speed, coefficient = known.number("max_rotor_speed"), known.number("thrust_coefficient")
    ratio, given = known.number("thrust_to_weight"), known.number("max_thrust_per_motor")
    hover = known.number("hover_throttle")
    ways = {
        "thrust_table": measured,
        "max_thrust_per_motor": given,
        "thrust_coefficient": None if None in (speed, coefficient) else coefficient * speed**2,
        "thrust_to_weight": None if ratio is None else ratio * weight / 4,
    }
    sure = {key: thrust for key, thrust in ways.items() if thrust is not None}
    guess = _thrust_of_parts(known, propeller, keep=not sure and hover is None)
    if sure:
        first, full = next(iter(sure.items()))
        for key, thrust in list(sure.items())[1:]:
            others = f"{first} and mass" if key == "thrust_to_weight" else first
            scale, unit = (4 / weight, "") if key == "thrust_to_weight" else (1.0, "N")
            known.agree(key, thrust * scale, others, full * scale, unit, POWERS.get(key))
        if measured is None:
            known.certain("thrust", POWERS.get(first, {first: 1}), 0.1)
        if guess is not None and not 1 / MISMATCH < full / guess < MISMATCH:
            text = f"{first} gives {full:.3g} N a motor, but motor, battery and propeller suggest {guess:.3g} N"
            known.doubts.append(f"{text}; are the units right?")
        return full
    if guess is not None and hover is None:
        return guess
    if hover is not None:
        how = f"1 / hover_throttle^2: 1 / {hover:.4g}^2"
        ratio = known.estimate("thrust_to_weight", 1 / hover**2, "", how, 0.25, "thrust", {"hover_throttle": 2})
        return float(ratio * weight / 4)
    for key in ("motor_kv", "thrust_coefficient", "max_rotor_speed"):
        if key in known:
            needs = "thrust_coefficient or propeller, and max_rotor_speed or motor_kv with battery_cells"
            raise UserError(f"{key} alone does not give the thrust{known.where(key)}: it takes {needs}")
    return float(known.estimate("thrust_to_weight", THRUST_TO_WEIGHT, "", MEDIAN, 0.4, of="thrust") * weight / 4)


def _thrust_of_parts(known: Description, propeller: Propeller | None, keep: bool) -> float | None:
    """Thrust (N) of a propeller at the speed that its motor reaches, where both are known; estimates that one keeps."""
    before = list(known.estimates)
    speed = known.number("max_rotor_speed") or _rotor_speed(known)
    coefficient = known.number("thrust_coefficient") or _thrust_coefficient(known, propeller) if speed else None
    if not keep or coefficient is None or speed is None:
        known.estimates[:] = before
    if coefficient is None or speed is None:
        return None
    thrust = coefficient * speed**2
    if keep:
        how = f"thrust_coefficient max_rotor_speed^2: {coefficient:.4g} x {speed:.5g}^2, {thrust / KGF:.3g} kgf"
        by = {"max_rotor_speed": 2} if "max_rotor_speed" in known else POWERS["motor_kv"]
        by = by | ({"thrust_coefficient": 1} if "thrust_coefficient" in known else POWERS["propeller_diameter"])
        known.estimate("max_thrust_per_motor", thrust, "N", how, 0.3, "thrust", by)
    return float(thrust)


def _rotor_speed(known: Description) -> float | None:
    """rad/s at full throttle."""
    kv, cells, voltage = map(known.number, ("motor_kv", "battery_cells", "battery_voltage"))
    if cells is not None and (cells != round(cells) or cells > 14):
        raise known.wrong("battery_cells", "must be a whole number from 1 to 14")
    if kv is None or (cells is None and voltage is None):
        return None
    if voltage is None:
        how = f"{CELL_VOLTAGE:g} V for each of {cells:.0f} cells"
        voltage = known.estimate("battery_voltage", CELL_VOLTAGE * cells, "V", how)
    rpm = LOADED_SPEED * kv * voltage
    how = f"{LOADED_SPEED:g} motor_kv battery_voltage: {LOADED_SPEED:g} x {kv:g} x {voltage:.4g} = {rpm:.0f} rpm"
    return float(known.estimate("max_rotor_speed", rpm * _RPM, "rad/s", how, 0.1))


def _thrust_coefficient(known: Description, propeller: Propeller | None) -> float | None:
    """N s^2, from the propeller."""
    if propeller is None:
        return None
    if propeller.pitch is None:
        known.estimate("propeller_pitch", propeller.diameter / 2, "m", "half the diameter", 0.4)
    value = propeller.thrust_coefficient * AIR_DENSITY * propeller.diameter**4 / (4 * math.pi**2)
    base, slope = THRUST_COEFFICIENT
    blades = f" x ({propeller.blades} blades / 2)^{BLADES:g}" if propeller.blades != 2 else ""
    formula = f"C_T = ({base:g} + {slope:g} pitch / diameter){blades} = {propeller.thrust_coefficient:.3g}"
    how = f"C_T rho diameter^4 / (4 pi^2) with {formula}, diameter {propeller.diameter:.4g} m"
    return float(known.estimate("thrust_coefficient", value, "N s^2", how, 0.25))


def _check_full_thrust(known: Description, mass: float, full: float) -> None:
    """Refuse thrust with which nothing flies, with the likely cause."""
    least = mass * GRAVITY / 4
    if least < full <= MOST_THRUST_TO_WEIGHT * least:
        return
    key = next((key for key in THRUST_KEYS if key in known), "mass")
    grams = key == "max_thrust_per_motor" and re.search("g|lb|oz", str(known.content[key]))  # stand beside the number
    slips = {"thrust in kgf": KGF, "thrust in g": KGF / 1e3} if key in THRUST_KEYS[:2] and not grams else {}
    if key not in THRUST_KEYS[:2] and "max_rotor_speed" in known:
        slips = {"max_rotor_speed in rpm": _RPM**2, "thrust_coefficient in N/rpm^2": _RPM**-2}
    causes = [cause for cause, factor in slips.items() if 1.2 < factor * full / least < 20]
    guess = f"was {' or '.join(causes)}?" if causes else f"correct {'its number or unit' if grams else 'one of them'}"
    allowed = f"{mass:g} kg fly with {least:.4g} to {MOST_THRUST_TO_WEIGHT * least:.4g} N"
    raise UserError(f"{key} gives a motor {full:.4g} N, but {allowed}{known.where(key)}: {guess}")


def propeller_of(known: Description) -> Propeller | None:
    """The propeller, where its diameter is known."""
    diameter = known.number("propeller_diameter")
    if "propeller" not in known:
        if diameter is not None:
            known.question("propeller_diameter", diameter)
        return None if diameter is None else Propeller(diameter, known.number("propeller_pitch"))
    number, times = r"([0-9]*\.?[0-9]+)", r"\s*[x×*]\s*"
    pattern = rf"\s*{number}{times}{number}(?:{times}([2-8]))?\s*(?:in|inch|inches|\")?\s*"
    found = re.fullmatch(pattern, str(known.content["propeller"]).lower())
    sizes = [float(size) for size in found.groups()[:2]] if found else []
    if found is None or not all(0.5 <= size <= 60 for size in sizes):
        raise known.wrong("propeller", "must be diameter x pitch, or x blades, in inches, as 5x4.3 or 5.1x4.3x3")
    return Propeller(sizes[0] * _INCH, sizes[1] * _INCH, int(found[3] or 2))


def torque_constant(known: Description, propeller: Propeller | None) -> float:
    """N m per N."""
    key, thrust, torque = "propeller_torque_constant", *map(known.number, ("thrust_coefficient", "torque_coefficient"))
    if (given := known.number(key)) is not None:
        if None not in (thrust, torque):
            ratio = {key: 1, "torque_coefficient": 1, "thrust_coefficient": 1}
            known.agree(key, given, "torque_coefficient over thrust_coefficient", torque / thrust, "N m per N", ratio)
        known.certain("torque_constant", {key: 1}, 0.15)
        return float(given)
    if torque is not None:
        if thrust is None:
            text = f"torque_coefficient needs thrust_coefficient{known.where('torque_coefficient')}"
            raise UserError(f"{text}: their ratio is the torque constant")
        how = f"torque_coefficient / thrust_coefficient: {torque:.4g} / {thrust:.4g}"
        by = {"torque_coefficient": 1, "thrust_coefficient": 1}
        return float(known.estimate(key, torque / thrust, "N m per N", how, 0.15, "torque_constant", by))
    value, how, margin = TORQUE_PER_THRUST, MEDIAN, 0.5
    if propeller is not None and propeller.pitch is not None:
        value, margin = _torque_per_diameter(propeller.thrust_coefficient) * propeller.diameter, 0.3
        formula = "diameter sqrt(2 C_T / pi) / (2 pi figure of merit)"
        how = f"{formula}: {propeller.diameter:.4g} m, C_T {propeller.thrust_coefficient:.3g}, {FIGURE_OF_MERIT:g}"
    elif propeller is not None:
        value, margin = TORQUE_PER_THRUST_AND_DIAMETER * propeller.diameter, 0.3
        how = f"{TORQUE_PER_THRUST_AND_DIAMETER:g} times the diameter of the propeller, {propeller.diameter:.4g} m"
    by = {"propeller_diameter": 1, "propeller_pitch": 1}
    return float(known.estimate(key, value, "N m per N", how, margin, "torque_constant", by))


def _torque_per_diameter(thrust_coefficient: float) -> float:
    """N m per N and m: torque = power / speed, power = T sqrt(T / (2 rho A)) / figure of merit."""
    return math.sqrt(2 * thrust_coefficient / math.pi) / (2 * math.pi * FIGURE_OF_MERIT)


def time_constants(known: Description) -> list[float]:
    """Of the motors, rising and falling, in s."""
    key, ways = "motor_time_constant", ("rising", "falling")
    if not isinstance(known.content.get(key), Mapping):
        if key in known:
            both = [known.number(key)] * 2
            known.certain(key, {key: 1}, 0.15)
            return both
        return [known.estimate(key, MOTOR_TIME_CONSTANT, "s", MEDIAN, 0.5, of=key)] * 2
    known.group(key, ways)
    rising, falling = (known.number(f"{key}.{way}") for way in ways)
    if rising is None and falling is None:
        raise known.wrong(key, "needs a number, or rising and falling")
    known.certain(key, {key: 1}, 0.15)
    pairs = zip(ways, (rising, falling), (falling, rising), strict=True)
    return [given or known.estimate(f"{key}.{way}", other, "s", "as the other one", 0.3) for way, given, other in pairs]
