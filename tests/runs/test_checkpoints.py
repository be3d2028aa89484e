"""Checkpoints: the newest few, complete, and one that is damaged is passed over."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch

from raptor.core.atomic import FolderStore
from raptor.core.errors import UserError
from raptor.formats import save_policy
from raptor.nn import RaptorPolicy
from raptor.runs.checkpoints import Checkpoints, RunWarning


def document(step: int) -> dict:
    return {"what": "a test", "training": {"step": step, "state": torch.arange(1000)}}


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    """Checkpoints of the steps 1, 2 and 3, of which two are kept."""
    made = Checkpoints(FolderStore(tmp_path), "step_", keep=2)
    for step in (1, 2, 3):
        assert made.write(step, document(step)) == f"step_{step:06d}.pt"
    return made


def newest(checkpoints: Checkpoints) -> int:
    return int(next(checkpoints.newest_first())[1]["step"])


def test_only_the_newest_are_kept_and_other_files_stay(checkpoints: Checkpoints, tmp_path: Path) -> None:
    assert list(checkpoints.names()) == [2, 3]
    for name in ("best.pt", "step_x.pt"):
        (tmp_path / name).write_bytes(b"x")
    checkpoints.write(10, document(10))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "best.pt",
        "step_000003.pt",
        "step_000010.pt",
        "step_x.pt",
    ]


def test_steps_are_ordered_by_number_not_by_name(tmp_path: Path) -> None:
    checkpoints = Checkpoints(FolderStore(tmp_path), keep=2)
    for step in (999_999, 1_000_000, 1_000_001):
        checkpoints.write(step, document(step))
    assert list(checkpoints.names()) == [1_000_000, 1_000_001]
    assert newest(checkpoints) == 1_000_001


@pytest.mark.parametrize("damage", ["truncated", "empty", "flipped", "another kind", "a policy only"])
def test_a_damaged_newest_checkpoint_is_passed_over_with_a_warning(
    checkpoints: Checkpoints, tmp_path: Path, damage: str
) -> None:
    path = tmp_path / "step_000003.pt"
    content = path.read_bytes()
    if damage == "flipped":
        at = content.index(torch.arange(1000).numpy().tobytes()[:256]) + 100
        content = content[:at] + bytes([content[at] ^ 255]) + content[at + 1 :]
    path.write_bytes(
        {"truncated": content[: len(content) // 2], "empty": b"", "another kind": b"{}"}.get(damage, content)
    )
    if damage == "a policy only":
        save_policy(RaptorPolicy(), path, {})
    with pytest.warns(RunWarning, match=r"step_000003.pt is passed over for an earlier checkpoint"):
        assert newest(checkpoints) == 2


def test_without_damage_there_is_no_warning(checkpoints: Checkpoints) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert newest(checkpoints) == 3


def test_where_every_checkpoint_is_damaged_the_run_cannot_go_on(checkpoints: Checkpoints, tmp_path: Path) -> None:
    for name in checkpoints.names().values():
        (tmp_path / name).write_bytes(b"")
    with pytest.warns(RunWarning), pytest.raises(UserError, match=r"no checkpoint .* can be read: start anew"):
        newest(checkpoints)


def test_where_none_was_written_there_is_none(tmp_path: Path) -> None:
    assert next(Checkpoints(FolderStore(tmp_path)).newest_first(), None) is None
    assert next(Checkpoints(FolderStore(tmp_path / "missing")).newest_first(), None) is None


def test_a_dictionary_is_a_store_too_whose_files_can_be_handed_over_to_a_folder(tmp_path: Path) -> None:
    memory: dict[str, bytes] = {}
    folder = FolderStore(tmp_path)
    there, here = Checkpoints(memory, keep=1), Checkpoints(folder)
    for step in (1, 2):
        there.write(step, document(step))
        folder.update(memory)
        assert list(there.names()) == [step]
        assert max(here.names()) == step
    assert newest(here) == newest(there) == 2
    assert {name: folder[name] for name in memory} == memory


def test_a_folder_is_a_mapping_of_its_files(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "not yet there")
    assert (list(store), len(store), store.get("a")) == ([], 0, None)
    store["b/c"], store["a"] = b"1", b"2"
    assert dict(store) == {"a": b"2", "b/c": b"1"}
    del store["a"], store["a"]
    with pytest.raises(UserError, match=f"cannot read {store.path}/b: Is a directory"):
        store["b"]
    assert list(store) == ["b/c"]
