"""The trainer: whatever ends a session, the run that goes on comes to the result of one that was never interrupted."""

from __future__ import annotations

import dataclasses
import errno
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from raptor.config.settings import setting
from raptor.core.errors import UserError
from raptor.runs.checkpoints import RunWarning
from raptor.runs.folder import Layout, RunFolder
from raptor.runs.learner import Best
from raptor.runs.progress import Progress, read_curve
from raptor.runs.stopping import StopRequest, stop_on_signal
from raptor.runs.trainer import Phase, Trainer


@dataclasses.dataclass(frozen=True)
class Given:
    """Settings of a test."""

    seed: int = setting(0, "of the noise")


class Descent:
    """A learner of one number, with noise: good where it is near its aim."""

    def __init__(self, policy: torch.nn.Linear, aim: float, slow_at: int = -1) -> None:
        self.policy, self.aim, self.slow_at = policy, aim, slow_at
        self.rated, self.notes = None, []
        self.generator = torch.Generator().manual_seed(0)
        self.count = 0

    @property
    def step_count(self) -> int:
        return self.count

    @property
    def env_steps(self) -> float:
        return 10.0 * self.count

    @torch.no_grad()
    def update(self) -> dict[str, float]:
        noise = 0.3 * torch.randn((), generator=self.generator)
        self.policy.bias += 0.3 * (self.aim - self.policy.bias) + noise
        if self.count == self.slow_at:
            time.sleep(60)
        self.count += 1
        return {"training/loss": abs(self.aim - self.policy.bias.item())}

    def validate(self) -> dict[str, float]:
        return {"mean_return": -abs(self.aim - self.policy.bias.item())}

    def state_dict(self) -> dict[str, Any]:
        return {"policy": self.policy.state_dict(), "generator": self.generator.get_state(), "count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.policy.load_state_dict(state["policy"])
        self.generator.set_state(state["generator"])
        self.count = state["count"]


class Files:
    """Checkpoints in the folder of a run, and the best policies that were written."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder, self.best = folder, []
        self.newest_first, self.pass_over = folder.checkpoints.newest_first, folder.checkpoints.pass_over
        self.log, self.record, self.record_from = folder.log, folder.record, folder.record_from

    def write(self, step: int, training: dict[str, Any]) -> str:
        return self.folder.checkpoints.write(step, {"training": training})

    def write_best(self, best: Best, milestone: bool) -> None:
        self.best.append((best.step, milestone))


Watch = Callable[[Progress, StopRequest], None]


def trained(path: Path, watch: Watch | None = None, slow_at: int = -1, **options: Any) -> tuple[Trainer, Files]:
    """One session of a run of two phases: six steps towards 1, then four towards 2."""
    folder = RunFolder(path, Layout("train-direct", checkpoints="step_"))
    policy = torch.nn.Linear(1, 1)
    torch.nn.init.zeros_(policy.bias)
    torch.nn.init.zeros_(policy.weight)
    phases = [
        Phase("first", 6, lambda: Descent(policy, 1.0, slow_at), validation_interval=2, checkpoint_interval=3),
        Phase("second", 4, lambda: Descent(policy, 2.0), validation_interval=2, revalidates=True),
    ]
    folder.open(Given(), resume=True)
    files = Files(folder)
    try:
        with stop_on_signal() as stop:
            trainer = Trainer(phases, files, stop, **options)
            for progress in trainer:
                if watch is not None:
                    watch(progress, stop)
    finally:
        folder.close()
    return trainer, files


def asking_at(step: int) -> Watch:
    def watch(progress: Progress, stop: StopRequest) -> None:
        if progress.step == step:
            stop.made = True

    return watch


class Killed(BaseException):
    """The end of a process, as far as a test can have it."""


def killing_at(step: int) -> Watch:
    def watch(progress: Progress, stop: StopRequest) -> None:
        if progress.step == step and progress.stage != "compiling":
            raise Killed

    return watch


def outcome(trainer: Trainer, path: Path) -> tuple[Any, ...]:
    curve = {name: points for name, points in read_curve(path).items() if not name.startswith("speed/")}
    assert trainer.best is not None
    weights = {name: tensor.tolist() for name, tensor in trainer.best.weights.items()}
    state = trainer.learner.state_dict()["policy"]["bias"].item()
    best = {**dataclasses.asdict(trainer.best), "weights": weights}
    return curve, best, state, trainer.milestones, trainer.env_steps, trainer.validation


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, ...]:
    """What comes of a run that nothing interrupts."""
    path = tmp_path_factory.mktemp("straight")
    trainer, _ = trained(path)
    assert trainer.finished
    return outcome(trainer, path)


def test_steps_validations_phases_and_the_best_are_recorded(straight: tuple[Any, ...]) -> None:
    curve, best, _, milestones, env_steps, validation = straight
    assert [step for step, _ in curve["training/loss"]] == list(range(1, 11))
    found = curve["evaluation/mean_return"]
    assert [step for step, _ in found] == [2, 4, 6, 8, 10]
    assert validation["mean_return"] == found[-1][1]
    assert env_steps == 100
    (milestone,) = milestones
    assert milestone["update"] == max(found[:3], key=lambda point: point[1])[0]
    assert best["figures"]["mean_return"] == max(milestone["mean_return"], *(value for _, value in found[3:]))


def test_a_phase_begins_with_the_best_policy_of_the_one_before(tmp_path: Path) -> None:
    seen = []

    def watch(progress: Progress, stop: StopRequest) -> None:
        seen.append((progress.stage, progress.step))

    trainer, files = trained(tmp_path, watch)
    stages = [stage for stage, _ in seen if stage != "validating"]
    assert stages == sorted(stages)
    assert [step for step, milestone in files.best if milestone] == [trainer.milestones[0]["update"]]
    # Rated as the second phase rates: by its distance from 2, which is about 1 for one that is near 1.
    assert trainer.milestones[0]["mean_return"] == pytest.approx(-1, abs=0.5)


@pytest.mark.parametrize("step", [1, 3, 5, 6, 7, 9])
def test_a_run_that_is_asked_to_stop_goes_on_to_the_same_bits(
    straight: tuple[Any, ...], tmp_path: Path, step: int
) -> None:
    trainer, _ = trained(tmp_path, asking_at(step))
    assert (trainer.step, trainer.finished) == (step, False)
    trainer, _ = trained(tmp_path)
    assert outcome(trainer, tmp_path) == straight


@pytest.mark.parametrize("step", [1, 3, 5, 6, 7, 9])
def test_a_run_that_is_killed_goes_on_to_the_same_bits(straight: tuple[Any, ...], tmp_path: Path, step: int) -> None:
    with pytest.raises(Killed):
        trained(tmp_path, killing_at(step))
    trainer, _ = trained(tmp_path)
    assert outcome(trainer, tmp_path) == straight


def test_a_validation_after_the_last_checkpoint_is_recorded_once(straight: tuple[Any, ...], tmp_path: Path) -> None:
    trained(tmp_path, asking_at(6))  # which writes a checkpoint before the validation that is due
    with pytest.raises(Killed):
        trained(tmp_path, lambda progress, stop: killing_at(6)(progress, stop) if progress.validation else None)
    trainer, _ = trained(tmp_path)
    assert outcome(trainer, tmp_path) == straight


def test_a_step_that_goes_on_too_long_after_ctrl_c_is_given_up(
    straight: tuple[Any, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raptor.runs.stopping.PATIENCE_S", 0.1)

    asked: list[threading.Timer] = []

    def ask(progress: Progress, stop: StopRequest) -> None:
        if progress.step == 4 and not asked:
            asked.append(threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)))
            asked[0].start()

    begun = time.monotonic()
    trainer, _ = trained(tmp_path, ask, slow_at=4)
    assert time.monotonic() - begun < 30
    assert (trainer.step, trainer.finished) == (4, False)
    assert "work is discarded" in (tmp_path / "train.log").read_text()
    trainer, _ = trained(tmp_path)
    assert outcome(trainer, tmp_path) == straight


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ctrl_c_a_termination_and_a_closed_terminal_ask_to_stop(tmp_path: Path, number: signal.Signals) -> None:
    before = signal.getsignal(number)

    def ask(progress: Progress, stop: StopRequest) -> None:
        if progress.step == 2 and not stop.made:
            os.kill(os.getpid(), number)

    trainer, _ = trained(tmp_path, ask)
    assert trainer.step == 2
    assert (tmp_path / "step_000002.pt").exists()
    assert signal.getsignal(number) is before


def test_a_job_that_nohup_started_outlives_its_terminal() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_on_signal() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_second_ctrl_c_interrupts_at_once(tmp_path: Path) -> None:
    def insist(progress: Progress, stop: StopRequest) -> None:
        if progress.step == 1:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path, insist)


def test_a_damaged_checkpoint_costs_a_warning_and_not_the_run(straight: tuple[Any, ...], tmp_path: Path) -> None:
    trained(tmp_path, asking_at(5))
    newest = tmp_path / "step_000005.pt"
    newest.write_bytes(newest.read_bytes()[:-100])
    with pytest.warns(RunWarning, match=r"step_000005.pt"):
        trainer, _ = trained(tmp_path)
    assert outcome(trainer, tmp_path) == straight


def test_a_whole_checkpoint_of_another_structure_is_passed_over(straight: tuple[Any, ...], tmp_path: Path) -> None:
    trained(tmp_path, asking_at(5))
    newest = tmp_path / "step_000005.pt"
    document = torch.load(newest, weights_only=True)
    del document["training"]["learner"]["generator"]
    torch.save(document, newest)
    with pytest.warns(RunWarning, match=r"step_000005.pt .*KeyError"):
        trainer, _ = trained(tmp_path)
    assert outcome(trainer, tmp_path) == straight


def test_where_no_checkpoint_can_be_read_the_run_is_refused(tmp_path: Path) -> None:
    trained(tmp_path, asking_at(1))
    (tmp_path / "step_000001.pt").write_bytes(b"")
    with pytest.warns(RunWarning), pytest.raises(UserError, match="can be read: start anew with --overwrite"):
        trained(tmp_path)


def test_a_full_disk_leaves_the_checkpoints_before(
    straight: tuple[Any, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = Path.replace

    def full(source: Path, target: Path) -> Path:
        if Path(target).name == "step_000006.pt":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return replace(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", full)
        with pytest.raises(UserError, match=r"No space left on device; earlier checkpoints are intact"):
            trained(tmp_path)
    assert {path.name for path in tmp_path.glob("*.pt")} == {"step_000003.pt"}
    trainer, _ = trained(tmp_path)
    assert outcome(trainer, tmp_path) == straight


def test_a_finished_run_goes_on_to_nothing(straight: tuple[Any, ...], tmp_path: Path) -> None:
    trained(tmp_path)
    seen = []
    trainer, _ = trained(tmp_path, lambda progress, stop: seen.append(progress.step))
    assert set(seen) == {10}
    assert outcome(trainer, tmp_path) == straight


def test_progress_tells_rates_and_the_time_left_of_the_phase(tmp_path: Path) -> None:
    seen: list[Progress] = []
    trained(tmp_path, lambda progress, stop: seen.append(progress))
    third = next(progress for progress in seen if progress.step == 3)
    assert third.rate > 0
    assert third.env_steps_per_s == pytest.approx(10 * third.rate, rel=0.1)
    assert third.remaining_s == pytest.approx(3 / third.rate, rel=0.1)
    assert third.num_steps == 10
    assert third.values.keys() == {"loss"}
    assert seen[-1].remaining_s == 0
    assert seen[-1].best_return is not None
