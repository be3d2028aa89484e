"""Packaged presets: valid, found under their job, and those of the paper as published."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from raptor.config import differences, load_config, presets
from raptor.config.files import read_files
from raptor.core.errors import UserError
from raptor.tasks import Task
from raptor.training import TrainDirectConfig
from raptor.training.distillation.config import PostTrainConfig
from raptor.training.teachers.config import PreTrainConfig


def written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_the_old_name_of_a_preset_is_refused_with_the_new_one() -> None:
    with pytest.raises(UserError, match=r"^the preset quickstart is called small now$"):
        read_files("quickstart", "run")


@pytest.mark.parametrize(
    "config", [TrainDirectConfig(), PreTrainConfig(), PostTrainConfig()], ids=lambda config: type(config).__name__
)
def test_every_preset_of_a_job_is_valid_and_changes_something(config: Any) -> None:
    job = getattr(config, "JOB", "train-direct")
    names = presets(job)
    assert names
    for name in names:
        assert differences(config, load_config(type(config), name)), name


def test_a_preset_is_found_under_the_job_that_it_is_of(tmp_path: Path) -> None:
    assert presets() == presets("train-direct") == ["agile", "large", "paper", "vehicle"]
    assert presets("pre-train") == ["paper"]
    assert load_config(PreTrainConfig, "paper").algorithm == "sac"
    file = written(tmp_path / "mine.yaml", "base: paper\nsac: {batch_size: 7}\n")
    mine = load_config(PreTrainConfig, file)
    assert (mine.algorithm, mine.sac.batch_size, mine.sac.entropy_bonus) == ("sac", 7, "undiscounted")
    with pytest.raises(UserError, match=r"there is no configuration file large: .* one of the presets paper$"):
        load_config(PreTrainConfig, "large")


def test_the_student_of_the_paper_learns_as_published() -> None:
    config = load_config(PostTrainConfig, "paper")
    assert (config.num_epochs, config.num_episodes, config.epoch_teacher_forcing) == (1000, 10, 10)
    assert (config.batch_size, config.sequence_length, config.learning_rate) == (64, 500, 1e-4)
    assert (config.epsilon, config.variance_floor, config.gradient_norm) == (1e-7, 1e-7, None)
    assert (config.final_learning_rate, config.warm_up_batches) == (1, 0)
    assert config.on_policy
    assert config.shuffle
    assert config.teacher_deterministic
    assert config.steady_state_position_correction
    assert config.num_active_teachers is None
    assert (config.num_teacher_episodes, config.solved_return, config.weak_teachers) == (100, 300, "refuse")
    assert (config.best_by, config.fine_tune.num_updates) == ("data_collection", 0)
    assert config.flown_task == Task.paper()
    assert (config.student.kind, config.student.hidden_dim) == ("gru", 16)


def test_the_teachers_of_the_paper_start_within_ten_arm_lengths_and_learn_as_published() -> None:
    config = load_config(PreTrainConfig, "paper")
    assert config.task.initial_states.max_position is None
    sac = config.sac
    assert (sac.num_steps, sac.num_envs, sac.start_steps, sac.updates_per_step) == (1_000_000, 1, 10_000, 1)
    assert (sac.gamma, sac.batch_size, sac.polyak, sac.target_entropy) == (0.99, 128, 0.005, -2.0)
    assert (sac.actor_widths, sac.critic_widths, sac.replay.capacity) == ((64, 64), (256, 256), 1_000_000)


def test_a_preset_can_be_a_base(tmp_path: Path) -> None:
    file = written(tmp_path / "mine.yaml", "base: large\nnum_updates: 5\n")
    config = load_config(TrainDirectConfig, file)
    assert (config.hidden_dim, config.num_updates) == (64, 5)


def test_the_paper_preset_flies_the_task_of_the_paper() -> None:
    from raptor.tasks import Task

    task = load_config(TrainDirectConfig, "paper").task
    paper = Task.paper()
    assert (task.target_visible, task.clip_previous_action) == (paper.target_visible, paper.clip_previous_action)
    assert task.references.lissajous_share == paper.references.lissajous_share
    assert task.references.langevin_share == paper.references.langevin_share
