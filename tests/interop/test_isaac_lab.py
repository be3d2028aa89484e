"""Isaac Lab's workflow, against a stand-in for Isaac Lab that keeps its contract."""

from __future__ import annotations

import copy
import importlib.util
import json
import re
import sys
from pathlib import Path

import gymnasium
import pytest
import torch
import typer
import yaml
from typer.testing import CliRunner

from raptor.cli import app
from raptor.core.errors import UserError
from raptor.formats import load_policy, save_policy
from raptor.interop.isaac_lab import override
from raptor.nn import MLPPolicy
from raptor.runs import read_curve

pytest.importorskip("tensordict")

FAKE = Path(__file__).parent / "fake_isaaclab"
SHORT = ("--device", "cpu", "--n_epochs", "2", "--num_episodes", "4", "--batch_size", "2", "--sequence_length", "4")
QUICK = ("agent.compile=false", "agent.epoch_teacher_forcing=1", "agent.num_validation_episodes=4")
TASKS = ("Isaac-Quadcopter-v0", "Isaac-Quadcopter-Direct-v0", "Isaac-Quadcopter-Pair-Direct-v0")


@pytest.fixture
def isaac(tmp_path, monkeypatch):
    """Isaac Lab as freshly installed; everything of it is forgotten afterwards."""
    monkeypatch.syspath_prepend(str(FAKE))
    monkeypatch.chdir(tmp_path)

    def forget():
        for name in [name for name in sys.modules if name.split(".")[0].startswith("isaaclab")]:
            del sys.modules[name]
        for name in TASKS:
            gymnasium.registry.pop(name, None)

    forget()
    yield
    forget()


def teacher(observation_dim=26):
    torch.manual_seed(0)
    policy = MLPPolicy(observation_dim, 8)
    with torch.no_grad():
        policy.output_layer.bias.fill_(0.3)
    save_policy(policy, "teacher.pt", {"what": "a teacher"})
    return "teacher.pt"


def invoke(*arguments):
    return CliRunner().invoke(app, ["distill-isaac", *map(str, arguments)])


def distil(*arguments, task=TASKS[0], checkpoint=None):
    """Run the command; the folder that it wrote, and what it printed."""
    checkpoint = checkpoint or teacher()
    result = invoke("--task", task, "--teacher_checkpoint", checkpoint, *SHORT, *QUICK, *arguments)
    assert result.exit_code == 0, (result.output, result.exception)
    return newest(), result.output


def stopped_before_training(monkeypatch):
    """The settings of the task and of the training that a command would train with, instead of its training."""
    seen = []

    def stop(env, expert, config, *others):
        seen.append((copy.deepcopy(env.cfg), config))
        raise typer.Exit

    monkeypatch.setattr("raptor.training.distillation.env_job.distill", stop)
    return seen


def newest():
    return max(Path("logs/distillation").glob("*/*"), key=lambda folder: folder.stat().st_mtime)


def settings(run):
    return yaml.safe_load((run / "params" / "agent.yaml").read_text())


def environment(run):
    return yaml.safe_load((run / "params" / "env.yaml").read_text())


def events():
    return sys.modules["isaaclab.app"].events


def test_a_manager_based_task_is_distilled_into_the_stated_folder_and_evaluates(isaac):
    run, output = distil("--num_envs", 3, "--seed", 7, "--experiment_name", "hover", "--run_name", "first")
    assert "Teacher architecture: obs=26, actions=4, hidden=[8, 8]" in output
    assert re.fullmatch(r"logs/distillation/hover/\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d_first", str(run))
    names = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    named = {
        "params/env.yaml",
        "params/agent.yaml",
        "checkpoint_epoch_000002.pt",
        "best_student.pt",
        "final_student.pt",
    }
    assert named <= names
    assert any(name.startswith("tensorboard/events.out.tfevents") for name in names)
    assert environment(run)["scene"]["num_envs"] == 3
    assert environment(run)["seed"] == settings(run)["seed"] == 7
    assert environment(run)["sim"]["device"] == settings(run)["device"] == "cpu"
    assert environment(run)["rewards"]["alive"] == {"weight": 1.0, "func": "builtins:print"}
    assert events() == [
        "launched on cpu, headless True",
        "ManagerBasedRLEnv with 3 environments, seed 7",
        "environment closed",
        "app closed",
    ]
    curve = read_curve(run)
    assert len(curve["training/loss"]) == 2
    assert curve["data_collection/mean_length"][0][1] <= 12
    result = CliRunner().invoke(app, f"evaluate {run} -s platforms --no-published --no-compile --json e.json".split())
    assert result.exit_code == 0, result.output
    assert "platforms" in Path("e.json").read_text()


@pytest.mark.parametrize(("task", "kind"), [(TASKS[1], "DirectRLEnv"), (TASKS[2], "DirectMARLEnv")])
def test_direct_and_multi_agent_tasks_are_distilled(isaac, task, kind):
    alone = task == TASKS[1]
    run, _ = distil(task=task, checkpoint=teacher(26 if alone else 22))
    assert f"{kind} with 8 environments, seed 0" in events()
    assert ("single agent" in events()) is not alone
    assert run.parent.name == task
    assert load_policy(run).observation_dim == 22
    assert read_curve(run)["data_collection/mean_length"][0][1] > 1


def test_videos_are_made_where_they_are_asked_for(isaac):
    run, _ = distil("--num_envs", 4, "--video", "--video_length", 5, "--video_interval", 8, "scene.num_envs=6")
    assert "cameras" in events()
    assert environment(run)["scene"]["num_envs"] == 4
    videos = sorted((run / "videos").glob("step_*"))
    assert [video.stem for video in videos[:3]] == ["step_000000000", "step_000000008", "step_000000016"]
    assert videos[0].stat().st_size > 100
    run, _ = distil("--run_name", "without")
    assert not (run / "videos").exists()


@pytest.mark.parametrize(
    ("flags", "setting", "value"),
    [
        (("--n_epochs", "3"), "num_epochs", 3),
        (("--num_epochs", "3"), "num_epochs", 3),
        (("--num_episodes", "9"), "num_episodes", 9),
        (("--batch_size", "3"), "batch_size", 3),
        (("--sequence_length", "6"), "sequence_length", 6),
        (("--learning_rate", "0.02"), "learning_rate", 0.02),
        (("--learning-rate", "0.02"), "learning_rate", 0.02),
        (("agent.learning_rate=0.02",), "learning_rate", 0.02),
        (("--epoch_teacher_forcing", "0"), "epoch_teacher_forcing", 0),
        (("--shuffle", "false"), "shuffle", False),
        (("--no-shuffle",), "shuffle", False),
        (("--shuffle=true",), "shuffle", True),
        (("--on_policy",), "on_policy", True),
        (("--on_policy", "true"), "on_policy", True),
        (("--on_policy", "--headless", "--enable_cameras"), "on_policy", True),
        (("--teacher_deterministic",), "teacher_deterministic", True),
        (("--teacher_deterministic", "true"), "teacher_deterministic", True),
        (("--no-teacher_deterministic",), "teacher_deterministic", False),
        (("student=mlp",), "student", {"kind": "mlp", "hidden_dim": 16}),
    ],
    ids=str,
)
def test_every_flag_becomes_a_setting(isaac, monkeypatch, flags, setting, value):
    seen = stopped_before_training(monkeypatch)
    result = invoke("--task", TASKS[0], "--teacher_checkpoint", teacher(), *SHORT, *QUICK, *flags)
    assert result.exit_code == 0, result.output
    from raptor.config import to_dict

    _, config = seen[0]
    assert to_dict(config)[setting] == value


@pytest.mark.parametrize("prefix", ["", "env."])
def test_settings_go_to_the_task_as_with_hydra(isaac, prefix):
    words = ("scene.num_envs=5", "sim.dt=0.02", "sim.gravity=[0,0,-1.62]", "rewards.alive.weight=2")
    run, _ = distil(*(f"{prefix}{word}" for word in words))
    cfg = environment(run)
    assert (cfg["scene"]["num_envs"], cfg["sim"]["dt"], cfg["sim"]["gravity"]) == (5, 0.02, [0, 0, -1.62])
    assert cfg["rewards"]["alive"]["weight"] == 2.0
    assert settings(run)["task_settings"] == list(words)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("env.rewards.alive=null",), {"rewards": {"alive": None}}),  # as one has no term of that name
        (("scene={num_envs: 3, env_spacing: 1}",), {"scene": {"num_envs": 3, "env_spacing": 1.0}}),
        (("++env.sim.dt=0.02",), {"sim": {"device": "cpu", "dt": 0.02, "gravity": [0.0, 0.0, -9.81]}}),
        (("env.seed=3",), {"seed": 3}),
        (("env.seed=3", "scene.num_envs=4", "--num_envs", "5"), {"scene": {"num_envs": 5, "env_spacing": 2.5}}),
    ],
    ids=str,
)
def test_groups_are_set_as_with_hydra(isaac, monkeypatch, words, expected):
    from raptor.training.distillation.env_job import plain_settings

    seen = stopped_before_training(monkeypatch)
    result = invoke("--task", TASKS[0], "--teacher_checkpoint", teacher(), "--device", "cpu", *words)
    assert result.exit_code == 0, result.output
    settings, _ = seen[0]
    assert plain_settings(settings) == plain_settings(settings) | expected


def test_a_run_goes_on_without_being_given_anything_again(isaac):
    run, _ = distil("scene.num_envs=5")
    for path in ("final_student.pt", "summary.json"):
        (run / path).unlink()
    result = invoke("--output", run, "--resume")
    assert result.exit_code == 0, result.output
    assert newest() == run
    assert "DirectRLEnv" not in str(events())
    assert events().count("ManagerBasedRLEnv with 5 environments, seed 0") == 2
    assert json.loads((run / "summary.json").read_text())["num_steps"] == 2


def test_options_of_the_launcher_reach_it(isaac):
    distil("--livestream", 2, "--headless")
    assert events()[1] == "livestream 2"
    assert events()[0] == "launched on cpu, headless True"
    distil("--no-headless", "--run_name", "second")
    assert "launched on cpu, headless False" in events()


def refusal(*arguments, task=TASKS[0], checkpoint=None):
    result = invoke("--task", task, "--teacher_checkpoint", checkpoint or teacher(), *SHORT, *QUICK, *arguments)
    assert result.exit_code == 2, result.output
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    return line


def test_a_task_that_isaac_lab_does_not_know_is_refused_with_those_that_come_near(isaac):
    line = refusal(task="Isaac-Quadcopter-Direkt-v0")
    assert "Isaac Lab knows no task 'Isaac-Quadcopter-Direkt-v0': did you mean Isaac-Quadcopter-Direct-v0" in line
    assert "app closed" not in events()  # closing ends the process of a real simulator, before the error is reported


def test_a_teacher_that_does_not_fit_is_refused_with_both_layouts(isaac):
    line = refusal(checkpoint=teacher(17))
    assert "the teacher observes 17 numbers and gives 4 actions" in line
    assert "policy (22), critic (26)" in line


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("scene.num_env=3",), "no setting scene.num_env: did you mean scene.num_envs?"),
        (("scene=3",), "scene is a group of the task's settings: give one of scene.num_envs"),
        (("scene.num_envs=many",), "scene.num_envs must be of the type int, as 8 is, got 'many'"),
        (("agent.learning_rat=1",), "learning_rat is unknown (command line): did you mean learning_rate?"),
        (("--livestream", "7"), "Isaac Lab's launcher refuses its arguments"),
        (("--n_epoch", "7"), "there is no option --n_epoch: did you mean --num-epochs?"),
        (("--max_iterations=7",), "there is no option --max_iterations: see --help"),
        (("--shuffle", "1"), "settings are given as key=value, got '1'"),
        (("+scene.spacing=3",), "no setting scene.spacing: did you mean scene.env_spacing?"),
        (("--n_epochs", "0"), "num_epochs must be at least 1, got 0"),
    ],
    ids=str,
)
def test_what_is_wrong_is_refused_in_one_sentence(isaac, words, expected):
    assert expected in refusal(*words)


@pytest.mark.skipif(importlib.util.find_spec("isaaclab") is not None, reason="Isaac Lab is installed")
def test_without_isaac_lab_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = refusal()
    assert "Isaac Lab is not installed in this Python (isaaclab, isaaclab_tasks, isaaclab_rl missing)" in line
    assert "https://isaac-sim.github.io/IsaacLab" in line
    assert not Path("logs").exists()


def test_nothing_but_the_launcher_is_imported_before_it_runs(isaac):
    with pytest.raises(ModuleNotFoundError, match="has not been launched"):
        import isaaclab.envs  # noqa: F401


def test_private_names_are_no_settings():
    class Cfg:
        _secret = 1

    with pytest.raises(UserError, match="no setting _secret"):
        override(Cfg(), "_secret", 2)
