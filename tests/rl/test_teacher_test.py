"""The test of teachers is that of a slow loop over teachers, episodes and steps."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch.utils import _pytree as pytree

from raptor.environments.episode import Noise, advance, begin_episode, draw_noise, observe_as_teacher
from raptor.nn.activations import RELU_TANH, Activations
from raptor.nn.stacked_mlp import Layer, Layers, initial_layers
from raptor.nn.teachers import TeacherPopulation
from raptor.quadrotor import Quadrotors, sample_quadrotors
from raptor.rl.collection import grid
from raptor.rl.teacher_test import TeacherTest
from raptor.tasks.reward import Termination
from raptor.tasks.task import Task

NUM, EPISODES, SEED = 2, 5, 3
TASK = Task(episode_steps=14, termination=Termination(linear_velocity=1.0))


def vehicles() -> Quadrotors:
    return sample_quadrotors(NUM, seed=8)


def networks() -> Layers:
    *hidden, last = initial_layers(NUM, (26, 8, 4), torch.Generator().manual_seed(2))
    hover = torch.atanh((2 * vehicles().hover_throttle - 1).clamp(-0.9, 0.9)).unsqueeze(-1)
    return (*hidden, Layer(0.5 * last.weight, hover.expand_as(last.bias).clone()))


@pytest.mark.parametrize("activations", [RELU_TANH, Activations("elu", "clip")], ids=["usual", "clipped"])
def test_they_are_those_of_a_slow_loop(activations: Activations) -> None:
    tested = TeacherTest(TASK, vehicles(), EPISODES, SEED, False, activations, block_steps=5)(networks())
    generator = torch.Generator().manual_seed(SEED)
    whole = begin_episode(TASK, grid(vehicles(), EPISODES), generator)
    noise = [step for num in (5, 5, 4) for step in draw_noise(TASK, grid(vehicles(), EPISODES).mass, generator, num)]
    num_holding = 0
    for t in range(NUM):
        quadrotor, half = vehicles()[t : t + 1], TASK.episode_steps // 2
        layers = tuple(Layer(*(tensor[t : t + 1] for tensor in layer)) for layer in networks())
        held = []
        for b in range(EPISODES):
            episode = pytree.tree_map(lambda tensor, t=t, b=b: tensor[t, b][None], whole)
            holds = episode.reference.langevin_sigma == 0 and not episode.reference.amplitude.any()
            total, positions, over = 0.0, [], False
            for step in noise:
                seen = observe_as_teacher(quadrotor, episode)[None]
                action = TeacherPopulation(layers, activations=activations)(seen)[0]
                own = Noise(*(None if draw is None else draw[t, b][None] for draw in step))
                episode, rating = advance(TASK, quadrotor, episode, action, own)
                total += rating.reward.item()
                positions.append(episode.state.position[0])
                over = bool(rating.terminated)
                if over:
                    break
            assert tested.lengths[t, b] == len(positions)
            assert tested.terminated[t, b] == over
            assert tested.returns[t, b].item() == pytest.approx(total, rel=1e-3, abs=1e-2)
            positions += positions[-1:] * (TASK.episode_steps - len(positions))
            held += [torch.stack(positions[half:]).mean(0)] if holds else []
        num_holding += len(held)
        expected = torch.stack(held).mean(0) if held else torch.zeros(3)
        torch.testing.assert_close(tested.position_offset[t], expected, rtol=1e-3, atol=1e-4)
    assert 0 < num_holding < NUM * EPISODES
    assert 0 < tested.terminated.sum() < NUM * EPISODES


def test_episodes_are_the_same_at_each_call_and_others_with_another_seed() -> None:
    test, other = (TeacherTest(TASK, vehicles(), EPISODES, seed, compile=False) for seed in (SEED, SEED + 1))
    first = test(networks())
    again = test(networks())
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first.returns, other(networks()).returns)


def test_without_an_episode_at_the_origin_there_is_no_offset() -> None:
    moving = dataclasses.replace(TASK, references=dataclasses.replace(TASK.references, langevin_share=1.0))
    tested = TeacherTest(moving, vehicles(), EPISODES, SEED, compile=False)(networks())
    assert torch.equal(tested.position_offset, torch.zeros(NUM, 3))


def test_a_teacher_that_is_not_finite_terminates_and_leaves_the_others_alone() -> None:
    broken = tuple(Layer(layer.weight.clone(), layer.bias.clone()) for layer in networks())
    broken[0].bias[0] = math.nan
    test = TeacherTest(TASK, vehicles(), EPISODES, SEED, compile=False)
    tested, undisturbed = test(broken), test(networks())
    assert tested.terminated[0].all()
    assert (tested.lengths[0] == 1).all()
    for column, whole in zip(tested, undisturbed, strict=True):
        assert column.isfinite().all()
        assert torch.equal(column[1], whole[1])


def test_compiled_rollouts_do_not_ask_how_the_weights_lie_in_memory() -> None:
    layers = networks()
    one_way = tuple(Layer(layer.weight.contiguous(), layer.bias) for layer in layers)
    other_way = tuple(Layer(layer.weight.mT.contiguous().mT, layer.bias) for layer in layers)
    first, second = (TeacherTest(TASK, vehicles(), EPISODES, SEED)(weights) for weights in (one_way, other_way))
    assert torch.equal(first.returns, second.returns)
    eager = TeacherTest(TASK, vehicles(), EPISODES, SEED, compile=False)(layers)
    torch.testing.assert_close(first.returns, eager.returns, rtol=1e-3, atol=1e-3)
