"""Rollouts of policies with everything that can be kept of them, and policies that are easy to predict."""

from __future__ import annotations

import torch

from raptor.environments import advance, begin_episode, draw_noise
from raptor.environments.collectors import PositionErrors, Recorder
from raptor.environments.rollout import controller_of, rollout


def fly(policy, task, quadrotors, generator, num_steps=None, *, first_counted_step=0, **options):
    """The episodes, the position errors and the recording of a rollout; eager by default."""
    recorder = Recorder(task.dt, len(quadrotors))
    episodes, (errors,) = rollout(
        *controller_of(policy, len(quadrotors)),
        task,
        quadrotors,
        generator,
        num_steps=num_steps,
        collectors=[PositionErrors.begin(quadrotors.mass, first_counted_step)],
        watch=recorder,
        **{"compile": False, **options},
    )
    return episodes, errors, recorder.recording


class Constant:
    """A policy that always acts alike, and remembers how many steps it took."""

    def __init__(self, action):
        self.action = torch.tensor(action)

    def initial_hidden_state(self, *shape):
        return torch.zeros(*shape, 1)

    def __call__(self, observation, hidden):
        return self.action.expand(len(observation), 4), hidden + 1


class Listener:
    """A policy that keeps what it observes and acts by the number of the step."""

    def __init__(self, action=lambda step: 0.0):
        self.action, self.observations = action, []

    def initial_hidden_state(self, *shape):
        return torch.zeros(*shape, 1)

    def __call__(self, observation, hidden):
        step = len(self.observations)
        self.observations.append(observation.clone())
        return torch.full((len(observation), 4), float(self.action(step))), hidden


def constant(action):
    """A `Constant` with the same action for all rotors."""
    return Constant([float(action)] * 4)


def fly_actions(task, quadrotors, actions, seed=0):
    """The episode at the start and after each action."""
    generator = torch.Generator().manual_seed(seed)
    episodes = [begin_episode(task, quadrotors, generator)]
    for action, noise in zip(actions, draw_noise(task, quadrotors.mass, generator, len(actions)), strict=True):
        episodes.append(advance(task, quadrotors, episodes[-1], action, noise)[0])
    return episodes
