"""A policy that runs from an ONNX file, for evaluation."""

from __future__ import annotations

import json
import os
from typing import Any

import torch
from torch import Tensor

from raptor.core.atomic import PathLike
from raptor.core.errors import UserError, first_line
from raptor.core.yaml_files import to_plain
from raptor.formats.weights import LARGEST, LARGEST_WIDTH, is_width
from raptor.nn.policy import Stepwise

# Ports of a recurrent policy; a memoryless one has the first of each. Metadata, as JSON.
INPUTS: tuple[str, ...] = ("observation", "hidden")
OUTPUTS: tuple[str, ...] = ("action", "next_hidden")
INITIAL_HIDDEN_STATE, CARD = "initial_hidden_state", "card"


class OnnxPolicy(Stepwise):
    """A policy in an ONNX file, run by onnxruntime on the CPU; has the interface of `RaptorPolicy`.

    The file has the inputs observation (batch, D) and hidden (batch, H) and the outputs action (batch, A) and
    next_hidden (batch, H), with a dynamic batch; that of a memoryless policy has neither hidden nor next_hidden, and
    `hidden_dim` is then 0. Its metadata may hold the initial hidden state, which is zero otherwise, and a card, both as
    JSON. Results are on the device of the observations, `initial_hidden_state` on `device`.
    """

    def __init__(self, path: PathLike, device: torch.device | str = "cpu") -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise UserError(f"running {path} needs onnxruntime, which is missing: pip install onnxruntime") from error
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # what goes wrong is raised
        options.intra_op_num_threads = torch.get_num_threads()
        try:
            self._session = onnxruntime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])
            metadata = self._session.get_modelmeta().custom_metadata_map
        except Exception as error:  # onnxruntime's exceptions have no common base of their own
            raise UserError(f"{path} is truncated, damaged or no ONNX file: {first_line(error)}") from error
        number = 1 if len(self._session.get_inputs()) == 1 else 2
        self._inputs, self._outputs = INPUTS[:number], OUTPUTS[:number]
        width = self._widths(path)
        self.observation_dim, self.action_dim = width["observation"], width["action"]
        self.hidden_dim = self.memory_dim = width.get("hidden", 0)
        if self.hidden_dim != width.get("next_hidden", 0):
            raise UserError(f"hidden and next_hidden must be of one size, got {width} ({path})")
        self.card: dict[str, Any] = _json(metadata.get(CARD, "{}"), dict, CARD, path)
        numbers = _json(metadata.get(INITIAL_HIDDEN_STATE, "[]"), list, INITIAL_HIDDEN_STATE, path)
        try:
            hidden = torch.tensor(numbers or [0.0] * self.hidden_dim, dtype=torch.float32)
        except (TypeError, ValueError, RuntimeError):
            hidden = torch.full((), torch.nan)
        if hidden.shape != (self.hidden_dim,) or not hidden.isfinite().all():
            raise UserError(f"{INITIAL_HIDDEN_STATE} must be {self.hidden_dim} finite numbers, got {numbers} ({path})")
        self.initial_hidden = hidden.to(device)
        seen = torch.stack([torch.zeros(self.observation_dim), torch.ones(self.observation_dim)])
        try:
            answer = torch.cat(self(seen, self.initial_hidden_state(2).cpu()), -1)
        except Exception as error:
            raise UserError(f"{path} cannot be run: {first_line(error)}") from error
        if not (answer.abs() <= LARGEST).all():
            raise UserError(f"{path} gives an action that is not finite, or above {LARGEST:g}: its weights are damaged")

    __call__ = Stepwise.forward

    def step_rows(self, observation: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """See `raptor.nn.policy.Stepwise.step_rows`; no gradient passes."""
        arrays = [tensor.detach().to("cpu", torch.float32).contiguous().numpy() for tensor in (observation, hidden)]
        outputs = self._session.run(self._outputs, dict(zip(self._inputs, arrays, strict=False)))
        action, following = (*outputs, arrays[1])[:2]  # without a memory, the hidden state is empty
        return torch.from_numpy(action).to(observation), torch.from_numpy(following).to(observation)

    def _widths(self, path: PathLike) -> dict[str, int]:
        ports = {port.name: port for port in (*self._session.get_inputs(), *self._session.get_outputs())}
        if set(ports) != {*self._inputs, *self._outputs}:
            known = f"{', '.join((*INPUTS, *OUTPUTS))}, or {INPUTS[0]} and {OUTPUTS[0]} alone"
            found = f"it connects {', '.join(ports)}, a policy's file connects {known}"
            raise UserError(f"{path} holds another architecture: {found}")
        for name, port in ports.items():
            batch, *sizes = port.shape or [None]
            if port.type != "tensor(float)" or isinstance(batch, int) or len(sizes) != 1 or not is_width(*sizes):
                wanted = f"tensor(float) of shape (any batch, at most {LARGEST_WIDTH})"
                got = f"{port.type} of shape {port.shape} ({path})"
                raise UserError(f"{name} must be {wanted}, got {got}: export it again with a dynamic batch")
        return {name: port.shape[1] for name, port in ports.items()}


def _json(text: str, kind: type, name: str, path: PathLike) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, kind):
        raise UserError(f"the metadata {name} must be a JSON {kind.__name__}, got {text[:60]!r} ({path})")
    return to_plain(value, name, from_file=path)
