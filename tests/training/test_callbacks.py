"""Callbacks: called in every job, able to stop it, unable to harm it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import short_distillation
import short_shards
import torch
from point_env import PointEnv, teacher
from short_distillation import few_teachers

import raptor
from raptor.core.errors import UserError
from raptor.formats import load_policy, read_checkpoint
from raptor.runs.folder import read_manifest
from raptor.training import Callback, EnvDistillConfig, PreTrainSummary, RunContext, TrainDirectConfig, train_direct
from raptor.training.distillation import teachers as selection

Tiny = Callable[..., TrainDirectConfig]


class Watch(Callback):
    """Notes what it is called with, and answers as it is asked to."""

    def __init__(self, **answers: Callable[[RunContext], Any]) -> None:
        self.answers, self.seen = answers, list[tuple[str, RunContext]]()

    def answer(self, event: str, run: RunContext) -> Any:
        self.seen.append((event, run))
        return self.answers.get(event, lambda run: None)(run)

    def on_update(self, run: RunContext) -> Any:
        return self.answer("on_update", run)

    def on_validation(self, run: RunContext) -> Any:
        return self.answer("on_validation", run)

    def on_checkpoint(self, run: RunContext) -> Any:
        return self.answer("on_checkpoint", run)

    def on_end(self, run: RunContext) -> Any:
        return self.answer("on_end", run)

    def steps(self, event: str) -> list[float]:
        return [run.step for name, run in self.seen if name == event]


def fails(run: RunContext) -> None:
    raise ZeroDivisionError("division by zero")


def weights(run: Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(run / "checkpoints" / "update_000006.pt")["weights"]


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_direct_training_calls_with_figures_the_policy_and_files_that_are_there(tmp_path: Path, tiny: Tiny) -> None:
    there = []
    watch = Watch(
        on_update=lambda run: there.append(run.learner is not None and run.policy is run.learner.policy),
        on_checkpoint=lambda run: there.append(load_policy(run.path).num_parameters == 2084),
        on_end=lambda run: there.append(json.loads((run.folder / "summary.json").read_text())["finished"]),
    )
    train_direct(tmp_path, tiny(), callbacks=[watch])
    assert watch.steps("on_update") == [1, 2, 3, 4, 5, 6]
    assert watch.steps("on_validation") == [3, 6]
    assert watch.steps("on_checkpoint") == [2, 4, 6]
    assert there == [True] * 10
    event, last = watch.seen[-1]
    assert (event, last.finished, last.folder, last.num_steps, last.stage) == ("on_end", True, tmp_path, 6, "training")
    assert last.env_steps == 6 * 4 * 2
    assert last.values["loss"] > 0
    assert "mean_return" in last.validation


def test_a_run_with_callbacks_that_only_read_has_the_same_bits_when_stopped_and_resumed(
    tmp_path: Path, tiny: Tiny
) -> None:
    train_direct(tmp_path / "without", tiny())
    stopping = Watch(on_update=lambda run: run.step != 3)
    assert not train_direct(tmp_path / "with", tiny(), callbacks=[stopping]).finished
    assert (stopping.steps("on_update"), stopping.steps("on_checkpoint")) == ([1, 2, 3], [2, 3])
    assert not stopping.seen[-1][1].finished
    assert train_direct(tmp_path / "with", tiny(), resume=True, callbacks=[Watch()]).finished
    assert same(weights(tmp_path / "with"), weights(tmp_path / "without"))


@pytest.mark.parametrize("event", ["on_update", "on_validation", "on_checkpoint", "on_end"])
def test_a_callback_that_raises_ends_the_run_with_a_checkpoint_and_its_name(
    tmp_path: Path, tiny: Tiny, event: str
) -> None:
    bystander = Watch()
    with pytest.raises(UserError, match=rf"Watch\.{event} failed at update \d \(ZeroDivisionError: div.*--resume") as e:
        train_direct(tmp_path / "run", tiny(), callbacks=[Watch(**{event: fails}), bystander])
    assert isinstance(e.value.__cause__, ZeroDivisionError)
    assert bystander.seen[-1][0] == "on_end"  # as what it opened must be closed
    at = {"on_update": 1, "on_validation": 3, "on_checkpoint": 2, "on_end": 6}[event]
    assert (tmp_path / "run" / "checkpoints" / f"update_{at:06d}.pt").exists()
    assert read_manifest(tmp_path / "run")["status"] == ("finished" if event == "on_end" else "stopped")
    train_direct(tmp_path / "run", tiny(), resume=True)
    train_direct(tmp_path / "straight", tiny())
    assert same(weights(tmp_path / "run"), weights(tmp_path / "straight"))


def test_pre_training_calls_with_what_its_shards_report(tmp_path: Path) -> None:
    shards = {}
    watch = Watch(on_checkpoint=lambda run: shards.update({run.shard: run.path}))
    summary = pre_train(tmp_path, watch)
    assert summary.finished
    assert shards == {name: tmp_path / "shards" / name for name in ("0-0000", "0-0001")}
    assert watch.steps("on_update")[-1] == 3  # teachers, in shards of two and one
    assert [run.shard for event, run in watch.seen if event == "on_validation"] == ["0-0000"] * 2 + ["0-0001"] * 2
    event, last = watch.seen[-1]
    assert (event, last.finished, last.policy, last.env_steps) == ("on_end", True, None, summary.env_steps)
    assert len(raptor.load_teachers(last.folder)) == 3


def test_pre_training_stops_and_resumes_to_the_same_teachers(tmp_path: Path) -> None:
    pre_train(tmp_path / "whole", Watch())
    summary = pre_train(tmp_path / "parts", Watch(on_validation=lambda run: False))
    assert (summary.finished, summary.stopped) == (False, True)
    with pytest.raises(UserError, match=r"Watch\.on_update failed at teacher 1.*ZeroDivisionError"):
        pre_train(tmp_path / "parts", Watch(on_update=fails), resume=True)
    assert pre_train(tmp_path / "parts", Watch(), resume=True).finished
    found = [(tmp_path / run / "teachers.safetensors").read_bytes() for run in ("whole", "parts")]
    assert found[0] == found[1]


def pre_train(output: Path, watch: Watch, resume: bool = False) -> PreTrainSummary:
    return raptor.pre_train(output, config=short_shards.tiny(), generate=3, resume=resume, callbacks=[watch])


def test_the_time_left_of_a_pre_training_counts_further_attempts(tmp_path: Path) -> None:
    watch = Watch()
    config = short_shards.tiny("max_attempts=2", "retrain_below=10000", "shard_size=3")
    raptor.pre_train(tmp_path, config=config, generate=3, callbacks=[watch])
    first, second = (run.remaining_s for event, run in watch.seen if event == "on_update" and run.step == 3)
    assert first > 0  # all are weak: as many teachers once more, twice as long
    assert second == 0


def test_post_training_calls_in_both_of_its_phases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "TEST_TASK", short_distillation.TEST_TASK)
    watch = Watch()
    summary = raptor.post_train(tmp_path, few_teachers(), short_distillation.tiny(), callbacks=[watch])
    updates = [run for event, run in watch.seen if event == "on_update"]
    assert [run.step for run in updates] == list(range(1, summary.total_steps + 1))
    assert list(dict.fromkeys(run.stage for run in updates)) == ["imitating", "fine-tuning"]
    assert watch.seen[-1][1].finished


def test_distillation_in_an_environment_can_be_stopped(tmp_path: Path) -> None:
    config = EnvDistillConfig(num_epochs=3, num_episodes=2, batch_size=2, num_validation_episodes=2, compile=False)
    watch = Watch(on_update=lambda run: run.step < 2)
    summary = raptor.distill(PointEnv(2), teacher, config, tmp_path, callbacks=[watch])
    assert (summary.finished, summary.num_steps) == (False, 2)
    assert watch.steps("on_update") == [1, 2]


def test_what_is_no_callback_is_refused_before_anything_is_written(tmp_path: Path, tiny: Tiny) -> None:
    for wrong in (print, [print]):
        with pytest.raises(UserError, match=r"must be objects of raptor\.training\.Callback, got <built-in function"):
            train_direct(tmp_path / "run", tiny(), callbacks=wrong)
    assert not (tmp_path / "run").exists()


def test_numpys_false_stops_too_and_what_is_no_answer_is_refused(tmp_path: Path, tiny: Tiny) -> None:
    watch = Watch(on_update=lambda run: np.bool_(run.step < 2))
    assert not train_direct(tmp_path / "stopped", tiny(), callbacks=[watch]).finished
    with pytest.raises(UserError, match=r"Watch\.on_update failed .*it must return None, True or False, got 0"):
        train_direct(tmp_path / "run", tiny(), callbacks=[Watch(on_update=lambda run: 0)])


def test_a_misspelt_event_is_refused() -> None:
    with pytest.raises(UserError, match=r"Mine\.on_epoch is never called: the events are on_update, on_validation"):
        type("Mine", (Callback,), {"on_epoch": fails})
