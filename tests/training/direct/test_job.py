"""`train_direct`: a run folder from beginning to end, stopped, killed and resumed."""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils import _pytree as pytree

from raptor.config import load_config
from raptor.core.errors import UserError
from raptor.formats import load_policy, read_checkpoint
from raptor.nn import RaptorPolicy
from raptor.runs import Progress, read_curve
from raptor.runs.checkpoints import RunWarning
from raptor.training import TrainDirectConfig, load_run_config, train_direct

Tiny = Callable[..., TrainDirectConfig]


def last(run: Path) -> Path:
    return max((run / "checkpoints").glob("update_*.pt"))


def outcome(run: Path) -> dict[str, Any]:
    """All that must not depend on interruptions: the last checkpoint, the best policy and every recorded figure."""
    state = read_checkpoint(last(run))
    del state["training"]["elapsed_s"]
    curve = {name: points for name, points in read_curve(run).items() if not name.startswith("speed/")}
    return {"last": state, "best": read_checkpoint(run / "checkpoints" / "best.pt"), "curve": curve}


def assert_same(a: Path, b: Path) -> None:
    left, structure = pytree.tree_flatten(outcome(a))
    right, other = pytree.tree_flatten(outcome(b))
    assert structure == other
    for x, y in zip(left, right, strict=True):
        assert torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y


def stopping_at(update: int) -> Callable[[Progress], None]:
    """Ask to stop as Ctrl-C does, once an update is made."""

    asked = []

    def watch(progress: Progress) -> None:
        if progress.step == update and not asked:
            asked.append(update)
            os.kill(os.getpid(), signal.SIGINT)

    return watch


def raptor(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "raptor", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
        **options,
    )


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory, tiny: Tiny) -> Path:
    """The tiny run, never interrupted."""
    run = tmp_path_factory.mktemp("straight")
    train_direct(run, tiny())
    return run


def test_a_run_writes_all_its_files(straight: Path, tiny: Tiny) -> None:
    names = {str(path.relative_to(straight)) for path in straight.rglob("*") if path.is_file()}
    events = {name for name in names if name.startswith("tensorboard/events.out.tfevents.")}
    assert len(events) == 1
    assert names - events == {
        "run.yaml",
        "train.log",
        "metrics.jsonl",
        "summary.json",
        "checkpoints/best.pt",
        "checkpoints/update_000002.pt",
        "checkpoints/update_000004.pt",
        "checkpoints/update_000006.pt",
    }
    assert load_run_config(straight) == tiny()
    log = (straight / "train.log").read_text()
    assert "evaluation mean_return" in log
    assert "finished after" in log


def test_the_curve_has_every_update_and_every_validation(straight: Path) -> None:
    curve = read_curve(straight)
    assert [update for update, _ in curve["training/loss"]] == [1, 2, 3, 4, 5, 6]
    assert [update for update, _ in curve["evaluation/mean_return"]] == [3, 6]


def test_the_summary_tells_what_was_done_where_and_how_long_it_took(straight: Path) -> None:
    summary = json.loads((straight / "summary.json").read_text())
    assert summary["finished"] is True
    assert (summary["num_steps"], summary["unit"]) == (6, "update")
    assert summary["env_steps"] == 6 * 4 * 2
    assert summary["wall_clock_s"] > 0
    assert summary["host"]["torch"] == torch.__version__
    assert summary["best"]["mean_return"] == max(value for _, value in read_curve(straight)["evaluation/mean_return"])


def test_the_folder_is_a_policy_with_a_card_and_gives_the_best_by_validation(straight: Path) -> None:
    policy = load_policy(straight)
    assert isinstance(policy, RaptorPolicy)
    summary = json.loads((straight / "summary.json").read_text())
    assert policy.card["results"]["validation mean_return"] == summary["best"]["mean_return"]
    assert policy.card["settings"]["seed"] == 3
    best = read_checkpoint(last(straight))["training"]["best"]["weights"]
    assert all(torch.equal(tensor, best[name]) for name, tensor in policy.state_dict().items())


def test_without_validations_the_folder_gives_the_last_policy(tmp_path: Path, tiny: Tiny) -> None:
    summary = train_direct(tmp_path, tiny("num_updates=3", "validation_interval=0", "keep_checkpoints=1"))
    assert summary.best == {}
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["update_000003.pt"]
    assert torch.equal(
        load_policy(tmp_path).state_dict()["gru.weight_hh_l0"],
        read_checkpoint(last(tmp_path))["weights"]["gru.weight_hh_l0"],
    )


def test_progress_tells_stages_rates_and_the_time_left(tmp_path: Path, tiny: Tiny) -> None:
    seen: list[Progress] = []
    train_direct(tmp_path, tiny("num_updates=3"), progress=seen.append)
    assert [(p.stage, p.step) for p in seen] == [
        ("training", 0),
        ("training", 1),
        ("training", 2),
        ("training", 3),
        ("validating", 3),
        ("training", 3),
    ]
    assert seen[2].rate > 0
    assert seen[2].env_steps_per_s == pytest.approx(seen[2].rate * 8, rel=0.1)
    assert seen[2].remaining_s == pytest.approx(1 / seen[2].rate, rel=0.1)
    assert seen[-1].remaining_s == 0
    assert seen[-1].best_return == seen[-1].validation["mean_return"]
    assert {"loss", "gradient_norm"} <= set(seen[-1].values)


@pytest.mark.parametrize("update", [1, 3, 4])
def test_a_run_that_was_stopped_resumes_to_the_same_bits(
    straight: Path, tmp_path: Path, tiny: Tiny, update: int
) -> None:
    stopped = train_direct(tmp_path, tiny(), progress=stopping_at(update))
    assert not stopped.finished
    assert stopped.num_steps == update
    assert last(tmp_path).name == f"update_{update:06d}.pt"
    assert train_direct(tmp_path, resume=True).finished
    assert_same(tmp_path, straight)


def test_a_second_request_interrupts_at_once(tmp_path: Path, tiny: Tiny) -> None:
    def insist(progress: Progress) -> None:
        if progress.step == 1:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train_direct(tmp_path, tiny(), progress=insist)
    assert signal.getsignal(signal.SIGINT) is before
    assert not (tmp_path / "checkpoints").exists()


def test_a_run_that_was_killed_resumes_to_the_same_bits(
    straight: Path, tmp_path: Path, tiny: Tiny, tiny_overrides: list[str]
) -> None:
    process = raptor("train-direct", "--output", str(tmp_path), *tiny_overrides)
    deadline = time.monotonic() + 300
    while not list(tmp_path.glob("checkpoints/update_000002.pt")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "summary.json").exists()
    assert train_direct(tmp_path, tiny(), resume=True).finished
    assert_same(tmp_path, straight)


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_anew(
    straight: Path, tmp_path: Path, tiny: Tiny
) -> None:
    class Killed(BaseException):
        pass

    def kill(progress: Progress) -> None:
        if progress.step == 1:
            raise Killed

    with pytest.raises(Killed):
        train_direct(tmp_path, tiny(), progress=kill)
    assert not (tmp_path / "checkpoints").exists()
    train_direct(tmp_path, resume=True)
    assert_same(tmp_path, straight)


def test_a_damaged_newest_checkpoint_costs_a_warning_and_not_the_run(
    straight: Path, tmp_path: Path, tiny: Tiny
) -> None:
    train_direct(tmp_path, tiny(), progress=stopping_at(5))
    last(tmp_path).write_bytes(last(tmp_path).read_bytes()[:-100])
    with pytest.warns(RunWarning, match="update_000005.pt"):
        train_direct(tmp_path, resume=True)
    assert "warning: update_000005.pt is passed over for an earlier checkpoint" in (tmp_path / "train.log").read_text()
    assert_same(tmp_path, straight)


def test_a_finished_run_resumes_to_nothing(straight: Path, tmp_path: Path, tiny: Tiny) -> None:
    train_direct(tmp_path, tiny())
    before = outcome(tmp_path)
    seen: list[Progress] = []
    summary = train_direct(tmp_path, resume=True, progress=seen.append)
    assert summary.finished
    assert {p.step for p in seen} == {6}
    assert summary.best["mean_return"] == before["last"]["training"]["best"]["figures"]["mean_return"]
    assert_same(tmp_path, straight)


def test_resuming_where_nothing_is_starts_from_the_beginning(straight: Path, tmp_path: Path, tiny: Tiny) -> None:
    train_direct(tmp_path / "new", tiny(), resume=True)
    assert_same(tmp_path / "new", straight)


def test_resuming_with_other_settings_is_refused_by_their_names(tmp_path: Path, tiny: Tiny) -> None:
    train_direct(tmp_path, tiny("num_updates=1"))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(
        UserError, match=r"other settings: num_updates \(1, now 6\), batch_size \(4, now 5\); resume it"
    ):
        train_direct(tmp_path, tiny("batch_size=5"), resume=True)
    with pytest.raises(UserError, match=r"seed \(3, now 4\)"):
        train_direct(tmp_path, seed=4, resume=True)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_seed_and_device_may_be_given_beside_the_settings(tmp_path: Path, tiny: Tiny) -> None:
    train_direct(tmp_path, tiny("num_updates=1"), seed=11, device="cpu")
    assert load_run_config(tmp_path).seed == 11


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        (["device=no-such-device"], "device must be cpu"),
        (["device=cuda:97"], "device 'cuda:97' is not there"),
        (["batch_size=10000000000000"], "batch_size 10000000000000 does not fit into memory"),
        (["batch_size=4000000000000000000"], "batch_size 4000000000000000000 does not fit into memory"),
    ],
)
def test_what_cannot_work_is_refused_before_an_older_run_is_overwritten(
    tmp_path: Path, tiny: Tiny, settings: list[str], error: str
) -> None:
    train_direct(tmp_path, tiny("num_updates=1"))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=error):
        train_direct(tmp_path, tiny(*settings), overwrite=True)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_overwriting_gives_what_a_fresh_folder_gives(straight: Path, tmp_path: Path, tiny: Tiny) -> None:
    train_direct(tmp_path, tiny("seed=4", "num_updates=8"))
    train_direct(tmp_path, tiny(), overwrite=True)
    assert_same(tmp_path, straight)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == sorted(
        path.name for path in (straight / "checkpoints").iterdir()
    )


def test_a_full_disk_is_explained_and_leaves_the_checkpoints_before(
    straight: Path, tmp_path: Path, tiny: Tiny, tiny_overrides: list[str]
) -> None:
    train_direct(tmp_path, tiny(), progress=stopping_at(3))
    before = {path.name: path.read_bytes() for path in (tmp_path / "checkpoints").glob("update_*.pt")}
    limit = last(tmp_path).stat().st_size - 1000
    process = raptor(
        "train-direct",
        "--output",
        str(tmp_path),
        "--resume",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    _, errors = process.communicate()
    assert process.returncode == 2
    assert "Traceback" not in errors
    assert "cannot write" in errors
    assert "earlier checkpoints are intact: correct it, then --resume" in errors
    assert {path.name: path.read_bytes() for path in (tmp_path / "checkpoints").glob("update_*.pt")} == before
    train_direct(tmp_path, resume=True)
    assert_same(tmp_path, straight)


def test_the_settings_of_a_run_start_another_one_like_it(straight: Path, tmp_path: Path) -> None:
    for source in (straight, straight / "run.yaml"):
        config = load_config(TrainDirectConfig, source)
        train_direct(tmp_path, config, overwrite=True)
        assert_same(tmp_path, straight)


CURRICULUM = (
    "num_updates=8",
    "curriculum.enabled=true",
    "curriculum.stages=[{name: still, tilt: 0}, {name: task}]",
    "curriculum.window=2",
    "curriculum.advance_at=0.5",
    "curriculum.max_position_error=10",
)


def test_a_curriculum_is_logged_and_resumes_to_the_same_bits(tmp_path: Path, tiny: Tiny) -> None:
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    train_direct(straight, tiny(*CURRICULUM))
    stages = read_curve(straight)["curriculum/stage"]
    assert [update for update, _ in stages] == list(range(1, 9))
    moved = next(update for update, stage in stages if stage == 1)
    assert f"update {moved}: the curriculum advances to task (2 of 2)" in (straight / "train.log").read_text()
    assert load_run_config(straight) == tiny(*CURRICULUM)
    train_direct(stopped, tiny(*CURRICULUM), progress=stopping_at(moved - 1))
    train_direct(stopped, resume=True)
    assert f"update {moved}: the curriculum advances" in (stopped / "train.log").read_text()
    assert_same(stopped, straight)


def test_the_curriculum_of_the_documentation_trains(tmp_path: Path, tiny_overrides: list[str]) -> None:
    page = Path(__file__).parents[3] / "docs" / "how-to" / "curriculum.md"
    file = tmp_path / "staged.yaml"
    file.write_text(page.read_text(encoding="utf-8").split("```yaml\n")[1].split("```")[0])
    config = load_config(TrainDirectConfig, file, [*tiny_overrides, "curriculum.window=2", "num_updates=3"])
    assert [stage.name for stage in config.curriculum.stages] == ["hover", "tracking", "task"]
    assert config.curriculum.stages[-1].applied_to(config.task) == config.task
    train_direct(tmp_path / "run", config)
    curve = read_curve(tmp_path / "run")
    assert {"curriculum/stage", "curriculum/fraction/hover", "curriculum/success_rate"} <= set(curve)


def test_without_a_curriculum_none_is_logged(straight: Path) -> None:
    assert not [name for name in read_curve(straight) if name.startswith("curriculum/")]


def test_training_in_a_thread_works_without_listening_to_signals(tmp_path: Path, tiny: Tiny) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(train_direct, tmp_path, tiny("num_updates=1")).result().finished


def test_a_finished_run_is_made_longer_where_its_learning_rate_stays(tiny, tmp_path):
    config = tiny("num_updates=4", "final_learning_rate=1")
    longer = dataclasses.replace(config, num_updates=6)
    train_direct(tmp_path / "whole", longer)
    assert train_direct(tmp_path / "longer", config).num_steps == 4
    summary = train_direct(tmp_path / "longer", longer, resume=True)
    assert (summary.num_steps, summary.finished) == (6, True)
    assert load_run_config(tmp_path / "longer").num_updates == 6
    states = [read_checkpoint(last(tmp_path / run))["weights"] for run in ("whole", "longer")]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_run_whose_learning_rate_has_fallen_is_not_made_longer(tiny, tmp_path):
    train_direct(tmp_path / "run", tiny("num_updates=4"))
    with pytest.raises(
        UserError, match=r"cannot be made longer, because its learning rate fell to .* over num_updates=4"
    ):
        train_direct(tmp_path / "run", tiny("num_updates=6"), resume=True)
    with pytest.raises(UserError, match="begun with other settings: num_updates"):
        train_direct(tmp_path / "run", tiny("num_updates=2"), resume=True)
    flawed = ("final_learning_rate=1", "task.clean_share=0.5")
    train_direct(tmp_path / "flawed", tiny("num_updates=4", *flawed))
    with pytest.raises(UserError, match=r"imperfections came in at parts of num_updates=4 \(with distrust"):
        train_direct(tmp_path / "flawed", tiny("num_updates=6", *flawed), resume=True)
