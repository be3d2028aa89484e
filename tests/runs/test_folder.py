"""The run folder: what it writes, what it refuses, and that it touches nothing else."""

from __future__ import annotations

import dataclasses
import json
from importlib.metadata import version
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from raptor.config.settings import setting
from raptor.core.errors import UserError
from raptor.runs.folder import Layout, RunFolder, read_manifest, read_settings
from raptor.runs.progress import read_curve, read_metrics

DIRECT = Layout("train-direct")
MANIFEST = {"version": 2, "job": "train-direct", "raptor-python": version("raptor-python")}


@dataclasses.dataclass(frozen=True)
class Given:
    """Settings of a test."""

    a: int = setting(1, "a number")
    free: int = setting(1, "a number that changes no result", free=True)


def opened(path: Path, resume: bool = False, overwrite: bool = False, a: int = 1) -> RunFolder:
    folder = RunFolder(path, DIRECT)
    folder.open(Given(a), resume, overwrite)
    return folder


def tree(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


def scalars(folder: RunFolder, name: str) -> list[tuple[int, float]]:
    accumulator = EventAccumulator(str(folder.tensorboard)).Reload()
    return [(event.step, event.value) for event in accumulator.Scalars(name)]


def test_a_new_run_has_a_manifest_with_its_job_its_status_and_its_settings(tmp_path: Path) -> None:
    folder = opened(tmp_path / "deep" / "run")
    expected = {**MANIFEST, "status": "running", "settings": {"a": 1, "free": 1}}
    assert read_manifest(tmp_path / "deep" / "run") == expected
    folder.write_manifest(Given(), "finished")
    folder.close()
    assert read_manifest(tmp_path / "deep" / "run") == {**expected, "status": "finished"}
    again = RunFolder(tmp_path / "deep" / "run", DIRECT)
    assert again.holds_run()
    assert again.settings(Given) == Given()


def test_settings_that_change_the_result_are_refused_by_name(tmp_path: Path) -> None:
    folder = opened(tmp_path)
    folder.refuse_changes(Given(), Given(free=2))
    with pytest.raises(UserError, match=r"begun with other settings: a \(1, now 2\); resume it without them"):
        folder.refuse_changes(Given(), Given(a=2))
    folder.refuse_changes(Given(), Given(a=2), free=("a",))
    folder.close()


@pytest.mark.parametrize("damage", ["", "[1, 2]", "settings: 1", "a: [", "\x00"])
def test_a_damaged_manifest_is_refused(tmp_path: Path, damage: str) -> None:
    folder = opened(tmp_path)
    folder.close()
    header = folder.manifest.read_text().splitlines()[0]
    folder.manifest.write_text(f"{header}\n{damage}\n")
    with pytest.raises(UserError, match=r"run.yaml .*: start anew with --overwrite"):
        RunFolder(tmp_path, DIRECT).settings(Given)


@pytest.mark.parametrize(
    ("name", "job", "best"),
    [
        ("config.yaml", "train-direct", "checkpoints/best.pt"),
        ("params/config.yaml", "post-train", "best_student.pt"),
        ("params/agent.yaml", "distill", "best_student.pt"),
    ],
)
def test_a_run_that_an_older_version_began_is_read_and_overwritten_but_not_resumed(
    tmp_path: Path, name: str, job: str, best: str
) -> None:
    for file, content in ((name, f"# raptor run: {job}\na: 1\n"), (best, ""), ("notes.txt", "keep")):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(content)
    folder = RunFolder(tmp_path, Layout(job, best=best))
    assert folder.holds_run()
    assert read_settings(tmp_path) == {"a": 1}
    with pytest.raises(UserError, match="was begun by an older version of raptor-python"):
        folder.check(resume=True, overwrite=False)
    with pytest.raises(UserError, match="already holds a run"):
        folder.check(resume=False, overwrite=False)
    folder.open(Given(), overwrite=True)
    folder.close()
    assert sorted(tree(tmp_path)) == ["notes.txt", "run.yaml"]


def test_a_folder_with_a_run_is_refused_and_stays_as_it_was(tmp_path: Path) -> None:
    opened(tmp_path).close()
    before = tree(tmp_path)
    with pytest.raises(UserError, match=r"already holds a run: go on with --resume, replace it with --overwrite"):
        opened(tmp_path, a=2)
    assert tree(tmp_path) == before


def test_overwriting_deletes_what_a_run_wrote_and_nothing_else(tmp_path: Path) -> None:
    folder = opened(tmp_path)
    folder.record_from(0)
    folder.record(1, {"training/loss": 1.0})
    folder.log("hello")
    folder.close()
    (tmp_path / "checkpoints").mkdir()
    for name in ("update_000002.pt", "best.pt", ".update_000004.pt.0123abcd.tmp", "mine.pt"):
        (tmp_path / "checkpoints" / name).write_bytes(b"x")
    (tmp_path / "notes.txt").write_text("keep")
    (folder.tensorboard / "keep.txt").write_text("keep")
    opened(tmp_path, overwrite=True, a=2).close()
    assert sorted(tree(tmp_path)) == ["checkpoints/mine.pt", "notes.txt", "run.yaml", "tensorboard/keep.txt"]
    assert folder.settings(Given) == Given(2)


@pytest.mark.parametrize("options", [{}, {"overwrite": True}, {"resume": True}])
def test_a_folder_of_something_else_is_refused_and_stays_as_it_was(tmp_path: Path, options: dict[str, bool]) -> None:
    (tmp_path / "run.yaml").write_text("editor: vi\n")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "best.pt").write_bytes(b"x")
    before = tree(tmp_path)
    with pytest.raises(UserError, match=r"holds run.yaml, checkpoints/best.pt that no run wrote"):
        opened(tmp_path, **options)
    assert tree(tmp_path) == before


def test_a_run_of_another_job_is_refused(tmp_path: Path) -> None:
    other = RunFolder(tmp_path, Layout("pre-train"))
    other.open(Given())
    other.close()
    with pytest.raises(UserError, match="holds a run of pre-train, not of train-direct"):
        opened(tmp_path, overwrite=True)


def test_other_files_in_the_folder_are_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("keep")
    opened(tmp_path).close()
    assert (tmp_path / "notes.txt").read_text() == "keep"


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("mine")
    with pytest.raises(UserError, match="is a file: choose another output folder"):
        opened(tmp_path / "run", overwrite=True)
    with pytest.raises(UserError, match=f"cannot write {tmp_path / 'run' / 'deeper'}"):
        opened(tmp_path / "run" / "deeper")
    assert (tmp_path / "run").read_text() == "mine"


def test_resuming_keeps_the_settings_and_overwriting_at_once_is_refused(tmp_path: Path) -> None:
    opened(tmp_path).close()
    opened(tmp_path, resume=True, a=2).close()
    assert RunFolder(tmp_path, DIRECT).settings(Given) == Given(1)
    with pytest.raises(UserError, match="--resume and --overwrite exclude each other"):
        opened(tmp_path, resume=True, overwrite=True)


def test_two_processes_cannot_work_in_one_folder(tmp_path: Path) -> None:
    first = opened(tmp_path)
    with pytest.raises(UserError, match="another process is at work"):
        opened(tmp_path, resume=True)
    first.close()
    opened(tmp_path, resume=True).close()


def test_records_after_the_checkpoint_are_dropped_on_resuming(tmp_path: Path) -> None:
    folder = opened(tmp_path)
    folder.record_from(0)
    for update in range(1, 5):
        folder.record(update, {"training/loss": float(update)})
    folder.close()
    with folder.metrics.open("a") as file:
        file.write('{"update": 5, "training/lo')  # as a kill leaves it

    folder = opened(tmp_path, resume=True)
    folder.record_from(2)
    folder.record(3, {"training/loss": -3.0})
    folder.close()
    expected = [(1, 1.0), (2, 2.0), (3, -3.0)]
    assert read_curve(tmp_path) == {"training/loss": expected}
    assert scalars(folder, "training/loss") == expected
    events = EventAccumulator(str(folder.tensorboard), purge_orphaned_data=False).Reload()
    assert [event.step for event in events.Scalars("training/loss")] == [1, 2, 3]  # nothing is there twice


def test_metrics_are_lines_of_json(tmp_path: Path) -> None:
    folder = opened(tmp_path)
    folder.record_from(0)
    folder.record(1, {"training/loss": 0.1, "speed/elapsed_s": 2.0})
    lines = folder.metrics.read_text().splitlines()  # flushed at once
    assert [json.loads(line) for line in lines] == [{"update": 1, "training/loss": 0.1, "speed/elapsed_s": 2.0}]
    assert read_metrics(folder.metrics) == [{"update": 1, "training/loss": 0.1, "speed/elapsed_s": 2.0}]
    assert read_metrics(tmp_path / "nothing.jsonl") == []
    folder.close()


def test_the_log_has_a_line_per_message_with_its_time(tmp_path: Path) -> None:
    folder = opened(tmp_path)
    folder.log("one")
    folder.log("two")
    folder.close()
    lines = folder.log_file.read_text().splitlines()
    assert [line.split("  ")[1] for line in lines] == ["one", "two"]
    assert all(line[:4].isdigit() for line in lines)
