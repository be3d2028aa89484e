"""Pipeline files: what they can say, and what is reported about mistakes."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path

import pytest

from raptor.config import load_config, presets
from raptor.core.errors import UserError
from raptor.formats import load_policy
from raptor.lab.pipeline import Job, load_pipeline
from raptor.training import TrainDirectConfig

Jobs = Mapping[str, type[Job]]


def written(folder: Path, text: str, name: str = "pipeline.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


CHAIN = """
seed: 3
stages:
  page: {job: publish, reads: [second]}
  second: {job: train, text: two, reads: [first]}
  first: {job: note, text: one}
"""


def test_stages_come_after_what_they_read_whatever_their_order_in_the_file(jobs: Jobs, tmp_path: Path) -> None:
    pipeline = load_pipeline(written(tmp_path, CHAIN), jobs=jobs)
    assert pipeline.names == ("first", "second", "page")
    assert pipeline["second"].inputs[0].name == "first"
    assert pipeline.needed_for("second") == {"first", "second"}


def test_a_stage_named_like_a_job_needs_no_job(jobs: Jobs, tmp_path: Path) -> None:
    pipeline = load_pipeline(written(tmp_path, "stages: {note: , train: {reads: [note]}}"), jobs=jobs)
    assert [(stage.name, stage.job.NAME) for stage in pipeline.stages] == [("note", "note"), ("train", "train")]


def test_the_seed_of_the_pipeline_is_that_of_stages_that_do_not_say_their_own(jobs: Jobs, tmp_path: Path) -> None:
    file = written(tmp_path, CHAIN)
    pipeline = load_pipeline(file, ["second.seed=5"], jobs)
    assert [stage.job.seed for stage in pipeline.stages] == [3, 5, 3]
    assert load_pipeline(file, ["seed=8"], jobs)["first"].job.seed == 8


def test_the_command_line_comes_before_the_file_and_the_file_before_its_base(jobs: Jobs, tmp_path: Path) -> None:
    written(tmp_path, CHAIN)
    mine = written(tmp_path, "base: pipeline.yaml\nstages: {first: {text: mine, number: 2}}", "mine.yaml")
    first = load_pipeline(mine, ["first.number=4", "stages.first.stops=true"], jobs)["first"].job
    assert (first.text, first.number, first.stops, first.seed) == ("mine", 4, True, 3)


def test_a_value_can_stand_for_that_of_another_stage(jobs: Jobs, tmp_path: Path) -> None:
    text = "stages: {a: {job: note, number: 7}, b: {job: note, number: '${stages.a.number}'}}"
    assert load_pipeline(written(tmp_path, text), ["a.number=9"], jobs)["b"].job.number == 9


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("seed: 1", "has no stages: name at least one under `stages`, with one of the jobs note, train, draw, publish"),
        ("stages: [note]", 'stages must be a group with a key for each stage, got ["note"] (FILE)'),
        ("stages: {note: 3}", "stages.note must be a group of settings, got 3 (FILE)"),
        ("stage: {note: }", "stage is unknown (FILE): did you mean stages? The keys are output, seed, device"),
        ("{seed: -1, stages: {note: }}", "seed must be between 0 and 999999, got -1 (FILE)"),
        ("stages: {a: {text: b}}", "stages.a.job is missing (FILE): give one of note, train, draw, publish"),
        ("stages: {a: {job: fly}}", 'stages.a.job must be one of note, train, draw, publish, got "fly" (FILE)'),
        ("stages: {default: {job: note}}", "stages.default cannot be the name of a stage (FILE): use letters"),
        ("stages: {../a: {job: note}}", "stages.../a cannot be the name of a stage (FILE): use letters"),
        (
            "stages: {note: {txt: a}}",
            "stages.note.txt is unknown (FILE): did you mean text? The keys of",
        ),
        ("stages: {note: {text: 3}}", "stages.note.text must be text, got 3 (FILE)"),
        ("stages: {note: {number: -1}}", "stages.note.number must be at least 0, got -1 (FILE)"),
        ("stages: {note: {}, note: {}}", "the key note comes twice"),
        (
            "stages: {note: , train: {reads: [not]}}",
            "stages.train.reads names 'not', which is neither a stage nor a fi",
        ),
        ("stages: {note: , train: {reads: [not]}}", "(FILE): did you mean note? The stages are note, train"),
        (
            "stages: {draw: , note: {reads: [draw]}}",
            "names the stage 'draw', which gives quadrotors and not an evaluat",
        ),
        ("stages: {publish: }", "stages.publish needs reads (FILE)"),
        (
            "stages: {a: {job: note, reads: [b]}, b: {job: note, reads: [c]}, c: {job: note, reads: [b]}}",
            "the stages need each other in a circle: b -> c -> b; let one of them read something else",
        ),
        ("stages: {note: {reads: [note]}}", "in a circle: note -> note"),
        ("stages: {note: {text: '${nowhere}'}}", "stages.note.text cannot be resolved"),
    ],
)
def test_a_mistake_is_reported_in_one_sentence(jobs: Jobs, tmp_path: Path, text: str, sentence: str) -> None:
    file = written(tmp_path, text)
    with pytest.raises(UserError) as refusal:
        load_pipeline(file, jobs=jobs)
    assert sentence.replace("FILE", str(file)) in str(refusal.value)


def test_all_mistakes_are_reported_at_once(jobs: Jobs, tmp_path: Path) -> None:
    file = written(tmp_path, "stages: {a: {job: note, txt: 1}, b: {job: note, number: -1}}")
    with pytest.raises(UserError, match=r"stages\.a\.txt is unknown .*; stages\.b\.number must be at least 0"):
        load_pipeline(file, jobs=jobs)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("secnd.text=a", "secnd is unknown (command line): did you mean second? The keys are output, seed, device"),
        ("second.txt=a", "stages.second.txt is unknown (command line): did you mean text?"),
        (
            "second.reads=[third]",
            "stages.second.reads names 'third', which is neither a stage nor a file (command line)",
        ),
        ("first", "a setting is given as key=value"),
    ],
)
def test_a_mistake_on_the_command_line_is_reported_as_one_of_it(
    jobs: Jobs, tmp_path: Path, override: str, sentence: str
) -> None:
    with pytest.raises(UserError) as refusal:
        load_pipeline(written(tmp_path, CHAIN), [override], jobs)
    assert sentence in str(refusal.value)


REAL = """
compile: false
stages:
  student: {job: train-direct, config: paper, settings: {batch_size: 8}}
  evaluation: {job: evaluate, policies: [published, student]}
  report: {evaluation: evaluation}
"""


def test_settings_are_over_those_of_the_file_that_config_names(tmp_path: Path) -> None:
    settings = load_pipeline(written(tmp_path, REAL), ["student.settings.num_updates=3", "seed=4"])[
        "student"
    ].job.settings
    expected = ["batch_size=8", "num_updates=3", "seed=4", "compile=false"]
    assert settings == load_config(TrainDirectConfig, "paper", expected)


@pytest.mark.parametrize(
    ("key", "values"), [("seed", [0, 2, 3, 4, 5, 6]), ("device", ["cpu", *(f"cuda:{i}" for i in range(2, 7))])]
)
def test_the_command_line_counts_over_the_stage_its_file_and_the_pipeline(
    tmp_path: Path, key: str, values: list[object]
) -> None:
    default, of_all, of_file, of_stage, now_of_all, now_of_stage = values
    config = written(tmp_path, f"{key}: {of_file}", "config.yaml")

    def found(text: str, *overrides: str) -> object:
        pipeline = load_pipeline(written(tmp_path, text), overrides)
        kept = load_pipeline(written(tmp_path, json.dumps(pipeline.document), "kept.yaml"))
        settings = pipeline["train-direct"].job.settings
        assert kept["train-direct"].job.settings == settings
        return getattr(settings, key)

    everything = f"{{{key}: {of_all}, stages: {{train-direct: {{config: {config}, settings: {{{key}: {of_stage}}}}}}}}}"
    assert found("{stages: {train-direct: }}") == default
    assert found(f"{{{key}: {of_all}, stages: {{train-direct: }}}}") == of_all
    assert found(f"{{{key}: {of_all}, stages: {{train-direct: {{config: {config}}}}}}}") == of_file
    assert found(everything) == of_stage
    assert found(everything, f"{key}={now_of_all}") == now_of_all
    assert found(everything, f"train-direct.settings.{key}={now_of_stage}", f"{key}={now_of_all}") == now_of_stage


def test_the_file_of_a_stage_is_checked_together_with_what_the_stage_says(tmp_path: Path) -> None:
    config = written(tmp_path, "num_epochs: 2\nnum_validation: ${num_epochs}", "config.yaml")
    text = f"stages: {{post-train: {{teachers: {tmp_path}, config: {config}}}}}"
    with pytest.raises(UserError, match=r"epoch_teacher_forcing must be at most num_epochs, which is 2, got 3"):
        load_pipeline(written(tmp_path, text))
    settings = load_pipeline(written(tmp_path, text), ["post-train.settings.epoch_teacher_forcing=1"])[
        "post-train"
    ].job.settings
    assert (settings.num_epochs, settings.num_validation, settings.epoch_teacher_forcing) == (2, 2, 1)
    written(tmp_path, "num_epoch: 2\nbatch_size: 0", "config.yaml")
    with pytest.raises(UserError) as refusal:
        load_pipeline(written(tmp_path, text))
    assert f"stages.post-train.settings.num_epoch is unknown ({config}): did you mean num_epochs?" in str(refusal.value)
    assert f"stages.post-train.settings.batch_size must be at least 1, got 0 ({config})" in str(refusal.value)


def test_trainings_that_begin_with_each_other_are_refused(tmp_path: Path) -> None:
    text = "stages: {a: {job: train-direct, initial_policy: b}, b: {job: train-direct, initial_policy: a}}"
    with pytest.raises(UserError, match=r"need each other in a circle: (a -> b -> a|b -> a -> b); let one of them"):
        load_pipeline(written(tmp_path, text))


def test_a_report_flies_what_was_evaluated_and_shows_the_training_of_the_last_of_it(tmp_path: Path) -> None:
    report = load_pipeline(written(tmp_path, REAL))["report"]
    assert report.job.policies == ("published", "student")
    assert report.job.training == "student"
    assert {given.name for given in report.inputs} == {"evaluation", "published", "student"}


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("student.settings.num_updats=3", "stages.student.settings.num_updats is unknown (command line): did you mean"),
        (
            "student.settings.batch_size=0",
            "stages.student.settings.batch_size must be at least 1, got 0 (command line)",
        ),
        (
            "student.config=papr",
            "stages.student.config: there is no configuration file papr: give a YAML file, a run, or one",
        ),
        ("evaluation.suites=[sensitivity]", "the suite sensitivity is of given vehicles: give some"),
        ("evaluation.suites=[unsen]", "stages.evaluation.suites must be one of paper, unseen, platforms, figure-eight"),
        ("evaluation.policies=[]", "stages.evaluation needs policies"),
        ("evaluation.policies=[studnet]", "neither a stage nor a file nor one of published, default"),
        ("stages.teachers.job=pre-train", "stages.teachers needs either quadrotors or generate (command line)"),
        (
            "stages.export={policy: evaluation}",
            "which gives an evaluation and not a policy (command line): stages that",
        ),
        (
            "stages.sample.seed=1000000",
            "stages.sample.seed must be between 0 and 999999 (higher ones draw the quadrotors of validation and tests)",
        ),
        ("stages.sample.settings.mas=[1,2]", "stages.sample.settings.mas is unknown (command line): did you mean mass"),
    ],
)
def test_settings_of_the_jobs_are_checked_with_the_rest(tmp_path: Path, override: str, sentence: str) -> None:
    with pytest.raises(UserError) as refusal:
        load_pipeline(written(tmp_path, REAL), [override])
    assert sentence in str(refusal.value)


def test_the_old_name_of_a_packaged_pipeline_is_refused_with_the_new_one() -> None:
    with pytest.raises(UserError, match=r"^the preset quickstart is called small now$"):
        load_pipeline("quickstart")


@pytest.mark.parametrize("name", ["small", "full", "paper"])
def test_the_packaged_pipelines_lead_from_quadrotors_to_a_report(name: str) -> None:
    pipeline = load_pipeline(name)
    assert name in presets("run")
    assert pipeline.names == ("quadrotors", "teachers", "student", "evaluation", "onnx", "report")
    assert pipeline.needed_for("report") == set(pipeline.names) - {"onnx"}


def test_the_pipeline_of_the_paper_is_that_of_the_paper() -> None:
    pipeline = load_pipeline("paper")
    assert pipeline["quadrotors"].job.num == 1000
    assert pipeline["teachers"].job.settings.algorithm == "sac"
    assert pipeline["student"].job.settings == load_config(type(pipeline["student"].job.settings), "paper")
    assert pipeline["evaluation"].job.suites == ("paper",)


def test_presets_are_the_recipes_of_the_packaged_policies_of_their_names() -> None:
    def recipes(name: str) -> list[TrainDirectConfig]:
        """The settings of each training that the card of a policy tells."""
        commands = [shlex.split(command) for command in load_policy(name).card["command"].split("; ")]
        presets = [words[words.index("--config") + 1] if "--config" in words else None for words in commands]
        given = [[word for word in words if "=" in word] for words in commands]
        return [load_config(TrainDirectConfig, *pair) for pair in zip(presets, given, strict=True)]

    for name in ("large", "agile"):
        assert recipes(name) == [load_config(TrainDirectConfig, name)]
