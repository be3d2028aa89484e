"""The package's own policy files: weights and a card, written at once and read without executing code."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from raptor.core.atomic import PathLike, write_atomically
from raptor.core.errors import UserError, printable
from raptor.core.yaml_files import to_plain
from raptor.formats.torch_files import Advice, load_torch
from raptor.formats.weights import LARGEST_WIDTH, check_values, is_width, plain_names
from raptor.nn.policy import MLPPolicy, RaptorPolicy

FORMAT, VERSION = "raptor-policy", 1
GRU, MLP = "gru", "mlp"
StudentPolicy = RaptorPolicy | MLPPolicy
KINDS: dict[str, type[StudentPolicy]] = {GRU: RaptorPolicy, MLP: MLPPolicy}  # a file that names no kind holds the first
CARD_FIELDS = ("what", "training", "command", "results", "licence")  # of every policy with a name; there may be others
DIMENSIONS = ("observation_dim", "hidden_dim", "action_dim")
_ADVICE = Advice(*["give a file that save_policy wrote"] * 2)


def save_policy(
    policy: StudentPolicy, path: PathLike, card: Mapping[str, Any], training: Mapping[str, Any] | None = None
) -> None:
    """Write a policy to `path` (`*.pt`), complete or not at all, its weights in their own precision.

    Args:
        policy: recurrent or memoryless, on any device.
        path: the file; its folder is created if it is not there.
        card: what the policy is and how it came about: text, numbers, and lists and groups of these.
        training: state to go on training from: tensors, text, numbers, and nested lists and dictionaries of these.

    Raises:
        UserError: non-finite weights, a card of other types, or a file that cannot be written.
    """
    target = Path(path)
    if target.suffix.lower() != ".pt":
        raise UserError(f"a policy file ends in .pt, got {target}: choose another name")
    if not isinstance(policy, StudentPolicy):
        raise UserError(
            f"{target} can only hold a RaptorPolicy or an MLPPolicy, got a {type(policy).__name__}: save its original"
        )
    buffer, more = io.BytesIO(), {} if training is None else {"training": dict(training)}
    torch.save(policy_document(policy, card, target) | more, buffer)
    write_atomically(target, buffer.getvalue())


def policy_document(policy: StudentPolicy, card: Mapping[str, Any], target: PathLike) -> dict[str, Any]:
    """Content of a policy file: format, version, architecture, weights and card; see `save_policy`."""
    weights = {name: tensor.detach().cpu().clone() for name, tensor in policy.state_dict().items()}
    check_values(weights, f"the policy to be written to {target}")
    architecture = architecture_of(policy)
    parts = {"architecture": architecture, "weights": weights, "card": to_plain(card, "card")}
    return {"format": FORMAT, "version": VERSION, **parts}


def read_checkpoint(path: PathLike, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read what `save_policy` wrote: the groups of `policy_document`, and `training` if it was saved."""
    document = load_torch(path, path, device, _ADVICE)
    if document.get("format") != FORMAT:
        raise UserError(f"{path} holds no policy of this package (format {FORMAT!r}): give a file of save_policy")
    version = document.get("version")
    if not isinstance(version, int) or version != VERSION:
        found = f"{path} has version {repr(version)[:60]} of the policy format, this package reads {VERSION}"
        raise UserError(f"{found}: use the raptor-python that wrote it, or a newer one")
    for group in ("architecture", "weights", "card"):
        if not isinstance(document.get(group), dict):
            raise UserError(f"{path} lacks the group {group}: it is damaged, or was not written by save_policy")
    return document | {"card": to_plain(document["card"], "card", from_file=path)}


def read_policy(path: PathLike) -> StudentPolicy:
    """Read a policy, its card in `policy.card`."""
    document = read_checkpoint(path)
    policy = assemble(document["architecture"], document["weights"], path)
    policy.card = document["card"]
    return policy


def architecture_of(policy: StudentPolicy) -> dict[str, Any]:
    """Description of a policy's network for `assemble`; that of a recurrent one names no kind."""
    kind = {} if isinstance(policy, RaptorPolicy) else {"kind": MLP}
    return kind | {name: getattr(policy, name) for name in DIMENSIONS}


def assemble(
    architecture: Mapping[str, Any], weights: Mapping[str, Any], source: PathLike, names: Mapping[str, str] = {}
) -> StudentPolicy:
    """Build a policy from an `architecture_of` and a `state_dict`, both checked; draws no random numbers.

    `source` is the file, for error messages, and `names` what it calls a weight, where that differs from its key.
    """
    weights = plain_names(weights, source)
    kind = architecture.get("kind", GRU)
    if kind not in tuple(KINDS):
        raise UserError(f"kind must be {' or '.join(KINDS)}, got {kind!r} ({source}): try a newer raptor-python")
    for name in DIMENSIONS:
        if not is_width(size := architecture.get(name)):
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


def format_card(card: Mapping[str, Any], width: int = 100) -> str:
    """Text of a card: one field after the other, long ones wrapped, groups indented, control bytes escaped."""
    return printable("\n".join(_lines(to_plain(card, "card"), width, ""))) if card else "this policy carries no card"


def _lines(card: Mapping[str, Any], width: int, indent: str) -> list[str]:
    fields = sorted(card, key=["name", *CARD_FIELDS, *card].index)
    column = max(map(len, fields)) + 2
    lines: list[str] = []
    for field in fields:
        value, head = card[field], indent + field.ljust(column)
        if isinstance(value, Mapping) and value:
            lines += [head.rstrip(), *_lines(value, width, indent + "  ")]
            continue
        text = str(value) if isinstance(value, (bool, int, float, str)) else ", ".join(map(str, value or ()))
        wrapper = textwrap.TextWrapper(max(width, len(head) + 20), head, " " * len(head), break_on_hyphens=False)
        wrapper.break_long_words = False
        lines += wrapper.wrap(text) or [head.rstrip()]
    return lines
