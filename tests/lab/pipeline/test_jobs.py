"""The real jobs in a pipeline, each as small as it can be."""

from __future__ import annotations

import contextlib
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from raptor import load_policy, load_teachers
from raptor.config import from_dict
from raptor.core.errors import UserError
from raptor.evaluation import GIVEN_SUITES, Evaluation, evaluate
from raptor.evaluation.results import column_names
from raptor.lab.pipeline import PipelineSummary, Stage, load_pipeline, run_pipeline
from raptor.lab.pipeline.jobs import TEACHERS, Evaluate
from raptor.lab.pipeline.plan import content
from raptor.quadrotor.population import read_population
from raptor.runs.folder import read_settings
from raptor.runs.progress import Progress
from raptor.tasks.task import Task
from raptor.training import TrainDirectConfig
from raptor.training.distillation import teachers as selection
from raptor.training.distillation.config import PostTrainConfig

CHAIN = """
seed: 7
compile: false
stages:
  report: {evaluation: evaluation, policies: [], training: distilled}
  onnx: {job: export, policy: student}
  evaluation: {job: evaluate, policies: [student, onnx, distilled], suites: [unseen], num_quadrotors: 2}
  student:
    job: train-direct
    settings:
      num_updates: 2
      batch_size: 4
      segment_steps: 2
      validation_interval: 1
      num_validation: 4
      task: {episode_steps: 4}
  distilled:
    job: post-train
    teachers: teachers
    settings:
      num_epochs: 2
      num_episodes: 2
      batch_size: 2
      sequence_length: 4
      epoch_teacher_forcing: 1
      num_teacher_episodes: 2
      solved_return: -1e6
      validation_interval: 1
      num_validation: 4
      validation_steps: 4
      student: {hidden_dim: 5}
      task: {episode_steps: 8}
      fine_tune: {num_updates: 1, batch_size: 3, segment_steps: 2, task: {episode_steps: 4}}
  quadrotors: {job: sample, num: 4, settings: {mass: [1, 2]}}
  teachers:
    job: pre-train
    quadrotors: quadrotors
    num_teachers: 3
    settings:
      num_validation: 2
      num_evaluation: 2
      validation_steps: 4
      max_attempts: 1
      task: {episode_steps: 8}
      apg: {num_updates: 2, num_envs: 2, segment_steps: 2, widths: [6]}
"""


SHORT = Task(episode_steps=4)
"""In place of what teachers are tested in."""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pipeline") / "pipeline.yaml"
    path.write_text(CHAIN)
    return path


@pytest.fixture(scope="module")
def finished(file: Path) -> PipelineSummary:
    """All stages, run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selection, "TEST_TASK", SHORT)
        return run_pipeline(file, file.parent / "run")


def test_every_stage_leaves_what_its_command_leaves(finished: PipelineSummary) -> None:
    output = finished.output
    vehicles = read_population(output / "quadrotors")
    assert len(vehicles) == 4
    assert ((vehicles.mass >= 1) & (vehicles.mass <= 2)).all()
    teachers = load_teachers(output / "teachers")
    torch.testing.assert_close(teachers.quadrotors.mass, vehicles.mass[:3])
    settings = from_dict(TrainDirectConfig, read_settings(output / "student"))
    assert (settings.seed, settings.compile, settings.num_updates) == (7, False, 2)
    observation = torch.linspace(-1, 1, 22)[None]
    trained, exported = load_policy(output / "student"), load_policy(output / "onnx" / "policy.onnx")
    torch.testing.assert_close(
        exported(observation, exported.initial_hidden_state(1)),
        trained(observation, trained.initial_hidden_state(1)),
        rtol=1e-5,
        atol=1e-5,
    )
    assert load_policy(output / "distilled").hidden_dim == 5
    assert from_dict(PostTrainConfig, read_settings(output / "distilled")).seed == 7
    html = (output / "report" / "report.html").read_text()
    assert "Learning curve" in html
    assert "epoch_teacher_forcing" in html
    assert "data:image/png;base64," in html


def test_an_evaluation_is_that_of_the_library(finished: PipelineSummary) -> None:
    evaluation = Evaluation.load(finished.output / "evaluation" / "evaluation.json")
    assert list(evaluation.policies) == ["student", "onnx", "distilled"]
    student = load_policy(finished.output / "student")
    expected = evaluate({"student": student}, ["unseen"], num_quadrotors=2, compile=False)
    for metric in ("return", "terminated", "length"):
        assert evaluation.policies["student"]["unseen"][metric] == expected.policies["student"]["unseen"][metric]


def test_vehicles_of_a_stage_are_evaluated_where_they_are_named(
    finished: PipelineSummary, file: Path, tmp_path: Path
) -> None:
    output = shutil.copytree(finished.output, tmp_path / "run")
    changes = ["evaluation.quadrotors=quadrotors", "evaluation.suites=[platforms]", "evaluation.num_quadrotors=1"]
    run_pipeline(load_pipeline(file, changes), output, only="evaluation")
    evaluation = Evaluation.load(output / "evaluation" / "evaluation.json")
    assert evaluation.vehicles == ("0000", "0001", "0002", "0003")
    assert "0002/return" in evaluation.policies["student"]["platforms"]
    assert Evaluate.default({"quadrotors": "mine.yaml"}).suites == GIVEN_SUITES


def test_it_is_reported_in_few_words_what_came_of_each_stage(finished: PipelineSummary) -> None:
    results = {stage.name: stage.result for stage in finished.stages}
    assert results["quadrotors"] == "4 quadrotors"
    assert " of 3 teachers solved, mean return " in results["teachers"]
    assert results["student"].startswith("2 updates, best validation return ")
    assert results["distilled"].startswith("3 epochs of 3 teachers, best validation return ")
    assert results["onnx"].startswith("policy.onnx differs from the policy by at most ")
    assert results["evaluation"].startswith("return in unseen: student ")
    assert all(stage.product.exists() and stage.action == "run" for stage in finished.stages)


def test_nothing_is_done_twice_and_where_it_is_computed_makes_no_difference(
    finished: PipelineSummary, file: Path
) -> None:
    changes = ["teachers.settings.engine=processes", "teachers.settings.memory_gib=2", "evaluation.compile=true"]
    changes += ["student.settings.compile=true", "distilled.settings.compile=true", "distilled.settings.device=cuda"]
    reported: list[str] = []
    again = run_pipeline(load_pipeline(file, changes), finished.output, announce=reported.append)
    assert {stage.action for stage in again.stages} == {"skip"}
    assert reported == [f"{stage.name}: unchanged" for stage in again.stages]
    assert [stage.result for stage in again.stages] == [stage.result for stage in finished.stages]


def test_a_cheap_stage_follows_its_settings_and_a_training_does_not(finished: PipelineSummary, file: Path) -> None:
    with pytest.raises(UserError, match=r"student was trained differently: settings\.num_updates \(2, now 3\); take"):
        run_pipeline(load_pipeline(file, ["student.settings.num_updates=3"]), finished.output)
    titled = load_pipeline(file, ["report.title=A title of its own"])
    actions = {stage.name: stage.action for stage in run_pipeline(titled, finished.output).stages}
    assert [name for name, action in actions.items() if action != "skip"] == ["report"]
    assert "<title>A title of its own" in (finished.output / "report" / "report.html").read_text()


@pytest.mark.parametrize("name", ["student", "distilled"])
def test_a_training_that_was_stopped_goes_on_to_the_same_policy(
    finished: PipelineSummary, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def stop(stage: Stage) -> contextlib.nullcontext[Callable[[Progress], None]]:
        def show(progress: Progress) -> None:
            if progress.step == 2 and "testing" not in progress.stage:
                raise KeyboardInterrupt

        return contextlib.nullcontext(show)

    monkeypatch.setattr(selection, "TEST_TASK", SHORT)
    shutil.copytree(finished.output / "teachers", tmp_path / "teachers")
    once = f"{name}.settings.checkpoint_interval=1"
    pipeline = load_pipeline(file, [once])
    with pytest.raises(KeyboardInterrupt):
        run_pipeline(pipeline, tmp_path, only=name, progress=stop)
    with pytest.raises(UserError, match=rf"{name} was trained differently: settings\.compile \(false, now true\)"):
        run_pipeline(load_pipeline(file, [once, f"{name}.settings.compile=true"]), tmp_path, only=name)
    summary = run_pipeline(pipeline, tmp_path, only=name)
    assert [stage.action for stage in summary.stages] == ["resume"]
    resumed, straight = load_policy(tmp_path / name), load_policy(finished.output / name)
    for ours, theirs in zip(resumed.parameters(), straight.parameters(), strict=True):  # type: ignore[union-attr]
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_teachers_of_other_vehicles_are_other_teachers(finished: PipelineSummary, tmp_path: Path) -> None:
    copied = shutil.copytree(finished.output / "teachers", tmp_path / "teachers")
    before = content(TEACHERS, finished.output / "teachers")
    assert content(TEACHERS, copied) == before
    first, second = copied / "quadrotors" / "0000.json", copied / "quadrotors" / "0001.json"
    texts = first.read_text(), second.read_text()
    second.write_text(texts[0])
    first.write_text(texts[1])
    assert content(TEACHERS, copied) != before


def test_a_mistake_in_a_late_stage_is_reported_before_the_first(file: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"stages\.evaluation\.suites must be one of .* \(command line\)"):
        run_pipeline(load_pipeline(file, ["evaluation.suites=[unsen]"]), tmp_path / "run")
    with pytest.raises(UserError, match=r"^evaluation: device 'cuda:99' is not there"):
        run_pipeline(load_pipeline(file, ["evaluation.device=cuda:99"]), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_evaluation_without_a_number_is_read_as_such(tmp_path: Path) -> None:
    path = tmp_path / "evaluation.json"
    path.write_text('{"policies": {"a": {"unseen": {"rmse": {"value": 0, "low": null, "high": 1}}}}, "settings": {}}')
    value, low, high = Evaluation.load(path).policies["a"]["unseen"]["rmse"]
    assert (value, high) == (0, 1)
    assert math.isnan(low)


def test_a_training_begins_with_the_policy_of_another_stage(finished: PipelineSummary, file: Path) -> None:
    changes = [
        "stages.further={job: train-direct, settings: {num_updates: 1, batch_size: 4, segment_steps: 2}}",
        "further.settings.num_validation=4",
        "further.settings.task.episode_steps=4",
        "further.settings.learning_rate=1e-12",
        "further.initial_policy=student",
    ]
    run_pipeline(load_pipeline(file, changes), finished.output, only="further")
    further, student = load_policy(finished.output / "further"), load_policy(finished.output / "student")
    for ours, theirs in zip(further.parameters(), student.parameters(), strict=True):  # type: ignore[union-attr]
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"policies": {}}', '{"policies": {"a": {"b": {"c": 1}}}, "settings": {}}']
)
def test_a_file_that_holds_no_evaluation_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "evaluation.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"evaluation\.json holds no evaluation: make one with raptor evaluate --json"):
        Evaluation.load(path)
    with pytest.raises(UserError, match="cannot read the evaluation"):
        Evaluation.load(tmp_path / "nothing.json")


def test_policies_of_the_same_name_are_reported_apart() -> None:
    name: Callable[..., dict[str, str]] = column_names
    assert name(["published", "a/best.pt", "b/best.pt", "c/last.pt"], ["student"]) == {
        "published": "published",
        "a/best.pt": "a/best.pt",
        "b/best.pt": "b/best.pt",
        "c/last.pt": "last.pt",
    }
    assert name(["student", "runs/student"], ["student"]) == {"student": "student", "runs/student": "runs/student"}
