"""Export to ONNX: one step of the policy, with the hidden state as an input and an output."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from raptor.core.atomic import PathLike, replacing
from raptor.export.verification import TOLERANCE, AnyPolicy, original_of, verify
from raptor.formats.checkpoint import StudentPolicy
from raptor.formats.policy_files import CARD, INITIAL_HIDDEN_STATE, INPUTS, LAYOUT, OUTPUTS, OnnxPolicy
from raptor.nn.policy import RaptorPolicy, gru_gates

if TYPE_CHECKING:
    import onnx

OPSET = 18


def export_onnx(policy: AnyPolicy, path: PathLike, tolerance: float = TOLERANCE) -> float:
    """Write a policy as ONNX and verify the file against torch over 500 steps.

    The model takes observation (batch, D) and hidden (batch, H) and gives action (batch, A) and next_hidden (batch, H),
    in float32, for any batch; that of a memoryless policy takes observation and gives action. Its metadata holds the
    initial hidden state, the policy's card, and its `layout` where it has one, as JSON. The file (`*.onnx`) appears
    verified, or not at all.

    Returns:
        The largest absolute error of an action or a hidden state; one beyond `tolerance`, see `verify`, is an
        `ExportError`.
    """
    original = original_of(policy, path, ".onnx", "an ONNX file")
    model = _convert(original)
    with replacing(path) as temporary:
        temporary.write_bytes(model.SerializeToString(deterministic=True))
        return verify(original, OnnxPolicy(temporary), path, tolerance=tolerance)


class _RecurrentStep(nn.Module):
    """`policy_step` in rows of (batch, features), which exports to plain matrix products."""

    def __init__(self, policy: RaptorPolicy) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, observation: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        linear, p = nn.functional.linear, self.policy.tensors()
        x = torch.relu(linear(observation, p.input_weight, p.input_bias))
        given = linear(x, p.gru_weight_ih, p.gru_bias_ih).chunk(3, dim=-1)
        recalled = linear(hidden, p.gru_weight_hh, p.gru_bias_hh).chunk(3, dim=-1)
        _, update, candidate = gru_gates(given, recalled)
        following = candidate + update * (hidden - candidate)
        return linear(following, p.output_weight, p.output_bias), following


def _convert(policy: StudentPolicy) -> onnx.ModelProto:
    import onnx

    if isinstance(policy, RaptorPolicy):
        step: nn.Module = _RecurrentStep(policy)
    else:
        step = nn.Sequential(policy.input_layer, nn.ReLU(), policy.middle_layer, nn.ReLU(), policy.output_layer)
    ports = 2 if policy.memory_dim else 1
    example = (torch.zeros(2, policy.observation_dim), torch.zeros(2, policy.hidden_dim))[:ports]
    batch = torch.export.Dim("batch")
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # the exporter prints its progress, warns, and logs about its own parts
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                step.eval(),
                example,
                dynamo=True,
                external_data=False,
                opset_version=OPSET,
                input_names=INPUTS[:ports],
                output_names=OUTPUTS[:ports],
                dynamic_shapes=({0: batch},) * ports,
                verbose=False,
            )
    finally:
        logging.disable(before)
    assert program is not None
    model = program.model_proto
    graph = model.graph
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del part.metadata_props[:]  # paths of this machine among them
    known = {INITIAL_HIDDEN_STATE: policy.initial_hidden_state().tolist(), CARD: policy.card, LAYOUT: policy.layout}
    metadata = {name: json.dumps(value) for name, value in known.items() if value or name != LAYOUT}
    onnx.helper.set_model_props(model, metadata)  # in place of the exporter's own
    onnx.checker.check_model(model)
    return model
