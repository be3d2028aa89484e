from __future__ import annotations

import pytest
import torch

from raptor.formats import load_policy


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


@pytest.fixture
def constant():
    return lambda action: Constant([float(action)] * 4)


@pytest.fixture
def listener():
    return Listener


@pytest.fixture(scope="session")
def published():
    return load_policy("published")
