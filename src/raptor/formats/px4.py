"""`policy.tar`, the file that PX4's `mc_raptor` loads, written for it and read as it reads.

An archive of files in ustar format, two for each tensor: `meta`, lines of `key: value`, and `data`, its numbers.
Source: PX4's module `mc_raptor` and rl-tools' reader of archives. The network is compiled in there: 22-16-16-4.
"""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from raptor.core.atomic import PathLike, replacing
from raptor.core.errors import UserError, printable
from raptor.formats.checkpoint import assemble
from raptor.formats.rl_tools import ENTRIES, LAYERS, example_of
from raptor.nn.policy import MLPPolicy, RaptorPolicy

WIDTHS = {"observation_dim": 22, "hidden_dim": 16, "action_dim": 4}
"""That PX4 is compiled for."""

BLOCK = 512  # of an archive
MOST_NAME, MOST_TENSOR_META, MOST_ACTOR_META = 99, 99, 256  # bytes that PX4 has room for
TEST_STEPS, TEST_EXAMPLES, TEST_TOLERANCE = 5, 2, 1e-5  # of the test that it makes at start
MOST_BYTES = 2**24  # far more than any such file has


def refuse_other_widths(policy: RaptorPolicy | MLPPolicy, target: str) -> None:
    """Raise a `UserError` unless PX4's network has these widths."""
    there = {name: getattr(policy, name) for name in WIDTHS}
    if isinstance(policy, MLPPolicy):
        raise UserError(f"{target} runs a recurrent policy, this one has no memory: export it with --format c")
    if there != WIDTHS:
        ours, theirs = ("-".join(map(str, widths.values())) for widths in (there, WIDTHS))
        raise UserError(
            f"{target} is compiled for a network of {theirs}, this one is {ours}: export it with --format c"
        )


def write_policy_tar(policy: RaptorPolicy, path: PathLike, name: str = "raptor") -> None:
    """Write a policy as `policy.tar`, complete or not at all; the archive holds the name and an example."""
    refuse_other_widths(policy, "PX4")
    weights = {key: tensor.detach().to("cpu", torch.float32) for key, tensor in policy.state_dict().items()}
    observations, actions = example_of(policy)
    label = name.encode("ascii", "replace").decode()[:MOST_NAME]
    files = {"actor/meta": _lines(checkpoint_name=label, type="sequential")}
    for i, kind in enumerate(LAYERS):
        for key, place in ENTRIES.items():
            if place.startswith(f"actor/layers/{i}/"):
                files |= _tensor(place, weights[key])
        words = kind.split()
        activation = {"activation_function": words[1]} if len(words) > 1 else {}
        files[f"actor/layers/{i}/meta"] = _lines(**activation, type=words[0])
    files |= _tensor("example/input", observations) | _tensor("example/output", actions)
    with replacing(path) as temporary:
        with tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as archive:
            for member, content in files.items():
                entry = tarfile.TarInfo(member)
                entry.size, entry.mode, entry.uid, entry.gid = len(content), 0o644, 1000, 1000
                entry.uname, entry.gname = "user", "group"
                archive.addfile(entry, io.BytesIO(content))
        read_policy_tar(temporary)


def _lines(**pairs: object) -> bytes:
    return "".join(f"{key}: {value}\n" for key, value in pairs.items()).encode()


def _tensor(place: str, tensor: Tensor) -> dict[str, bytes]:
    sizes = {f"dim_{i}": size for i, size in enumerate(tensor.shape)}
    meta = _lines(type="tensor", dtype="float32", num_dims=tensor.ndim, **sizes)
    return {f"{place}/meta": meta, f"{place}/data": np.ascontiguousarray(tensor.numpy(), "<f4").tobytes()}


def read_policy_tar(path: PathLike) -> RaptorPolicy:
    """Read a `policy.tar`; what PX4 would refuse is refused, for the reason that it has, and for no other."""
    file = Path(path)
    try:
        if file.stat().st_size > MOST_BYTES:
            raise UserError(f"{path} has {file.stat().st_size} bytes: a policy.tar has 136 192")
        content = file.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    archive = _Archive(content, path)
    meta = archive.text("actor/meta", MOST_ACTOR_META)
    label = archive.value(meta, "checkpoint_name", "actor/meta")[:MOST_NAME]
    shapes = {key: tensor.shape for key, tensor in RaptorPolicy(**WIDTHS).state_dict().items()}
    weights = {key: archive.tensor(place, tuple(shapes[key])) for key, place in ENTRIES.items()}
    policy = assemble(WIDTHS, weights, path, ENTRIES)
    assert isinstance(policy, RaptorPolicy)  # what an architecture without a kind gives
    steps = archive.length("example/input")
    observations = archive.tensor("example/input", (steps, TEST_EXAMPLES, WIDTHS["observation_dim"]))
    actions = archive.tensor("example/output", (steps, TEST_EXAMPLES, WIDTHS["action_dim"]))
    if steps < TEST_STEPS:
        raise archive.refused(f"its example has {steps} steps, the test at start takes {TEST_STEPS}")
    with torch.no_grad():
        found = policy.forward_sequence(observations[:TEST_STEPS])[0]
    difference = (found - actions[:TEST_STEPS]).abs().mean().item()
    if not difference < TEST_TOLERANCE:
        found_by = f"mean difference {difference:.2g}, allowed {TEST_TOLERANCE:g}"
        raise archive.refused(f"it does not reproduce its example ({found_by})")
    policy.card = {"what": "a policy.tar of PX4", "checkpoint_name": printable(label)}
    return policy


class _Archive:
    """An archive as PX4 looks through it: entry by entry from the start, by magic, name and size alone."""

    def __init__(self, content: bytes, path: PathLike) -> None:
        self._content, self._path = content, path

    def refused(self, problem: str) -> UserError:
        """The error that says why PX4 would refuse this."""
        return UserError(f"{self._path} would be refused by PX4: {problem}")

    def member(self, name: str) -> bytes:
        """The content of the first entry of this name."""
        place = 0
        while place + BLOCK <= len(self._content):
            header = self._content[place : place + BLOCK]
            if not any(header):
                break
            if header[257:262] != b"ustar":
                raise self.refused(f"there is no ustar header at byte {place}, where one must be: it is damaged")
            digits = header[124:136].split(b"\0")[0].strip()
            if not digits or digits.strip(b"01234567"):
                raise self.refused(f"the size at byte {place} is no octal number: it is damaged")
            size, found = int(digits, 8), header[:100].split(b"\0")[0]
            if found == name.encode():
                data = self._content[place + BLOCK : place + BLOCK + size]
                if len(data) < size:
                    raise self.refused(f"{name} ends after {len(data)} of {size} bytes: it is truncated")
                return data
            place += BLOCK + -(-size // BLOCK) * BLOCK
        raise self.refused(f"{name} is missing")

    def text(self, name: str, most: int) -> str:
        """The content of an entry of at most so many bytes, as text."""
        data = self.member(name)
        if len(data) > most:
            raise self.refused(f"{name} has {len(data)} bytes, PX4 has room for {most}")
        return data.decode("latin-1")

    def value(self, text: str, key: str, name: str) -> str:
        """What follows `key: ` in the text of an entry."""
        for line in text.split("\n"):
            if line.startswith(f"{key}:"):
                return line[len(key) + 2 :]
        raise self.refused(f"{name} has no line that begins with {key}:")

    def _sizes(self, place: str) -> tuple[int, ...]:
        """The shape of a tensor, from its `meta`."""
        name = f"{place}/meta"
        meta = self.text(name, MOST_TENSOR_META)
        if not (kind := self.value(meta, "type", name)).startswith("tensor"):
            raise self.refused(f"{name} says that it is a {printable(kind)}, not a tensor")
        sizes: list[int] = []
        for key in ("num_dims", *(f"dim_{i}" for i in range(8))):
            if sizes and len(sizes) > sizes[0]:
                break
            digits = self.value(meta, key, name)
            if not digits.isdecimal() or (key == "num_dims" and int(digits) > 8):
                raise self.refused(f"{key} in {name} is no size: {printable(digits)}")
            sizes.append(int(digits))
        return tuple(sizes[1:])

    def length(self, place: str) -> int:
        """The first size of a tensor, 0 for a scalar."""
        sizes = self._sizes(place)
        return sizes[0] if sizes else 0

    def tensor(self, place: str, wanted: tuple[int, ...]) -> Tensor:
        """The numbers of a tensor of this shape, in single precision."""
        sizes, data = self._sizes(place), self.member(f"{place}/data")
        if sizes != wanted:
            raise self.refused(f"{place} has the shape {sizes}, PX4 is compiled for {wanted}")
        if len(data) != 4 * int(np.prod(wanted)):
            raise self.refused(f"{place}/data has {len(data)} bytes, {wanted} take {4 * int(np.prod(wanted))}")
        return torch.from_numpy(np.frombuffer(data, "<f4").astype(np.float32).reshape(wanted))
