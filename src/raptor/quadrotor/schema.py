"""l2f's JSON schema of one vehicle: which keys there are, of what shape, and what stands in for a missing group.

Source: l2f 2.0.18 `parameters_to_json`; reward, start and trajectory mixture are those of RAPTOR's training.
"""

from __future__ import annotations

import math
from typing import Any

_PER_ROTOR = [0.0] * 4
_VECTOR_PER_ROTOR = [[0.0] * 3 for _ in range(4)]
_MATRIX = [[0.0] * 3 for _ in range(3)]

DYNAMICS: dict[str, Any] = {
    "rotor_positions": _VECTOR_PER_ROTOR,
    "rotor_thrust_directions": _VECTOR_PER_ROTOR,
    "rotor_torque_directions": _VECTOR_PER_ROTOR,
    "rotor_thrust_coefficients": _VECTOR_PER_ROTOR,
    "rotor_torque_constants": _PER_ROTOR,
    "rotor_time_constants_rising": _PER_ROTOR,
    "rotor_time_constants_falling": _PER_ROTOR,
    "mass": 0.0,
    "gravity": [0.0, 0.0, -9.81],
    "J": _MATRIX,
    "J_inv": _MATRIX,
    "hovering_throttle_relative": 0.0,
    "action_limit": {"min": 0.0, "max": 1.0},
}
"""Keys and shapes of the group that every file needs; the numbers are placeholders."""

DEFAULT_GROUPS: dict[str, Any] = {
    "integration": {"dt": 0.01},
    "mdp": {
        "init": {
            "guidance": 0.1,
            "max_position": 0.5,
            "max_angle": math.pi / 2,
            "max_linear_velocity": 1.0,
            "max_angular_velocity": 1.0,
            "relative_rpm": True,
            "min_rpm": -1.0,
            "max_rpm": 0.0,
        },
        "reward": {
            "non_negative": False,
            "scale": 1.0,
            "constant": 1.5,
            "termination_penalty": -100.0,
            "position": 1.0,
            "position_clip": 0.0,
            "orientation": 0.1,
            "linear_velocity": 0.0,
            "angular_velocity": 0.0,
            "linear_acceleration": 0.0,
            "angular_acceleration": 0.0,
            "action": 0.0,
            "d_action": 1.0,
            "position_error_integral": 0.0,
        },
        "observation_noise": {
            "position": 0.0,
            "orientation": 0.0,
            "linear_velocity": 0.0,
            "angular_velocity": 0.0,
            "imu_acceleration": 0.0,
        },
        "action_noise": {"normalized_rpm": 0.0},
        "termination": {
            "enabled": True,
            "position_threshold": 1.0,
            "linear_velocity_threshold": 2.0,
            "angular_velocity_threshold": 35.0,
            "position_integral_threshold": 10000.0,
            "orientation_integral_threshold": 50000.0,
        },
    },
    "disturbances": {"random_force": {"mean": 0.0, "std": 0.0}, "random_torque": {"mean": 0.0, "std": 0.0}},
    "domain_randomization": {
        "thrust_to_weight_min": 0.0,
        "thrust_to_weight_max": 0.0,
        "torque_to_inertia_min": 0.0,
        "torque_to_inertia_max": 0.0,
        "mass_min": 0.0,
        "mass_max": 0.0,
        "mass_size_deviation": 0.0,
        "rotor_time_constant_rising_min": 0.0,
        "rotor_time_constant_rising_max": 0.0,
        "rotor_time_constant_falling_min": 0.0,
        "rotor_time_constant_falling_max": 0.0,
        "rotor_torque_constant_min": 0.0,
        "rotor_torque_constant_max": 0.0,
        "orientation_offset_angle_max": 0.0,
        "disturbance_force_max": 0.0,
    },
    "trajectory": {
        "MIXTURE_N": 2,
        "mixture": [0.5, 0.5],
        "langevin": {"gamma": 1.0, "omega": 2.0, "sigma": 0.5, "alpha": 0.01},
    },
}
"""What stands in for a group that a file leaves out."""

TEMPLATE: dict[str, Any] = {"dynamics": DYNAMICS, **DEFAULT_GROUPS}

JSON_PATHS: dict[str, tuple[str, ...]] = {
    "mass": ("dynamics", "mass"),
    "inertia": ("dynamics", "J"),
    "inertia_inverse": ("dynamics", "J_inv"),
    "rotor_positions": ("dynamics", "rotor_positions"),
    "rotor_thrust_directions": ("dynamics", "rotor_thrust_directions"),
    "rotor_torque_directions": ("dynamics", "rotor_torque_directions"),
    "rotor_thrust_coefficients": ("dynamics", "rotor_thrust_coefficients"),
    "rotor_torque_constants": ("dynamics", "rotor_torque_constants"),
    "rotor_time_constants_rising": ("dynamics", "rotor_time_constants_rising"),
    "rotor_time_constants_falling": ("dynamics", "rotor_time_constants_falling"),
    "action_limit": ("dynamics", "action_limit"),
    "gravity": ("dynamics", "gravity"),
    "random_force": ("disturbances", "random_force"),
    "random_torque": ("disturbances", "random_torque"),
    "position_threshold": ("mdp", "termination", "position_threshold"),
    "max_position": ("mdp", "init", "max_position"),
}
"""Where each tensor field of `Quadrotors` stands in the document."""

PAIR_KEYS: dict[str, tuple[str, str]] = {
    "action_limit": ("min", "max"),
    "random_force": ("mean", "std"),
    "random_torque": ("mean", "std"),
}
"""Fields that are pairs in a tensor and objects with two keys in the document."""

UNITS: dict[str, str] = {
    "mass": "kg",
    "inertia": "kg m^2",
    "inertia_inverse": "1/(kg m^2)",
    "rotor_positions": "m",
    "rotor_thrust_coefficients": "N",
    "rotor_torque_constants": "N m per N",
    "rotor_time_constants_rising": "s",
    "rotor_time_constants_falling": "s",
    "gravity": "m/s^2",
    "random_force": "N",
    "random_torque": "N m",
    "position_threshold": "m",
    "max_position": "m",
}
"""Unit of each tensor field that has one."""
