"""A term of one's own that stops being finite in the middle of a training is named, once."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from raptor import TrainDirectConfig
from raptor.quadrotor import sample_quadrotors
from raptor.rl.objective import Objective
from raptor.tasks import Task, terms
from raptor.training import PreTrainConfig
from raptor.training.direct.job import first_policy, make_learner
from raptor.training.teachers import shard
from raptor.training.teachers.gradient import APGConfig


@pytest.fixture(autouse=True)
def registry(monkeypatch):
    """Each test declares its own terms."""
    monkeypatch.setattr(terms, "_registered", dict(terms._registered))


def kink(step):
    """Finite until a vehicle is faster than it started; then the logarithm of a negative number."""
    return torch.log(1.02 - step.next_state.linear_velocity[..., 0].abs())


def blind(view):
    """An observation that is not a number then."""
    return torch.log(1.02 - view.state.linear_velocity[..., :1].abs())


FAULTY = {
    "the cost term kink is not finite": lambda: {"extra": [terms.term("cost")(kink)]},
    "the reward term kink is not finite": lambda: {"extra_rewards": [terms.term("reward")(kink)]},
    "the observation term blind is not finite": lambda: {
        "extra": [terms.term("observation")(blind)],
        "observation": (*Task().observation, "blind"),
    },
}


def learner_of(task, **settings):
    small = {"num_updates": 3, "batch_size": 16, "segment_steps": 8, "validation_interval": 0, "compile": False}
    config = TrainDirectConfig(task=dataclasses.replace(TrainDirectConfig().task, **task), **small, **settings)
    return make_learner(config, first_policy(config))


@pytest.mark.parametrize("message", FAULTY)
def test_the_term_that_is_not_finite_is_named_once(message):
    learner = learner_of(FAULTY[message]())
    with pytest.warns(UserWarning, match=message) as warned:
        learner.update()
    assert len(warned) == 1
    learner.update()  # says nothing more
    (note,) = learner.notes
    assert message in note


def test_a_cost_of_the_objective_is_named_too():
    declared = terms.term("cost")(kink)
    learner = learner_of({}, objective=Objective(terms=[declared]))
    with pytest.warns(UserWarning, match="the cost term kink"):
        learner.update()


def test_nothing_is_said_of_terms_that_are_finite(recwarn):
    learner = learner_of({"extra": [terms.term("cost", "fine")(lambda step: step.action[..., 0] ** 2)]})
    learner.update()
    assert learner.notes == []
    assert not recwarn.list


def test_teachers_by_the_gradient_name_it_too_and_go_on():
    task = Task(extra=[terms.term("cost")(kink)])
    apg = APGConfig(num_updates=3, num_envs=8, segment_steps=60, shared_updates=0)
    config = PreTrainConfig(algorithm="apg", apg=apg, task=task, compile=False, num_validation=1)
    learner = shard.make_learner(config, sample_quadrotors(3, seed=0), 0)
    with pytest.warns(UserWarning, match="the cost term kink is not finite"):
        learner.update()
    learner.update()  # says nothing more
    assert all(leaf.isfinite().all() for layer in learner.layers for leaf in layer)
