"""Every script in examples/ runs and does what it says."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import raptor
from raptor.cli import app
from raptor.tasks import terms

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def registry(monkeypatch):
    """Terms that are declared last as long as a test."""
    monkeypatch.setattr(terms, "_registered", dict(terms._registered))
    monkeypatch.setattr(terms, "_extensions", {})


def load(name):
    specification = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_the_published_policy_holds_the_x500(capsys):
    figures = load("fly_published_policy").main(["--num-episodes", "16"])
    assert figures["mean return"] > 680
    assert figures["termination rate"] == 0
    assert figures["distance from the target at the end (m)"] < 0.05
    assert "published on x500_real, 16 episodes of 5 s" in capsys.readouterr().out


def test_a_tiny_training_improves_the_policy_and_saves_it(tmp_path):
    file = tmp_path / "tiny.pt"
    before, after = load("train_tiny_policy").main(["--output", str(file)])
    assert after > 1.5 * before
    policy = raptor.load_policy(file)
    assert policy.num_parameters == 2084
    assert policy.card["training"] == "40 updates"


def test_a_described_quadrotor_becomes_a_file_and_flies(tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "my_quadrotor.json").write_text("{}")  # of a run before
    figures = load("my_quadrotor").main(["--output", str(tmp_path / "mine"), "--num-episodes", "20"])
    document = json.loads((tmp_path / "mine" / "my_quadrotor.json").read_text())
    assert document["dynamics"]["mass"] == 0.78
    assert figures["thrust to weight"] == pytest.approx(4 * 7.5 / (0.78 * 9.81), rel=1e-5)
    assert figures["termination rate"] == 0
    assert figures["distance from the target, second half (m)"] < 0.1
    assert "hover_throttle = 0.505" in capsys.readouterr().out  # an estimate is printed


def test_a_policy_flies_through_gymnasium():
    one, many = load("gymnasium_loop").main(["--num-envs", "4", "--num-steps", "501"])
    assert one > 600
    assert len(many) >= 4  # each episode of 500 steps is over by now
    assert max(many) > 600


def test_a_teacher_of_stable_baselines3_is_distilled_in_mujoco(tmp_path, monkeypatch, capsys):
    pytest.importorskip("stable_baselines3")
    pytest.importorskip("mujoco")
    monkeypatch.chdir(tmp_path)
    arguments = "--env InvertedPendulum-v5 --steps 150 --num-envs 2 --num-epochs 1 --num-episodes 4 --no-compile"
    teacher, student = load("distill_mujoco").main(arguments.split())
    assert teacher.low <= teacher.value <= teacher.high
    assert student.value > 1
    said = capsys.readouterr().out
    assert "Teacher architecture: obs=4, actions=1, hidden=[64, 64]" in said
    assert f"the student reaches {student.value / teacher.value:.1%} of the teacher's return" in said


def test_a_teacher_of_rsl_rl_flies_beside_one_of_ours(tmp_path, capsys):
    pytest.importorskip("rsl_rl")
    folder = tmp_path / "log"
    arguments = f"--num-iterations 2 --num-envs 8 --num-steps 16 --hidden 16 16 --num-episodes 4 --output {folder}"
    figures = load("rsl_rl_teacher").main(arguments.split())
    assert -150 < figures["rsl_rl"] < 100  # two iterations teach nothing: it falls
    assert raptor.load_expert(folder / "model_1.pt").hidden == (16, 16)
    assert "num_envs: 8" in (folder / "params" / "env.yaml").read_text()
    assert "Teacher architecture: obs=26, actions=4, hidden=[16, 16]" in capsys.readouterr().out


def test_a_learner_of_ones_own_learns_within_seconds(capsys):
    before, after = load("my_learner").main(["--num-updates", "8"])
    assert after < 0.7 * before
    assert "update 8: reward" in capsys.readouterr().out


def test_a_trajectory_of_ones_own_is_flown(capsys):
    assert load("my_trajectory").main(["--seconds", "1"]) < 0.2
    assert "default flies the rose with race" in capsys.readouterr().out


def test_a_cost_of_ones_own_makes_the_policy_roll_slower_and_a_reward_of_ones_own_sees_it(registry, capsys):
    (rate, reward), (slow, more) = load("my_cost").main()
    assert slow < 0.8 * rate
    assert more > reward
    assert "trained with the cost" in capsys.readouterr().out


def test_gusts_make_flights_worse_and_training_in_them_another_policy(registry):
    calm, windy, trained, trained_in_gusts = load("my_disturbance").main().values()
    assert windy > 1.2 * calm
    assert abs(trained - trained_in_gusts) > 1e-5


def test_an_observation_of_ones_own_goes_with_the_policy(registry, tmp_path):
    file = tmp_path / "volt.pt"
    policy = load("my_observation").main(["--output", str(file)])
    assert policy.observation_dim == 23
    assert policy.layout["observation"][-1] == "voltage"
    assert policy.layout["extra"] == {"voltage": {"full": 4.2, "drop": 0.2}}
    fly = ["evaluate", str(file), "--no-published", "-s", "unseen", "--num-quadrotors", "2", "--no-compile"]
    del terms._registered["voltage"]
    refused = CliRunner().invoke(app, fly)
    assert refused.exit_code == 2
    assert "there is no term voltage: hand over the file that declares it with --extend FILE" in refused.stderr
    flown = CliRunner().invoke(app, [*fly, "--extend", str(EXAMPLES / "my_observation.py")])
    assert flown.exit_code == 0, flown.output


def test_no_example_is_left_out():
    tested = {
        "my_cost",
        "my_disturbance",
        "my_observation",
        "fly_published_policy",
        "train_tiny_policy",
        "my_learner",
        "my_quadrotor",
        "my_trajectory",
        "gymnasium_loop",
        "distill_mujoco",
        "rsl_rl_teacher",
    }
    assert {path.stem for path in EXAMPLES.glob("*.py")} == tested
