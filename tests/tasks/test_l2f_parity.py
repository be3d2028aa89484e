"""Reward, termination and observation agree with what l2f 2.0.18 recorded with RAPTOR's weights."""

from __future__ import annotations

import torch

from raptor.tasks import Reward, Termination, reward, sense, student_observation, terminated
from raptor.tasks.views import StepView


def test_every_recorded_reward_is_reproduced(transitions, at_origin):
    t = transitions
    target = at_origin(len(t.action))
    view = StepView(t.quadrotors, t.state, target, t.action, torch.zeros_like(t.action), t.next_state, target, 0.01)
    value = reward(Reward(), view, t.terminated)
    assert value.shape == (512,)
    assert (value - t.reward).abs().max() <= 1e-5


def test_the_recording_holds_both_kinds_of_reward(transitions):
    # Otherwise the parity above would say nothing about the penalty, or about all the rest.
    assert (transitions.reward == -100).sum() > 20
    assert (transitions.reward != -100).sum() > 20


def test_every_recorded_termination_is_reproduced(transitions, at_origin):
    t = transitions
    over = terminated(Termination(), t.quadrotors, t.next_state, at_origin(len(t.action)))
    assert torch.equal(over, t.terminated)


def test_every_recorded_observation_is_reproduced(transitions, at_origin):
    t = transitions
    for visible in (True, False):  # the target is the origin, so it makes no difference
        sensed = sense(t.next_state, at_origin(len(t.action)), visible)
        observation = student_observation(sensed, t.action)
        assert observation.shape == (512, 22)
        torch.testing.assert_close(observation, t.next_observation, rtol=1e-6, atol=1e-6)
