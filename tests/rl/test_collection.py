"""The collector: what it brings is what flying by hand brings, episode after episode."""

from __future__ import annotations

import copy
import dataclasses
import math
from typing import NamedTuple

import pytest
import torch
from torch.utils import _pytree as pytree

from raptor.environments.episode import Episode, Noise, advance, begin_episode, draw_noise, observe_as_teacher
from raptor.nn.stacked_mlp import Layer, Layers, initial_layers
from raptor.quadrotor import Quadrotors, sample_quadrotors
from raptor.rl.collection import ExperienceCollector, grid
from raptor.rl.curriculum import Curriculum, CurriculumConfig
from raptor.rl.replay import Experience
from raptor.rl.sac import sample_action
from raptor.tasks.reward import Termination
from raptor.tasks.task import Task

TASK = Task(episode_steps=6, termination=Termination(linear_velocity=1.0))
NUM, ENVS, BLOCK = 2, 2, 8


def begin(quadrotors: Quadrotors, generator: torch.Generator) -> Episode:
    return begin_episode(TASK, quadrotors, generator)


def vehicles() -> Quadrotors:
    return sample_quadrotors(NUM, seed=5)


def actors() -> Layers:
    return initial_layers(NUM, (26, 8, 8), torch.Generator().manual_seed(1))


def collector(seed: int = 0, compile: bool = False, start=begin, task: Task = TASK) -> ExperienceCollector:
    generator = torch.Generator().manual_seed(seed)
    return ExperienceCollector(
        task, vehicles(), ENVS, begin=start, generator=generator, compile=compile, block_steps=BLOCK
    )


class Stream(NamedTuple):
    """The experience of so many steps, stacked along a new first axis."""

    experience: Experience
    lost: torch.Tensor


def stream(source: ExperienceCollector, num_steps: int, actor: Layers | None = None) -> Stream:
    steps = [source.step(actors() if actor is None else actor) for _ in range(num_steps)]
    columns = zip(*(experience for experience, _ in steps), strict=True)
    return Stream(Experience(*map(torch.stack, columns)), torch.stack([lost for _, lost in steps]))


def by_hand(num_steps: int) -> list[list[list[tuple[torch.Tensor, ...]]]]:
    """The same draws, flown vehicle by vehicle: per step, teacher and environment what `Experience` holds."""
    generator = torch.Generator().manual_seed(0)
    small, large = grid(vehicles(), ENVS), grid(vehicles(), ENVS * BLOCK)
    first = begin(small, generator)
    blocks = []
    for _ in range(math.ceil(num_steps / BLOCK)):
        noise = draw_noise(TASK, large.mass, generator)[0]
        acting = torch.randn((NUM, ENVS * BLOCK, 4), generator=generator)
        blocks.append((begin(large, generator), noise, acting))

    def picked(episode, t: int, column: int):
        return pytree.tree_map(lambda tensor: tensor[t, column][None], episode)

    flown = [[[()] * ENVS for _ in range(NUM)] for _ in range(num_steps)]
    for t in range(NUM):
        quadrotor = vehicles()[t : t + 1]
        actor = tuple(Layer(*(tensor[t : t + 1] for tensor in layer)) for layer in actors())
        for e in range(ENVS):
            episode, length = picked(first, t, e), 0
            for k in range(num_steps):
                starts, noise, acting = blocks[k // BLOCK]
                column = k % BLOCK * ENVS + e
                observation = observe_as_teacher(quadrotor, episode)
                action = sample_action(actor, observation[None], acting[t, column][None, None])[0][0]
                own = Noise(*(None if draw is None else draw[t, column][None] for draw in noise))
                episode, rating = advance(TASK, quadrotor, episode, action, own)
                length += 1
                reached = observe_as_teacher(quadrotor, episode)
                truncated = length == TASK.episode_steps and not rating.terminated
                flown[k][t][e] = (observation[0], action[0], rating.reward[0], rating.terminated[0], truncated, reached)
                if rating.terminated or truncated:
                    episode, length = picked(starts, t, column), 0
    return flown


def test_the_stream_is_what_flying_by_hand_gives() -> None:
    num_steps = 2 * BLOCK + 3
    (got, _), expected = stream(collector(), num_steps), by_hand(num_steps)
    ends = {"terminated": 0, "truncated": 0}
    for k in range(num_steps):
        for t in range(NUM):
            for e in range(ENVS):
                observation, action, reward, terminated, truncated, reached = expected[k][t][e]
                torch.testing.assert_close(got.observation[k, t, e], observation, rtol=1e-4, atol=1e-4)
                torch.testing.assert_close(got.action[k, t, e], action, rtol=1e-4, atol=1e-4)
                torch.testing.assert_close(got.reward[k, t, e], reward, rtol=1e-3, atol=1e-3)
                torch.testing.assert_close(got.next_observation[k, t, e], reached[0], rtol=1e-4, atol=1e-4)
                assert got.terminated[k, t, e] == terminated
                assert got.truncated[k, t, e] == truncated
                ends["terminated"] += int(terminated)
                ends["truncated"] += int(truncated)
    assert min(ends.values()) > 0, ends


def test_an_episode_goes_on_until_it_is_over_and_then_another_one_begins() -> None:
    flown, _ = stream(collector(), 5 * TASK.episode_steps)
    over = flown.terminated | flown.truncated
    assert over.any()
    assert not (flown.terminated & flown.truncated).any()
    goes_on = (flown.next_observation[:-1] == flown.observation[1:]).all(-1)
    assert torch.equal(goes_on, ~over[:-1])
    age = torch.zeros(NUM, ENVS)
    for ended, cut in zip(over, flown.truncated, strict=True):
        age += 1
        assert torch.equal(cut, (age == TASK.episode_steps) & (ended == cut))
        age[ended] = 0


def test_no_episode_is_begun_twice() -> None:
    flown, _ = stream(collector(), 4 * BLOCK)
    over = (flown.terminated | flown.truncated)[:-1]
    starts = flown.observation[1:][over]
    assert len(starts) == len(starts.unique(dim=0)) > 5


def test_a_teacher_that_is_not_finite_spoils_neither_its_experience_nor_that_of_others() -> None:
    broken = tuple(Layer(layer.weight.clone(), layer.bias.clone()) for layer in actors())
    broken[0].weight[0] = math.nan
    beside, undisturbed = stream(collector(), 12, broken), stream(collector(), 12)
    for name, ours, theirs in zip(Experience._fields, beside.experience, undisturbed.experience, strict=True):
        assert ours.isfinite().all(), name
        assert torch.equal(ours[:, 1], theirs[:, 1]), name
    assert torch.equal(beside.lost[:, 1], undisturbed.lost[:, 1])
    assert beside.lost[:, 0].all()
    assert beside.experience.terminated[:, 0].all()
    assert not undisturbed.lost.all()


def test_a_vehicle_that_is_lost_begins_anew_even_where_nothing_terminates() -> None:
    task = dataclasses.replace(TASK, termination=dataclasses.replace(TASK.termination, enabled=False))
    broken = tuple(Layer(layer.weight.clone(), layer.bias.clone()) for layer in actors())
    broken[0].weight[0] = math.nan
    flown = stream(collector(task=task), 4, broken)
    assert torch.equal(flown.experience.terminated, flown.lost)
    assert flown.lost[:, 0].all()
    assert not flown.lost[:, 1].any()


@pytest.mark.parametrize("before", [0, 3, BLOCK, BLOCK + 1])
def test_a_resumed_collector_goes_on_bit_for_bit(before: int) -> None:
    straight = collector()
    for _ in range(before):
        straight.step(actors())
    state = copy.deepcopy(straight.state_dict())
    noise = straight.generator.get_state()
    resumed = collector(seed=9)
    stream(resumed, 2)
    resumed.load_state_dict(state)
    resumed.generator.set_state(noise)
    for ours, theirs in zip(stream(resumed, BLOCK + 2)[0], stream(straight, BLOCK + 2)[0], strict=True):
        assert torch.equal(ours, theirs)


def test_starts_can_come_from_a_curriculum() -> None:
    stages = Curriculum(CurriculumConfig(enabled=True), TASK, NUM)
    easy, usual = (collector(start=start).step(actors())[0] for start in (stages.begin, begin))
    assert easy.observation[..., :3].norm() < 0.5 * usual.observation[..., :3].norm()


def test_compiled_steps_are_the_eager_ones() -> None:
    for ours, theirs in zip(stream(collector(compile=True), 4)[0], stream(collector(), 4)[0], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
