"""Several processes at one job, and batches in parts: the result is that of one process, whatever happens to them."""

from __future__ import annotations

import dataclasses
import datetime
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import short_distillation
import torch
from short_distillation import few_teachers
from short_distillation import tiny as short
from torch.utils import _pytree as pytree
from typer.testing import CliRunner

from raptor.cli import app
from raptor.core import distributed
from raptor.core.devices import gpu_use
from raptor.core.distributed import ALONE, DryRunWorld, Parts, World, blocks_of, cut
from raptor.core.errors import LostProcessError, UserError
from raptor.environments.episode import begin_episode
from raptor.formats import save_teachers
from raptor.quadrotor import sample_quadrotors
from raptor.runs import read_curve
from raptor.runs.folder import RunFolder
from raptor.runs.stopping import Abandoned, StopRequest, interruptible
from raptor.tasks.task import Task
from raptor.training import TrainDirectConfig, load_run_config, memory, train_direct
from raptor.training.direct.job import LAYOUT, first_policy, make_learner
from raptor.training.direct.learner import GradientLearner
from raptor.training.distillation import teachers as selection
from raptor.training.distillation.job import PostTrainConfig, check_parts, load_post_train_config, post_train
from raptor.training.distillation.learner import Distiller, first_student, guidance_of, shared_evenly
from raptor.training.distillation.sources import SimulatorSource
from raptor.training.memory import BASE_BYTES, largest_batch

Tiny = Callable[..., TrainDirectConfig]
TWO = World(rank=0, size=2)
ADAM = "optimizer=adam"  # SOAP turns its axes, which magnifies rounding
EIGHT = ("fine_tune.batch_size=8",)


class Ended(NamedTuple):
    """How a process ended, and what it said."""

    status: int
    said: str


def together(arguments: Sequence[str], signal: str = "", at: int = 0) -> list[Ended]:
    """Run a command in two processes; the second one may get a signal before an update."""
    script = Path(__file__).parents[1] / "support" / "several_processes.py"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), signal, str(at), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **shared, "RANK": rank, "LOCAL_RANK": rank},
        )
        for rank in ("0", "1")
    ]
    said = [process.communicate(timeout=300)[0] for process in processes]
    return [Ended(process.returncode, words) for process, words in zip(processes, said, strict=True)]


def assert_same_curves(a: Path, b: Path) -> None:
    """All figures of both runs are the same but for rounding."""
    left, right = read_curve(a), read_curve(b)
    assert left.keys() == right.keys()
    for name in [name for name in left if not name.startswith("speed/")]:
        assert [update for update, _ in left[name]] == [update for update, _ in right[name]]
        torch.testing.assert_close(torch.tensor(right[name]), torch.tensor(left[name]), rtol=1e-4, atol=1e-4)


def updates(run: Path) -> list[int]:
    """Of the checkpoints of a run."""
    return sorted(int(path.stem.rpartition("_")[2]) for path in (run / "checkpoints").glob("update_*.pt"))


def test_a_run_that_two_processes_began_goes_on_after_a_stop_and_a_death_and_ends_as_that_of_one(
    tmp_path: Path, tiny: Tiny, tiny_overrides: list[str]
) -> None:
    run, straight = tmp_path / "together", tmp_path / "alone"
    command = ["train-direct", "--output", str(run), "--resume", *tiny_overrides, ADAM]
    first, second = together(command, "SIGTERM", at=3)
    assert (first.status, second.status) == (130, 130)
    assert "stopped after update 3 of 6, with a checkpoint" in first.said
    assert second.said == ""
    assert updates(run) == [2, 3]
    first, second = together(command, "SIGKILL", at=5)
    assert (first.status, second.status) == (2, -9)
    assert "another process of this job ended" in first.said
    assert "go on with --resume" in first.said
    assert updates(run) == [2, 3, 4]
    assert train_direct(run, resume=True).finished
    train_direct(straight, tiny(ADAM))
    assert_same_curves(straight, run)


def test_two_processes_distil_and_fine_tune_as_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teachers, run, straight = tmp_path / "teachers", tmp_path / "together", tmp_path / "alone"
    save_teachers(few_teachers(), teachers)
    first, second = together(
        ["post-train", "--teachers", str(teachers), "--output", str(run), *short_distillation.TINY, *EIGHT]
    )
    assert (first.status, second.status, second.said) == (0, 0, "")
    assert f"raptor evaluate {run}" in first.said
    monkeypatch.setattr(selection, "TEST_TASK", short_distillation.TEST_TASK)
    post_train(straight, teachers, short(*EIGHT))
    assert_same_curves(straight, run)
    assert {path.name for path in run.iterdir()} == {path.name for path in straight.iterdir()}


def direct(config: TrainDirectConfig, world: World = ALONE) -> GradientLearner:
    return make_learner(config, first_policy(config), world)


def distiller(config: PostTrainConfig) -> Distiller:
    return Distiller(config, first_student(config.student, 5), SimulatorSource(config, few_teachers()))


def weights(policy: torch.nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in policy.parameters()])


@pytest.mark.parametrize("curriculum", [(), ("curriculum.enabled=true", "curriculum.window=4")])
def test_blocks_flown_one_after_another_train_as_the_whole_batch_does(tiny: Tiny, curriculum: tuple[str, ...]) -> None:
    whole, parts = (
        direct(tiny("batch_size=8", "num_validation=8", f"block_size={num}", "seed=1", ADAM, *curriculum))
        for num in (8, 2)
    )
    for _ in range(6):
        assert parts.update() == pytest.approx(whole.update(), rel=1e-4, abs=1e-5)
    torch.testing.assert_close(weights(parts.policy), weights(whole.policy), rtol=1e-4, atol=1e-5)
    assert len(parts.gradient._compiled) == 1  # all blocks have one shape and one memory order, at every update
    assert parts.validate() == pytest.approx(whole.validate(), rel=1e-4)


@pytest.mark.parametrize("num", [2, 3])
def test_blocks_of_teachers_vehicles_are_held_by_their_own_teachers(num: int) -> None:
    """Also where a block has some of the vehicles of a teacher, and another block the rest."""
    config = short("fine_tune.batch_size=12", "fine_tune.imitation=100").fine_tune
    learners = []
    for block_size in (12, 12 // num):
        sized = shared_evenly(dataclasses.replace(config, block_size=block_size), 4)
        student, guidance = first_student(short().student, 5), guidance_of(sized, few_teachers(4), "cpu", compile=False)
        learners.append(GradientLearner(sized, student, compile=False, guidance=guidance))
    whole, parts = learners
    for _ in range(3):
        assert parts.update() == pytest.approx(whole.update(), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("kind", ["gru", "mlp"])
def test_blocks_of_a_batch_of_sequences_train_as_the_whole_batch_does(kind: str) -> None:
    settings = ("batch_size=4", f"student.kind={kind}", "num_epochs=3")
    learners = []
    for block_size in (4, 2):
        config = short(*settings, f"block_size={block_size}")
        learners.append(distiller(config))
    whole, parts = learners
    for _ in range(3):
        assert parts.update() == pytest.approx(whole.update(), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("kind", ["gru", "mlp"])
def test_products_in_bfloat16_give_nearly_the_same_gradient_and_the_same_flights(kind: str) -> None:
    settings = ("batch_size=4", f"student.kind={kind}", "num_epochs=3")
    reported = []
    for precision in ("float32", "bfloat16"):
        config = short(*settings, f"precision={precision}")
        reported.append(distiller(config).update())
    exact, rounded = reported
    assert rounded["data_collection/mean_return"] == exact["data_collection/mean_return"]
    assert rounded["training/loss"] != exact["training/loss"]
    assert rounded["training/loss"] == pytest.approx(exact["training/loss"], rel=0.02)


def test_only_the_policy_is_rounded_in_flight_and_validation_is_not(tiny: Tiny) -> None:
    exact, rounded = (direct(tiny(f"precision={precision}")) for precision in ("float32", "bfloat16"))
    assert rounded.validate() == exact.validate()
    found, expected = (learner.update()["training/loss"] for learner in (rounded, exact))
    assert found != expected
    assert found == pytest.approx(expected, rel=0.02)


def test_blocks_cover_a_batch_once_and_are_put_together_in_its_memory_order() -> None:
    parts = Parts(block_size=3)
    quadrotors = sample_quadrotors(7, seed=0).component_major()
    episode = begin_episode(Task(), quadrotors, torch.Generator().manual_seed(0))
    tree = [episode.state, torch.arange(14.0).view(7, 2), torch.arange(7.0)]
    together = parts.gather([cut(tree, places) for places in parts.own(7)], 7)
    for before, after in zip(pytree.tree_leaves(tree), pytree.tree_leaves(together), strict=True):
        assert torch.equal(before, after)
        assert before.stride() == after.stride()


def test_shares_of_processes_are_made_of_their_blocks() -> None:
    sizes = []
    for rank in range(3):
        parts = Parts(World(rank, 3), block_size=3)
        own, share = parts.own(13), parts.shares(13)[rank]
        assert (own[0].start, own[-1].stop) == (share.start, share.stop)
        assert own[0].stop == own[1].start
        sizes += [place.stop - place.start for place in own]
    assert sum(sizes) == 13
    assert max(sizes) - min(sizes) == 1


def test_a_batch_that_cannot_be_shared_evenly_is_refused() -> None:
    with pytest.raises(UserError, match=r"batch_size must be a multiple of 2 for 2 processes, got 5: take 4"):
        Parts(TWO).refuse_uneven("batch_size", 5)
    for settings, named in (("batch_size=3", "batch_size"), ("fine_tune.batch_size=7", "fine_tune.batch_size")):
        with pytest.raises(UserError, match=f"^{named} must be a multiple of 2"):
            check_parts(short(settings), 4, TWO)


def test_fewer_things_than_processes_are_refused() -> None:
    with pytest.raises(UserError, match="at least 2 teachers for as many processes, got 1"):
        Parts(TWO).refuse_fewer("teachers", 1)


@pytest.mark.parametrize(
    ("num", "most", "sizes"), [(1024, 512, {512}), (1025, 512, {205}), (1006, 512, {503}), (509, 256, {254, 255})]
)
def test_blocks_have_one_size_where_that_takes_not_many_more_of_them(num: int, most: int, sizes: set[int]) -> None:
    blocks = blocks_of(num, most)
    assert {block.stop - block.start for block in blocks} == sizes
    assert [block.start for block in blocks] == [0, *(block.stop for block in blocks[:-1])]
    assert blocks_of(num) == [slice(0, num)]


def test_a_process_that_torchrun_stops_because_another_died_tells_of_that() -> None:
    stop = StopRequest()
    stop.made = True
    with pytest.raises(LostProcessError), interruptible(stop):
        raise LostProcessError
    with pytest.raises(Abandoned), interruptible(stop):
        raise RuntimeError("compiler interrupted")


def test_processes_that_do_not_find_each_other_say_so(
    tmp_path: Path, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    told_by_torchrun(monkeypatch)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(distributed, "PATIENCE", datetime.timedelta(seconds=1))
    with pytest.raises(UserError, match="do not find each other"):
        train_direct(tmp_path / "run", tiny())
    assert not (tmp_path / "run").exists()


def test_a_run_may_be_resumed_in_smaller_blocks(tmp_path: Path, tiny: Tiny) -> None:
    train_direct(tmp_path, tiny())
    assert train_direct(tmp_path, tiny("block_size=2"), resume=True).finished


@pytest.mark.parametrize(("device", "problem"), [("cuda:1", "cpu or cuda"), ("cuda", "2 processes need as many GPUs")])
def test_a_device_that_is_not_one_for_each_process_is_refused(
    tmp_path: Path, tiny: Tiny, monkeypatch: pytest.MonkeyPatch, device: str, problem: str
) -> None:
    if torch.cuda.device_count() > 1:
        pytest.skip("there are several GPUs")
    told_by_torchrun(monkeypatch)
    with pytest.raises(UserError, match=problem):
        train_direct(tmp_path / "run", tiny(), device=device)
    assert not (tmp_path / "run").exists()


def test_commands_for_one_process_refuse_several(monkeypatch: pytest.MonkeyPatch) -> None:
    told_by_torchrun(monkeypatch)
    result = CliRunner().invoke(app, ["platforms"])
    assert result.exit_code == 2
    assert "raptor platforms runs in one process" in result.output


def told_by_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    reported = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    for name, value in {**reported, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)


def test_a_process_that_does_not_lead_writes_nothing(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run", LAYOUT)
    folder.writes = False
    folder.open(TrainDirectConfig())
    folder.record_from(0)
    folder.record(1, {"training/loss": 1.0})
    folder.log("something")
    folder.close()
    assert not (tmp_path / "run").exists()


def test_metrics_tell_how_a_gpu_is_used_as_far_as_its_libraries_say(monkeypatch: pytest.MonkeyPatch) -> None:
    assert gpu_use("cpu") == {}
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 3 * 2**29)
    monkeypatch.setattr(torch.cuda, "utilization", lambda device: 40)
    assert gpu_use("cuda") == {"speed/gpu_memory_gib": 1.5, "speed/gpu_utilisation": 0.4}
    monkeypatch.delattr(torch.cuda, "utilization")
    assert gpu_use("cuda") == {"speed/gpu_memory_gib": 1.5}


def test_the_largest_batch_fits_into_what_is_planned_with_and_grows_with_smaller_blocks(tiny: Tiny) -> None:
    def largest(room_mib: float, block_size: int = 100_000) -> int:
        long = tiny("segment_steps=200", "task.episode_steps=200", f"block_size={block_size}")
        budget_gib = (BASE_BYTES + room_mib * 2**20) / memory.FRACTION_OF_BUDGET / 2**30
        return largest_batch(long, first_policy(long), "cpu", memory_gib=budget_gib)

    one, blocks, more = largest(16), largest(16, 8), largest(160)
    assert 0 < one < blocks
    assert one % memory.MULTIPLE == 0
    assert 8 * one < more < 20 * one
    assert largest(16) == one
    with pytest.raises(UserError, match=r"not even a batch of \d+ vehicles fits into memory: lower segment_steps"):
        largest(0.1)


def test_a_batch_that_takes_other_memory_too_is_smaller(tiny: Tiny) -> None:
    gib = (BASE_BYTES + 2**24) / memory.FRACTION_OF_BUDGET / 2**30
    alone = largest_batch(tiny(), first_policy(tiny()), "cpu", memory_gib=gib)
    for more in ({"labels": 1000.0}, {"besides": 2.0**23}):
        assert largest_batch(tiny(), first_policy(tiny()), "cpu", memory_gib=gib, **more) < alone


def test_the_largest_batch_is_stored_and_kept_on_resuming(
    tmp_path: Path, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "budget_bytes", lambda given, device: BASE_BYTES / memory.FRACTION_OF_BUDGET + 2**23)
    train_direct(tmp_path, tiny("num_updates=1"), largest=True)
    stored = load_run_config(tmp_path).batch_size
    assert stored % memory.MULTIPLE == 0
    monkeypatch.setattr(memory, "budget_bytes", lambda given, device: BASE_BYTES / memory.FRACTION_OF_BUDGET + 2**22)
    assert train_direct(tmp_path, resume=True, largest=True).env_steps == stored * 2
    assert load_run_config(tmp_path).batch_size == stored


def test_the_largest_batch_of_fine_tuning_is_one_that_the_run_is_resumed_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever batch the settings name, and also where a little less memory is free then."""
    monkeypatch.setattr(selection, "TEST_TASK", short_distillation.TEST_TASK)
    free = [BASE_BYTES / memory.FRACTION_OF_BUDGET + 2**23]
    monkeypatch.setattr(memory, "budget_bytes", lambda given, device: free[0])
    config, said = short("num_epochs=0", "fine_tune.num_updates=1", "fine_tune.batch_size=1000000001"), list[str]()
    with pytest.raises(UserError, match=r"lower fine_tune\.batch_size"):
        post_train(tmp_path / "run", few_teachers(), config)
    summary = post_train(tmp_path / "run", few_teachers(), config, announce=said.append, largest=True)
    stored = load_post_train_config(tmp_path / "run").fine_tune.batch_size
    assert f"the largest batch that fits: fine_tune.batch_size={stored}" in said
    assert summary.finished
    free[0] -= 2**20
    assert post_train(tmp_path / "run", few_teachers(), resume=True, largest=True).finished
    assert load_post_train_config(tmp_path / "run").fine_tune.batch_size == stored


def test_a_trial_holds_what_one_of_several_processes_holds(tiny: Tiny) -> None:
    learner = direct(tiny("batch_size=8"), DryRunWorld(1, 2))
    for _ in range(2):
        learner.update()
    assert [len(learner.quadrotors), len(learner.terminated)] == [8, 8]
    assert learner.parts.own(8) == [slice(4, 8)]


def test_on_a_gpu_two_small_batches_are_measured_and_extrapolated(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    class Learner:
        """Takes a thousand bytes, and ten for each vehicle."""

        def __init__(self, config: TrainDirectConfig, *others: Any) -> None:
            self.num = config.batch_size

        def update(self) -> None:
            peak.append(1000 + 10 * self.num)

    peak = [0]
    monkeypatch.setattr(memory, "GradientLearner", Learner)
    monkeypatch.setattr(
        torch.cuda, "mem_get_info", lambda device: (101_000 / memory.FRACTION_OF_FREE / memory.FRACTION_OF_BUDGET, 0)
    )
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: peak.clear())
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda device: max(peak))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    found = largest_batch(tiny(), first_policy(tiny()), "cuda")
    assert found == 10_000 // memory.MULTIPLE * memory.MULTIPLE
