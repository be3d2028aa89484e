"""Running pipelines: what runs, what does not, and what a change or an interruption leads to."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from raptor.core.errors import UserError
from raptor.lab.pipeline import Job, PipelineSummary, load_pipeline, make_plan, run_pipeline

CHAIN = """
stages:
  first: {job: note, text: one}
  second: {job: train, text: two, reads: [first]}
  page: {job: publish, text: three, reads: [second]}
"""
Run = Callable[..., dict[str, str]]


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.fixture
def run(jobs: Mapping[str, type[Job]], tmp_path: Path, output: Path) -> Run:
    """Run the chain with changes; what was done about each stage."""
    (tmp_path / "pipeline.yaml").write_text(CHAIN)

    def run(*changes: str, **options: object) -> dict[str, str]:
        pipeline = load_pipeline(tmp_path / "pipeline.yaml", changes, jobs)
        summary = run_pipeline(pipeline, output, **options)  # type: ignore[arg-type]
        assert summary.finished is not any(change.endswith("stops=true") for change in changes)
        return {stage.name: stage.action for stage in summary.stages}

    return run


@pytest.fixture
def planned(jobs: Mapping[str, type[Job]], tmp_path: Path, output: Path) -> Callable[..., dict[str, tuple[str, str]]]:
    """What would be done about each stage, and why."""

    def plan(*changes: str) -> dict[str, tuple[str, str]]:
        pipeline = load_pipeline(tmp_path / "pipeline.yaml", changes, jobs)
        return {step.stage.name: (step.action, step.why) for step in make_plan(pipeline, output)}

    return plan


def note(output: Path, stage: str) -> str:
    return (output / stage / "note.txt").read_text()


def files(output: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in output.rglob("*") if path.is_file()}


def test_each_stage_finds_what_the_one_before_made(run: Run, output: Path) -> None:
    assert run() == {"first": "run", "second": "run", "page": "run"}
    assert note(output, "page") == "three\ntwo\none\n"


def test_what_has_not_changed_is_not_run_again(run: Run, output: Path) -> None:
    run()
    before = files(output)
    assert run() == {"first": "skip", "second": "skip", "page": "skip"}
    assert {path: time for path, time in files(output).items() if path.parent != output} == {
        path: time for path, time in before.items() if path.parent != output
    }


def test_what_makes_no_difference_changes_nothing(run: Run) -> None:
    run()
    assert set(run("seed=0", "second.breaks=true").values()) == {"skip"}


def test_a_change_reaches_all_that_was_made_from_it_and_nothing_else(run: Run, output: Path) -> None:
    run()
    assert run("page.text=other") == {"first": "skip", "second": "skip", "page": "anew"}
    assert set(run("page.text=other", "first.text=uno", overwrite=True).values()) == {"anew"}
    assert note(output, "page") == "other\ntwo\nuno\n"


def test_a_training_is_replaced_only_when_asked_and_nothing_runs_before(run: Run, output: Path) -> None:
    run()
    before = files(output)
    with pytest.raises(UserError) as refusal:
        run("second.text=other")
    assert str(refusal.value) == (
        f'{output / "second"} was trained differently: text ("two", now "other"); '
        "take that back, replace it with --overwrite, or choose another folder"
    )
    with pytest.raises(UserError, match=r"second was trained differently: first changed; take that back"):
        run("first.text=other")
    assert files(output) == before
    assert run("second.text=other", overwrite=True) == {"first": "skip", "second": "anew", "page": "anew"}
    assert note(output, "page") == "three\nother\none\n"


def test_a_training_that_was_stopped_goes_on_and_what_comes_after_waits(run: Run, output: Path) -> None:
    assert run("second.stops=true") == {"first": "run", "second": "run"}
    assert not (output / "page").exists()
    assert run() == {"first": "skip", "second": "resume", "page": "run"}
    assert note(output, "second") == "two\none\ntwo\none\n"


def test_a_training_that_was_stopped_is_not_lost_to_a_change(run: Run, output: Path) -> None:
    run("second.stops=true")
    with pytest.raises(UserError, match=r"second was trained differently: text"):
        run("second.text=other")
    assert note(output, "second") == "two\none\n"


def test_an_interrupted_cheap_stage_is_run_again(run: Run, output: Path) -> None:
    run("first.stops=true")
    assert run()["first"] == "run"


def test_replacing_a_training_goes_on_where_it_was_interrupted(run: Run, output: Path) -> None:
    run()
    run("second.text=other", "second.stops=true", overwrite=True)
    assert note(output, "second") == "other\none\n"
    assert run("second.text=other") == {"first": "skip", "second": "resume", "page": "anew"}


def test_what_a_training_must_go_on_with_counts_until_it_has_finished(run: Run) -> None:
    run("second.stops=true")
    with pytest.raises(UserError, match=r"second was trained differently: pace \(0, now 2\); take that back"):
        run("second.pace=2")
    assert run() == {"first": "skip", "second": "resume", "page": "run"}
    assert set(run("second.pace=2").values()) == {"skip"}


def test_a_stage_that_fails_at_once_leaves_the_earlier_result_and_its_stamp(run: Run, output: Path) -> None:
    run()
    before = files(output)
    with pytest.raises(UserError, match=r"^second: the pen is broken$"):
        run("second.text=other", "second.breaks=true", overwrite=True)
    assert note(output, "second") == "two\none\n"
    assert files(output).keys() == before.keys()
    assert set(run().values()) == {"skip"}


def test_a_stage_that_fails_at_once_can_be_told_otherwise(run: Run) -> None:
    with pytest.raises(UserError, match=r"^second: the pen is broken$"):
        run("second.breaks=true")
    assert run("second.text=other") == {"first": "skip", "second": "run", "page": "run"}


def test_what_is_deleted_is_made_again_and_what_comes_after_stays_if_that_is_the_same(run: Run, output: Path) -> None:
    run()
    (output / "first" / "note.txt").unlink()
    (output / "first" / "stage.yaml").unlink()
    assert run() == {"first": "run", "second": "skip", "page": "skip"}
    (output / "second" / "note.txt").unlink()
    assert run() == {"first": "skip", "second": "resume", "page": "skip"}


def test_a_result_that_was_altered_by_hand_is_passed_on(run: Run, output: Path) -> None:
    run()
    (output / "second" / "note.txt").write_text("by hand\n")
    assert run() == {"first": "skip", "second": "skip", "page": "anew"}
    assert note(output, "page") == "three\nby hand\n"


def test_a_file_from_elsewhere_counts_by_what_is_in_it(
    jobs: Mapping[str, type[Job]], tmp_path: Path, output: Path
) -> None:
    outside, other = tmp_path / "a.txt", tmp_path / "b.txt"
    outside.write_text("from outside\n")
    other.write_text("from outside\n")

    def run(source: Path) -> PipelineSummary:
        document = tmp_path / "pipeline.yaml"
        document.write_text(f"stages: {{note: {{reads: [{source}]}}}}")
        return run_pipeline(load_pipeline(document, jobs=jobs), output)

    assert [run(source).stages[0].action for source in (outside, outside, other)] == ["run", "skip", "skip"]
    outside.write_text("something else\n")
    assert run(outside).stages[0].action == "anew"


def test_the_plan_says_what_would_happen_and_why_and_does_nothing(
    run: Run, planned: Callable[..., dict[str, tuple[str, str]]], output: Path
) -> None:
    assert planned() == dict.fromkeys(("first", "second", "page"), ("run", "has not run yet"))
    assert not output.exists()
    run("second.stops=true")
    assert planned()["second"] == ("resume", "was interrupted")
    run()
    assert planned("second.text=x", "second.number=2") == {
        "first": ("skip", "unchanged"),
        "second": ("anew", 'text ("two", now "x"), number (0.0, now 2.0)'),
        "page": ("anew", "second changed"),
    }
    (output / "first" / "note.txt").unlink()
    assert planned()["second"] == ("wait", "runs anew if first comes out differently")


def test_only_runs_one_stage_on_what_the_others_left(run: Run, output: Path) -> None:
    with pytest.raises(UserError, match=r"second reads first, which has not finished in .*: run that first, or both"):
        run(only="second")
    run()
    assert run("first.text=uno", "page.text=tre", only="page") == {"page": "anew"}
    assert note(output, "page") == "tre\ntwo\none\n"


def test_until_runs_a_stage_and_what_it_needs(run: Run, output: Path) -> None:
    assert run(until="second") == {"first": "run", "second": "run"}
    assert not (output / "page").exists()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"only": "secnd"}, "there is no stage 'secnd': did you mean second? The stages are first, second, page"),
        ({"only": "page", "until": "page"}, "--only and --until exclude each other"),
    ],
)
def test_stages_that_are_not_there_are_refused(run: Run, output: Path, options: dict[str, str], sentence: str) -> None:
    with pytest.raises(UserError) as refusal:
        run(**options)
    assert sentence in str(refusal.value)
    assert not output.exists()


def test_records_of_earlier_versions_are_read(run: Run, output: Path) -> None:
    run()
    for stage in ("first", "second", "page"):
        record = output / stage / "stage.yaml"
        record.write_text(record.read_text().replace("fingerprint:", "recipe:"))
    assert set(run().values()) == {"skip"}
    assert run("page.text=other") == {"first": "skip", "second": "skip", "page": "anew"}


@pytest.mark.parametrize("text", ["a: 1", "[1]", "", "{inputs: 3}", "inputs: &a [*a]", "{inputs: [], inputs: []}"])
def test_a_record_that_cannot_be_read_is_named_with_what_to_do(run: Run, output: Path, text: str) -> None:
    run()
    (output / "second" / "stage.yaml").write_text(text)
    with pytest.raises(UserError, match=r"second/stage\.yaml cannot be read: move .*second away, or choose another"):
        run()


def test_folders_of_others_are_left_alone(run: Run, output: Path) -> None:
    (output / "second").mkdir(parents=True)
    (output / "second" / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match=r"second holds mine\.txt that no pipeline wrote: choose another output folder"):
        run(overwrite=True)
    assert not (output / "first").exists()


def test_a_stage_keeps_its_job(run: Run, jobs: Mapping[str, type[Job]], tmp_path: Path, output: Path) -> None:
    run()
    with pytest.raises(UserError, match=r"second was made by train, and the stage second is note now: call the stage"):
        run("second.job=note", overwrite=True)


def test_the_folder_holds_the_pipeline_that_was_run_but_not_over_a_file_of_the_user(
    run: Run, jobs: Mapping[str, type[Job]], tmp_path: Path, output: Path
) -> None:
    run("first.text=uno")
    assert load_pipeline(output / "pipeline.yaml", jobs=jobs)["first"].job.text == "uno"
    run_pipeline(load_pipeline(tmp_path / "pipeline.yaml", jobs=jobs), tmp_path)
    assert (tmp_path / "pipeline.yaml").read_text() == CHAIN


def test_a_pipeline_without_output_folder_is_refused(jobs: Mapping[str, type[Job]], run: Run, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"pipeline\.yaml says no output folder: give --output DIR"):
        run_pipeline(load_pipeline(tmp_path / "pipeline.yaml", jobs=jobs))


def test_a_second_pipeline_in_the_same_folder_is_refused(run: Run, output: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    run()
    descriptor = os.open(output, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        with pytest.raises(UserError, match="another process is at work in"):
            run()
    finally:
        os.close(descriptor)
