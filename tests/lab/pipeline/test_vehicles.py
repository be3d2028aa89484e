"""Stages that are given vehicles: of a stage, by name, in files, or several of these."""

from __future__ import annotations

from pathlib import Path

import pytest

from raptor.core.errors import UserError
from raptor.lab.pipeline import load_pipeline, make_plan, run_pipeline
from raptor.quadrotor import Quadrotors, load_platform
from raptor.runs.folder import read_settings
from raptor.training import Callback, RunContext

CHAIN = """
compile: false
stages:
  quadrotors: {job: sample, num: 2, settings: {mass: [1, 2]}}
  policy:
    job: train-direct
    quadrotors: [quadrotors, %s, race]
    settings:
      num_updates: 1
      batch_size: 4
      segment_steps: 2
      validation_interval: 0
      initial_policy: null
      hidden_dim: 5
      task: {episode_steps: 4}
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "my5.yaml"
    path.write_text("mass: 0.65\nthrust_to_weight: 4\n")
    return path


def test_a_policy_is_trained_around_vehicles_of_a_stage_a_file_and_a_platform(tmp_path: Path, own: Path) -> None:
    file, output = tmp_path / "pipeline.yaml", tmp_path / "runs"
    file.write_text(CHAIN % own)
    seen: list[Path] = []

    class Watch(Callback):
        def on_end(self, run: RunContext) -> None:
            seen.append(run.folder)

    assert run_pipeline(load_pipeline(file), output, callbacks=[Watch()]).finished
    assert seen == [output / "policy"]
    kept = Quadrotors.from_json(output / "policy" / "quadrotors").mass.tolist()
    assert kept[2:] == pytest.approx([0.65, load_platform("race").mass.item()])
    assert kept[:2] == Quadrotors.from_json(output / "quadrotors").mass.tolist()
    settings = read_settings(output / "policy")
    assert settings["quadrotors"] == [str(output / "quadrotors"), str(own), "race"]
    assert settings["task"]["references"]["lissajous"]["interval"] == [4.5, 9]  # of the preset for vehicles
    pipeline = load_pipeline(file)
    assert [step.action for step in make_plan(pipeline, output)] == ["skip", "skip"]
    own.write_text("mass: 0.7\nthrust_to_weight: 4\n")
    assert [step.why for step in make_plan(pipeline, output)] == ["unchanged", f"{own} changed"]


def test_vehicles_that_are_nowhere_are_reported_with_what_there_is(tmp_path: Path) -> None:
    file = tmp_path / "pipeline.yaml"
    file.write_text(CHAIN % "my6.yaml")
    with pytest.raises(
        UserError, match=r"names 'my6.yaml', which is neither a stage nor a file nor one of crazyflie, "
    ):
        load_pipeline(file)
