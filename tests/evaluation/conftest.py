from __future__ import annotations

import pytest
import rollouts

from raptor.formats import load_policy


@pytest.fixture
def constant():
    return rollouts.constant


@pytest.fixture
def listener():
    return rollouts.Listener


@pytest.fixture(scope="session")
def published():
    return load_policy("published")
