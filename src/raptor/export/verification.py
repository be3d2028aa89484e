"""What is to be written, and verification: what was written and its original side by side, each with its own memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from raptor.core.atomic import PathLike
from raptor.core.errors import UserError
from raptor.core.yaml_files import to_plain
from raptor.formats.checkpoint import StudentPolicy, architecture_of, assemble
from raptor.formats.policy_files import OnnxPolicy
from raptor.formats.rl_tools import about_hovering

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
    if suffix and target.suffix.lower() != suffix:
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


class Verified(NamedTuple):
    """What came of a verification."""

    error: float | None  # the largest of an action or a hidden state; None where nothing ran it
    by: str  # what ran it, or why nothing did

    def __str__(self) -> str:
        """In words, after the name of the file."""
        if self.error is None:
            return f"was not run beside the policy: {self.by}"
        return f"differs from the policy by at most {self.error:.1e} over 500 steps, run by {self.by}"


@torch.no_grad()
def verify(
    policy: StudentPolicy,
    written: Written,
    name: PathLike,
    num_steps: int = 500,
    batch_sizes: Sequence[int] = (1, 7),
    tolerance: float = TOLERANCE,
) -> float:
    """Run what was written beside its original, which is in float32 on the CPU; `name` is the file in error messages.

    First each step from the memory of the original, on normally distributed observations, which lead all over the
    memory; then all steps with a memory of its own, on observations about those of a vehicle that hovers. (A precise
    policy amplifies rounding a thousandfold on observations that no flight has.) Returns the largest absolute error of
    an action or a hidden state; an error beyond `tolerance` * (1 + abs(value)) is an `ExportError`.
    """
    largest = 0.0
    generator = torch.Generator().manual_seed(0)
    for batch_size in batch_sizes:
        wild = torch.randn(num_steps, batch_size, policy.observation_dim, generator=generator)
        for observations, own_memory in ((wild, False), (about_hovering(wild), True)):
            hidden, theirs = policy.initial_hidden_state(batch_size), written.initial_hidden_state(batch_size)
            for t, observation in enumerate(observations):
                given = theirs if own_memory else hidden
                written_action, theirs = written(observation, given)
                action, hidden = policy(observation, hidden)
                wanted, found = torch.cat((action, hidden), -1), torch.cat((written_action, theirs), -1)
                error = (found - wanted).abs()
                largest = max(largest, error.max().item())
                if not (error / (1 + wanted.abs())).max().item() <= tolerance:
                    by = f"{error.max().item():.2g} after {t + 1} steps (batch {batch_size}, allowed {tolerance:.2g})"
                    raise ExportError(
                        f"{name} differs from the policy by {by}: please report this with `raptor doctor`"
                    )
    return largest
