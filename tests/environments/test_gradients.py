"""The gradient of rewards through steps, eager and compiled."""

from __future__ import annotations

import pytest
import torch

from raptor.core.compilation import compiler_problem
from raptor.environments import QuadrotorEnv
from raptor.quadrotor import sample_quadrotors
from raptor.tasks import Task, Termination

TASK = Task(termination=Termination(enabled=False))


def total_reward(env, actions):
    env.reset(seed=2)
    return sum(env.step(action).reward.sum() for action in actions)


def test_the_gradient_through_consecutive_steps_is_that_of_finite_differences(make_env, actions):
    env = make_env(2, torch.float64, task=TASK)
    flown = actions(6, 2).double().requires_grad_()
    (gradient,) = torch.autograd.grad(total_reward(env, flown), flown)
    direction = torch.randn(flown.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ahead = total_reward(env, flown + 1e-5 * direction)
        behind = total_reward(env, flown - 1e-5 * direction)
    torch.testing.assert_close((gradient * direction).sum(), (ahead - behind) / 2e-5, rtol=1e-6, atol=0)


def test_a_late_reward_reaches_early_actions_through_the_motion(make_env, actions):
    env = make_env(2, torch.float64, task=TASK)
    flown = actions(8, 2).double().requires_grad_()
    env.reset()
    for action in flown:
        result = env.step(action)
    (gradient,) = torch.autograd.grad(result.info["position_error"][1], flown)
    assert (gradient[:, 0] == 0).all()  # vehicles do not see each other
    # After n steps, an action has passed through rotor, velocity and position.
    assert (gradient[:5, 1].norm(dim=-1) > 0).all()


def test_detach_cuts_the_gradient(make_env, actions):
    env = make_env(2)
    early, late = actions(2, 2).requires_grad_().unbind(0)
    env.reset()
    env.step(early)
    env.detach()
    gradients = torch.autograd.grad(env.step(late).reward.sum(), [early, late], allow_unused=True)
    assert gradients[0] is None
    assert (gradients[1] != 0).any()


def test_a_new_start_cuts_the_gradient_of_its_vehicle_only(half_ending, actions):
    env = half_ending()
    early, late = actions(2, 4).requires_grad_().unbind(0)
    env.reset()
    env.step(early)
    (gradient,) = torch.autograd.grad(env.step(late).info["position_error"].sum(), early)
    assert (gradient[[0, 2]] == 0).all()
    assert (gradient[[1, 3]] != 0).any(-1).all()


def test_the_gradient_reaches_the_vehicles_parameters(actions):
    mass = torch.tensor([1.0, 2.0], requires_grad=True)
    quadrotors = sample_quadrotors(2, seed=0)
    env = QuadrotorEnv(quadrotors.map(lambda t: t * mass if t is quadrotors.mass else t), TASK, compile=False)
    (gradient,) = torch.autograd.grad(total_reward(env, actions(4, 2)), mass)
    assert (gradient != 0).all()


@pytest.mark.skipif(compiler_problem() is not None, reason="no compiler")
def test_compiled_steps_and_gradients_equal_eager_ones(half_ending, actions):
    results, gradients = [], []
    for compile in (False, True):
        env = half_ending(compile=compile, method="midpoint")
        flown = actions(4, 4).requires_grad_()
        env.reset(seed=2)
        steps = [env.step(action) for action in flown]
        total = sum(step.reward.sum() + step.info["position_error"].sum() for step in steps)
        (gradient,) = torch.autograd.grad(total, flown)
        gradients.append(gradient)
        with torch.no_grad():
            steps += [env.step(action) for action in flown]
        results.append([tensor.detach() for step in steps for tensor in (*step[:4], *step.info.values())])
    for eager, compiled in zip(*results, strict=True):
        torch.testing.assert_close(compiled, eager, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-3, atol=1e-5)
    assert (gradients[0][:2, [1, 3]].abs() > 0).any()
