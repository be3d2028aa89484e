"""`raptor distill`: a teacher of stable-baselines3 in an environment that has nothing to do with quadrotors."""

from __future__ import annotations

import json
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from raptor.cli.distill import respell, split_overrides
from raptor.formats import load_policy, save_policy
from raptor.nn import MLPPolicy, RaptorPolicy
from raptor.runs import read_curve

QUICK = ("agent.compile=false", "agent.validation_interval=1")


@pytest.fixture
def teacher(tmp_path, monkeypatch):
    """A teacher of Pendulum-v1 that does anything."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    save_policy(MLPPolicy(3, 8, 1), "teacher.pt", {"what": "a teacher"})
    return "teacher.pt"


def short(*arguments):
    flags = ("--n_epochs", 2, "--num_episodes", 4, "--num_envs", 2, "--epoch_teacher_forcing", 1, "--batch_size", 2)
    return ("distill", "--env", "Pendulum-v1", *flags, "env.max_episode_steps=20", *QUICK, *arguments)


def test_a_teacher_of_stable_baselines3_is_distilled_into_a_recurrent_student_in_mujoco(raptor, tmp_path, monkeypatch):
    stable_baselines3 = pytest.importorskip("stable_baselines3")
    pytest.importorskip("mujoco")
    monkeypatch.chdir(tmp_path)
    envs = stable_baselines3.common.env_util.make_vec_env("InvertedPendulum-v5", 4, seed=0)
    settings = {"n_steps": 256, "gamma": 0.95, "learning_rate": 1e-3, "policy_kwargs": {"net_arch": [32, 32]}}
    stable_baselines3.PPO("MlpPolicy", envs, seed=0, device="cpu", **settings).learn(20_000).save("ppo.zip")
    said = raptor(
        *("distill", "--env", "InvertedPendulum-v5", "--teacher", "ppo.zip", "-o", "run", "--seed", 0),
        *("--num_envs", 8, "--num_episodes", 8, "--n_epochs", 20, "--epoch_teacher_forcing", 3, "--batch_size", 8),
        *(
            "--sequence_length",
            32,
            "--learning_rate",
            2e-2,
            "agent.final_learning_rate=0.1",
            "env.max_episode_steps=200",
        ),
        *("agent.compile=false", "agent.num_validation_episodes=16"),
    )
    assert "Teacher architecture: obs=4, actions=1, hidden=[32, 32]" in said
    summary = json.loads(Path("run/summary.json").read_text())
    assert summary["teacher"]["mean_return"] > 150
    assert summary["best"]["mean_return"] >= 0.9 * summary["teacher"]["mean_return"]
    assert isinstance(load_policy("run"), RaptorPolicy)


def test_a_run_is_a_folder_in_the_logs_and_goes_on(raptor, teacher):
    said = raptor(*short("--teacher", teacher, "--experiment_name", "swing", "agent.student=mlp", "env.g=9"))
    assert "Teacher architecture: obs=3, actions=1, hidden=[8, 8]" in said
    (run,) = Path("logs/distillation/swing").iterdir()
    assert "trained 2 epochs in" in said
    assert str(run) in said
    environment = yaml.safe_load((run / "params" / "env.yaml").read_text())
    assert environment["kwargs"]["g"] == 9
    assert environment["max_episode_length"] == 20
    assert len(read_curve(run)["evaluation/mean_return"]) == 2
    assert isinstance(load_policy(run), MLPPolicy)
    for file in ("final_student.pt", "checkpoint_epoch_000002.pt"):
        (run / file).unlink(missing_ok=True)
    assert "trained 2 epochs" in raptor("distill", "--output", run, "--resume")
    assert (run / "final_student.pt").exists()
    raptor(*short("--teacher", teacher, "-o", run, "--overwrite"))
    assert isinstance(load_policy(run), RaptorPolicy)


class Stripes(gymnasium.Env):
    """Shows as many stripes as steps have gone by."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}  # noqa: RUF012
    observation_space = gymnasium.spaces.Box(-1, 1, (3,))
    action_space = gymnasium.spaces.Box(-1, 1, (1,))

    def __init__(self, render_mode=None):
        self.render_mode, self.count = render_mode, 0

    def reset(self, *, seed=None, options=None):
        self.count = 0
        return np.zeros(3, np.float32), {}

    def step(self, action):
        self.count += 1
        return np.zeros(3, np.float32), 1.0, False, False, {}

    def render(self):
        picture = np.zeros((16, 32, 3), np.uint8)
        picture[:, : self.count] = 255
        return picture


def test_the_first_environment_is_filmed(raptor, teacher):
    gymnasium.register("Stripes-v0", Stripes, max_episode_steps=6)
    flags = ("--video", "--video_length", 4, "--video-interval", 10, "--num_envs", 2, "--num_episodes", 2)
    flags = (*flags, "--n_epochs", 1, "--epoch_teacher_forcing", 1, "agent.num_validation_episodes=2", *QUICK)
    raptor("distill", "--env", "Stripes-v0", "--teacher", teacher, "-o", "run", *flags)
    films = sorted(Path("run/videos").iterdir())  # of 6 steps in the teacher's test, 6 to train on, 6 in the evaluation
    assert [film.stem for film in films] == ["step_000000000", "step_000000010"]
    if films[1].suffix == ".gif":
        with Image.open(films[1]) as film:
            assert (film.n_frames, film.size) == (4, (32, 16))


@pytest.mark.parametrize("env", ["module_of_stripes:OwnStripes-v0", "raptor/Hover-v0"])
def test_an_environment_may_be_named_by_the_module_that_registers_it_or_be_our_own(raptor, tmp_path, monkeypatch, env):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    Path("module_of_stripes.py").write_text(
        "import gymnasium\nfrom gymnasium.envs.classic_control import PendulumEnv\n"
        "gymnasium.register('OwnStripes-v0', PendulumEnv, max_episode_steps=6)\n"
    )
    own = env == "raptor/Hover-v0"
    save_policy(MLPPolicy(*((22, 8, 4) if own else (3, 8, 1))), "teacher.pt", {"what": "a teacher"})
    flags = ("--n_epochs", 1, "--num_episodes", 2, "--num_envs", 2, "--epoch_teacher_forcing", 1, "--batch_size", 2)
    Path("mine.yaml").write_text("name: mine\nmass: 0.7\n")
    Path("line.csv").write_text("t,x,y,z\n0,0,0,0\n1,1,0,0\n")
    ours = ("env.compile=false", "-q", "mine.yaml", "-q", "race", "--reference", "line.csv") if own else ()
    settings = ("agent.num_validation_episodes=2", *ours, *QUICK)
    said = raptor("distill", "--env", env, "--teacher", "teacher.pt", "-o", "run", *flags, *settings)
    assert "trained 1 epoch in" in said
    assert load_policy("run").action_dim == (4 if own else 1)
    if own:
        kwargs = yaml.safe_load(Path("run/params/env.yaml").read_text())["kwargs"]
        assert kwargs["quadrotor"] == [str(tmp_path / "mine.yaml"), "race"]
        assert kwargs["references"] == {"trajectory": str(tmp_path / "line.csv")}
        assert kwargs["termination"] == {"about_target": True}
    gymnasium.registry.pop("OwnStripes-v0", None)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ("--env", "Pendulum-v1", "--teacher", "teacher.pt", "-q", "race"),
            "--quadrotor is for raptor/Hover-v0 and its siblings, not for Pendulum-v1: leave it out",
        ),
        (
            ("--env", "Pendulum-v1", "--teacher", "teacher.pt", "--reference", "circle"),
            "--reference is for raptor/Hover-v0 and its siblings, not for Pendulum-v1: leave it out",
        ),
        (("--env", "nowhere:Own-v0", "--teacher", "teacher.pt"), "the module 'nowhere' of 'nowhere:Own-v0' cannot be"),
        (("--env", "Pendulum-v1"), "the teacher is not named"),
        (("--teacher", "teacher.pt"), "the environment is not named"),
        (("--env", "Pendulums-v1", "--teacher", "teacher.pt"), "the environment 'Pendulums-v1' cannot be made"),
        (("--env", "CartPole-v1", "--teacher", "teacher.pt"), "the actions of CartPole-v1 must be a Box"),
        (("--env", "Pendulum-v1", "--teacher", "none.pt"), "none.pt"),
        (("--env", "Pendulum-v1", "--teacher", "teacher.pt", "--teacher-activation", "elu"), "got the activation elu"),
        (("--env", "Pendulum-v1", "--teacher", "teacher.pt", "--teacher_normalizer", "v.pkl"), "got the normalizer"),
        (("--env", "MountainCarContinuous-v0", "--teacher", "teacher.pt"), "observes 3 numbers and gives 1 actions"),
        (
            ("--env", "Pendulum-v1", "--teacher", "teacher.pt", "--n_epochs", "0"),
            "num_epochs must be at least 1, got 0",
        ),
        (("--env", "Pendulum-v1", "--teacher", "teacher.pt", "agent.n_epoch=3"), "n_epoch is unknown"),
        (
            ("--env", "Pendulum-v1", "--teacher", "teacher.pt", "agent.n_epochs=3"),
            "n_epochs is unknown (command line): it",
        ),
        (("--env", "Pendulum-v1", "--teacher", "teacher.pt", "n_epochs=3"), "it is called num_epochs now"),
        (("--env", "Pendulum-v1", "--teacher", "teacher.pt", "fast"), "settings are given as key=value, got 'fast'"),
        (("--resume", "-o", "nowhere"), "there is no run in nowhere, and the environment is not named"),
        (("--resume",), "--resume goes on with the run in --output DIR"),
        (("--resume", "logs/run"), "--resume is a switch: give the folder as --output logs/run --resume"),
        (("--resume", "-o", "run", "--overwrite"), "the environment is not named"),
        (("--env", "Pendulum-v1", "--n_epoch", "3"), "No such option: --n_epoch"),
    ],
    ids=str,
)
def test_what_is_wrong_is_told_in_one_sentence(teacher, refused_after_words, arguments, expected):
    assert expected in refused_after_words("distill", *arguments)
    assert not Path("logs").exists()


@pytest.fixture
def refused_after_words():
    """Run a command that must be refused in one sentence, whatever it printed of the teacher before."""
    from typer.testing import CliRunner

    from raptor.cli import app

    def run(*arguments):
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert result.exit_code == 2, (result.output, result.exception)
        (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
        return line

    return run


def test_switches_and_hyphens_are_understood():
    declared = {"--shuffle", "--no-shuffle", "--num-envs", "--n-epochs"}
    given = ["--num_envs", "3", "--shuffle", "false", "--shuffle", "scene.a=1", "--shuffle=True", "--other_one", "-o"]
    expected = ["--num-envs", "3", "--no-shuffle", "--shuffle", "scene.a=1", "--shuffle", "--other_one", "-o"]
    assert list(respell(given, declared, {"--shuffle"})) == expected


def test_the_help_shows_every_setting_with_its_meaning_limit_and_default():
    from typer.testing import CliRunner

    from raptor.cli import app

    text = CliRunner().invoke(app, ["distill", "--help"], env={"COLUMNS": "240", "TERM": "dumb"}).stdout
    for words in ("--num-envs", "--num-epochs,--n-epochs", "at least 1; 60 by default", "--no-on-policy", "--resume"):
        assert words in text


def test_settings_are_told_apart_by_their_first_word():
    words = ["agent.student=mlp", "env.seed=3", "++scene.num_envs=4", "learning_rate=1", "--what", "word", "~a=1"]
    training, environment, others = split_overrides(words)
    assert training == ["student=mlp", "learning_rate=1"]
    assert environment == ["seed=3", "scene.num_envs=4"]
    assert others == ["--what", "word", "~a=1"]
