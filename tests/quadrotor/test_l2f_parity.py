"""One step, and a hundred, agree with what l2f 2.0.18 recorded; l2f computes in float32."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from raptor.core.compilation import compile_pure, compiler_problem
from raptor.quadrotor import State, step

COMPONENTS = {
    "position": slice(0, 3),
    "orientation": slice(3, 7),
    "linear_velocity": slice(7, 10),
    "angular_velocity": slice(10, 13),
    "rotor_speed": slice(13, 17),
}


def relative_error(state: State, recorded: np.ndarray) -> np.ndarray:
    return np.abs(state.as_tensor().numpy() - recorded) / (1 + np.abs(recorded))


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 5e-6), (torch.float64, 3e-6)])
def test_every_recorded_transition_is_reproduced(recording, dtype, bound):
    state = State.from_tensor(recording.tensor("state", dtype))
    after = step(recording.quadrotors("", dtype), state, recording.tensor("action", dtype))
    error = relative_error(after, recording.arrays["next_state"])
    assert error.shape == (512, 17)
    worst = {name: error[:, part].max() for name, part in COMPONENTS.items()}
    assert all(value <= bound for value in worst.values()), worst


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_hundred_steps_end_where_the_recorded_rollouts_end(recording, dtype):
    quadrotors = recording.quadrotors("rollout_", dtype)
    states, actions = recording.tensor("rollout_states", dtype), recording.tensor("rollout_actions", dtype)
    state = State.from_tensor(states[:, 0])
    for action in actions.unbind(1):
        state = step(quadrotors, state, action)
    assert actions.shape[1] == 100
    assert (state.as_tensor() - states[:, -1]).abs().max() <= 5e-4


def test_the_recording_reaches_beyond_the_action_range(recording):
    # Otherwise the parity above would say nothing about clipping.
    assert np.abs(recording.arrays["action"]).max() > 1


@pytest.mark.skipif(compiler_problem() is not None, reason="no compiler")
def test_the_compiled_step_agrees_with_the_recording_and_with_eager(recording):
    quadrotors = recording.quadrotors("", torch.float32).component_major()
    state = State.from_tensor(recording.tensor("state", torch.float32))
    action = recording.tensor("action", torch.float32)
    compiled = compile_pure(step)(quadrotors, state, action)
    eager = step(quadrotors, state, action)
    assert relative_error(compiled, recording.arrays["next_state"]).max() <= 5e-6
    assert relative_error(compiled, eager.as_tensor().numpy()).max() <= 2e-6
