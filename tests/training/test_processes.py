"""Several processes at one training: the bits are those of one, however many there are and whatever they come to."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from pool_works import Slow
from short_distillation import few_teachers
from short_distillation import tiny as short
from torch.utils import _pytree as pytree

from raptor.core import helper
from raptor.core import pool as pools
from raptor.core.errors import UserError
from raptor.core.pool import Pool
from raptor.formats import load_policy
from raptor.rl.demonstrations import DemonstrationFlight, Demonstrations, SimulatedDemonstrations
from raptor.tasks.task import Task
from raptor.training import Callback, TrainDirectConfig, train_direct
from raptor.training.direct.blocks import Places
from raptor.training.direct.job import first_policy, make_learner
from raptor.training.direct.learner import GradientLearner
from raptor.training.distillation.learner import first_student, guidance_of, shared_evenly

Tiny = Callable[..., TrainDirectConfig]
BLOCKS = ("batch_size=8", "block_size=2")


@pytest.fixture(autouse=True)
def important(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let other processes neither yield to whatever else runs here nor rest."""
    monkeypatch.setattr(helper, "NICENESS", 0)
    monkeypatch.setattr(pools, "LEAST_INTERVAL", 10**9)


@dataclasses.dataclass
class SharedWith:
    """Wraps a pool: its work is slow in this process, and whoever computed a piece is noted."""

    pool: Pool
    pids: set[int] = dataclasses.field(default_factory=set)

    def map(self, work: Callable[..., Any], pieces: Sequence[tuple[Any, ...]]) -> list[Any]:
        self.slow = getattr(self, "slow", None) or Slow(work)
        end = time.monotonic() + 120
        while True:  # it is a pure function, so again until another process has come to it, too
            found = self.pool.map(self.slow, pieces)
            self.pids |= {pid for _, pid in found}
            if len(self.pids) > 1 or time.monotonic() > end:
                return [result for result, _ in found]


def same(a: Any, b: Any) -> bool:
    """Whether two nestings of tensors are equal, bit for bit."""
    pairs = zip(pytree.tree_leaves(a), pytree.tree_leaves(b), strict=True)
    return all(torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y for x, y in pairs)


def test_the_blocks_of_a_batch_have_the_same_bits_wherever_they_are_computed(tiny: Tiny) -> None:
    config = tiny(*BLOCKS, "task.sensing.position_noise=0.01", "curriculum.enabled=true", "curriculum.window=4")
    alone = make_learner(config, first_policy(config))
    with Pool(2) as pool:
        shared = make_learner(config, first_policy(config))
        shared.pool = SharedWith(pool)
        for _ in range(4):
            assert shared.update() == alone.update()
        assert len(shared.pool.pids) == 2
    assert same(shared.state_dict(), alone.state_dict())


def test_the_bits_are_the_same_where_teachers_guide(tiny: Tiny) -> None:
    config = shared_evenly(short("fine_tune.batch_size=8", "fine_tune.block_size=3").fine_tune, 4)
    alone, shared = (
        GradientLearner(
            config,
            first_student(short().student, 5),
            compile=False,
            guidance=guidance_of(config, few_teachers(4), "cpu", compile=False),
        )
        for _ in range(2)
    )
    with Pool(2) as pool:
        shared.pool = SharedWith(pool)
        for _ in range(4):
            assert shared.update() == alone.update()
        assert len(shared.pool.pids) == 2
    assert same(shared.state_dict(), alone.state_dict())


@pytest.mark.parametrize("student_acts", [False, True])
def test_demonstrations_have_the_same_bits_wherever_they_are_flown(student_acts: bool) -> None:
    teachers, task = few_teachers(5), Task(episode_steps=6)
    flight = DemonstrationFlight(task, 2, compile=False, teacher_noise=0.1, block_steps=4)
    offset = torch.zeros(5, 3)
    student = None
    if student_acts:
        student = pytree.tree_map(torch.Tensor.detach, first_student(short().student, 5).tensors())
    found = []
    with Pool(2) as pool:
        sharing = SharedWith(pool)
        for used in (Pool(), sharing):
            source = SimulatedDemonstrations(
                flight, teachers.quadrotors, teachers.layers, offset, pool=used, most_together=4
            )
            for seed in (1, 2, 3):
                data = Demonstrations.empty(10, 6, offset)
                found.append((data, source.collect(student, torch.Generator().manual_seed(seed), data)))
        assert len(sharing.pids) == 2
    assert same(found[:3], found[3:])
    assert not torch.equal(found[0][0].observation, found[1][0].observation)
    assert found[0][0].length.min() > 0


class StopAt(Callback):
    """Stops after an update."""

    def __init__(self, update: int) -> None:
        self.update = update

    def on_update(self, run: Any) -> bool:
        return run.step < self.update


def test_a_run_that_goes_on_with_another_number_of_processes_ends_with_the_same_bits(
    tmp_path: Path, tiny: Tiny
) -> None:
    def config(processes: int | str) -> TrainDirectConfig:
        return tiny(*BLOCKS, f"processes={processes}")

    train_direct(tmp_path / "alone", config(1))
    for processes, update in ((3, 2), (1, 4), ("auto", 6)):
        summary = train_direct(tmp_path / "run", config(processes), resume=True, callbacks=[StopAt(update)])
        assert summary.num_steps == update
    ends = [load_policy(tmp_path / name / "checkpoints" / "update_000006.pt") for name in ("alone", "run")]
    assert same(*(end.state_dict() for end in ends))


def test_the_noise_of_a_vehicle_depends_on_its_place_alone() -> None:
    task, like = Task(), torch.zeros(1300)

    def noise(first: int, last: int, update: int = 3) -> list[torch.Tensor]:
        return [step.reference for step in Places(first, last, 1300, update, 7).noise(task, like[first:last], 2)]

    whole = noise(0, 1300)
    for first, last in ((0, 434), (433, 867), (100, 1300), (867, 1300)):
        for part, draw in zip(noise(first, last), whole, strict=True):
            assert torch.equal(part, draw[first:last])
            assert part.stride() == (1, last - first)
    assert not torch.equal(whole[0], noise(0, 1300, update=4)[0])
    assert len(whole[0].unique()) > 0.99 * whole[0].numel()


@pytest.mark.parametrize("asked", ["0", "-2", "many", "1.5", "true"])
def test_impossible_numbers_of_processes_are_refused(tiny: Tiny, asked: str) -> None:
    with pytest.raises(UserError, match=r"^processes must be "):
        tiny(f"processes={asked}")


def test_more_processes_than_there_is_work_for_are_not_started(tmp_path: Path, tiny: Tiny) -> None:
    assert train_direct(tmp_path, tiny("processes=1000")).finished


def test_the_old_name_of_blocks_is_refused_with_the_new_one(tiny: Tiny) -> None:
    with pytest.raises(UserError, match=r"accumulation is unknown .*: it is called block_size now"):
        tiny("accumulation=2")
