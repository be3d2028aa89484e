"""`policy.tar`: every weight comes back, and what PX4 would refuse is refused, for PX4's reason."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from raptor.core.errors import UserError
from raptor.formats import load_policy
from raptor.formats.px4 import read_policy_tar, write_policy_tar
from raptor.nn.policy import MLPPolicy, RaptorPolicy

Files = dict[str, bytes]
WEIGHTS, BIASES = (f"actor/layers/0/{kind}/parameters" for kind in ("weights", "biases"))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("px4") / "policy.tar"
    write_policy_tar(load_policy("published"), path, "published")
    return path


def packed(files: Files, path: Path, format: int = tarfile.USTAR_FORMAT) -> Path:
    with tarfile.open(path, "w", format=format) as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def unpacked(path: Path) -> Files:
    with tarfile.open(path) as archive:
        return {entry.name: archive.extractfile(entry).read() for entry in archive}  # type: ignore[union-attr]


def test_every_weight_comes_back_with_the_name(written: Path) -> None:
    read, policy = read_policy_tar(written), load_policy("published")
    assert all(
        torch.equal(*pair) for pair in zip(read.state_dict().values(), policy.state_dict().values(), strict=True)
    )
    assert read.card["checkpoint_name"] == "published"


def test_the_order_of_the_entries_and_what_comes_besides_do_not_matter(written: Path, tmp_path: Path) -> None:
    files = {"readme": b"other files may be there", **dict(reversed(unpacked(written).items()))}
    assert read_policy_tar(packed(files, tmp_path / "policy.tar")).card["checkpoint_name"] == "published"


def test_two_blocks_of_zeros_need_not_end_it(written: Path, tmp_path: Path) -> None:
    bare = tmp_path / "policy.tar"
    bare.write_bytes(written.read_bytes().rstrip(b"\0") + b"\0" * 512)
    assert read_policy_tar(bare).card["checkpoint_name"] == "published"


def replaced(name: str, old: bytes, new: bytes) -> Callable[[Files], Files]:
    def change(files: Files) -> Files:
        assert old in files[name]
        return {**files, name: files[name].replace(old, new)}

    return change


def without(name: str) -> Callable[[Files], Files]:
    return lambda files: {key: content for key, content in files.items() if key != name}


def shorter(files: Files) -> Files:
    """With an example of four steps."""
    for kind, width in (("input", 22), ("output", 4)):
        name = f"example/{kind}"
        files[f"{name}/meta"] = files[f"{name}/meta"].replace(b"dim_0: 500", b"dim_0: 4")
        files[f"{name}/data"] = files[f"{name}/data"][: 4 * 2 * width * 4]
    return files


BROKEN: dict[str, tuple[Callable[[Files], Files], str]] = {
    "a weight is missing": (without(f"{WEIGHTS}/data"), "data is missing"),
    "its meta is missing": (without(f"{WEIGHTS}/meta"), "meta is missing"),
    "no example": (without("example/input/meta"), "example/input/meta is missing"),
    "no name": (replaced("actor/meta", b"checkpoint_name:", b"name:"), "no line that begins with checkpoint_name:"),
    "another width": (
        replaced(f"{WEIGHTS}/meta", b"dim_1: 22", b"dim_1: 26"),
        r"shape \(16, 26\), PX4 is compiled for",
    ),
    "a bias as a row": (
        replaced(f"{BIASES}/meta", b"num_dims: 1\ndim_0: 16", b"num_dims: 2\ndim_0: 1\ndim_1: 16"),
        r"shape \(1, 16\), PX4 is compiled for \(16,\)",
    ),
    "not a tensor": (replaced(f"{BIASES}/meta", b"type: tensor", b"type: matrix"), "is a matrix, not a tensor"),
    "no number": (replaced(f"{BIASES}/meta", b"dim_0: 16", b"dim_0: x"), "dim_0 in .* is no size: x"),
    "too few bytes": (lambda files: {**files, f"{BIASES}/data": files[f"{BIASES}/data"][:-4]}, "has 60 bytes"),
    "a long meta": (replaced(f"{BIASES}/meta", b"type: tensor", b"type: tensor" + b"x" * 80), "has room for 99"),
    "a long name": (replaced("actor/meta", b"published", b"p" * 300), "has room for 256"),
    "another policy's example": (
        lambda files: {**files, "example/output/data": b"\0" * len(files["example/output/data"])},
        "does not reproduce its example",
    ),
    "a short example": (shorter, "its example has 4 steps, the test at start takes 5"),
}


@pytest.mark.parametrize(("change", "reason"), BROKEN.values(), ids=BROKEN.keys())
def test_what_px4_would_refuse_is_refused_for_its_reason(
    written: Path, tmp_path: Path, change: Callable[[Files], Files], reason: str
) -> None:
    broken = packed(change(unpacked(written)), tmp_path / "policy.tar")
    with pytest.raises(UserError, match=reason):
        read_policy_tar(broken)


def damaged(content: bytes, place: int, new: bytes) -> bytes:
    return content[:place] + new + content[place + len(new) :]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda content: content[:-40_000], "it is truncated|is missing"),
        (lambda content: damaged(content, 257, b"other"), "there is no ustar header at byte 0"),
        (lambda content: damaged(content, 124, b"99999999999"), "no octal number"),
        (lambda content: b"", "actor/meta is missing"),
    ],
    ids=["truncated", "no magic", "no size", "empty"],
)
def test_a_damaged_archive_is_refused(
    written: Path, tmp_path: Path, change: Callable[[bytes], bytes], reason: str
) -> None:
    file = tmp_path / "policy.tar"
    file.write_bytes(change(written.read_bytes()))
    with pytest.raises(UserError, match=reason):
        read_policy_tar(file)


@pytest.mark.parametrize(
    ("policy", "reason"),
    [(RaptorPolicy(hidden_dim=8), "22-16-4, this one is 22-8-4"), (MLPPolicy(), "this one has no memory")],
    ids=["another width", "no memory"],
)
def test_another_network_is_not_written(policy: RaptorPolicy | MLPPolicy, reason: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=reason):
        write_policy_tar(policy, tmp_path / "policy.tar")  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())
