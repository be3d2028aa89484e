"""What is to be written, and verification: what was written and its original side by side, each with its own memory."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from raptor.core.atomic import PathLike
from raptor.core.errors import UserError
from raptor.core.yaml_files import to_plain
from raptor.formats.checkpoint import StudentPolicy, architecture_of, assemble
from raptor.formats.policy_files import OnnxPolicy

TOLERANCE = 1e-4  # largest error / (1 + abs(value)) that verification allows; float32 rounding gives 1e-6


class ExportError(UserError):
    """What was written differs from its policy."""


AnyPolicy = StudentPolicy | OnnxPolicy
"""What `raptor.load_policy` gives."""


def original_of(policy: AnyPolicy, path: PathLike, suffix: str, what: str) -> StudentPolicy:
    """A copy of a policy to be written to a file of a kind, in float32 on the CPU; a `UserError` if that cannot be."""
    target = Path(path)
    if isinstance(policy, OnnxPolicy):
        raise UserError(f"cannot export to {target}: the policy is ONNX already, give the checkpoint it was made from")
    if target.suffix.lower() != suffix:
        raise UserError(f"{what} ends in {suffix}, got {target}: choose another name")
    weights = {name: tensor.detach().to("cpu", torch.float32) for name, tensor in policy.state_dict().items()}
    original = assemble(architecture_of(policy), weights, f"the policy to be written to {target}")
    original.card = to_plain(policy.card, "card")
    return original


class Written(Protocol):
    """What was written, as it runs."""

    def initial_hidden_state(self, *shape: int) -> Tensor:
        """Hidden state of a fresh start, (*shape, H)."""

    def __call__(self, observation: Tensor, hidden: Tensor, /) -> tuple[Tensor, Tensor]:
        """Action (N, A) and next hidden state (N, H)."""


@torch.no_grad()
def verify(
    policy: StudentPolicy,
    written: Written,
    name: PathLike,
    num_steps: int = 500,
    batch_sizes: Sequence[int] = (1, 7),
    tolerance: float = TOLERANCE,
) -> float:
    """Run what was written beside its original on normally distributed observations.

    The original is in float32 on the CPU; `name` is the file in error messages. An error may be as large as
    `tolerance` * (1 + abs(value)), or four times the original's own, from what it computes in float64: the memory of a
    precise policy amplifies rounding. Returns the largest absolute error of an action or a hidden state.
    """
    exact = copy.deepcopy(policy).double()
    largest = 0.0
    generator = torch.Generator().manual_seed(0)
    for batch_size in batch_sizes:
        observations = torch.randn(num_steps, batch_size, policy.observation_dim, generator=generator)
        hidden, written_hidden = policy.initial_hidden_state(batch_size), written.initial_hidden_state(batch_size)
        exact_hidden, rounding = exact.initial_hidden_state(batch_size), 0.0
        for t, observation in enumerate(observations):
            action, hidden = policy(observation, hidden)
            written_action, written_hidden = written(observation, written_hidden)
            exact_action, exact_hidden = exact(observation.double(), exact_hidden)
            ours, theirs = torch.cat((action, hidden), -1), torch.cat((written_action, written_hidden), -1)
            error, scale = (theirs - ours).abs(), 1 + ours.abs()
            largest = max(largest, error.max().item())
            own = (ours - torch.cat((exact_action, exact_hidden), -1)).abs() / scale
            rounding = max(rounding, own.max().item())
            if not (error / scale).max().item() <= max(tolerance, 4 * rounding):
                found = f"by {error.max().item():.2g} after {t + 1} steps (batch {batch_size}, allowed {tolerance:.2g})"
                report = "please report this with `raptor doctor`"
                raise ExportError(f"{name} differs from the policy {found}: {report}")
    return largest
