"""The learner: what it draws, how it goes on, and that it learns."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from torch.utils import _pytree as pytree

from raptor.training import TrainDirectConfig
from raptor.training.direct import DirectLearner

Tiny = Callable[..., TrainDirectConfig]


def learner(config: TrainDirectConfig, seed: int = 0) -> DirectLearner:
    return DirectLearner(config, seed, compile=False)


def equal(a: object, b: object) -> bool:
    """Whether two states are the same, bit for bit."""
    left, structure = pytree.tree_flatten(a)
    right, other = pytree.tree_flatten(b)
    pairs = zip(left, right, strict=True)
    return structure == other and all(torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y for x, y in pairs)


def test_a_seed_gives_the_same_flights_and_weights_and_another_seed_others(tiny: Tiny) -> None:
    a, b, c = learner(tiny()), learner(tiny()), learner(tiny(), seed=1)
    for each in (a, b, c):
        each.update()
    assert equal(a.state_dict(), b.state_dict())
    assert not torch.equal(a.quadrotors.mass, c.quadrotors.mass)
    assert not torch.equal(a.policy.input_layer.weight, c.policy.input_layer.weight)


def test_the_global_generator_is_neither_used_nor_moved(tiny: Tiny) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    a = learner(tiny())
    a.update()
    a.validate(a.policy, 4)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    b = learner(tiny())
    b.update()
    assert torch.equal(a.policy.input_layer.weight, b.policy.input_layer.weight)


def test_a_learner_goes_on_from_a_saved_state_as_if_nothing_had_happened(tiny: Tiny) -> None:
    config = tiny("task.sensing.position_noise=0.01", "task.sensing.observation_delay=[0,1]")
    straight = learner(config)
    for _ in range(3):
        straight.update()
    state = pytree.tree_map(lambda x: x.clone() if isinstance(x, torch.Tensor) else x, straight.state_dict())
    expected = [straight.update() for _ in range(2)]
    resumed = learner(config, seed=5)
    resumed.load_state_dict(state)
    assert [resumed.update() for _ in range(2)] == expected
    assert equal(resumed.state_dict(), straight.state_dict())


def test_validation_is_repeatable_and_changes_nothing(tiny: Tiny) -> None:
    one = learner(tiny())
    one.update()
    before = pytree.tree_map(lambda x: x.clone() if isinstance(x, torch.Tensor) else x, one.state_dict())
    first = one.validate(one.policy, 4)
    assert equal(one.state_dict(), before)
    assert one.validate(one.policy, 4) == first
    assert set(first) == {"return", "terminated", "length"}
    assert 0 <= first["terminated"] <= 1
    assert 1 <= first["length"] <= 6
    assert learner(tiny(), seed=9).validate(one.policy, 4) == first


def test_a_vehicle_whose_episode_is_over_is_replaced_and_the_others_fly_on(tiny: Tiny) -> None:
    one = learner(tiny())
    seen = [one.quadrotors.mass.clone()]
    for _ in range(3):  # an episode of 6 steps is 3 segments
        one.update()
        seen.append(one.quadrotors.mass.clone())
    kept = torch.stack([(a == b) for a, b in itertools.pairwise(seen)])
    assert (kept.sum(0) == 2).all()  # each vehicle was replaced exactly once
    assert (~kept).any(1).all()  # and some vehicle at each update: the episodes are staggered
    assert int(one.age.max()) < 6


def test_the_learning_rate_warms_up_and_then_falls_to_its_last_share(tiny: Tiny) -> None:
    one = learner(tiny("warm_up_updates=2", "num_updates=6"))
    rates = [one.update()["learning_rate"] for _ in range(7)]
    assert rates[0] < rates[1]
    assert sorted(rates[1:], reverse=True) == rates[1:]
    assert rates[-1] == pytest.approx(one.config.learning_rate * one.config.final_learning_rate)


def test_a_few_updates_fly_better_than_none(tiny: Tiny) -> None:
    one = learner(
        tiny(
            "batch_size=32",
            "segment_steps=25",
            "task.episode_steps=25",
            "num_updates=16",
            "learning_rate=2e-2",
            "warm_up_updates=1",
        )
    )
    before = one.validate(one.policy, 32)
    for _ in range(16):
        one.update()
    after = one.validate(one.policy, 32)
    assert after["return"] > before["return"] + 8
    assert after["terminated"] < before["terminated"]


def test_validation_flies_whole_episodes_whatever_the_segments(tiny: Tiny) -> None:
    results = [
        learner(tiny(f"segment_steps={steps}")).validate(learner(tiny()).policy, 4)["length"] for steps in (2, 4, 5)
    ]
    assert max(results) <= 6  # 4 and 5 do not divide an episode of 6 steps
    assert results[0] == results[1] == results[2]


def test_validation_asks_for_the_same_whatever_the_training_task_asks_for(tiny: Tiny) -> None:
    plain = learner(tiny())
    expected = plain.validate(plain.policy, 4)
    impaired = learner(
        tiny(
            "task.references.lissajous_share=0.2",
            "task.references.langevin_share=0.2",
            "task.references.way_points_share=0.5",
            "task.references.way_points={points: [[0.5, 0, 0], [0, 0.5, 0.5]], speed: 1}",
            "task.initial_states.max_position=0.1",
            "task.disturbances.force=2",
            "task.sensing.observation_delay=[1,2]",
            "task.sensing.action_delay=[1,1]",
        )
    )
    impaired.update()
    assert impaired.validate(plain.policy, 4)["length"] == expected["length"]
    assert impaired.validate(plain.policy, 4)["return"] == pytest.approx(expected["return"], rel=1e-5)
