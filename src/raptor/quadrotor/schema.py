"""l2f's JSON schema of one vehicle: which keys there are, of what shape, and what stands in for a missing group.

Source: l2f 2.0.18 `parameters_to_json`; reward, start and trajectory mixture are those of RAPTOR's training.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

TEMPLATE: dict[str, Any] = json.loads(Path(__file__).with_name("template.json").read_text(encoding="utf-8"))
"""A complete document. The numbers of the group `dynamics` are placeholders."""

DEFAULT_GROUPS: dict[str, Any] = {group: content for group, content in TEMPLATE.items() if group != "dynamics"}
"""What stands in for a group that a file leaves out."""


class Field(NamedTuple):
    """A tensor field of `Quadrotors`, for one vehicle."""

    shape: tuple[int, ...]
    path: str  # where it stands in the document
    unit: str = ""
    keys: tuple[str, ...] = ()  # of the object that holds it there, in the order of the tensor


FIELDS: dict[str, Field] = {
    "mass": Field((), "dynamics.mass", "kg"),
    "inertia": Field((3, 3), "dynamics.J", "kg m^2"),
    "inertia_inverse": Field((3, 3), "dynamics.J_inv", "1/(kg m^2)"),
    "rotor_positions": Field((4, 3), "dynamics.rotor_positions", "m"),
    "rotor_thrust_directions": Field((4, 3), "dynamics.rotor_thrust_directions"),
    "rotor_torque_directions": Field((4, 3), "dynamics.rotor_torque_directions"),
    "rotor_thrust_coefficients": Field((4, 3), "dynamics.rotor_thrust_coefficients", "N"),
    "rotor_torque_constants": Field((4,), "dynamics.rotor_torque_constants", "N m per N"),
    "rotor_time_constants_rising": Field((4,), "dynamics.rotor_time_constants_rising", "s"),
    "rotor_time_constants_falling": Field((4,), "dynamics.rotor_time_constants_falling", "s"),
    "action_limit": Field((2,), "dynamics.action_limit", keys=("min", "max")),
    "gravity": Field((3,), "dynamics.gravity", "m/s^2"),
    "random_force": Field((2,), "disturbances.random_force", "N", ("mean", "std")),
    "random_torque": Field((2,), "disturbances.random_torque", "N m", ("mean", "std")),
    "position_threshold": Field((), "mdp.termination.position_threshold", "m"),
    "max_position": Field((), "mdp.init.max_position", "m"),
}
"""All tensor fields, in the order of `Quadrotors`."""


def get(document: Any, field: str) -> Any:
    """The numbers of a field, nested as in its tensor."""
    for key in FIELDS[field].path.split("."):
        document = document[key]
    return [document[key] for key in FIELDS[field].keys] or document


def put(document: Any, field: str, value: Any) -> None:
    """Write the numbers of a field into a complete document."""
    *groups, leaf = FIELDS[field].path.split(".")
    for key in groups:
        document = document[key]
    if FIELDS[field].keys:
        document[leaf].update(zip(FIELDS[field].keys, value, strict=True))
    else:
        document[leaf] = value
