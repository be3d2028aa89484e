"""MuJoCo in place of our own physics: an independent simulator of the same vehicles, with drag.

MuJoCo integrates free rigid bodies, each pushed by four actuators at its rotors; the lag of the motors between its
steps is exact. All else is that of `raptor.tasks`. Gradients do not pass through MuJoCo.
"""

from __future__ import annotations

import importlib
import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raptor.core.errors import MissingExtraError, UserError, first_line
from raptor.quadrotor.parameters import NUM_ROTORS, Quadrotors
from raptor.quadrotor.state import State, component_major

Floats = NDArray[np.float64]

TIME_STEP = 1e-3
"""s; of MuJoCo."""

BODIES_AT_ONCE = 8
"""In a model: with more, a step takes more than so many times as long as one of a single body."""

FASTEST = 300.0
"""rad/s, m/s and m; a vehicle that is beyond it is lost, and taken to be there, so that no number grows without end."""


class MujocoSimulator:
    """MuJoCo in place of `raptor.quadrotor.step`; see `QuadrotorEnv(simulator=...)` and `evaluate(simulate=...)`.

    The drag on each vehicle is -d m v, v its velocity in the world, with d drawn from the range `drag` (1/s) by the
    seed. `num` and `task` are those of the environment, and not needed.
    """

    def __init__(
        self, num: int | None = None, task: Any = None, *, drag: tuple[float, float] = (0.0, 0.0), seed: int = 0
    ) -> None:
        try:
            self._mujoco: Any = importlib.import_module("mujoco")
        except ImportError as error:
            raise MissingExtraError("mujoco", "sim", "MujocoSimulator") from error
        self._drag, self._seed = drag, seed
        self._built: tuple[Tensor, ...] = ()
        self._models: list[tuple[slice, Any, Any]] = []  # vehicles, model and data of each

    def begin(self, quadrotors: Quadrotors, indices: Tensor | None, generator: torch.Generator) -> None:
        """Nothing begins anew: each step says which vehicles it moves, and from where."""

    def __call__(
        self,
        quadrotors: Quadrotors,
        state: State,
        action: Tensor,
        dt: float | Tensor = 0.01,
        force: Tensor | None = None,
        torque: Tensor | None = None,
        thrust: Tensor | None = None,
        **rest: Any,
    ) -> State:
        """Advance N vehicles by dt, see `raptor.quadrotor.step`; what is not finite makes its vehicle's state NaN."""
        if isinstance(dt, Tensor):
            raise UserError("MuJoCo moves all vehicles by equal steps: leave task.deployment.dt_factor at [1, 1]")
        self._build(quadrotors)
        num_steps = max(1, math.ceil(dt / TIME_STEP - 1e-6))
        parts = [part.numpy(force=True).astype(np.float64) for part in (*state.parts(), action)]
        finite = np.isfinite(np.concatenate(parts, axis=1)).all(1, keepdims=True)
        position, orientation, velocity, rates, speed, wanted = (np.where(finite, part, 0.0) for part in parts)
        thrusts, speed = _thrusts(quadrotors, speed, wanted, dt, num_steps)
        thrusts = thrusts if thrust is None else thrusts * thrust.numpy(force=True)
        pose = np.concatenate([position.clip(-FASTEST, FASTEST), orientation], axis=1)
        twist = np.concatenate([velocity, rates], axis=1).clip(-FASTEST, FASTEST)
        wrench = _wrench(quadrotors, force, torque)
        for some, model, data in self._models:
            model.opt.timestep = dt / num_steps
            data.qpos[:], data.qvel[:], data.qfrc_applied[:] = (x[some].ravel() for x in (pose, twist, wrench))
            for thrust in thrusts[:, some]:
                data.ctrl[:] = thrust.ravel()
                self._mujoco.mj_step(model, data)
            pose[some], twist[some] = data.qpos.reshape(-1, 7), data.qvel.reshape(-1, 6)
        after = pose[:, :3], pose[:, 3:], twist[:, :3], twist[:, 3:], speed
        return State(*(_tensor(np.where(finite, part, np.nan), state.position) for part in after))

    def _build(self, quadrotors: Quadrotors) -> None:
        """Make the models of these vehicles, unless they are there."""
        tensors = tuple(quadrotors.tensors().values())
        if len(tensors) == len(self._built) and all(map(torch.equal, tensors, self._built)):
            return
        low, high = self._drag
        drag = np.random.default_rng(self._seed).uniform(low, high, len(quadrotors))
        damping = drag * quadrotors.mass.numpy(force=True)
        self._models = []
        for first in range(0, len(quadrotors), BODIES_AT_ONCE):
            some = slice(first, first + BODIES_AT_ONCE)
            try:
                model = self._mujoco.MjModel.from_xml_string(model_xml(quadrotors[some]))
            except ValueError as error:
                raise UserError(f"MuJoCo cannot fly these vehicles: {first_line(error)}") from error
            model.dof_damping.reshape(-1, 6)[:, :3] = damping[some, None]
            self._models.append((some, model, self._mujoco.MjData(model)))
        self._built = tensors


def model_xml(quadrotors: Quadrotors) -> str:
    """MuJoCo's model of N vehicles: bodies without shape, four actuators each whose control is the thrust in N."""
    exact = quadrotors.to("cpu", torch.float64)
    inertias = torch.linalg.inv(exact.inertia_inverse)
    bodies, actuators = [], []
    for i, (mass, inertia) in enumerate(zip(exact.mass, (inertias + inertias.mT) / 2, strict=True)):
        moments = (*inertia.diagonal(), inertia[0, 1], inertia[0, 2], inertia[1, 2])
        sites = ""
        for j in range(NUM_ROTORS):
            sites += f'<site name="{i}-{j}" pos="{_text(exact.rotor_positions[i, j])}"/>'
            reaction = exact.rotor_torque_constants[i, j] * exact.rotor_torque_directions[i, j]
            gear = _text([*exact.rotor_thrust_directions[i, j], *reaction])
            actuators.append(f'<motor site="{i}-{j}" gear="{gear}"/>')
        inertial = f'<inertial pos="0 0 0" mass="{_text([mass])}" fullinertia="{_text(moments)}"/>'
        bodies.append(f"<body><freejoint/>{inertial}{sites}</body>")
    flags = '<flag contact="disable" constraint="disable"/>'
    option = f'<option integrator="RK4" gravity="0 0 0">{flags}</option>'
    world = f"<worldbody>{''.join(bodies)}</worldbody><actuator>{''.join(actuators)}</actuator>"
    return f"<mujoco>{option}{world}</mujoco>"


def _text(numbers: Any) -> str:
    return " ".join(f"{float(number):.17g}" for number in numbers)


def _tensor(array: Floats, like: Tensor) -> Tensor:
    return component_major(torch.from_numpy(array).to(like))


def _thrusts(quadrotors: Quadrotors, speed: Floats, action: Floats, dt: float, num_steps: int) -> tuple[Floats, Floats]:
    """Thrust (S, N, 4) in N in the middle of each of S equal steps, and rotor speeds (N, 4) at the end of all."""
    exact = {name: tensor.numpy(force=True).astype(np.float64) for name, tensor in quadrotors.tensors().items()}
    low, high = exact["action_limit"][:, None, 0], exact["action_limit"][:, None, 1]
    setpoint = low + (high - low) * (action.clip(-1, 1) + 1) / 2
    rising, falling = exact["rotor_time_constants_rising"], exact["rotor_time_constants_falling"]
    constant = np.where(setpoint >= speed, rising, falling)

    def after(time: Any) -> Floats:
        reached: Floats = setpoint + (speed - setpoint) * np.exp(-time / constant)
        return reached

    c0, c1, c2 = np.moveaxis(exact["rotor_thrust_coefficients"], -1, 0)
    middle = after(dt * ((np.arange(num_steps) + 0.5) / num_steps)[:, None, None])
    return c0 + middle * (c1 + c2 * middle), after(dt).clip(low, high)


def _wrench(quadrotors: Quadrotors, force: Tensor | None, torque: Tensor | None) -> Floats:
    """(N, 6) weight and force in N, world, and torque in N m, body: along the degrees of freedom of a free body."""
    pull = quadrotors.mass.unsqueeze(-1) * quadrotors.gravity
    pull = pull if force is None else pull + force
    twist = torch.zeros_like(pull) if torque is None else torque.expand_as(pull)
    wrench: Floats = torch.cat([pull, twist], dim=-1).numpy(force=True).astype(np.float64)
    return wrench
