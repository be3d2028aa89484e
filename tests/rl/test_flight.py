"""A policy without memory acts and is trained like one with it."""

from __future__ import annotations

import pytest
import torch
from torch.utils import _pytree as pytree

from raptor.environments.episode import begin_episode, draw_noise, observe
from raptor.environments.rollout import Student
from raptor.nn.policy import MLPParameters, MLPPolicy
from raptor.quadrotor import sample_quadrotors
from raptor.rl.analytic_policy_gradient import SegmentGradient
from raptor.rl.objective import Objective
from raptor.rl.segment import RolloutState, StepInputs
from raptor.tasks import Lissajous, References, Sensing, Task

NUM, STEPS = 6, 5
TASK = Task(
    references=References(langevin_share=0.4, lissajous_share=0.4, lissajous=Lissajous(interval=(4, 8))),
    sensing=Sensing(position_noise=0.01, observation_delay=(0, 2), action_delay=(0, 1)),
)


def flight(dtype: torch.dtype = torch.float64, task: Task = TASK, num: int = NUM):
    generator = torch.Generator().manual_seed(1)
    quadrotors = sample_quadrotors(num, generator=generator, dtype=dtype).component_major()
    episode = begin_episode(task, quadrotors, generator)
    torch.manual_seed(0)
    parameters = pytree.tree_map(torch.Tensor.detach, MLPPolicy(hidden_dim=8).to(dtype).tensors())
    return parameters, quadrotors, episode, (), draw_noise(task, quadrotors.mass, generator, STEPS)


def learner(compile: bool = False, task: Task = TASK) -> SegmentGradient:
    return SegmentGradient(task, Objective(), compile=compile, controller=Student())


def test_a_memoryless_student_acts_on_what_the_policy_observes_and_hands_on_nothing():
    parameters, quadrotors, episode, memory, _ = flight()
    policy = MLPPolicy(hidden_dim=8).double()
    policy.load_state_dict(dict(zip(policy.state_dict(), parameters, strict=True)))
    action, remembered = Student().act(parameters, quadrotors, episode, memory)
    torch.testing.assert_close(action, policy(observe(episode))[0])
    assert remembered == ()


def test_its_gradient_through_the_simulator_is_that_of_autograd():
    parameters, quadrotors, episode, memory, noise = flight()
    gradient, segment = learner()(parameters, quadrotors, episode, memory, noise)
    leaves = MLPParameters(*(p.clone().requires_grad_() for p in parameters))
    moved, total = RolloutState.begin(episode, memory), 0.0
    for n in noise:
        draws = tuple(draw for draw in n if draw is not None)
        moved, cost, _ = learner().step(StepInputs(leaves, quadrotors, moved, draws))
        total = total + cost.sum()
    (total / (STEPS * NUM)).backward()
    assert isinstance(gradient, MLPParameters)
    assert segment.memory == ()
    assert segment.cost.shape == (STEPS, NUM)
    for ours, leaf in zip(gradient, leaves, strict=True):
        assert leaf.grad.norm() > 0
        torch.testing.assert_close(ours, leaf.grad, rtol=1e-9, atol=1e-12)


def test_a_step_down_its_gradient_flies_cheaper():
    parameters, *rest = flight()
    gradient, before = learner()(parameters, *rest)
    step = 1e-3 / sum(float(g.square().sum()) for g in gradient) ** 0.5
    moved = MLPParameters(*(p - step * g for p, g in zip(parameters, gradient, strict=True)))
    _, after = learner()(moved, *rest)
    slope = -step * sum(float(g.square().sum()) for g in gradient)
    assert float(after.cost.mean() - before.cost.mean()) == pytest.approx(slope, rel=0.05)


COMPILED = Task(references=References(langevin_share=1.0))  # which compiles in a fraction of the time


@pytest.fixture(scope="module")
def compiled() -> SegmentGradient:
    """A learner whose step forward is compiled."""
    parameters, quadrotors, episode, memory, noise = flight(torch.float32, COMPILED, num=16)
    draws = [tuple(draw for draw in n if draw is not None) for n in noise]
    made = learner(compile=True, task=COMPILED)
    made.fly(StepInputs(parameters, quadrotors, RolloutState.begin(episode, memory), draws[0]), draws)
    return made


def test_compiled_and_eager_agree(compiled: SegmentGradient):
    inputs = flight(torch.float32, COMPILED, num=16)
    expected, flown = learner(task=COMPILED)(*inputs)
    gradient, segment = compiled(*inputs)
    torch.testing.assert_close(segment.cost, flown.cost, rtol=1e-4, atol=1e-4)
    for ours, theirs in zip(gradient, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)
