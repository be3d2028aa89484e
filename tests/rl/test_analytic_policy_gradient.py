from __future__ import annotations

import dataclasses
import functools

import pytest
import torch

from raptor.environments.episode import advance, begin_episode, draw_noise, observe_as_teacher
from raptor.nn.policy import PolicyParameters, RaptorPolicy
from raptor.nn.stacked_mlp import Layer, forward, initial_layers
from raptor.quadrotor import sample_quadrotors
from raptor.quadrotor.state import State, component_major, components, from_components
from raptor.rl import analytic_policy_gradient
from raptor.rl.analytic_policy_gradient import SegmentGradient
from raptor.rl.objective import Objective, TeacherGuide, step_cost
from raptor.rl.segment import RolloutState, StepInputs
from raptor.tasks import Air, Deployment, Lissajous, Motors, References, Sensing, Task, Termination, Trajectory
from raptor.tasks.terms import find_term

TASK = Task(
    references=References(langevin_share=0.4, lissajous_share=0.4, lissajous=Lissajous(interval=(4, 8))),
    sensing=Sensing(position_noise=0.01, observation_delay=(0, 2), action_delay=(0, 1)),
)
IMPERFECT = dataclasses.replace(
    TASK,
    sensing=dataclasses.replace(TASK.sensing, position_bias=0.1, lost=(0.2, 0.4), velocity_delay=(0, 2)),
    motors=Motors(thrust=(0.7, 1.5), weakest=(0.8, 1), sag=(0, 0.1)),
    air=Air(drag=(0, 0.3), wind=(0, 3), gusts=(0, 1)),
    deployment=Deployment(position_limit=(0.1, 1), velocity_limit=(0.3, 2), dt_factor=(0.8, 1)),
    each_share=0.7,
)
BOXED = Objective(box=10.0, velocity=0.1)


def flight(num: int = 6, steps: int = 4, task: Task = TASK, dtype: torch.dtype = torch.float64):
    generator = torch.Generator().manual_seed(1)
    quadrotors = sample_quadrotors(num, generator=generator, dtype=dtype).component_major()
    episode = begin_episode(task, quadrotors, generator)
    torch.manual_seed(0)
    policy = RaptorPolicy(hidden_dim=8).to(dtype)
    parameters = PolicyParameters(*(p.detach() for p in policy.tensors()))
    memory = (policy.initial_hidden_state(num).detach(),)
    return parameters, quadrotors, episode, memory, draw_noise(task, quadrotors.mass, generator, steps)


def autograd_gradient(segment_gradient: SegmentGradient, parameters, quadrotors, episode, memory, noise):
    leaves = PolicyParameters(*(p.clone().requires_grad_() for p in parameters))
    moved, total = RolloutState.begin(episode, memory), 0.0
    for n in noise:
        draws = tuple(draw for draw in n if draw is not None)
        moved, cost, _ = segment_gradient.step(StepInputs(leaves, quadrotors, moved, draws))
        total = total + cost.sum()
    (total / (len(noise) * len(quadrotors))).backward()
    return [p.grad for p in leaves]


@pytest.mark.parametrize("method", ["rk4", "midpoint"])
def test_the_adjoint_walk_gives_the_gradient_that_autograd_gives(method):
    inputs = flight()
    segment_gradient = SegmentGradient(TASK, BOXED, method=method, compile=False)
    gradient, segment = segment_gradient(*inputs)
    expected = autograd_gradient(segment_gradient, *inputs)
    assert segment.cost.shape == (4, 6)
    for ours, theirs in zip(gradient, expected, strict=True):
        assert theirs.norm() > 0
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("about_target", [True, False])
def test_the_gradient_with_a_trajectory_and_its_yaw_is_that_of_autograd(about_target):
    references = References(langevin_share=0.5, trajectory=Trajectory("circle"))
    circle = find_term("circle")(radius=(0.5, 3.0), period=4.0, facing=True)
    task = Task(references=references, termination=Termination(about_target=about_target), extra=[circle])
    inputs = flight(task=task)
    segment_gradient = SegmentGradient(task, BOXED, compile=False)
    gradient, segment = segment_gradient(*inputs)
    assert not torch.equal(segment.episode.reference.yaw, inputs[2].reference.yaw)
    for ours, theirs in zip(gradient, autograd_gradient(segment_gradient, *inputs), strict=True):
        assert theirs.norm() > 0
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_the_gradient_with_every_imperfection_is_that_of_autograd():
    inputs = flight(num=12, steps=6, task=IMPERFECT)
    segment_gradient = SegmentGradient(IMPERFECT, BOXED, compile=False)
    gradient, _ = segment_gradient(*inputs)
    for ours, theirs in zip(gradient, autograd_gradient(segment_gradient, *inputs), strict=True):
        assert theirs.norm() > 0
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


class Nagging:
    """A guide that wants the same action everywhere."""

    def __init__(self, action, weight):
        self.action, self.weight = action, torch.tensor(weight, dtype=action.dtype)

    def labels(self, quadrotors, episodes):
        return [component_major(self.action.expand(len(quadrotors), 4)) for _ in episodes]


def test_a_guide_adds_the_gradient_of_the_squared_difference_from_its_actions():
    parameters, quadrotors, episode, memory, noise = flight(num=4, steps=3)
    wanted = torch.tensor([0.3, -0.2, 0.1, 0.5], dtype=torch.float64)
    segment_gradient = SegmentGradient(TASK, BOXED, compile=False)
    inputs = (parameters, quadrotors, episode, memory, noise)
    plain, _ = segment_gradient(*inputs)
    guided, segment = segment_gradient(*inputs, guide=Nagging(wanted, 0.7))
    unchanged, _ = segment_gradient(*inputs, guide=Nagging(wanted, 0.0))
    leaves = PolicyParameters(*(p.clone().requires_grad_() for p in parameters))
    moved, total = RolloutState.begin(episode, memory), 0.0
    for n in noise:
        action, _ = segment_gradient.controller.act(leaves, quadrotors, moved.episode, moved.memory)
        draws = tuple(draw for draw in n if draw is not None)
        moved, _, _ = segment_gradient.step(StepInputs(leaves, quadrotors, moved, draws))
        total = total + 0.7 * ((action - wanted) ** 2).mean(-1).sum()
    expected = torch.autograd.grad(total / segment.cost.numel(), leaves)
    for with_guide, without, same, added in zip(guided, plain, unchanged, expected, strict=True):
        assert added.norm() > 0
        torch.testing.assert_close(with_guide - without, added, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(same, without, rtol=1e-12, atol=1e-14)


def test_teachers_guide_their_own_vehicles():
    _, quadrotors, episode, _, noise = flight(num=6)
    layers = initial_layers(3, (26, 8, 4), torch.Generator().manual_seed(0), torch.float64)
    later, _ = advance(TASK, quadrotors, episode, torch.zeros(6, 4, dtype=torch.float64), noise[0])
    labels = TeacherGuide(layers, compile=False).labels(quadrotors, [episode, later])
    for label, seen in zip(labels, (episode, later), strict=True):
        observation = observe_as_teacher(quadrotors, seen)
        for i in range(6):
            own = tuple(Layer(*(tensor[i // 2 : i // 2 + 1] for tensor in layer)) for layer in layers)
            torch.testing.assert_close(label[i], torch.tanh(forward(own, observation[i][None, None]))[0, 0])
        assert label.mT.is_contiguous()


def test_the_gradient_is_the_slope_of_the_cost():
    parameters, *rest = flight()
    segment_gradient = SegmentGradient(TASK, BOXED, compile=False)
    gradient, _ = segment_gradient(parameters, *rest)
    generator = torch.Generator().manual_seed(3)
    direction = PolicyParameters(*(torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in parameters))
    h = 1e-6

    def cost(sign: float) -> float:
        moved = PolicyParameters(*(p + sign * h * d for p, d in zip(parameters, direction, strict=True)))
        return segment_gradient(moved, *rest)[1].cost.mean().item()

    slope = sum(float((g * d).sum()) for g, d in zip(gradient, direction, strict=True))
    assert slope == pytest.approx((cost(1) - cost(-1)) / (2 * h), rel=1e-5)


def glide(quadrotors, state: State, action: torch.Tensor, dt: float, **others) -> State:
    """A simulator of a few operations, which compiles in a fraction of the time."""
    pushed = [a + 0.1 * v for a, v in zip(components(action), components(state.rotor_speed), strict=True)]
    x, y, z, _ = pushed
    velocity = [v + dt * a for v, a in zip(components(state.linear_velocity), (x, y, z), strict=True)]
    position = [p + dt * v for p, v in zip(components(state.position), velocity, strict=True)]
    rates = [w - dt * a for w, a in zip(components(state.angular_velocity), (x, y, z), strict=True)]
    w, *turned = components(state.orientation)
    orientation = [w, *(q + dt * r for q, r in zip(turned, rates, strict=True))]
    return State(*map(from_components, (position, orientation, velocity, rates, pushed)))


def test_compiled_and_eager_agree_and_a_second_segment_needs_no_new_code(monkeypatch: pytest.MonkeyPatch):
    """With a guide, whose backward pass is the other one and more; `test_flight` compiles the simulator itself."""
    monkeypatch.setattr(analytic_policy_gradient, "advance", functools.partial(advance, simulate=glide))
    task = Task(references=References(langevin_share=1.0))
    parameters, quadrotors, _, _, noise = inputs = flight(num=16, steps=2, task=task, dtype=torch.float32)
    guide = Nagging(torch.tensor([0.3, -0.2, 0.1, 0.5]), 0.7)
    eager, compiled = (SegmentGradient(task, Objective(), compile=compile) for compile in (False, True))
    expected, flown = eager(*inputs, guide=guide)
    gradient, segment = compiled(*inputs, guide=guide)
    for ours, theirs in zip(gradient, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(segment.episode.state.as_tensor(), flown.episode.state.as_tensor(), rtol=1e-4, atol=1e-4)
    compiled(parameters, quadrotors, segment.episode, segment.memory, noise, guide=guide)
    (steps,) = compiled._compiled.values()
    assert [len(step._graphs) for step in (steps.forward, steps.backward)] == [1, 1]


def test_a_vehicle_that_leaves_its_bounds_is_held_there_and_costs_nothing_more():
    parameters, quadrotors, episode, memory, noise = flight(steps=6, task=Task(), dtype=torch.float32)
    velocity = episode.state.linear_velocity.clone()
    velocity[2] = 1e4
    thrown = dataclasses.replace(episode, state=dataclasses.replace(episode.state, linear_velocity=velocity))
    gradient, segment = SegmentGradient(Task(), Objective(), compile=False)(
        parameters, quadrotors, thrown, memory, noise
    )
    assert segment.alive.tolist() == [1, 1, 0, 1, 1, 1]
    assert segment.cost[:, 2].abs().sum() == 0
    assert all(torch.isfinite(g).all() for g in gradient)
    others = torch.tensor([0, 1, 3, 4, 5])
    _, calm = SegmentGradient(Task(), Objective(), compile=False)(parameters, quadrotors, episode, memory, noise)
    torch.testing.assert_close(segment.cost[:, others], calm.cost[:, others])


def test_a_vehicle_with_parameters_that_are_not_finite_does_not_spoil_the_gradient_of_the_others():
    parameters, quadrotors, episode, memory, noise = flight(steps=3, task=Task(), dtype=torch.float32)
    broken = dataclasses.replace(
        quadrotors, inertia_inverse=quadrotors.inertia_inverse.index_fill(0, torch.tensor([1]), 1e30)
    )
    gradient, segment = SegmentGradient(Task(), Objective(), compile=False)(parameters, broken, episode, memory, noise)
    assert segment.alive.tolist() == [1, 0, 1, 1, 1, 1]
    assert all(torch.isfinite(g).all() for g in gradient)


def test_a_tight_limit_on_the_adjoint_shrinks_what_comes_from_later_steps():
    inputs = flight(steps=8)
    free, _ = SegmentGradient(TASK, Objective(), compile=False)(*inputs)
    tight, _ = SegmentGradient(TASK, Objective(), adjoint_limit=1e-9, compile=False)(*inputs)
    decayed, _ = SegmentGradient(TASK, Objective(), gradient_decay=0.0, compile=False)(*inputs)
    assert not torch.allclose(free.output_bias, tight.output_bias)
    torch.testing.assert_close(tight.output_bias, decayed.output_bias, rtol=1e-6, atol=1e-8)


def test_the_cost_grows_with_every_error_it_is_meant_to_see():
    generator = torch.Generator().manual_seed(0)
    task = Task(references=References(0.0))
    quadrotors = sample_quadrotors(1, generator=generator)
    episode = begin_episode(task, quadrotors, generator)
    still = dataclasses.replace(
        episode,
        state=dataclasses.replace(
            episode.state,
            position=torch.zeros(1, 3),
            orientation=torch.tensor([[1.0, 0, 0, 0]]),
            linear_velocity=torch.zeros(1, 3),
        ),
        previous_action=torch.zeros(1, 4),
    )

    def cost(action: float = 0.0, **changes: torch.Tensor) -> float:
        following = dataclasses.replace(still, state=dataclasses.replace(still.state, **changes))
        return step_cost(BOXED, Task(), quadrotors, still, torch.full((1, 4), action), following).item()

    rest = cost()
    assert cost(position=torch.tensor([[0.3, 0, 0]])) > rest + 0.25
    assert cost(position=torch.tensor([[0, 0, 0.95 * quadrotors.position_threshold.item()]])) > rest + 0.5
    assert cost(orientation=torch.tensor([[0.8, 0, 0, 0.6]])) > rest + 0.1
    assert cost(orientation=torch.tensor([[0.8, 0.6, 0, 0]])) == pytest.approx(rest)
    assert cost(linear_velocity=torch.tensor([[0, 1.9, 0]])) > cost(linear_velocity=torch.tensor([[0, 1.5, 0]])) + 0.3
    assert cost(action=0.5) == pytest.approx(rest + 1.0, abs=0.01)
    assert cost(action=1.5) > cost(action=1.0) + 1.0 + 0.9
