"""What the tests of this room share: the recorded transitions, and a reference that holds a point."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable

import numpy as np
import pytest
import torch

from raptor.quadrotor import Quadrotors, State, sample_quadrotors
from raptor.tasks import Reference, References, sample_reference

DATA = pathlib.Path(__file__).parents[1] / "data" / "l2f_transitions.npz"


@dataclasses.dataclass(frozen=True)
class Transitions:
    """512 single steps of l2f 2.0.18 with RAPTOR's weights: random vehicles, states and actions, target 0."""

    quadrotors: Quadrotors
    state: State
    action: torch.Tensor
    next_state: State
    reward: torch.Tensor
    terminated: torch.Tensor
    next_observation: torch.Tensor


@pytest.fixture(scope="session")
def transitions() -> Transitions:
    with np.load(DATA) as file:
        recorded = {key: torch.from_numpy(file[key]) for key in file.files if not key.startswith("rollout_")}
    num = len(recorded["mass"])
    renamed = {"inertia": "J", "inertia_inverse": "J_inv"}
    fields = {
        field.name: recorded[renamed.get(field.name, field.name)]
        for field in dataclasses.fields(Quadrotors)
        if renamed.get(field.name, field.name) in recorded
    }
    quadrotors = Quadrotors(
        **fields,
        random_force=torch.zeros(num, 2),
        random_torque=torch.zeros(num, 2),
        max_position=torch.full((num,), 0.5),
    )
    return Transitions(
        quadrotors=quadrotors,
        state=State.from_tensor(recorded["state"]),
        action=recorded["action"],
        next_state=State.from_tensor(recorded["next_state"]),
        reward=recorded["reward"],
        terminated=recorded["terminated"],
        next_observation=recorded["next_observation"],
    )


@pytest.fixture
def at_origin() -> Callable[[int], Reference]:
    """A function that gives `num` references that hold the origin."""

    def hold(num: int) -> Reference:
        config = References(langevin_share=0.0)
        return sample_reference((num,), config, torch.zeros(num), torch.Generator().manual_seed(0))

    return hold


@pytest.fixture
def level() -> Callable[..., tuple[Quadrotors, State]]:
    """A function that gives `num` vehicles, level and at rest at the origin, their rotors standing."""

    def rest(num: int) -> tuple[Quadrotors, State]:
        orientation = torch.tensor([1.0, 0.0, 0.0, 0.0]).repeat(num, 1)
        zero = torch.zeros(num, 3)
        return sample_quadrotors(num, seed=0), State(zero, orientation, zero, zero, torch.zeros(num, 4))

    return rest
