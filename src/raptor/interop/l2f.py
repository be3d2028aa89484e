"""The original C++ simulator of RAPTOR, l2f, in place of our own physics.

l2f moves the vehicles and draws the constant force and torque of each episode; all else is that of `raptor.tasks`.
(l2f's own Python environment has other reward weights, and no Langevin targets.) Gradients do not pass through l2f.
"""

from __future__ import annotations

import importlib
import json
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raptor.core.errors import MissingExtraError, UserError
from raptor.quadrotor.parameters import Quadrotors
from raptor.quadrotor.state import State, component_major
from raptor.tasks.task import Task

# l2f's names of the five parts of a state, in the order of `State`.
FIELDS = ("position", "orientation", "linear_velocity", "angular_velocity", "rpm")


class L2FSimulator:
    """l2f in place of `raptor.quadrotor.step`, for up to 8192 vehicles; see `QuadrotorEnv(simulator=...)`.

    l2f comes in sizes of powers of two; vehicles beyond `num` are ignored. The task gives its step and disturbances.
    """

    def __init__(self, num: int, task: Task) -> None:
        try:
            self._l2f: Any = importlib.import_module("l2f")
        except ImportError as error:
            raise MissingExtraError("l2f", "l2f", "the environment raptor/L2F-v0") from error
        sizes = self._l2f.vector_selector
        size = min((size for size in sizes if size >= num), default=None)
        if size is None:
            raise UserError(f"l2f flies at most {max(sizes)} vehicles at once, got {num}")
        if not (task.motors.perfect and task.air.still and task.deployment.dt_factor[0] == 1):
            settings = "task.motors, task.air and task.deployment.dt_factor"
            raise UserError(f"l2f moves vehicles as they are modelled, in equal steps: leave {settings} as by default")
        self._num, self._size, self._task = num, size, task
        self._vector = sizes[size]
        self._device = self._l2f.Device()
        self._rngs = self._vector.VectorRng()
        self._environments = self._vector.VectorEnvironment()
        self._parameters = self._vector.VectorParameters()
        self._states, self._next_states = self._vector.VectorState(), self._vector.VectorState()
        self._everything = (self._device, self._environments, self._parameters, self._states)
        self._vector.initialize_environment(self._device, self._environments)
        self._vector.initial_parameters(self._device, self._environments, self._parameters)
        self._now = [_memory(self._states, field, size) for field in FIELDS]
        self._next = [_memory(self._next_states, field, size) for field in FIELDS]
        self._flown: Tensor | None = None  # (N, P) parameters that l2f holds

    def begin(self, quadrotors: Quadrotors, indices: Tensor | None, generator: torch.Generator) -> None:
        """Set parameters, and draw a new force and torque, for the vehicles at `indices` (None: for all)."""
        chosen = torch.arange(self._num) if indices is None else indices.cpu()
        values = torch.cat([tensor.reshape(len(chosen), -1) for tensor in quadrotors.tensors().values()], dim=1).cpu()
        if self._flown is None:
            self._flown = torch.full((self._num, values.shape[1]), torch.nan, dtype=values.dtype)
        changed = (values != self._flown[chosen]).any(1).nonzero().squeeze(-1)
        self._flown[chosen[changed]] = values[changed]
        environment, parameters = self._environments.environments[0], self._parameters.parameters
        for index, document in zip(chosen[changed].tolist(), quadrotors[changed].to_dicts(), strict=True):
            text = json.dumps(document_for_l2f(document, self._task))
            self._l2f.parameters_from_json(self._device, environment, text, parameters[index])
        if indices is None:
            seed = torch.randint(2**31, (), generator=generator, device=generator.device).item()
            self._vector.initialize_rng(self._device, self._rngs, int(seed))
            self._vector.sample_initial_state(*self._everything, self._rngs)
        else:
            mask = np.zeros(self._size, np.bool_)
            mask[chosen.numpy()] = True
            self._vector.sample_initial_state_if_truncated(*self._everything, mask, self._rngs)

    def __call__(self, quadrotors: Quadrotors, state: State, action: Tensor, dt: float, **rest: Any) -> State:
        """One step of l2f from `state`; force and torque are those that `begin` drew and that l2f's states keep."""
        if dt != self._task.dt:
            raise UserError(f"l2f steps by {self._task.dt} s, the task's dt, got dt = {dt}")
        for memory, part in zip(self._now, state.parts(), strict=True):
            memory[: self._num] = part.numpy(force=True)
        actions = np.zeros((self._size, 4), np.float32)
        actions[: self._num] = action.numpy(force=True)
        self._vector.step(*self._everything, actions, self._next_states, self._rngs)
        parts = (torch.from_numpy(memory[: self._num].copy()).to(state.position) for memory in self._next)
        return State(*map(component_major, parts))


def document_for_l2f(document: dict[str, Any], task: Task) -> dict[str, Any]:
    """A vehicle's document with the task's step and disturbances, without l2f's own noise and targets."""
    scales = {"random_force": task.disturbances.force, "random_torque": task.disturbances.torque}
    given = document["disturbances"]
    return {
        **document,
        "integration": {"dt": task.dt},
        "mdp": {**document["mdp"], "action_noise": {"normalized_rpm": 0.0}},
        "disturbances": {name: {key: s * given[name][key] for key in ("mean", "std")} for name, s in scales.items()},
        "trajectory": {**document["trajectory"], "mixture": [1.0, 0.0]},
    }


def _memory(states: Any, field: str, size: int) -> NDArray[np.float32]:
    """One part of all vehicles' states (size, K), as it lies in l2f's own memory."""
    elements = states.states
    first: NDArray[np.float32] = getattr(elements[0], field)
    stride = 0 if size == 1 else getattr(elements[1], field).ctypes.data - first.ctypes.data
    return np.lib.stride_tricks.as_strided(first, (size, len(first)), (stride, first.itemsize))
