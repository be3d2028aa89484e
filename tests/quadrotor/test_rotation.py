"""Rotations: the quaternion, its matrix and its derivative say the same."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from raptor.quadrotor import from_axis_angle, rotation_matrix
from raptor.quadrotor.state import components, cross, from_components, quaternion_derivative, rotate

numbers = st.floats(-1, 1, allow_subnormal=False)
quaternions = st.tuples(numbers, numbers, numbers, numbers).filter(lambda q: math.hypot(*q) > 0.1)
vectors = st.tuples(numbers, numbers, numbers)


def unit(q):
    return torch.nn.functional.normalize(torch.tensor(q, dtype=torch.float64), dim=0)


@given(quaternions)
def test_the_rotation_matrix_is_a_rotation(q):
    matrix = rotation_matrix(unit(q)).reshape(3, 3)
    assert torch.allclose(matrix @ matrix.T, torch.eye(3, dtype=torch.float64), atol=1e-12)
    assert torch.linalg.det(matrix).item() == pytest.approx(1)


@given(quaternions, vectors)
def test_rotating_a_vector_is_multiplying_by_the_matrix(q, v):
    vector = torch.tensor(v, dtype=torch.float64)
    rotated = from_components(rotate(components(unit(q)), components(vector)))
    assert torch.allclose(rotated, rotation_matrix(unit(q)).reshape(3, 3) @ vector, atol=1e-12)


@given(quaternions, vectors)
def test_the_quaternion_derivative_turns_the_matrix_by_body_rates(q, omega):
    q, omega = unit(q), torch.tensor(omega, dtype=torch.float64)
    derivative = from_components(quaternion_derivative(components(q), components(omega)))
    _, turned = torch.autograd.functional.jvp(rotation_matrix, q, derivative)
    skew = torch.linalg.cross(omega.expand(3, 3), torch.eye(3, dtype=torch.float64), dim=-1).T
    assert torch.allclose(turned.reshape(3, 3), rotation_matrix(q).reshape(3, 3) @ skew, atol=1e-12)


@given(vectors, vectors)
def test_the_cross_product_is_right_handed(a, b):
    a, b = torch.tensor(a, dtype=torch.float64), torch.tensor(b, dtype=torch.float64)
    assert torch.allclose(from_components(cross(components(a), components(b))), torch.linalg.cross(a, b), atol=1e-15)


def test_a_quarter_turn_about_z_takes_forward_to_left():
    turn = from_axis_angle(torch.tensor([0.0, 0.0, 1.0]), torch.tensor(torch.pi / 2))
    assert torch.allclose(rotation_matrix(turn).reshape(3, 3)[:, 0], torch.tensor([0.0, 1.0, 0.0]), atol=1e-6)
