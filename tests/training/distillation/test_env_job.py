"""Distillation in any environment: a student without the velocity learns from a teacher with it."""

from __future__ import annotations

import dataclasses
import json
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from point_env import PointEnv, teacher

from raptor.config import load_config
from raptor.core.errors import UserError
from raptor.formats import load_policy
from raptor.nn import MLPPolicy, RaptorPolicy
from raptor.runs import read_curve, stopping
from raptor.runs.checkpoints import Checkpoints
from raptor.training.distillation.env_job import EnvDistillConfig, distill, load_env_distill_config, log_folder
from raptor.training.distillation.learner import Distiller
from raptor.viewer.videos import RecordedVecEnv

TINY = (
    "num_epochs=4",
    "num_episodes=6",
    "batch_size=4",
    "sequence_length=10",
    "epoch_teacher_forcing=1",
    "num_data_epochs=2",
    "num_validation_episodes=4",
    "validation_interval=2",
    "checkpoint_interval=1",
    "keep_checkpoints=9",
    "compile=false",
)


def settings(*overrides):
    return load_config(EnvDistillConfig, None, [*TINY, *overrides])


class Noisy:
    """The teacher, with exploration noise, and widths that say what fits."""

    observation_dim, action_dim = 2, 1

    def __call__(self, observation):
        return teacher(observation)

    def sample(self, observation, generator):
        action = teacher(observation)
        return action + torch.randn(action.shape, generator=generator)


def weights(run, name="final_student.pt"):
    return torch.load(Path(run) / name, weights_only=True)["weights"]


def test_a_recurrent_student_infers_what_it_does_not_see(tmp_path):
    options = ("num_epochs=20", "learning_rate=2e-2", "num_episodes=8", "sequence_length=20", "num_data_epochs=4")
    config = settings(*options)
    config = dataclasses.replace(config, epoch_teacher_forcing=5, num_validation_episodes=8, checkpoint_interval=20)
    summary = distill(PointEnv(8), Noisy(), config, tmp_path / "gru")
    assert summary.finished
    assert summary.teacher["mean_return"] > 30
    assert summary.best["mean_return"] > 0.95 * summary.teacher["mean_return"]
    loss = [value for _, value in read_curve(tmp_path / "gru")["training/loss"]]
    assert loss[-1] < 0.4 * max(loss)  # which is highest when the student begins to fly
    student = load_policy(tmp_path / "gru")
    assert isinstance(student, RaptorPolicy)
    assert (student.observation_dim, student.action_dim) == (1, 1)
    blind = distill(
        PointEnv(8), Noisy(), dataclasses.replace(config, student=settings("student=mlp").student), tmp_path / "mlp"
    )
    assert isinstance(load_policy(tmp_path / "mlp"), MLPPolicy)
    assert blind.best["mean_return"] < 0.8 * summary.best["mean_return"]  # which it cannot without memory


def test_the_folder_holds_everything(tmp_path):
    summary = distill(PointEnv(), teacher, settings("task=Points"), tmp_path / "run")
    run = tmp_path / "run"
    assert yaml.safe_load((run / "params" / "env.yaml").read_text()) == {"num_envs": 4, "bound": 2.0}
    assert load_env_distill_config(run) == settings("task=Points")
    assert len(list(run.glob("checkpoint_epoch_*.pt"))) == 4
    assert list((run / "tensorboard").glob("events.out.tfevents.*"))
    written = json.loads((run / "summary.json").read_text())
    assert written["best"] == summary.best
    assert written["repeatable"]
    curve = read_curve(run)
    assert len(curve["training/loss"]) == 4
    assert [epoch for epoch, _ in curve["evaluation/mean_return"]] == [2, 4]
    assert load_policy(run).card["results"]["validation mean_return"] == summary.best["mean_return"]
    assert "distilled from one teacher in Points" in load_policy(run).card["training"]


@pytest.mark.parametrize(
    "overrides", [(), ("student=mlp", "on_policy=true"), ("teacher_deterministic=false",)], ids=str
)
def test_a_run_that_was_killed_goes_on_to_the_same_bits(tmp_path, monkeypatch, overrides):
    config = settings(*overrides)
    distill(PointEnv(), Noisy(), config, tmp_path / "whole")
    write = Checkpoints.write

    def killed(self, step, *arguments):
        path = write(self, step, *arguments)
        if step == 3:
            raise RuntimeError("killed")
        return path

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "write", killed)
        with pytest.raises(RuntimeError, match="killed"):
            distill(PointEnv(), Noisy(), config, tmp_path / "halves")
    assert not (tmp_path / "halves" / "final_student.pt").exists()
    summary = distill(PointEnv(), Noisy(), None, tmp_path / "halves", resume=True)
    assert summary.finished
    whole, halves = weights(tmp_path / "whole"), weights(tmp_path / "halves")
    assert all(torch.equal(whole[name], halves[name]) for name in whole)
    assert weights(tmp_path / "whole", "best_student.pt").keys() == whole.keys()
    curves = [read_curve(tmp_path / name)["training/loss"] for name in ("whole", "halves")]
    assert curves[0] == curves[1]


def test_an_environment_that_takes_no_seed_is_resumed_all_the_same(tmp_path):
    class Unseeded(PointEnv):
        def reset(self):
            return super().reset()

    said = []
    config = settings()
    distill(Unseeded(), teacher, config, tmp_path, announce=said.append)
    assert "takes no seed" in said[0]
    (tmp_path / "checkpoint_epoch_000004.pt").unlink()
    summary = distill(Unseeded(), teacher, None, tmp_path, resume=True)
    assert summary.finished
    assert not summary.repeatable
    assert "cannot be set back to a seed" in (tmp_path / "train.log").read_text()


def test_a_request_to_stop_ends_the_flights_and_keeps_the_last_epoch(tmp_path, monkeypatch):
    monkeypatch.setattr(stopping, "PATIENCE_S", 0.1)
    update = Distiller.update

    def stop_in_the_third(self):
        if self.step_count == 2:
            signal.raise_signal(signal.SIGINT)
            time.sleep(60)
        return update(self)

    monkeypatch.setattr(Distiller, "update", stop_in_the_third)
    summary = distill(PointEnv(), teacher, settings(), tmp_path)
    assert not summary.finished
    assert summary.num_steps == 2
    assert (tmp_path / "checkpoint_epoch_000002.pt").exists()


def test_each_environment_flies_the_same_number_of_whole_episodes(tmp_path):
    seen = []

    class Counting(PointEnv):
        def reset(self, seed=None):
            seen.append(seed)
            return super().reset(seed)

    distill(Counting(4), teacher, settings("num_episodes=5"), tmp_path)  # rounded up to 2 for each of 4
    steps = dict(read_curve(tmp_path)["data_collection/num_steps"])
    lengths = dict(read_curve(tmp_path)["data_collection/mean_length"])
    assert steps == {epoch: 8 * length for epoch, length in lengths.items()}
    flown = [seed for seed in seen if seed is not None]
    assert len(flown) == 7  # the teacher's test, four epochs, two evaluations
    assert flown[0] == flown[3] == flown[6]  # evaluations fly the same episodes,
    assert len(set(flown)) == 5  # and each epoch others


def test_a_teacher_flies_with_its_noise_where_it_is_told_to(tmp_path):
    calm = distill(PointEnv(), Noisy(), settings("num_epochs=1", "validation_interval=1"), tmp_path / "calm")
    curve = read_curve(tmp_path / "calm")["data_collection/mean_return"]
    distill(PointEnv(), Noisy(), settings("num_epochs=1", "teacher_deterministic=false"), tmp_path / "noisy")
    noisy = read_curve(tmp_path / "noisy")["data_collection/mean_return"]
    assert noisy[0][1] < curve[0][1] - 0.5
    assert calm.teacher["mean_return"] > 30
    with pytest.raises(UserError, match="no method `sample` for noise: set teacher_deterministic=true"):
        distill(PointEnv(), teacher, settings("teacher_deterministic=false"), tmp_path / "none")


class Wide(Noisy):
    observation_dim = 3


@pytest.mark.parametrize(
    ("expert", "overrides", "expected"),
    [
        (Wide(), (), r"observes 3 numbers and gives 1 actions, but .* policy \(1\), critic \(2\)"),
        (Noisy(), ("teacher_group=policy",), r"observes 2 numbers .* but group policy has 1 numbers"),
        (Noisy(), ("teacher_group=camera",), r"no group 'camera': choose among policy \(1\), critic \(2\)"),
        (Noisy(), ("student_group=camera",), "no group 'camera'"),
        (lambda seen: seen, (), r"must give actions of shape \(4, 1\), got \(4, 2\)"),
        (Noisy(), ("memory_gib=0.1",), r"16 episodes of up to 40 steps take .* lower num_episodes or num_data_epochs"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(tmp_path, expert, overrides, expected):
    with pytest.raises(UserError, match=expected):
        distill(PointEnv(), expert, settings(*overrides), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_teacher_can_see_two_groups(tmp_path):
    distill(PointEnv(), Wide.__call__.__get__(Noisy()), settings("num_epochs=1"), tmp_path / "one")
    both = lambda seen: teacher(seen[:, 1:])  # noqa: E731
    distill(PointEnv(), both, settings("num_epochs=1", "teacher_group=policy+critic"), tmp_path / "two")
    assert torch.equal(weights(tmp_path / "one")["output_layer.bias"], weights(tmp_path / "two")["output_layer.bias"])


def test_a_run_does_not_change_its_teacher_or_its_settings(tmp_path):
    distill(PointEnv(), teacher, settings(), tmp_path)
    (tmp_path / "checkpoint_epoch_000004.pt").unlink()
    with pytest.raises(UserError, match="learns from another teacher"):
        distill(PointEnv(), lambda seen: -teacher(seen), None, tmp_path, resume=True)
    with pytest.raises(UserError, match="learning_rate"):
        distill(PointEnv(), teacher, settings("learning_rate=1e-4"), tmp_path, resume=True)
    with pytest.raises(UserError, match="already holds a run"):
        distill(PointEnv(), teacher, settings(), tmp_path)
    distill(PointEnv(), teacher, settings("num_epochs=1"), tmp_path, overwrite=True)
    assert not (tmp_path / "checkpoint_epoch_000002.pt").exists()


def test_the_environment_that_rsl_rl_trains_in_is_one(tmp_path):
    pytest.importorskip("rsl_rl")
    from raptor.interop.rsl_rl_env import RslRlVecEnv

    torch.manual_seed(0)
    expert = MLPPolicy(26, 8)
    env = RslRlVecEnv(4, compile=False, episode_steps=12)
    summary = distill(env, lambda seen: expert(seen)[0], settings("num_epochs=2"), tmp_path)
    assert summary.finished
    student = load_policy(tmp_path)
    assert (student.observation_dim, student.action_dim) == (22, 4)
    environment = yaml.safe_load((tmp_path / "params" / "env.yaml").read_text())
    assert environment["task"]["episode_steps"] == 12


def test_videos_of_a_resumed_run_stand_beside_those_before(tmp_path):
    class Shown(PointEnv):
        def render(self):
            return np.zeros((4, 4, 3), np.uint8)

    for resume, expected in ((False, [0, 8]), (True, [0, 8, 16, 24]), (False, [0, 8, 16, 24])):
        env = RecordedVecEnv(Shown(), tmp_path, length=2, interval=8, resume=resume)
        for _ in range(12):
            env.step(torch.zeros(4, 1))
        env.finish_video()
        assert sorted(int(video.stem.removeprefix("step_")) for video in tmp_path.iterdir()) == expected


def test_videos_need_something_to_show(tmp_path):
    with pytest.raises(UserError, match="renders nothing that could be recorded"):
        distill(PointEnv(), teacher, settings("video=true"), tmp_path)


def test_the_folder_is_named_by_experiment_time_and_run():
    config = settings("task=a/Task-v0", "run_name=second")
    assert log_folder(config).parent.as_posix() == "logs/distillation/a_Task-v0"
    assert log_folder(config).name.endswith("_second")
    assert log_folder(settings("experiment_name=mine")).parent.name == "mine"
