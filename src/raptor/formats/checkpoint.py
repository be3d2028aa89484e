"""The package's own policy files: weights and a card, written at once and read without executing code."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from raptor.core.atomic import PathLike, replacing
from raptor.core.errors import UserError
from raptor.core.plain import to_plain
from raptor.formats.torch_files import Advice, load_torch
from raptor.formats.weights import LARGEST_WIDTH, check_values, plain_names
from raptor.nn.policy import MLPPolicy, RaptorPolicy

FORMAT = "raptor-policy"
VERSION = 1
GRU, MLP = "gru", "mlp"
StudentPolicy = RaptorPolicy | MLPPolicy
KINDS: Mapping[str, type[StudentPolicy]] = MappingProxyType({GRU: RaptorPolicy, MLP: MLPPolicy})
"""The policies that a file can hold, by the `kind` of their architecture; a file that names none holds the first."""
_ADVICE = Advice(*["give a file that save_policy wrote"] * 2)
DIMENSIONS = ("observation_dim", "hidden_dim", "action_dim")


def save_policy(
    policy: StudentPolicy, path: PathLike, card: Mapping[str, Any], training: Mapping[str, Any] | None = None
) -> None:
    """Write a policy to `path` (`*.pt`), complete or not at all.

    Args:
        policy: recurrent or memoryless, on any device; its weights are written from the CPU, in their own precision.
        path: the file; its folder is created if it is not there.
        card: what the policy is and how it came about: text, numbers, and lists and groups of these.
        training: state to go on training from: tensors, text, numbers, and nested lists and dictionaries of these.

    Raises:
        UserError: non-finite weights, a card of other types, or a file that cannot be written. A file that was there is
            then left as it was.
    """
    target = Path(path)
    if target.suffix.lower() != ".pt":
        raise UserError(f"a policy file ends in .pt, got {target}: choose another name")
    if not isinstance(policy, StudentPolicy):
        raise UserError(
            f"{target} can only hold a RaptorPolicy or an MLPPolicy, got a {type(policy).__name__}: save its original"
        )
    document = policy_document(policy, card, target)
    if training is not None:
        document["training"] = dict(training)
    buffer = io.BytesIO()
    torch.save(document, buffer)
    with replacing(target) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def policy_document(policy: StudentPolicy, card: Mapping[str, Any], target: PathLike) -> dict[str, Any]:
    """Content of a policy file: format, version, architecture, weights and card; see `save_policy`."""
    weights = {name: tensor.detach().cpu().clone() for name, tensor in policy.state_dict().items()}
    check_values(weights, f"the policy to be written to {target}")
    return {
        "format": FORMAT,
        "version": VERSION,
        "architecture": architecture_of(policy),
        "weights": weights,
        "card": to_plain(card, "card"),
    }


def read_checkpoint(path: PathLike, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read what `save_policy` wrote, without executing code from the file.

    Args:
        path: the file.
        device: of all tensors.

    Returns:
        The groups format, version, architecture, weights, card, and, where it was saved, training.

    Raises:
        UserError: the file cannot be read, is truncated, of another kind or version, or holds more than plain data.
    """
    document = load_torch(path, path, device, _ADVICE)
    if document.get("format") != FORMAT:
        raise UserError(f"{path} holds no policy of this package (format {FORMAT!r}): give a file of save_policy")
    version = document.get("version")
    if not isinstance(version, int) or version != VERSION:
        raise UserError(
            f"{path} has version {repr(version)[:60]} of the policy format, this package reads {VERSION}: "
            "use the raptor-python that wrote it, or a newer one"
        )
    for group in ("architecture", "weights", "card"):
        if not isinstance(document.get(group), dict):
            raise UserError(f"{path} lacks the group {group}: it is damaged, or was not written by save_policy")
    return document | {"card": to_plain(document["card"], "card", from_file=path)}


def read_policy(path: PathLike) -> StudentPolicy:
    """Read a policy, its card in `policy.card`, from a file of `save_policy`.

    Raises:
        UserError: as `read_checkpoint`, or the weights do not fit the architecture or are not finite.
    """
    document = read_checkpoint(path)
    policy = assemble(document["architecture"], document["weights"], path)
    policy.card = document["card"]
    return policy


def architecture_of(policy: StudentPolicy) -> dict[str, Any]:
    """Description of a policy's network for `assemble`; that of a recurrent one names no kind."""
    kind = {} if isinstance(policy, RaptorPolicy) else {"kind": MLP}
    return kind | {name: getattr(policy, name) for name in DIMENSIONS}


def assemble(
    architecture: Mapping[str, Any],
    weights: Mapping[str, Any],
    source: PathLike,
    names: Mapping[str, str] | None = None,
) -> StudentPolicy:
    """Build a policy from its weights; draws no random numbers.

    Args:
        architecture: observation_dim, hidden_dim, action_dim, and the kind, one of `KINDS`; gru by default.
        weights: the policy's `state_dict`.
        source: the file, for error messages.
        names: what the file calls a weight, where that differs from the key in `weights`.

    Raises:
        UserError: names the kind, the dimension or the weight that is missing, unknown, of the wrong shape or type, or
            not finite.
    """
    names = {} if names is None else names
    weights = plain_names(weights, source)
    kind = architecture.get("kind", GRU)
    if kind not in tuple(KINDS):
        raise UserError(f"kind must be {' or '.join(KINDS)}, got {kind!r} ({source}): try a newer raptor-python")
    for name in DIMENSIONS:
        size = architecture.get(name)
        if not isinstance(size, int) or isinstance(size, bool) or not 1 <= size <= LARGEST_WIDTH:
            raise UserError(f"{name} must be a whole number from 1 to {LARGEST_WIDTH}, got {size!r} ({source})")
    with torch.device("meta"):  # shapes only: no memory, no random numbers
        policy = KINDS[kind](*(architecture[name] for name in DIMENSIONS))
    expected = policy.state_dict()
    for key in weights:
        if key not in expected:
            raise UserError(f"{source} holds another architecture: {type(policy).__name__} has no weight {key}")
    for key, like in expected.items():
        name = names.get(key, key)
        if key not in weights:
            raise UserError(f"{source} lacks the weight {name}: it is damaged, or of another architecture")
        weight = weights[key]
        if not isinstance(weight, Tensor) or weight.layout != torch.strided or weight.shape != like.shape:
            got = f"shape {tuple(weight.shape)}" if isinstance(weight, Tensor) else type(weight).__name__
            raise UserError(f"{name} must be a tensor of shape {tuple(like.shape)}, got {got} ({source})")
    check_values(weights, source, names)
    copies = {key: weight.detach().clone(memory_format=torch.contiguous_format) for key, weight in weights.items()}
    policy.load_state_dict(copies, assign=True)
    return policy
