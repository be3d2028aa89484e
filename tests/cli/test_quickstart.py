"""`raptor quickstart`: from nothing to a report."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_run import TINY

from raptor.cli.policies import extent
from raptor.config import load_config
from raptor.evaluation import SUITES
from raptor.formats import load_policy
from raptor.training import TrainDirectConfig

Run = Callable[..., str]
QUICK = ("--suite", "unseen", "--num-quadrotors", "2")


@pytest.fixture(scope="module")
def finished(raptor: Run, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder that a quickstart filled, and what it printed."""
    output = tmp_path_factory.mktemp("runs") / "demo"
    return output, raptor("quickstart", "--output", output, "--seed", 7, *QUICK, *TINY)


def test_it_trains_evaluates_exports_and_reports(finished: tuple[Path, str]) -> None:
    output, _ = finished
    assert load_config(TrainDirectConfig, output).seed == 7
    assert list(json.loads((output / "evaluation.json").read_text())["policies"]) == ["published", "demo"]
    html = (output / "report.html").read_text()
    assert "published" in html
    assert "data:image/png;base64," in html
    assert 'src="http' not in html


def test_a_short_training_is_evaluated_on_less_unless_told_otherwise(finished: tuple[Path, str]) -> None:
    short = TrainDirectConfig(num_updates=60, batch_size=64)
    assert extent(TrainDirectConfig()) == (SUITES, 1024)
    assert extent(short) == (("unseen",), 256)
    assert extent(short, ["paper"], 2) == (("paper",), 2)
    settings = json.loads((finished[0] / "evaluation.json").read_text())["settings"]
    assert (settings["suites"], settings["num_quadrotors"]) == (["unseen"], 2)


def test_the_exported_policy_is_the_trained_one(finished: tuple[Path, str]) -> None:
    output, _ = finished
    trained, exported = load_policy(output), load_policy(output / "policy.onnx")
    observation = torch.linspace(-1, 1, 22)[None]
    torch.testing.assert_close(
        exported(observation, exported.initial_hidden_state(1)),
        trained(observation, trained.initial_hidden_state(1)),
        rtol=1e-5,
        atol=1e-5,
    )


def test_it_says_where_everything_is_and_what_to_try_next(finished: tuple[Path, str]) -> None:
    output, text = finished
    for name in ("report.html", "policy.onnx", "evaluation.json", "checkpoints/best.pt"):
        assert str(output / name) in text
        assert (output / name).is_file()
    assert f"raptor evaluate default large {output}" in text
    steps = ["trained 2 updates", "evaluating it", "exported it", "writing the report", "what to try next"]
    assert sorted(steps, key=text.index) == steps


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "already holds a run"),
        (["--overwrite", "--suite", "unsen"], "there is no suite 'unsen'"),
        (["--overwrite", "num_updates=0"], "num_updates must be at least 1, got 0 (command line)"),
        (["--overwrite", "--num-quadrotors", "0"], "'--num-quadrotors'"),
        (["--overwrite", "--device", "cuda:99"], "device 'cuda:99' is not there"),
        (["--resume", "batch_size=5"], "was begun with other settings: batch_size (4, now 5)"),
    ],
)
def test_a_mistake_comes_out_before_anything_is_done(
    finished: tuple[Path, str], refused: Run, arguments: list[str], sentence: str
) -> None:
    output, _ = finished
    before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    assert sentence in refused("quickstart", "--output", output, *arguments)
    assert {path: path.read_bytes() for path in output.rglob("*") if path.is_file()} == before


def test_overwriting_the_run_takes_its_report_and_exports_along(
    finished: tuple[Path, str], raptor: Run, tmp_path: Path
) -> None:
    output = tmp_path / "copy"
    shutil.copytree(finished[0], output)
    raptor("train-direct", "--output", output, "--overwrite", *TINY)
    assert not {"report.html", "policy.onnx", "evaluation.json"} & {path.name for path in output.iterdir()}
