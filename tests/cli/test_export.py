"""`raptor export` and `raptor card`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from raptor.formats import OnnxPolicy, load_expert, load_policy, save_policy, save_teachers
from raptor.nn import RaptorPolicy, TeacherPopulation
from raptor.nn.stacked_mlp import initial_layers

Run = Callable[..., str]


@pytest.fixture
def policy_file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.pt"
    save_policy(RaptorPolicy(), path, {"what": "a policy of this test", "licence": "MIT"})
    return path


def test_export_writes_beside_the_policy_what_acts_like_it(raptor: Run, policy_file: Path) -> None:
    text = raptor("export", policy_file)
    exported = policy_file.with_suffix(".onnx")
    assert f"wrote {exported}" in text
    original, copy = load_policy(policy_file), load_policy(exported)
    assert isinstance(copy, OnnxPolicy)
    observation = torch.linspace(-1, 1, 22).expand(3, 22)
    action, hidden = copy(observation, copy.initial_hidden_state(3))
    expected, expected_hidden = original(observation, original.initial_hidden_state(3))
    torch.testing.assert_close(action, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(hidden, expected_hidden, rtol=1e-5, atol=1e-5)


def test_export_of_a_run_goes_into_its_folder(raptor: Run, tmp_path: Path) -> None:
    save_policy(RaptorPolicy(), tmp_path / "checkpoints" / "best.pt", {})
    assert f"wrote {tmp_path / 'policy.onnx'}" in raptor("export", tmp_path)


def test_export_takes_a_name_and_an_output(raptor: Run, tmp_path: Path) -> None:
    raptor("export", "published", "--format", "onnx", "--output", tmp_path / "p.onnx")
    assert (tmp_path / "p.onnx").is_file()


def test_export_of_a_teacher_is_a_file_of_rl_tools_that_acts_like_it(raptor: Run, refused: Run, tmp_path: Path) -> None:
    teachers = TeacherPopulation(initial_layers(3, (26, 6, 4), torch.Generator().manual_seed(0)))
    save_teachers(teachers, tmp_path / "teachers")
    file = tmp_path / "teachers" / "teacher_1.h5"
    text = raptor("export", f"{tmp_path / 'teachers'}:1", "--format", "rl-tools")
    assert f"wrote {file}, which differs from the teacher by at most" in text
    seen = torch.randn(3, 20, 26, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(load_expert(file)(seen[1]), teachers(seen)[1], rtol=1e-6, atol=1e-6)
    raptor("export", f"{tmp_path / 'teachers'}:2", "-o", tmp_path / "other")
    assert (tmp_path / "other" / "teacher_2.h5").is_file()
    assert "holds 3 teachers, from number 0 on" in refused("export", f"{tmp_path / 'teachers'}:3")
    assert "give the number of one, such as" in refused("export", tmp_path / "teachers")
    sentence = "a teacher is exported with --format rl-tools, got 'onnx'"
    assert refused("export", f"{tmp_path / 'teachers'}:1", "-f", "onnx") == sentence


def test_the_option_that_numbered_a_teacher_once_names_what_does_now(refused: Run, tmp_path: Path) -> None:
    assert "raptor export teachers:3" in refused("export", tmp_path, "--teacher", "1")


@pytest.mark.parametrize("is_there", [True, False])
def test_an_export_into_a_folder_gets_a_good_name(
    raptor: Run, policy_file: Path, tmp_path: Path, is_there: bool
) -> None:
    folder, run = tmp_path / "exported", tmp_path / "runs" / "v1.2"
    if is_there:
        folder.mkdir()
    save_policy(RaptorPolicy(), run / "checkpoints" / "best.pt", {})
    for policy, name in (("published", "published.onnx"), (policy_file, "mine.onnx"), (run, "v1.2.onnx")):
        assert f"wrote {folder / name}" in raptor("export", policy, "-o", folder)
        assert (folder / name).is_file()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--format", "onxx"], "unknown export format 'onxx', did you mean 'onnx'?"),
        (["--output", "x.pt"], "an ONNX file ends in .onnx, got x.pt"),
    ],
)
def test_export_refuses_what_it_cannot_write(
    refused: Run, policy_file: Path, arguments: list[str], sentence: str
) -> None:
    before = sorted(policy_file.parent.iterdir())
    assert sentence in refused("export", policy_file, *arguments)
    assert sorted(policy_file.parent.iterdir()) == before


def test_a_policy_that_cannot_be_read_is_refused_and_an_older_export_stays(refused: Run, policy_file: Path) -> None:
    exported = policy_file.with_suffix(".onnx")
    exported.write_text("precious")
    policy_file.write_bytes(policy_file.read_bytes()[:1000])
    assert str(policy_file) in refused("export", policy_file)
    assert "there is no policy" in refused("export", policy_file.with_name("other.pt"))
    assert exported.read_text() == "precious"


def test_card_tells_what_a_policy_is(raptor: Run, policy_file: Path) -> None:
    text = raptor("card", policy_file)
    assert "a policy of this test" in text
    assert "MIT" in text
    assert "2084 parameters" in raptor("card", "published")
