"""Observations by the names of their components."""

from __future__ import annotations

import pytest
import torch

import raptor
from raptor import Task, UserError
from raptor.quadrotor.state import rotation_matrix
from raptor.tasks.components import DEFAULT
from raptor.tasks.reference import Lissajous, References, look_ahead
from raptor.tasks.task import without_preview

FIGURE = References(langevin_share=0.0, lissajous_share=1.0, lissajous=Lissajous(ramp=(0.0, 0.0)))


def flown(observation, steps=6, **task):
    """Observations (S + 1, N, D) and the environment after some random steps."""
    env = raptor.QuadrotorEnv(raptor.sample_quadrotors(3), Task(observation=observation, **task), compile=False)
    env.auto_reset = False
    seen, generator = [env.reset(seed=0)[0]], torch.Generator().manual_seed(1)
    for _ in range(steps):
        seen.append(env.step(torch.randn(3, 4, generator=generator)).observation)
    return torch.stack(seen), env


def test_the_default_components_are_the_22_numbers():
    default, _ = flown(DEFAULT)
    composed, _ = flown((*DEFAULT, "up_body"))
    assert torch.equal(composed[..., :22], default)
    assert torch.equal(composed[..., 22:], default[..., 9:12])
    assert Task().observation_dim == 22
    assert Task(observation=(*DEFAULT, "up_body")).observation_dim == 25


def test_components_come_in_the_order_in_which_they_are_named():
    default, _ = flown(DEFAULT)
    turned, _ = flown(("previous_action", "position_error"))
    assert torch.equal(turned, torch.cat([default[..., 18:], default[..., :3]], -1))


def test_a_component_is_observed_as_it_was():
    default, _ = flown(DEFAULT)
    late, _ = flown(("previous_action@-2", "previous_action@-1..0", "position_error@-3"))
    actions, position = default[..., 18:], default[..., :3]
    for step in range(len(default)):
        expected = [actions[max(0, step - 2)], actions[max(0, step - 1)], actions[step], position[max(0, step - 3)]]
        assert torch.equal(late[step], torch.cat(expected, -1))


def test_a_target_ahead_is_where_the_target_comes_to():
    ahead, env = flown(("position_error@+4", "linear_velocity@+4"), steps=2, references=FIGURE)
    state, reference = env.episode.state, env.episode.reference
    target = look_ahead(reference, FIGURE, 0.04)
    torch.testing.assert_close(ahead[-1, :, :3], state.position - target.position)
    torch.testing.assert_close(ahead[-1, :, 3:], state.linear_velocity - target.velocity)
    for _ in range(4):
        env.step(torch.zeros(3, 4))
    torch.testing.assert_close(env.episode.reference.position, target.position)


def test_without_a_preview_the_present_target_is_seen_in_its_place():
    names = ("position_error@+4", "linear_velocity@0..+2", "previous_action@-1..0")
    blind = without_preview({"observation": list(names), "extra": {"kept": 1}})
    assert blind["extra"] == {"kept": 1}
    present, _ = flown(tuple(blind["observation"]), steps=2, references=FIGURE)
    default, _ = flown(DEFAULT, steps=2, references=FIGURE)
    position, velocity, action = default[..., :3], default[..., 12:15], default[..., 18:]
    before = torch.cat([action[:1], action[:-1]])
    assert torch.equal(present, torch.cat([position, *[velocity] * 3, before, action], -1))
    assert without_preview({}) == {}


def test_errors_are_observed_in_the_body_and_in_the_level_frame():
    seen, env = flown(("position_error_body", "linear_velocity_yaw"), initial_states=raptor.tasks.InitialStates())
    state, reference = env.episode.state, env.episode.reference
    rotation = rotation_matrix(state.orientation).unflatten(-1, (3, 3))
    error = (state.position - reference.position).unsqueeze(-1)
    torch.testing.assert_close(seen[-1, :, :3], (rotation.mT @ error).squeeze(-1))
    yaw = torch.atan2(rotation[:, 1, 0], rotation[:, 0, 0])
    x, y, z = (state.linear_velocity - reference.velocity).unbind(-1)
    level = torch.stack([yaw.cos() * x + yaw.sin() * y, yaw.cos() * y - yaw.sin() * x, z], -1)
    torch.testing.assert_close(seen[-1, :, 3:], level)


def test_what_is_measured_is_late_in_every_component():
    late, _ = flown(("position_error_body",), sensing=raptor.tasks.Sensing(observation_delay=(2, 2)))
    prompt, _ = flown(("position_error_body",))
    torch.testing.assert_close(late[2:], prompt[:-2])


@pytest.mark.parametrize(
    ("observation", "message"),
    [
        (("position",), "there is no observation position: did you mean position_error"),
        (("battery",), "there is no observation battery: the components are position_error"),
        (("position_error@",), "components are NAME, NAME@-3"),
        (("position_error@0..-3",), "lags rise"),
        (("position_error@+2000",), "up to 1000 steps"),
        ((), "at least one component"),
    ],
)
def test_an_observation_that_cannot_be_is_refused(observation, message):
    with pytest.raises(UserError, match=message):
        Task(observation=observation)
