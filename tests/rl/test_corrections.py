"""Corrections of actions raise the return of what can be better, and leave alone what cannot."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from raptor.environments.episode import begin_episode, draw_noise
from raptor.environments.rollout import controller_of, rollout
from raptor.formats import load_policy
from raptor.nn import RaptorPolicy
from raptor.quadrotor import load_platforms, sample_quadrotors
from raptor.quadrotor.state import component_major
from raptor.rl.corrections import CorrectedFlights, correct
from raptor.tasks import InitialStates, References, Task

NUM, STEPS = 4, 16


@dataclasses.dataclass(frozen=True)
class Held:
    """A controller whose parameters are its action."""

    def act(self, parameters, quadrotors, episode, memory):
        return parameters, memory


def seeded():
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="module")
def corrected():
    """Returns of a policy, and what its corrected actions come to after some updates and after none."""
    task, quadrotors, policy = Task(episode_steps=STEPS), sample_quadrotors(NUM, seed=1), load_policy("published")
    own, _ = rollout(*controller_of(policy, NUM), task, quadrotors, seeded(), compile=False)
    generator = seeded()
    start = begin_episode(task, quadrotors, generator)
    noise = draw_noise(task, quadrotors.mass, generator, STEPS)
    given = (*controller_of(policy, NUM), task, quadrotors, start, noise)
    found = {number: correct(*given, num_updates=number, compile=False) for number in (0, 8)}
    return own, found


def test_without_corrections_the_return_is_that_of_the_policy(corrected):
    own, found = corrected
    episodes, corrections = found[0]
    torch.testing.assert_close(episodes.returns, own.returns, atol=1e-4, rtol=0)
    assert torch.equal(episodes.lengths, own.lengths)
    assert not corrections.any()


def test_corrected_actions_return_more_with_every_vehicle(corrected):
    own, found = corrected
    episodes, corrections = found[8]
    assert (episodes.returns > own.returns + 0.1).all()
    assert corrections.shape == (STEPS, 4, NUM)


def test_what_steps_hand_on_keeps_the_layout_that_they_are_compiled_for(monkeypatch):
    fly, flown = CorrectedFlights.fly, []
    monkeypatch.setattr(CorrectedFlights, "fly", lambda *given: flown.append(fly(*given)) or flown[-1])
    task, quadrotors, policy = Task(episode_steps=3), sample_quadrotors(NUM, seed=1), load_policy("published")
    start = begin_episode(task, quadrotors, seeded())
    noise = draw_noise(task, quadrotors.mass, seeded(), 3)
    correct(*controller_of(policy, NUM), task, quadrotors, start, noise, num_updates=0, compile=False)
    ((_, trail),) = flown
    assert [tensor.stride() for tensor in trail[0]] == [tensor.stride() for tensor in trail[1]]


def test_policies_that_observe_targets_ahead_are_corrected_too():
    ahead = ("position_error", "position_error@+25", "position_error@-1", "previous_action")
    task = Task(episode_steps=STEPS, observation=ahead)
    torch.manual_seed(0)
    policy, quadrotors, generator = RaptorPolicy(observation_dim=13), sample_quadrotors(NUM, seed=1), seeded()
    start = begin_episode(task, quadrotors, generator)
    noise = draw_noise(task, quadrotors.mass, generator, STEPS)
    given = (*controller_of(policy, NUM), task, quadrotors, start, noise)
    how = {"learning_rate": 0.003, "compile": False}
    (before, _), (after, _) = (correct(*given, num_updates=number, **how) for number in (0, 4))
    assert (after.returns >= before.returns).all()
    assert after.returns.mean() > before.returns.mean()


def test_what_hovers_perfectly_stays_as_it_is():
    quadrotors = load_platforms()[1:2]
    hover = quadrotors.hover_throttle.item()
    starts = InitialStates(guidance=1.0, rotor_speed=(hover, hover))
    task = Task(initial_states=starts, references=References(langevin_share=0.0), episode_steps=STEPS)
    action = component_major(torch.full((1, 4), 2 * hover - 1))
    generator = seeded()
    start = dataclasses.replace(begin_episode(task, quadrotors, generator), last_action=action)
    noise = draw_noise(task, quadrotors.mass, generator, STEPS)
    episodes, corrections = correct(Held(), action, (), task, quadrotors, start, noise, num_updates=4, compile=False)
    assert episodes.returns.item() == pytest.approx(1.5 * STEPS, abs=1e-3)
    assert corrections.abs().max() < 1e-3


def test_it_ends_when_it_is_told_to():
    task, quadrotors = Task(episode_steps=2), sample_quadrotors(1, seed=1)
    generator, asked = seeded(), []
    start = begin_episode(task, quadrotors, generator)
    noise = draw_noise(task, quadrotors.mass, generator, 2)
    held = component_major(torch.zeros(1, 4))

    def stop(update, best):
        asked.append(best.returns.item())
        return update == 2

    correct(Held(), held, (), task, quadrotors, start, noise, stop=stop, compile=False)
    assert len(asked) == 3
    assert asked == sorted(asked)
