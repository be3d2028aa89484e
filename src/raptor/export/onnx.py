"""Export to ONNX: one step of the policy, with the hidden state as an input and an output."""

from __future__ import annotations

import contextlib
import copy
import difflib
import io
import json
import logging
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from raptor.core.atomic import PathLike, replacing
from raptor.core.errors import UserError
from raptor.core.yaml_files import to_plain
from raptor.formats.checkpoint import StudentPolicy, architecture_of, assemble
from raptor.formats.policy_files import CARD, INITIAL_HIDDEN_STATE, INPUTS, LAYOUT, OUTPUTS, OnnxPolicy
from raptor.nn.policy import RaptorPolicy, gru_gates

if TYPE_CHECKING:
    import onnx

OPSET = 18
TOLERANCE = 1e-4  # largest error / (1 + abs(value)) that verification allows; float32 rounding gives 1e-6


class ExportError(UserError):
    """The written file differs from its policy."""


def export_policy(policy: StudentPolicy | OnnxPolicy, path: PathLike, format: str = "onnx") -> float:
    """Write a policy to `path` in one of `FORMATS`, verify the file, and return the largest error."""
    if format not in FORMATS:
        matches = difflib.get_close_matches(format, FORMATS, n=1)
        suggestion = f", did you mean {matches[0]!r}?" if matches else ""
        raise UserError(f"unknown export format {format!r}{suggestion}: give one of {', '.join(FORMATS)}")
    return FORMATS[format](policy, path)


def export_onnx(policy: StudentPolicy | OnnxPolicy, path: PathLike, tolerance: float = TOLERANCE) -> float:
    """Write a policy as ONNX and verify the file against torch over 500 steps.

    The model takes observation (batch, D) and hidden (batch, H) and gives action (batch, A) and next_hidden (batch, H),
    in float32, for any batch; that of a memoryless policy takes observation and gives action. Its metadata holds the
    initial hidden state, the policy's card, and its `layout` where it has one, as JSON. The file (`*.onnx`) appears
    verified, or not at all.

    Returns:
        The largest absolute error of an action or a hidden state; beyond `tolerance` * (1 + abs(value)), and what
        rounding explains, it is an `ExportError`.
    """
    target = Path(path)
    if isinstance(policy, OnnxPolicy):
        raise UserError(f"cannot export to {target}: the policy is ONNX already, give the checkpoint it was made from")
    if target.suffix.lower() != ".onnx":
        raise UserError(f"an ONNX file ends in .onnx, got {target}: choose another name")
    weights = {name: tensor.detach().to("cpu", torch.float32) for name, tensor in policy.state_dict().items()}
    original = assemble(architecture_of(policy), weights, f"the policy to be written to {target}")
    original.card = to_plain(policy.card, "card")
    model = _convert(original)
    with replacing(target) as temporary:
        temporary.write_bytes(model.SerializeToString(deterministic=True))
        return verify_onnx(original, temporary, tolerance=tolerance, name=target)


FORMATS: dict[str, Callable[[StudentPolicy | OnnxPolicy, PathLike], float]] = {"onnx": export_onnx}


@torch.no_grad()
def verify_onnx(
    policy: StudentPolicy,
    path: PathLike,
    num_steps: int = 500,
    batch_sizes: Sequence[int] = (1, 7),
    tolerance: float = TOLERANCE,
    name: PathLike | None = None,
) -> float:
    """Run an ONNX file and its original side by side on normally distributed observations, each with its own memory.

    The original is in float32 on the CPU; `name` is the file in error messages. Beside the tolerance, see
    `export_onnx`, an error may be four times as large as the original's own, from what it computes in float64: the
    memory of a precise policy amplifies rounding. Returns the largest absolute error.
    """
    exported, exact = OnnxPolicy(path), copy.deepcopy(policy).double()
    largest = 0.0
    generator = torch.Generator().manual_seed(0)
    for batch_size in batch_sizes:
        observations = torch.randn(num_steps, batch_size, policy.observation_dim, generator=generator)
        hidden, exported_hidden = policy.initial_hidden_state(batch_size), exported.initial_hidden_state(batch_size)
        exact_hidden, rounding = exact.initial_hidden_state(batch_size), 0.0
        for t, observation in enumerate(observations):
            action, hidden = policy(observation, hidden)
            exported_action, exported_hidden = exported(observation, exported_hidden)
            exact_action, exact_hidden = exact(observation.double(), exact_hidden)
            ours, theirs = torch.cat((action, hidden), -1), torch.cat((exported_action, exported_hidden), -1)
            error, scale = (theirs - ours).abs(), 1 + ours.abs()
            largest = max(largest, error.max().item())
            own = (ours - torch.cat((exact_action, exact_hidden), -1)).abs() / scale
            rounding = max(rounding, own.max().item())
            if not (error / scale).max().item() <= max(tolerance, 4 * rounding):
                found = f"by {error.max().item():.2g} after {t + 1} steps (batch {batch_size}, allowed {tolerance:.2g})"
                report = "please report this with `raptor doctor`"
                raise ExportError(f"{name or path} differs from the policy {found}: {report}")
    return largest


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
