"""Terms of one's own in episodes: eager, compiled, in every layout of vehicles."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

import raptor
from raptor import Task
from raptor.environments.rollout import controller_of, rollout
from raptor.tasks import terms
from raptor.tasks.components import DEFAULT
from raptor.tasks.terms import term
from raptor.tasks.views import Wrench


@pytest.fixture(autouse=True)
def registry(monkeypatch):
    """Each test declares its own terms."""
    monkeypatch.setattr(terms, "_registered", dict(terms._registered))


def gusts(view, force: float = 0.5, time_constant: float = 0.5):
    """A force that wanders: first-order Gauss-Markov, N."""
    keep = math.exp(-view.dt / time_constant)
    wind = keep * view.memory + force * math.sqrt(1 - keep**2) * view.noise
    return Wrench(force=wind, memory=wind)


def voltage(view, full: float = 16.8, drop: float = 0.1):
    """Battery voltage that falls with the energy that was drawn, V."""
    drawn = view.memory + view.dt * ((view.previous_action + 1) / 2).mean(-1, keepdim=True)
    return full - drop * drawn, drawn


def stepped(task, steps=20, num=3, action=0.0):
    env = raptor.QuadrotorEnv(raptor.sample_quadrotors(num), task, compile=False, auto_reset=False)
    env.reset(seed=0)
    return env, [env.step(torch.full((num, 4), action)) for _ in range(steps)]


def test_a_reward_of_ones_own_is_added_and_weighted():
    height = term("reward", "height", weight=2.0)(lambda step: step.next_state.position[..., 2])
    plain_env, plain = stepped(Task(), steps=3)
    env, results = stepped(Task(extra=[height]), steps=3)
    assert torch.equal(env.state.position, plain_env.state.position)
    torch.testing.assert_close(results[-1].reward - plain[-1].reward, 2 * env.state.position[..., 2])


def test_a_termination_of_ones_own_ends_episodes():
    term("termination", "sinks")(lambda step, floor=-0.05: step.next_state.position[..., 2] < floor)
    task = Task(extra=[terms.find_term("sinks")], initial_states=raptor.tasks.InitialStates(guidance=1.0))
    _, results = stepped(task, steps=60, action=-1.0)
    over = torch.stack([result.terminated for result in results])
    assert not over[0].any()
    assert over[-1].all()


def test_gusts_are_as_strong_and_as_slow_as_they_say():
    calm = raptor.tasks.Disturbances(force=0.0, torque=0.0)
    declared = term("disturbance", noise=3, memory=3)(gusts)
    env = raptor.QuadrotorEnv(
        raptor.load_platform("x500_real").repeat_interleave(400),
        Task(extra=[declared], disturbances=calm),
        compile=False,
        auto_reset=False,
    )
    env.reset(seed=0)
    winds = []
    for _ in range(300):
        env.step(torch.zeros(400, 4))
        winds.append(env.episode.own.memory[0])
    late = torch.stack(winds[-50:])
    assert late.std().item() == pytest.approx(0.5, rel=0.05)
    correlation = (late[0] * late[-1]).mean() / (late[0] * late[0]).mean()
    assert correlation.item() == pytest.approx(math.exp(-0.49 / 0.5), abs=0.08)
    assert (env.episode.force == 0).all()
    still = raptor.QuadrotorEnv(env.quadrotors, Task(disturbances=calm), compile=False, auto_reset=False)
    still.reset(seed=0)
    for _ in range(300):
        still.step(torch.zeros(400, 4))
    assert (env.state.position - still.state.position).std() > 0.05


def test_an_observation_remembers_and_begins_anew_with_the_episode():
    declared = term("observation", memory=1)(voltage)
    env = raptor.QuadrotorEnv(
        raptor.sample_quadrotors(2), Task(observation=(*DEFAULT, "voltage"), extra=[declared(drop=1.0)]), compile=False
    )
    first, _ = env.reset(seed=0)
    for _ in range(10):
        seen = env.step(torch.ones(2, 4)).observation
    torch.testing.assert_close(first[:, -1] - seen[:, -1], torch.full((2,), 0.1))
    assert env.reset(mask=torch.tensor([True, False]))[0][0, -1] > seen[0, -1] + 0.05


def test_terms_give_the_same_compiled_and_for_any_number_of_axes():
    own = [
        term("disturbance", noise=3, memory=3)(gusts),
        term("observation", memory=1)(voltage),
        term("reward", "low")(lambda step: -(step.next_state.position[..., 2] ** 2)),
        term("termination", "far")(lambda step: step.next_state.position[..., 0].abs() > 0.6),
    ]
    task = Task(observation=(*DEFAULT, "voltage", "previous_action@-1"), extra=own, episode_steps=40)
    policy, vehicles = raptor.RaptorPolicy(task.observation_dim), raptor.sample_quadrotors(6)
    episodes = []
    for compile in (False, True):
        generator = torch.Generator().manual_seed(0)
        found, _ = rollout(*controller_of(policy, 6), task, vehicles, generator, compile=compile)
        episodes.append(found)
    torch.testing.assert_close(episodes[0].returns, episodes[1].returns, rtol=1e-4, atol=1e-3)
    assert torch.equal(episodes[0].lengths, episodes[1].lengths)
    assert not dataclasses.replace(task, extra=own[:2]).own("reward")
