"""The package's own policy files: weights and a card, written at once and read without executing code.

Weights, as this and other files name them, are checked before anything is copied; what is wrong is a `UserError`.
"""

from __future__ import annotations

import io
import itertools
import re
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
from raptor.nn.policy import MLPPolicy, RaptorPolicy
from raptor.nn.stacked_mlp import Layer

FORMAT, VERSION = "raptor-policy", 1
GRU, MLP = "gru", "mlp"
StudentPolicy = RaptorPolicy | MLPPolicy
KINDS: dict[str, type[StudentPolicy]] = {GRU: RaptorPolicy, MLP: MLPPolicy}  # a file that names no kind holds the first
CARD_FIELDS = ("what", "training", "command", "results", "licence")  # of every policy with a name; there may be others
DIMENSIONS = ("observation_dim", "hidden_dim", "action_dim")
_ADVICE = Advice(*["give a file that save_policy wrote"] * 2)
LARGEST = 1e9  # bound on the magnitude of a weight; with more, a few layers give what is not finite
LARGEST_WIDTH, LARGEST_DEPTH = 65536, 64
_LARGEST_NUMBER = 2**28  # numbers in a weight
_PREFIX = re.compile(r"(?:^module\.|_orig_mod\.)")


def save_policy(
    policy: StudentPolicy, path: PathLike, card: Mapping[str, Any], training: Mapping[str, Any] | None = None
) -> None:
    """Write a policy, on any device, to a file (`*.pt`), complete or not at all, its weights in their own precision.

    The card says what the policy is and how it came about, in text, numbers, and lists and groups of these; `training`
    is state to go on from: tensors, text, numbers, and nested lists and dictionaries of these. Weights that are not
    finite, and anything else in the card, are a `UserError`.
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
    layout = {"layout": policy.layout} if policy.layout else {}
    return kind | {name: getattr(policy, name) for name in DIMENSIONS} | layout


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
    policy.layout = checked_layout(architecture.get("layout", {}), source)
    return policy


def checked_layout(layout: Any, source: PathLike) -> dict[str, Any]:
    """The layout of a policy's observation as plain data; what its names stand for is found out where it is used."""
    plain = to_plain(layout, "layout", from_file=source)
    names, terms = (plain.get("observation"), plain.get("extra", {})) if isinstance(plain, dict) else (None, None)
    fits = isinstance(names, list) and all(isinstance(name, str) for name in names) and isinstance(terms, dict)
    if plain and not (fits and set(plain) <= {"observation", "extra"}):
        raise UserError(f"the layout of the observation must name its components, got {repr(plain)[:60]} ({source})")
    return dict(plain)


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
        values = value if isinstance(value, (list, tuple)) else [value] if value != {} else []
        text = ", ".join(f"{each:.6g}" if isinstance(each, float) else str(each) for each in values if each is not None)
        wrapper = textwrap.TextWrapper(max(width, len(head) + 20), head, " " * len(head), break_on_hyphens=False)
        wrapper.break_long_words = False
        lines += wrapper.wrap(text) or [head.rstrip()]
    return lines


def plain_names(weights: Mapping[Any, Any], path: PathLike) -> dict[str, Any]:
    """Weights by the names of the network, without what torch.compile and DistributedDataParallel put before them."""
    plain = {_PREFIX.sub("", str(name)): weight for name, weight in weights.items()}
    if len(plain) < len(weights):
        raise UserError(f"{path} holds a weight twice, with and without the prefix of torch.compile: it is damaged")
    return plain


def is_width(value: object) -> bool:
    """Whether it can be the width of a layer."""
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= LARGEST_WIDTH


def check_values(
    weights: Mapping[str, Tensor], where: PathLike, names: Mapping[str, str] = {}, stacked: bool = False
) -> None:
    """Refuse weights that are not all of single, or all of double precision, and numbers beyond `LARGEST`.

    `names` is what the file calls a weight, where that differs from its key; `stacked` weights begin with the axis of
    the teachers.
    """
    types = {weight.dtype for weight in weights.values()}
    if len(types) != 1 or not types <= {torch.float32, torch.float64}:
        found = ", ".join(sorted(map(str, types)))
        raise UserError(f"the weights must all be torch.float32, or all torch.float64, got {found} ({where})")
    for key, weight in weights.items():
        wrong = ~(weight.detach().abs() <= LARGEST)
        if wrong.any():
            index = tuple(wrong.nonzero()[0].tolist())
            value = weight[index].item()
            bound = f"at most {LARGEST:g} in magnitude" if abs(value) < float("inf") else "finite"
            whose = f", of teacher {index[0]}," if stacked else ""
            raise UserError(f"{names.get(key, key)}{list(index)}{whose} must be {bound}, got {value} ({where})")


def weight_of(weights: Mapping[str, Any], name: str, path: PathLike, ndim: int | None = None) -> Tensor:
    """A checked copy of one weight in single or double precision, of `ndim` axes."""
    if name not in weights:
        raise UserError(f"{path} lacks the weight {name}: it is damaged, or of another architecture")
    weight = weights[name]
    if not isinstance(weight, Tensor) or not weight.is_floating_point():
        what = weight.dtype if isinstance(weight, Tensor) else type(weight).__name__
        raise UserError(f"{name} must be a tensor of floating-point numbers, got {what} ({path})")
    if ndim is not None and weight.ndim != ndim:
        raise UserError(f"{name} must have {ndim} axes, got shape {tuple(weight.shape)} ({path})")
    if weight.numel() > _LARGEST_NUMBER or not all(map(is_width, weight.shape)):
        raise UserError(f"{name} is no weight of a teacher: its shape is {tuple(weight.shape)} ({path})")
    dtype = torch.float64 if weight.dtype == torch.float64 else torch.float32
    copy = weight.detach().to(dtype).clone(memory_format=torch.contiguous_format)
    check_values({name: copy}, path)
    return copy


def layer_of(weights: Mapping[str, Any], name: str, path: PathLike) -> Layer:
    """The dense layer `name`, with the axes of `torch.nn.Linear`."""
    layer = Layer(weight_of(weights, f"{name}.weight", path, 2), weight_of(weights, f"{name}.bias", path, 1))
    if len(layer.bias) != len(layer.weight):
        raise UserError(f"{name}.bias must have shape ({len(layer.weight)},), got {tuple(layer.bias.shape)} ({path})")
    return layer


def layers_of(weights: Mapping[str, Any], prefix: str, path: PathLike) -> tuple[Layer, ...]:
    """The dense layers `prefix.0`, `prefix.2` and so on, between which there are activation functions, and no other."""
    names = sorted(key.removeprefix(f"{prefix}.") for key in weights if key.startswith(f"{prefix}."))
    dense = {name: re.fullmatch(r"([0-9]+)\.(?:weight|bias)", name) for name in names}
    numbers = sorted({int(match[1]) for match in dense.values() if match})
    if not numbers or len(numbers) > LARGEST_DEPTH:
        found = f"{len(numbers)} layers {prefix}.*, at most {LARGEST_DEPTH} are read"
        lacks = f"lacks the weights {prefix}.0.weight and so on"
        raise UserError(f"{path} {'holds ' + found if numbers else lacks}: it holds another architecture")
    other = [name for name, match in dense.items() if not match]
    if other or numbers != list(range(0, 2 * len(numbers), 2)):
        found = f"{prefix}.{other[0]}" if other else ", ".join(f"{prefix}.{number}" for number in numbers)
        raise UserError(f"{path} holds more than dense layers with activation functions between them: {found}")
    return connected([layer_of(weights, f"{prefix}.{number}", path) for number in numbers], path)


def connected(layers: list[Layer], path: PathLike) -> tuple[Layer, ...]:
    """The layers, if each takes what the one before it gives; all of one floating-point type."""
    for i, (before, layer) in enumerate(itertools.pairwise(layers), start=1):
        if layer.weight.shape[1] != len(before.bias):
            gives = f"but the one before it gives {len(before.bias)}"
            raise UserError(f"layer {i} of {path} takes {layer.weight.shape[1]} numbers, {gives}: it is damaged")
    return tuple(Layer(*(tensor.to(layers[0].weight.dtype) for tensor in layer)) for layer in layers)


def halves(layer: Layer) -> tuple[Layer, Layer]:
    """Mean and deviation, which a last layer gives one after the other."""
    (mean, deviation), (low, high) = (tensor.chunk(2) for tensor in layer)
    return Layer(mean.clone(), low.clone()), Layer(deviation.clone(), high.clone())
