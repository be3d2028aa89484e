"""MuJoCo behind our interfaces: an independent witness of our own physics, and what it adds."""

from __future__ import annotations

import dataclasses
import importlib.util
import math
import sys

import pytest
import torch

from raptor.core.errors import MissingExtraError, UserError
from raptor.environments import QuadrotorEnv, make_env
from raptor.environments.episode import begin_episode
from raptor.evaluation import evaluate
from raptor.evaluation.evaluator import evaluate_conditions
from raptor.evaluation.suites import figure_eight
from raptor.formats import load_policy
from raptor.interop.mujoco import BODIES_AT_ONCE, MujocoSimulator
from raptor.nn import RaptorPolicy
from raptor.quadrotor import load_platform, load_platforms, step
from raptor.quadrotor.state import State
from raptor.tasks import InitialStates, References, Task
from raptor.tasks.imperfections import Deployment, Motors

needs_mujoco = pytest.mark.skipif(importlib.util.find_spec("mujoco") is None, reason="the extra sim is not installed")


def test_without_the_extra_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "mujoco", None)
    with pytest.raises(MissingExtraError, match=r"needs mujoco.*raptor-python\[sim\]"):
        MujocoSimulator()


@pytest.fixture
def platforms():
    """The nine named vehicles, flying about, under a force and a torque; in double precision."""
    quadrotors = load_platforms()
    start = begin_episode(Task(), quadrotors, torch.Generator().manual_seed(0))
    exact = quadrotors.to(dtype=torch.float64)
    force = exact.mass.unsqueeze(-1) * torch.tensor([1.0, -2.0, 0.5])
    torque = (exact.inertia @ torch.tensor([5.0, -4.0, 3.0], dtype=torch.float64)).squeeze(-1)
    return exact, State(*(part.double() for part in start.state.parts())), force, torque


@needs_mujoco
@pytest.mark.parametrize(("small", "num_steps", "tolerance"), [(1e-3, 20, 5e-4), (2e-4, 6, 2e-5)])
def test_without_drag_it_moves_as_our_own_physics_does_in_small_steps(
    small, num_steps, tolerance, platforms, actions, monkeypatch
):
    monkeypatch.setattr("raptor.interop.mujoco.TIME_STEP", small)
    quadrotors, begun, force, torque = platforms
    assert len(quadrotors) > BODIES_AT_ONCE  # more than one model
    simulate, theirs, ours = MujocoSimulator(), begun, begun
    for action in 2 * actions(num_steps, 9).double() - 1:
        theirs = simulate(quadrotors, theirs, action, 0.01, force, torque)
        for _ in range(round(0.01 / small)):
            ours = step(quadrotors, ours, action, small, force, torque)
    for name in ("position", "orientation", "linear_velocity", "angular_velocity", "rotor_speed"):
        torch.testing.assert_close(getattr(theirs, name), getattr(ours, name), rtol=1e-6, atol=tolerance)
    assert (theirs.angular_velocity - begun.angular_velocity).norm(dim=-1).min() > 0.1


@needs_mujoco
def test_drag_slows_a_fall_as_its_formula_says():
    quadrotors, drag, seconds = load_platform("x500_sim"), 0.3, 0.5
    task = Task(initial_states=InitialStates(guidance=1.0, rotor_speed=(0.0, 0.0)), references=References(0.0))
    state = begin_episode(task, quadrotors, torch.Generator().manual_seed(0)).state
    simulate = MujocoSimulator(drag=(drag, drag))
    for _ in range(round(seconds / task.dt)):
        state = simulate(quadrotors, state, -torch.ones(1, 4), task.dt)
    expected = -9.81 / drag * (1 - math.exp(-drag * seconds))
    assert state.linear_velocity[0].tolist() == pytest.approx([0, 0, expected], abs=1e-3)


@needs_mujoco
def test_a_vehicle_whose_numbers_are_not_finite_is_lost_alone(platforms):
    quadrotors, begun, *_ = platforms
    action = torch.zeros(9, 4, dtype=torch.float64)
    simulate = MujocoSimulator()
    expected, broken = simulate(quadrotors, begun, action), action.clone()
    broken[3, 1] = math.nan
    for part, other in zip(simulate(quadrotors, begun, broken).parts(), expected.parts(), strict=True):
        assert part[3].isnan().all()
        others = [0, 1, 2, 4, 5, 6, 7, 8]
        torch.testing.assert_close(part[others], other[others])


@needs_mujoco
def test_an_environment_in_mujoco_is_ours_with_other_dynamics(actions):
    theirs, ours = (
        make_env(3, ["crazyflie", "mrs", "race"], simulator=name, compile=False, auto_reset=False)
        for name in ("mujoco", "raptor")
    )
    for env in (theirs, ours):
        assert isinstance(env, QuadrotorEnv)
        env.reset(seed=1)
    for action in actions(20, 3) - 0.5:
        one, other = theirs.step(action), ours.step(action)
        torch.testing.assert_close(one.observation, other.observation, rtol=0.01, atol=0.01)
        assert torch.equal(one.done, other.done)


@needs_mujoco
def test_weak_motors_are_weak_in_mujoco_and_steps_of_many_lengths_are_refused():
    task = Task(motors=Motors(thrust=(0.7, 0.7), thrust_to_weight=1.01), references=References(langevin_share=0))
    theirs, ours = (
        make_env(3, ["mrs", "race", "soft"], simulator=name, task=task, compile=False, auto_reset=False)
        for name in ("mujoco", "raptor")
    )
    for env in (theirs, ours):
        env.reset(seed=1)
        for _ in range(20):
            env.step(torch.zeros(3, 4))
    torch.testing.assert_close(theirs.state.position, ours.state.position, rtol=0.01, atol=0.01)
    uneven = Task(deployment=Deployment(dt_factor=(0.8, 1.0)))
    env = make_env(2, ["mrs", "race"], simulator="mujoco", task=uneven, compile=False)
    env.reset(seed=1)
    with pytest.raises(UserError, match=r"leave task.deployment.dt_factor at \[1, 1\]"):
        env.step(torch.zeros(2, 4))


@needs_mujoco
def test_a_policy_that_observes_targets_ahead_flies_in_mujoco():
    policy = RaptorPolicy(observation_dim=6)
    policy.layout = {"observation": ["position_error", "position_error@+25"]}
    brief = dataclasses.replace(figure_eight(5.0, 1, 0, load_platforms()), num_steps=12)
    how = {"planned": {"figure-eight": [brief]}, "compile": False}
    theirs, ours = (
        evaluate_conditions({"it": policy}, **how, simulate=simulate)[0]["it"]["figure-eight"]["5s/position_rmse"]
        for simulate in (MujocoSimulator(), None)
    )
    assert theirs.value == pytest.approx(ours.value, rel=0.01)
    assert theirs != ours


@needs_mujoco
def test_policies_are_evaluated_in_mujoco():
    policies, vehicles = {"published": load_policy("published")}, load_platform("x500_real")
    how = {"suites": ["platforms"], "num_quadrotors": 16, "quadrotors": vehicles, "compile": False}
    theirs, ours = (
        evaluate(policies, **how, simulate=simulate).policies["published"]["platforms"]
        for simulate in (MujocoSimulator(), None)
    )
    assert theirs["return"].value == pytest.approx(ours["return"].value, abs=2)
    assert theirs["position_rmse"].value == pytest.approx(ours["position_rmse"].value, abs=2e-3)
    assert theirs["return"] != ours["return"]
