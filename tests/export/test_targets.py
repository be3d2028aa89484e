"""Files of other projects: what is written runs as the original does, or is not written."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from raptor.core.errors import UserError
from raptor.export import FORMATS, ExportError, export_policy, targets
from raptor.formats import OnnxPolicy, load_policy
from raptor.formats.rl_tools import write_rl_tools
from raptor.nn.policy import MLPPolicy, RaptorPolicy

FILES = {"rl-tools": "policy.h5", "px4": "policy.tar"}


@pytest.mark.parametrize("name", ["published", "default"])
@pytest.mark.parametrize("format", FILES)
def test_every_weight_comes_back_from_what_runs_as_the_original(tmp_path: Path, format: str, name: str) -> None:
    policy, path = load_policy(name), tmp_path / FILES[format]
    assert not isinstance(policy, OnnxPolicy)
    error = export_policy(policy, path, format).error
    assert error is not None
    assert error < 1e-5
    read = load_policy(path)
    assert not isinstance(read, OnnxPolicy)
    assert all(
        torch.equal(*pair) for pair in zip(read.state_dict().values(), policy.state_dict().values(), strict=True)
    )
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("format", "policy", "sentence"),
    [
        ("rl-tools", MLPPolicy(hidden_dim=4), "this one has no memory: export it as onnx"),
        ("px4", MLPPolicy(hidden_dim=4), "PX4 runs a recurrent policy, this one has no memory"),
        ("px4", RaptorPolicy(hidden_dim=4), "PX4 is compiled for a network of 22-16-4, this one is 22-4-4"),
    ],
)
def test_what_a_target_cannot_run_is_refused(
    tmp_path: Path, format: str, policy: RaptorPolicy | MLPPolicy, sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        export_policy(policy, tmp_path / FILES[format], format)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("format", FILES)
def test_a_file_of_another_kind_is_refused(tmp_path: Path, format: str) -> None:
    with pytest.raises(UserError, match=rf"ends in {FORMATS[format].suffix}, got .*policy\.onnx"):
        export_policy(RaptorPolicy(), tmp_path / "policy.onnx", format)


def test_what_differs_from_its_policy_is_an_error_and_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, wrong = tmp_path / "policy.h5", RaptorPolicy(hidden_dim=8)
    path.write_bytes(b"old")
    monkeypatch.setattr(targets, "write_rl_tools", lambda policy, file, name: write_rl_tools(wrong, file, name))
    with pytest.raises(ExportError, match=r"policy\.h5 differs from the policy"):
        export_policy(RaptorPolicy(hidden_dim=8), path, "rl-tools")
    assert path.read_bytes() == b"old"
