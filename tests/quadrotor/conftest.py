"""Vehicles and states that several tests of the room share."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from l2f_recording import Recording, recorded

from raptor.quadrotor import Quadrotors, State, sample_quadrotors
from raptor.quadrotor.frames import x_frame


@pytest.fixture(scope="session")
def recording() -> Recording:
    return recorded()


@pytest.fixture
def symmetric() -> Quadrotors:
    """A vehicle of 1 kg in X layout whose thrust is 10 N times the square of the rotor speed; hovers at 0.495."""
    dtype = torch.float64
    row = torch.tensor([[0.0, 0.0, 10.0]], dtype=dtype)
    inertia = torch.diag(torch.tensor([0.01, 0.02, 0.03], dtype=dtype))[None]
    return Quadrotors(
        mass=torch.ones(1, dtype=dtype),
        inertia=inertia,
        inertia_inverse=torch.linalg.inv(inertia),
        rotor_positions=torch.tensor([x_frame(0.1, 0.15)], dtype=dtype),
        rotor_thrust_directions=torch.tensor([[[0.0, 0.0, 1.0]] * 4], dtype=dtype),
        rotor_torque_directions=torch.tensor([[[0.0, 0.0, s] for s in (-1, 1, -1, 1)]], dtype=dtype),
        rotor_thrust_coefficients=row.expand(4, 3)[None].clone(),
        rotor_torque_constants=torch.full((1, 4), 0.02, dtype=dtype),
        rotor_time_constants_rising=torch.full((1, 4), 0.05, dtype=dtype),
        rotor_time_constants_falling=torch.full((1, 4), 0.1, dtype=dtype),
        action_limit=torch.tensor([[0.0, 1.0]], dtype=dtype),
        gravity=torch.tensor([[0.0, 0.0, -9.81]], dtype=dtype),
        random_force=torch.zeros(1, 2, dtype=dtype),
        random_torque=torch.zeros(1, 2, dtype=dtype),
        position_threshold=torch.ones(1, dtype=dtype),
        max_position=torch.full((1,), 0.5, dtype=dtype),
        names=("symmetric",),
    )


@pytest.fixture
def hovering() -> Callable[[Quadrotors], State]:
    """A function that puts vehicles level and at rest at the origin, their rotors carrying the weight."""

    def at_hover(quadrotors: Quadrotors) -> State:
        n, like = len(quadrotors), quadrotors.mass
        low, high = quadrotors.action_limit.unbind(-1)
        orientation = like.new_tensor([1.0, 0.0, 0.0, 0.0]).repeat(n, 1)
        return State(
            position=like.new_zeros(n, 3),
            orientation=orientation,
            linear_velocity=like.new_zeros(n, 3),
            angular_velocity=like.new_zeros(n, 3),
            rotor_speed=(low + (high - low) * quadrotors.hover_throttle)[:, None].repeat(1, 4),
        )

    return at_hover


@pytest.fixture
def random_flight() -> Callable[..., tuple[Quadrotors, State, torch.Tensor]]:
    """A function that draws vehicles, states and actions."""

    def draw(num: int, dtype: torch.dtype, seed: int = 0) -> tuple[Quadrotors, State, torch.Tensor]:
        generator = torch.Generator().manual_seed(seed)

        def normal(*size: int) -> torch.Tensor:
            return torch.randn(num, *size, generator=generator, dtype=dtype)

        quadrotors = sample_quadrotors(num, generator=generator, dtype=dtype)
        state = State(
            position=normal(3),
            orientation=torch.nn.functional.normalize(normal(4), dim=-1),
            linear_velocity=normal(3),
            angular_velocity=2 * normal(3),
            rotor_speed=torch.rand(num, 4, generator=generator, dtype=dtype),
        )
        return quadrotors, state, 2 * torch.rand(num, 4, generator=generator, dtype=dtype) - 1

    return draw
