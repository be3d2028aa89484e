"""Checkpoints: the newest few, complete, and one that is damaged is passed over."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch

from raptor.core.errors import UserError
from raptor.formats import load_policy, save_policy
from raptor.nn import RaptorPolicy
from raptor.runs.checkpoints import Checkpoints, RunWarning


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    """Checkpoints of the updates 1, 2 and 3, of which two are kept."""
    made = Checkpoints(tmp_path, keep=2)
    for update in (1, 2, 3):
        made.write(update, RaptorPolicy(), {"what": "a test"}, {"update": update, "state": torch.arange(1000)})
    return made


def newest(checkpoints: Checkpoints) -> int:
    found = checkpoints.newest()
    assert found is not None
    return int(found[1]["training"]["update"])


def test_only_the_newest_are_kept_and_other_files_stay(checkpoints: Checkpoints) -> None:
    assert list(checkpoints.paths()) == [2, 3]
    save_policy(RaptorPolicy(), checkpoints.best, {})
    (checkpoints.folder / "update_x.pt").write_bytes(b"x")
    checkpoints.write(10, RaptorPolicy(), {}, {})
    assert sorted(path.name for path in checkpoints.folder.iterdir()) == [
        "best.pt",
        "update_000003.pt",
        "update_000010.pt",
        "update_x.pt",
    ]


def test_updates_are_ordered_by_number_not_by_name(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    for update in (999_999, 1_000_000, 1_000_001):
        checkpoints.write(update, RaptorPolicy(), {}, {"update": update})
    assert list(checkpoints.paths()) == [1_000_000, 1_000_001]
    assert newest(checkpoints) == 1_000_001


def test_a_checkpoint_is_a_policy_file(checkpoints: Checkpoints) -> None:
    policy = load_policy(checkpoints.paths()[3])
    assert isinstance(policy, RaptorPolicy)
    assert policy.card == {"what": "a test"}


@pytest.mark.parametrize("damage", ["truncated", "empty", "flipped", "another kind", "a policy only"])
def test_a_damaged_newest_checkpoint_is_passed_over_with_a_warning(checkpoints: Checkpoints, damage: str) -> None:
    path = checkpoints.paths()[3]
    content = path.read_bytes()
    if damage == "flipped":
        at = content.index(torch.arange(1000).numpy().tobytes()[:256]) + 100
        content = content[:at] + bytes([content[at] ^ 255]) + content[at + 1 :]
    path.write_bytes(
        {"truncated": content[: len(content) // 2], "empty": b"", "another kind": b"{}"}.get(damage, content)
    )
    if damage == "a policy only":
        save_policy(RaptorPolicy(), path, {})
    with pytest.warns(RunWarning, match=r"the checkpoint before update_000003.pt is used"):
        assert newest(checkpoints) == 2


def test_without_damage_there_is_no_warning(checkpoints: Checkpoints) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert newest(checkpoints) == 3


def test_where_every_checkpoint_is_damaged_the_run_cannot_go_on(checkpoints: Checkpoints) -> None:
    for path in checkpoints.paths().values():
        path.write_bytes(b"")
    with pytest.warns(RunWarning), pytest.raises(UserError, match=r"no checkpoint in .* can be read: start anew"):
        checkpoints.newest()


def test_where_none_was_written_there_is_none(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path).newest() is None
    assert Checkpoints(tmp_path / "missing").newest() is None
