"""Our policy and our teachers in rsl_rl's own algorithms."""

from __future__ import annotations

import pytest
import torch
from rollouts import fly
from rsl_rl.runners import DistillationRunner, OnPolicyRunner
from tensordict import TensorDict

import raptor
from raptor.core.errors import UserError
from raptor.formats import save_teachers
from raptor.interop.rsl_rl_env import RslRlVecEnv
from raptor.interop.rsl_rl_student import RaptorStudent, TeacherModel
from raptor.nn import TeacherPopulation
from raptor.nn.stacked_mlp import Layer, initial_layers
from raptor.quadrotor import sample_quadrotors
from raptor.tasks import Task
from raptor.tasks.reward import Termination

ROOM = "raptor.interop.rsl_rl_student:"
GROUPS = {"student": ["policy"], "teacher": ["teacher"]}


def observations(num, seed=0):
    generator = torch.Generator().manual_seed(seed)
    seen = {name: torch.randn(num, width, generator=generator) for name, width in (("policy", 22), ("teacher", 26))}
    return TensorDict(seen, batch_size=[num])


@pytest.fixture
def teachers(generator):
    """Two teachers that act differently, about a common action."""
    layers = list(initial_layers(2, (26, 16, 4), generator))
    layers[-1] = Layer(layers[-1].weight, torch.tensor([0.8, -0.6, 0.6, -0.8]).expand(2, 4))
    return TeacherPopulation(tuple(layers), sample_quadrotors(2, seed=0))


@pytest.fixture
def runner(teachers, tmp_path):
    """rsl_rl's runner for distillation, two teachers with eight environments each."""
    torch.manual_seed(0)
    save_teachers(teachers, tmp_path / "teachers")
    env = RslRlVecEnv(16, teachers.quadrotors, compile=False, episode_steps=20, termination=Termination(enabled=False))
    config = {
        "num_steps_per_env": 20,
        "save_interval": 100,
        "obs_groups": dict(GROUPS),
        "student": {"class_name": ROOM + "RaptorStudent"},
        "teacher": {"class_name": ROOM + "TeacherModel", "teachers": str(tmp_path / "teachers")},
        "algorithm": {
            "class_name": ROOM + "PopulationDistillation",
            "num_learning_epochs": 2,
            "gradient_length": 10,
            "learning_rate": 1e-2,
        },
    }
    return DistillationRunner(env, config, str(tmp_path / "log"))


def losses_of(runner, monkeypatch):
    """The losses that the runner hands to its logger from now on."""
    losses = []
    log = runner.logger.log
    monkeypatch.setattr(
        runner.logger, "log", lambda **figures: (losses.append(figures["loss_dict"]["behavior"]), log(**figures))
    )
    return losses


def test_its_own_distillation_teaches_our_policy_which_is_saved_and_flies(runner, teachers, tmp_path, monkeypatch):
    losses = losses_of(runner, monkeypatch)
    before = runner.alg.student.to_policy()
    runner.learn(12)
    assert losses[-1] < 0.3 * losses[0]
    runner.alg.student.save(tmp_path / "student.pt", {"licence": "MIT"})
    student = raptor.load_policy(tmp_path / "student.pt")
    assert student.card["training"] == "distilled with rsl_rl"
    assert student.num_parameters == 2084
    # In its own flights it does what the teacher of each vehicle does; before, it did not.
    assert error_in_flight(student, teachers) < 0.5 * error_in_flight(before, teachers)


def error_in_flight(policy, teachers):
    """Mean distance between what a policy does in flight and what the teacher of its vehicle would do."""
    env = RslRlVecEnv(2, teachers.quadrotors, compile=False, termination=Termination(enabled=False), seed=9)
    model = TeacherModel(env.get_observations(), GROUPS, "teacher", 4, teachers)
    hidden, errors = None, []
    with torch.no_grad():
        for _ in range(20):
            seen = env.get_observations()
            action, hidden = policy(seen["policy"], hidden)
            errors.append((action - model(seen)).square().mean())
            env.step(action)
    return torch.stack(errors).mean().item()


def test_the_student_that_is_saved_is_evaluated(runner, tmp_path):
    runner.alg.student.save(tmp_path / "student.pt")
    policy = raptor.load_policy(tmp_path / "student.pt")
    task = Task(episode_steps=20)
    episodes, _, _ = fly(policy, task, sample_quadrotors(3, seed=1), torch.Generator().manual_seed(0))
    assert episodes.returns.isfinite().all()


def test_a_checkpoint_goes_on_with_its_own_teachers_only(runner, teachers, tmp_path):
    runner.learn(1)
    runner.save(str(tmp_path / "model.pt"))
    weights = {name: tensor.clone() for name, tensor in runner.alg.student.state_dict().items()}
    runner.learn(1)
    runner.load(str(tmp_path / "model.pt"))
    assert all(torch.equal(tensor, weights[name]) for name, tensor in runner.alg.student.state_dict().items())
    runner.alg.teacher = runner.alg._raw_teacher = TeacherModel(observations(16), GROUPS, "teacher", 4, teachers[:1])
    with pytest.raises(UserError, match="the checkpoint was made with other teachers"):
        runner.load(str(tmp_path / "model.pt"))


def test_the_student_answers_as_the_policy_it_becomes_and_forgets_where_an_episode_ended():
    student = RaptorStudent(observations(3), GROUPS, "student", 4, hidden_dim=8)
    policy = student.to_policy()
    hidden = policy.initial_hidden_state(3)
    with torch.no_grad():
        for step in range(4):
            seen = observations(3, seed=step)
            action, hidden = policy(seen["policy"], hidden)
            torch.testing.assert_close(student(seen), action)
            ended = torch.tensor([0, step % 2, 1])
            student.reset(ended)
            hidden = torch.where(ended[:, None] == 1, policy.initial_hidden_state(3), hidden)


def test_what_the_library_exports_is_the_whole_policy(tmp_path):
    student = RaptorStudent(observations(1), GROUPS, "student", 4)
    exported = torch.jit.script(student.as_jit())
    policy, hidden = student.to_policy(), None
    with torch.no_grad():
        for step in range(3):
            seen = observations(1, seed=step)["policy"]
            action, hidden = policy(seen, hidden)
            torch.testing.assert_close(exported(seen), action)


def test_ppo_trains_the_policy_as_its_actor():
    torch.manual_seed(0)
    env = RslRlVecEnv(8, compile=False, episode_steps=10)
    config = {
        "num_steps_per_env": 16,
        "save_interval": 100,
        "obs_groups": {"actor": ["policy"], "critic": ["teacher"]},
        "actor": {"class_name": ROOM + "RaptorStudent"},
        "critic": {"class_name": "MLPModel", "hidden_dims": [16]},
        "algorithm": {"class_name": "PPO", "num_mini_batches": 2},
    }
    runner = OnPolicyRunner(env, config)
    before = runner.alg.actor.to_policy()
    runner.learn(1)
    after = runner.alg.actor.to_policy()
    moved = [not torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=True)]
    assert sum(moved) == 8  # all but the initial hidden state
    assert all(parameter.isfinite().all() for parameter in runner.alg.actor.parameters())


def test_each_teacher_acts_for_its_own_environments(teachers):
    seen = observations(6)
    actions = TeacherModel(seen, GROUPS, "teacher", 4, teachers)(seen)
    for i in range(6):
        expected = teachers[i % 2](seen["teacher"][i].expand(1, 1, -1))
        torch.testing.assert_close(actions[i], expected[0, 0])


def test_teachers_that_do_not_fit_the_environment_are_refused(teachers):
    with pytest.raises(UserError, match="the teachers see 26 numbers and give 4, but the groups policy have 22"):
        TeacherModel(observations(4), {"teacher": ["policy"]}, "teacher", 4, teachers)
    with pytest.raises(UserError, match="2 teachers cannot share 5 environments evenly"):
        TeacherModel(observations(5), GROUPS, "teacher", 4, teachers)
