"""Demonstrations are those of a slow loop over vehicles, episodes and steps."""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from raptor.environments.collectors import Episodes
from raptor.environments.episode import Noise, advance, begin_episode, draw_noise, observe, observe_as_teacher
from raptor.environments.rollout import Student, StudentParameters, initial_memory
from raptor.nn.activations import RELU_TANH, Activations
from raptor.nn.policy import MLPPolicy, RaptorPolicy
from raptor.nn.stacked_mlp import Layer, Layers, initial_layers
from raptor.quadrotor import Quadrotors, sample_quadrotors
from raptor.rl.demonstrations import DemonstrationFlight, Demonstrations, SimulatedDemonstrations
from raptor.rl.teacher_test import TeacherTest
from raptor.tasks.observation import Sensing
from raptor.tasks.reward import Termination
from raptor.tasks.task import Task

NUM, EPISODES, SEED, STEPS = 3, 2, 3, 14
TASK = Task(episode_steps=STEPS, termination=Termination(linear_velocity=1.0))
HIDDEN_TARGET = dataclasses.replace(TASK, target_visible=False, clip_previous_action=False)
IMPERFECT = dataclasses.replace(
    TASK,
    sensing=Sensing(position_noise=0.1, noise_scale=(0.5, 2.0), observation_delay=(0, 2), action_delay=(0, 1)),
)
OFFSET = torch.tensor([[0.1, 0.0, -0.2], [0.0, 0.3, 0.0], [0.05, -0.1, 0.4]])


def vehicles() -> Quadrotors:
    return sample_quadrotors(NUM, seed=8)


def networks() -> Layers:
    *hidden, last = initial_layers(NUM, (26, 8, 4), torch.Generator().manual_seed(2))
    hover = torch.atanh((2 * vehicles().hover_throttle - 1).clamp(-0.9, 0.9)).unsqueeze(-1)
    return (*hidden, Layer(0.5 * last.weight, hover.expand_as(last.bias).clone()))


def student(kind: str) -> StudentParameters | None:
    if kind == "teachers":
        return None
    torch.manual_seed(1)
    policy = RaptorPolicy(hidden_dim=6) if kind == "gru" else MLPPolicy(hidden_dim=6)
    return pytree.tree_map(torch.Tensor.detach, policy.tensors())


def source(
    task: Task = TASK, offset: Tensor = OFFSET, quadrotors: Quadrotors | None = None, **more
) -> SimulatedDemonstrations:
    """In several blocks, of several labellings each."""
    few = {"block_steps": 5}
    flight = DemonstrationFlight(task, EPISODES, **{"compile": False, **few, **more})
    return SimulatedDemonstrations(flight, quadrotors or vehicles(), networks(), offset)


def collect(who: StudentParameters | None, *arguments, **options) -> tuple[Demonstrations, Episodes]:
    data = Demonstrations.empty(NUM * EPISODES, STEPS, OFFSET)
    return data, source(*arguments, **options).collect(who, generator(), data)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(SEED)


class Row(NamedTuple):
    observation: Tensor
    label: Tensor
    reward: Tensor
    over: Tensor


CLIPPED = Activations("elu", "clip")


def answer(layers: Layers, observation: Tensor, activations: Activations) -> Tensor:
    """What one teacher does, (B, 4), by the formula."""
    first, last = (Layer(*(tensor[0] for tensor in layer)) for layer in layers)
    hidden = first.weight @ observation.mT + first.bias.unsqueeze(-1)
    hidden = torch.where(hidden > 0, hidden, torch.expm1(hidden) if activations == CLIPPED else 0.0)
    output = (last.weight @ hidden + last.bias.unsqueeze(-1)).mT
    return output.clamp(-1, 1) if activations == CLIPPED else torch.tanh(output)


def slowly(
    task: Task, who: StudentParameters | None, teacher_noise: float, activations: Activations
) -> list[list[Row]]:
    """The rows of each episode, the episodes of a vehicle next to each other."""
    everyone, source = vehicles().repeat_interleave(EPISODES), generator()
    start = begin_episode(task, everyone, source)
    noise, deviations = [], []
    for num in (5, 5, 4):
        noise += draw_noise(task, everyone.mass, source, num)
        if who is None and teacher_noise:
            deviations += list(teacher_noise * torch.randn(num, 4, NUM * EPISODES, generator=source).mT)
    episodes = []
    for n in range(NUM * EPISODES):
        vehicle, t = everyone[n : n + 1], n // EPISODES
        episode = pytree.tree_map(lambda tensor, n=n: tensor[n : n + 1], start)
        memory = () if who is None else initial_memory(who, 1)
        own = tuple(Layer(*(tensor[t : t + 1] for tensor in layer)) for layer in networks())
        rows: list[Row] = []
        while len(rows) < STEPS and not (rows and rows[-1].over):
            step = len(rows)
            label = answer(own, observe_as_teacher(vehicle, episode), activations)
            if who is None:
                action = label + deviations[step][n : n + 1] if teacher_noise else label
            else:
                action, memory = Student().act(who, vehicle, episode, memory)
            seen = observe(episode)[0].clone()
            seen[:3] -= OFFSET[t]
            its_noise = Noise(*(None if draw is None else draw[n : n + 1] for draw in noise[step]))
            episode, rating = advance(task, vehicle, episode, action, its_noise)
            rows.append(Row(seen, label[0], rating.reward[0], rating.terminated[0]))
        episodes.append(rows)
    return episodes


@pytest.mark.parametrize(
    ("kind", "task"),
    [
        ("gru", TASK),
        ("gru", HIDDEN_TARGET),
        ("gru", IMPERFECT),
        ("mlp", TASK),
        ("teachers", HIDDEN_TARGET),
        ("noisy teachers", IMPERFECT),
        ("clipped gru", TASK),
        ("clipped teachers", TASK),
    ],
    ids=["gru", "hidden target", "imperfect sensors", "mlp", "teachers", "noisy teachers", "clipped", "clipped fly"],
)
def test_they_are_those_of_a_slow_loop(kind: str, task: Task) -> None:
    who, teacher_noise = student(kind.split()[-1]), 0.3 * kind.startswith("noisy")
    activations = CLIPPED if kind.startswith("clipped") else RELU_TANH
    data, outcome = collect(who, task, teacher_noise=teacher_noise, activations=activations)
    episodes = slowly(task, who, teacher_noise, activations)
    assert data.length.tolist() == [len(rows) for rows in episodes]
    assert torch.equal(outcome.lengths.flatten(), data.length.float())
    assert outcome.terminated.flatten().tolist() == [bool(rows[-1].over) for rows in episodes]
    returns = torch.stack([sum(row.reward for row in rows) for rows in episodes])
    torch.testing.assert_close(outcome.returns.flatten(), returns, rtol=1e-3, atol=1e-2)
    for e, rows in enumerate(episodes):
        assert not data.observation[e, len(rows) :].any()
        assert not data.label[e, len(rows) :].any()
        for s, row in enumerate(rows):
            torch.testing.assert_close(data.observation[e, s], row.observation, rtol=1e-3, atol=1e-4)
            torch.testing.assert_close(data.label[e, s], row.label, rtol=1e-3, atol=1e-4)
    assert 0 < outcome.terminated.sum() < NUM * EPISODES


@pytest.mark.parametrize("kind", ["gru", "teachers"])
def test_the_offset_is_taken_off_the_stored_position_and_changes_nothing_else(kind: str) -> None:
    data, outcome = collect(student(kind))
    plain, plain_outcome = collect(student(kind), offset=torch.zeros(NUM, 3))
    flown = torch.arange(STEPS) < data.length.unsqueeze(-1)
    apart = (plain.observation - data.observation).unflatten(0, (NUM, EPISODES))
    expected = OFFSET[:, None, None] * flown.unflatten(0, (NUM, EPISODES)).unsqueeze(-1)
    torch.testing.assert_close(apart[..., :3], expected)
    assert not apart[..., 3:].any()
    assert torch.equal(data.label, plain.label)
    assert all(torch.equal(a, b) for a, b in zip(outcome, plain_outcome, strict=True))


def test_the_returns_of_teachers_are_those_of_their_test() -> None:
    _, outcome = collect(None)
    tested = TeacherTest(TASK, vehicles(), EPISODES, SEED, compile=False, block_steps=5)(networks())
    torch.testing.assert_close(outcome.returns, tested.returns)
    assert torch.equal(outcome.lengths, tested.lengths)
    assert torch.equal(outcome.terminated, tested.terminated)


@pytest.mark.parametrize("kind", ["gru", "teachers"])
def test_a_vehicle_that_is_not_finite_ends_its_episode_and_leaves_the_others_alone(kind: str) -> None:
    thrust = vehicles().rotor_thrust_coefficients.clone()
    thrust[0] = math.inf
    broken = dataclasses.replace(vehicles(), rotor_thrust_coefficients=thrust)
    data, outcome = collect(student(kind), quadrotors=broken)
    whole, whole_outcome = collect(student(kind))
    assert (outcome.lengths[0] == 1).all()
    assert outcome.terminated[0].all()
    assert all(tensor.isfinite().all() for tensor in (*data, *outcome))
    assert not data.observation[:EPISODES, 1:].any()
    assert not data.label[:EPISODES, 1:].any()
    for one, other in zip(data, whole, strict=True):
        assert torch.equal(one[EPISODES:], other[EPISODES:])
    for one, other in zip(outcome, whole_outcome, strict=True):
        assert torch.equal(one[1:], other[1:])


@pytest.mark.parametrize("kind", ["gru", "teachers"])
@pytest.mark.parametrize("speed", [1.0, 1e-3], ids=["some last", "all end at once"])
def test_buffers_that_held_anything_are_filled_with_the_same_data(kind: str, speed: float) -> None:
    task = dataclasses.replace(TASK, termination=Termination(linear_velocity=speed))
    one, fresh = source(task), Demonstrations.empty(NUM * EPISODES, STEPS, OFFSET)
    used = Demonstrations(*(torch.full_like(tensor, -7) for tensor in fresh))
    for room in (fresh, used):
        one.collect(student(kind), generator(), room)
    assert all(torch.equal(a, b) for a, b in zip(used, fresh, strict=True))
    assert fresh.observation.is_contiguous()


def test_compiled_demonstrations_are_those_of_eager_ones() -> None:
    plain, plain_outcome = collect(student("gru"), method="midpoint")
    compiled, outcome = collect(student("gru"), method="midpoint", compile=True)
    torch.testing.assert_close(tuple(compiled), tuple(plain), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(tuple(outcome), tuple(plain_outcome), rtol=1e-3, atol=1e-2)
