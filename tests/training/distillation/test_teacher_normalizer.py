"""The statistics that a teacher of stable-baselines3 was trained with, in the quadrotor environment."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from foreign_files import OBSERVATIONS, Box, stable_baselines3

from raptor.core.errors import UserError
from raptor.training.distillation.teachers import TeacherFile, read_source, teacher_files


def test_the_statistics_of_a_teacher_become_part_of_its_first_layer(tmp_path: Path) -> None:
    vec_env = pytest.importorskip("stable_baselines3.common.vec_env", reason="needs the extra sb3")
    predict = stable_baselines3(tmp_path / "model.zip", "PPO", policy_kwargs={"net_arch": [9]})
    env = vec_env.VecNormalize(vec_env.DummyVecEnv([Box]))
    env.obs_rms.mean, env.obs_rms.var = np.linspace(-1, 2, 26), np.linspace(0.5, 2, 26)
    env.save(tmp_path / "statistics.pkl")
    (teacher,) = teacher_files([tmp_path / "model.zip"], ["mrs"], normalizer=tmp_path / "statistics.pkl")
    teachers, description = read_source(TeacherFile(**teacher.document()))
    wanted = predict(torch.from_numpy(env.normalize_obs(OBSERVATIONS.numpy())))
    torch.testing.assert_close(teachers(OBSERVATIONS[None])[0], wanted, rtol=1e-5, atol=1e-5)
    assert "statistics of statistics.pkl" in description


def test_statistics_without_a_teacher_are_refused() -> None:
    with pytest.raises(UserError, match=r"--teacher-\* are of a teacher: give its file with --teacher"):
        teacher_files([], [], normalizer="statistics.pkl")
