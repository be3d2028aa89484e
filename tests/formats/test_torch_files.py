"""Files of torch from strangers: read as torch reads them, or refused in a sentence before any memory is taken."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import resource
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from raptor.core.errors import UserError
from raptor.formats import load_policy
from raptor.formats.torch_files import Name, Record, array_of, load_torch, read_pickle

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**80), 2**80) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(), inner)
        | st.sets(st.integers(), max_size=3)
    ),
    max_leaves=20,
)


def saved(document: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(document, buffer)
    return buffer.getvalue()


def refused(content: bytes, match: str) -> None:
    with pytest.raises(UserError, match=match) as error:
        load_torch(content, "some.pt")
    assert str(error.value).startswith("some.pt")
    assert "\n" not in str(error.value)


def same(ours: Any, theirs: Any) -> bool:
    if isinstance(theirs, torch.Tensor):
        return (
            isinstance(ours, torch.Tensor)
            and (ours.dtype, ours.shape, ours.stride()) == (theirs.dtype, theirs.shape, theirs.stride())
            and ours.requires_grad == theirs.requires_grad
            and torch.equal(ours, theirs)
        )
    if isinstance(theirs, dict):
        return list(ours) == list(theirs) and all(same(ours[key], theirs[key]) for key in theirs)
    if isinstance(theirs, (list, tuple)):
        return type(ours) is type(theirs) and all(same(a, b) for a, b in zip(ours, theirs, strict=True))
    return bool(ours == theirs)


@given(PLAIN, st.integers(2, pickle.HIGHEST_PROTOCOL))
def test_a_pickle_of_plain_data_is_read_as_it_was_written(value: Any, protocol: int) -> None:
    assert read_pickle(pickle.dumps(value, protocol)) == value


def test_what_torch_saves_comes_back_as_torch_loads_it() -> None:
    base = torch.arange(24.0).reshape(4, 6)
    network = torch.nn.Linear(3, 2)
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    document = {
        "views": [base, base.T, base[1:3, ::2], base[:0], torch.tensor(3)],
        "types": [torch.ones(2).to(dtype) for dtype in (torch.float64, torch.bfloat16, torch.bool, torch.uint16)],
        "network": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "generator": torch.Generator().manual_seed(3).get_state(),
        "plain": {"a": (1, None, True), 3: -(2**40), "b": b"\x00\xff", "c": {1, 2}, "d": OrderedDict(x=1.5)},
        "torch": [torch.Size([2, 3]), torch.device("cpu")],
    }
    content = saved(document)
    theirs = torch.load(io.BytesIO(content), weights_only=True)
    ours = load_torch(content, "some.pt")
    assert same(ours, theirs)
    ours["views"][0][0, 0] = 7.0
    assert ours["views"][1][0, 0] == 7.0, "views of one storage stay views of one storage"
    assert load_torch(content, "some.pt", "meta")["views"][0].is_meta


def test_scalars_of_numpy_are_numbers_and_arrays_are_described() -> None:
    infos = {"reward": np.float64(1.5), "steps": np.int32(-7), "done": np.bool_(True), "big": np.array(2.5, ">f4")[()]}
    assert load_torch(saved(infos), "some.pt") == {"reward": 1.5, "steps": -7, "done": True, "big": 2.5}
    for array in (np.arange(6.0).reshape(2, 3), np.asfortranarray(np.arange(6).reshape(2, 3)), np.array([1, 2], ">i2")):
        found = array_of(read_pickle(pickle.dumps(array, 4)))
        assert found is not None
        assert np.array_equal(found, array)
    assert array_of(read_pickle(pickle.dumps(np.array([object()], dtype=object), 4))) is None
    assert array_of(3.0) is None


class Bomb:
    """What makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_names_in_a_pickle_are_data_and_nothing_is_imported_or_called(tmp_path: Path) -> None:
    content = pickle.dumps({"bomb": Bomb(tmp_path / "made"), "kind": Bomb})
    assert read_pickle(content) == {
        "bomb": Record(f"{os.mkdir.__module__}.mkdir", (str(tmp_path / "made"),)),
        "kind": Name(f"{__name__}.Bomb"),
    }
    refused(saved({"weights": Bomb(tmp_path / "made")}), r"refused and not executed: .* it holds \w+\.mkdir; give")
    assert load_torch(saved({"kind": Bomb}), "some.pt") == {"kind": Name(f"{__name__}.Bomb")}
    refused(saved({"sparse": torch.eye(2).to_sparse()}), "refused and not executed: .*layout")
    assert not (tmp_path / "made").exists()
    pickle.loads(content)
    assert (tmp_path / "made").exists(), "the bomb is live, or the test proves nothing"


def test_files_of_other_kinds_are_called_by_their_names(tmp_path: Path) -> None:
    old = io.BytesIO()
    torch.save({"a": torch.ones(2)}, old, _use_new_zipfile_serialization=False)
    refused(old.getvalue(), r"it has torch's file format before 1\.6, .* write it anew: torch\.save\(torch\.load\(")
    refused(pickle.dumps({"a": 1}), "it is a pickle, which can hold code")
    refused(b"", "is damaged, truncated, or of another kind")
    refused(b"\x89HDF\r\n\x1a\n", "is damaged, truncated, or of another kind")
    refused(saved([torch.ones(2)]), "holds a list instead of named weights")
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "policy.pt")
    refused(
        (tmp_path / "policy.pt").read_bytes(), "is a TorchScript program, .* give the checkpoint that it was exported"
    )
    with pytest.raises(UserError, match="is a TorchScript program"):
        load_policy(tmp_path / "policy.pt")
    with pytest.raises(UserError, match=r"cannot read some\.pt: No such file"):
        load_torch(tmp_path / "missing.pt", "some.pt")


@pytest.mark.parametrize("size", np.linspace(0, 0.999, 9).tolist())
def test_a_file_that_was_cut_off_is_refused(size: float) -> None:
    content = saved({"a": torch.ones(300), "b": torch.ones(3)})
    refused(content[: int(size * len(content))], "is damaged")


def test_the_end_of_another_archive_is_not_taken_for_a_file() -> None:
    refused(b"before" + saved({"a": torch.ones(3)}), "is damaged, truncated, or of another kind")


def test_a_flipped_bit_in_a_tensor_is_noticed() -> None:
    content = bytearray(saved({"a": torch.full((9,), 3.25)}))
    content[content.index(struct.pack("<f", 3.25)) + 1] ^= 1
    refused(bytes(content), "is damaged: the checksum of .*data/0.* is wrong")


@pytest.mark.parametrize("shape", [(65536, 65536), (2, 3), (2**62, 2**62)], ids=str)
def test_a_tensor_larger_than_what_is_stored_of_it_is_refused(shape: tuple[int, ...]) -> None:
    def forged(document: Any) -> bytes:
        content = io.BytesIO(saved(document))
        with zipfile.ZipFile(content) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        (name,) = [name for name in members if name.endswith("data.pkl")]
        sizes = pickle.dumps(shape, 2)[2:-1]
        members[name] = members[name].replace(pickle.dumps((1, 5), 2)[2:-3], sizes[: sizes.rfind(b"q")])
        written = io.BytesIO()
        with zipfile.ZipFile(written, "w") as archive:
            for member, old in members.items():
                archive.writestr(member, old)
        return written.getvalue()

    refused(forged({"a": torch.ones(1, 5)}), r"was refused: of a tensor of shape \(\d+, \d+\) it stores 5 numbers")
    if max(shape) < 2**60:
        refused(saved({"a": torch.ones(1).expand(shape)}), "it stores 1 numbers")


def test_what_unpacks_to_far_more_than_it_is_gets_refused_unread(tmp_path: Path) -> None:
    """A zip of 300 MB of zeros, which is small on the disk."""
    path = tmp_path / "policy.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("policy/data.pkl", pickle.dumps({}))
        with archive.open("policy/data/0", "w") as member:
            for _ in range(300):
                member.write(bytes(2**20))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for read in (load_policy, lambda path: load_torch(path, path)):
        with pytest.raises(
            UserError, match=r"was refused: its \d+ bytes unpack to 3145728\d\d, which is more than 16777216"
        ):
            read(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 * 1024, "KiB of memory taken"


def test_pickles_that_ask_for_memory_or_time_get_none() -> None:
    million = struct.pack("<I", 2**31)
    for operations in (
        b"N" + b"r" + million,  # a memo that is an array would have two billion entries
        b"\x96" + struct.pack("<Q", 2**40),  # a bytearray that is not there
        b"\x8b" + struct.pack("<i", 300) + b"\x7f" * 300,  # a number of 2400 bits
        b"B" + million,
    ):
        with pytest.raises((ValueError, AttributeError)):
            read_pickle(b"\x80\x05" + operations + b"J\x00.")
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02" + b"]" * 2**25)
    refused(written.getvalue(), "is damaged or no file of torch")


@given(st.data())
def test_bytes_that_are_changed_anywhere_never_give_more_than_a_sentence(data: st.DataObject) -> None:
    content = bytearray(saved({"a": torch.ones(2), "b": {"c": [1, "x", None]}}))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(UserError):
        load_torch(bytes(content), "some.pt")
