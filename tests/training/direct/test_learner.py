"""The learner: what it draws, how it goes on, and that it learns."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.utils import _pytree as pytree

from raptor.config import load_config
from raptor.core.errors import UserError
from raptor.formats import save_policy
from raptor.nn import RaptorPolicy
from raptor.tasks.observation import Sensing
from raptor.tasks.task import Task
from raptor.training import TrainDirectConfig
from raptor.training.direct.config import TRAINING_TASK
from raptor.training.direct.job import first_policy, make_learner
from raptor.training.direct.learner import GradientLearner
from raptor.training.distillation.config import PostTrainConfig
from raptor.training.teachers.config import PreTrainConfig
from raptor.training.validation import TRAINING_SEEDS, VALIDATION_SEED, Validation, validation_task

Tiny = Callable[..., TrainDirectConfig]


def learner(config: TrainDirectConfig, seed: int = 0) -> GradientLearner:
    seeded = dataclasses.replace(config, seed=seed)
    return make_learner(seeded, first_policy(seeded))


def validated(one: GradientLearner, policy: RaptorPolicy | None = None, num: int = 4) -> dict[str, float]:
    """What the validation of a learner says of its policy, or of another one."""
    assert one.validation is not None
    flown = Validation(one.validation.task, num, compile=False)
    return flown(one.policy if policy is None else policy)


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


def test_validations_are_compiled_where_there_are_enough_of_them(tiny: Tiny) -> None:
    def compiles(compile: str, num_updates: int) -> bool:
        often = (f"num_updates={num_updates}", "validation_interval=100", "task.episode_steps=500")
        validation = learner(tiny(f"compile={compile}", *often)).validation
        return validation is not None and validation.compile

    assert [compiles("true", 1200), compiles("true", 60), compiles("false", 1200)] == [True, False, False]


def test_the_global_generator_is_neither_used_nor_moved(tiny: Tiny) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    a = learner(tiny())
    a.update()
    validated(a)
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


@pytest.mark.parametrize("config", [TrainDirectConfig, PreTrainConfig, PostTrainConfig])
def test_no_seed_of_training_draws_the_vehicles_of_validation(config: type) -> None:
    assert load_config(config, None, [f"seed={TRAINING_SEEDS - 1}"]).seed + TRAINING_SEEDS < VALIDATION_SEED
    with pytest.raises(UserError, match="seed must be between 0 and 999999, got 1000000"):
        load_config(config, None, [f"seed={TRAINING_SEEDS}"])


def test_what_no_episode_of_validation_tracks_makes_no_difference_to_it() -> None:
    assert validation_task(Task(references=TRAINING_TASK.references)) == validation_task(Task())
    sensing = Sensing(position_noise=0.01)
    assert validation_task(dataclasses.replace(TRAINING_TASK, sensing=sensing)).sensing == sensing


def test_validation_is_repeatable_and_changes_nothing(tiny: Tiny) -> None:
    one = learner(tiny())
    one.update()
    before = pytree.tree_map(lambda x: x.clone() if isinstance(x, torch.Tensor) else x, one.state_dict())
    first = validated(one)
    assert equal(one.state_dict(), before)
    assert validated(one) == first
    assert set(first) == {"mean_return", "std_return", "mean_length", "termination_rate"}
    assert 0 <= first["termination_rate"] <= 1
    assert 1 <= first["mean_length"] <= 6
    assert validated(learner(tiny(), seed=9), one.policy) == first


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
    rates = [one.update()["training/learning_rate"] for _ in range(7)]
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
            "optimizer=adam",
            "objective.velocity=0",
            "warm_up_updates=1",
        )
    )
    before = validated(one, num=32)
    for _ in range(16):
        one.update()
    after = validated(one, num=32)
    assert after["mean_return"] > before["mean_return"] + 4
    assert after["termination_rate"] < before["termination_rate"]


def test_clean_flight_comes_first_then_imperfections_up_to_the_share_of_the_task(tiny: Tiny) -> None:
    def shares(*overrides: str) -> list[float]:
        one, seen = learner(tiny("num_updates=10", *overrides)), []
        for _ in range(10):
            seen.append(one.clean_share)
            one.update()
        return seen

    noisy = ("task.clean_share=0.2", "task.sensing.position_noise=0.01")
    expected = [1.0] * 3 + [0.8, 0.6, 0.4] + [0.2] * 4
    assert shares(*noisy, "distrust=[0.2,0.6]") == pytest.approx(expected)
    assert shares(*noisy, "distrust=[0,0]") == pytest.approx([0.2] * 10)
    assert shares() == [0.0] * 10
    assert shares(*noisy, "distrust=[0.5,0.5]") == pytest.approx([1.0] * 5 + [0.2] * 5)


def test_what_no_episode_has_is_not_computed(tiny: Tiny) -> None:
    one = learner(tiny("task.clean_share=1"))
    assert one.config.task == Task(references=TRAINING_TASK.references, episode_steps=6)
    assert one.validation is not None
    assert one.validation.task.sensing == Sensing()
    flawed = learner(tiny("task.clean_share=0.5"))
    assert flawed.config.task.sensing == TRAINING_TASK.sensing


def test_adam_takes_the_place_of_soap_if_one_says_so(tiny: Tiny) -> None:
    weights = []
    for optimizer in ("soap", "adam"):
        one = learner(tiny(f"optimizer={optimizer}"))
        for _ in range(3):
            one.update()
        weights.append(one.policy.input_layer.weight.detach().clone())
    assert not torch.equal(*weights)


def test_validation_flies_whole_episodes_whatever_the_segments(tiny: Tiny) -> None:
    results = [
        validated(learner(tiny(f"segment_steps={steps}")), learner(tiny()).policy)["mean_length"] for steps in (2, 4, 5)
    ]
    assert max(results) <= 6  # 4 and 5 do not divide an episode of 6 steps
    assert results[0] == results[1] == results[2]


CURRICULUM = (
    "curriculum.enabled=true",
    "curriculum.stages=[{name: still, position: 0, tilt: 0, speed: 0, references: 0, disturbances: 0}, {name: task}]",
    "curriculum.window=4",
    "curriculum.advance_at=0.5",
    "curriculum.max_position_error=10",
)


def test_a_curriculum_decides_how_new_vehicles_begin_and_advances_by_what_they_achieve(tiny: Tiny) -> None:
    one = learner(tiny(*CURRICULUM))
    assert one.curriculum is not None
    still = one.episode.state.position
    assert torch.equal(still, torch.zeros_like(still))
    history = []
    for _ in range(5):  # 4 vehicles, of which one or two end an episode at each update
        one.update()
        history.append((one.curriculum.summary()["stage"], int((one.episode.reference.time == 0).sum())))
    assert [stage for stage, _ in history[:2]] == [0.0, 0.0]
    assert history[-1][0] == 1.0
    begun = one.episode.reference.time == 0
    assert begun.any()
    assert (one.episode.state.position[begun] != 0).any()


def with_speed(one: GradientLearner, speed: float) -> None:
    """Give every vehicle this velocity, m/s along x."""
    velocity = torch.zeros_like(one.episode.state.linear_velocity)
    velocity[:, 0] = speed
    state = dataclasses.replace(one.episode.state, linear_velocity=velocity)
    one.episode = dataclasses.replace(one.episode, state=state)


@pytest.mark.parametrize("interrupted", [False, True])
def test_an_episode_that_was_ever_terminated_fails_and_the_next_one_begins_anew(tiny: Tiny, interrupted: bool) -> None:
    config = tiny(*CURRICULUM, "curriculum.advance_at=1", "task.termination.linear_velocity=0.5")
    one = learner(config)
    with_speed(one, 1.0)
    one.update()  # terminates the first episode of all four; the last vehicle's was in its last segment
    if interrupted:
        state = one.state_dict()
        one = learner(config, seed=5)
        one.load_state_dict(state)
    assert one.curriculum is not None
    for _ in range(2):
        with_speed(one, 0.0)
        one.update()
        assert one.curriculum.summary()["success_rate"] == 0.0
    with_speed(one, 0.0)
    one.update()  # the second episode of the last vehicle ends
    assert one.curriculum.summary()["success_rate"] == 0.25


def test_vehicles_that_leave_their_bounds_fail_their_episode(tiny: Tiny) -> None:
    one = learner(tiny(*CURRICULUM, "task.termination.enabled=false", "curriculum.max_position_error=1e9"))
    assert one.curriculum is not None
    for _ in range(3):
        far = torch.full_like(one.episode.state.position, 1e3)
        one.episode = dataclasses.replace(one.episode, state=dataclasses.replace(one.episode.state, position=far))
        one.update()
    assert one.diverged_count == 12
    assert one.curriculum.summary()["success_rate"] == 0.0


def test_a_curriculum_resumes_from_a_saved_state_as_if_nothing_had_happened(tiny: Tiny) -> None:
    config = tiny(*CURRICULUM)
    straight = learner(config)
    for _ in range(3):
        straight.update()
    state = pytree.tree_map(lambda x: x.clone() if isinstance(x, torch.Tensor) else x, straight.state_dict())
    expected = [straight.update() for _ in range(6)]
    resumed = learner(config, seed=5)
    resumed.load_state_dict(state)
    assert [resumed.update() for _ in range(6)] == expected
    assert equal(resumed.state_dict(), straight.state_dict())
    assert "curriculum" not in learner(tiny()).state_dict()


def test_a_curriculum_of_the_task_alone_trains_as_none_does(tiny: Tiny) -> None:
    plain, alone = learner(tiny()), learner(tiny(*CURRICULUM, "curriculum.stages=[{name: task}]"))
    for _ in range(4):
        assert plain.update().items() <= alone.update().items()
    state = alone.state_dict()
    del state["curriculum"]
    assert equal(plain.state_dict(), state)


@pytest.mark.parametrize(
    ("override", "error"),
    [
        (
            "curriculum.per=vehicle",
            'the configuration is impossible: curriculum.per must be "population" for train-direct, got "vehicle": '
            "each of its vehicles flies a single episode (command line)",
        ),
        (
            "curriculum.window=25",
            "the configuration is impossible: curriculum.window must be at most 24, got 25: 6 updates of 4 vehicles "
            "end no more episodes than that (command line)",
        ),
    ],
)
def test_a_curriculum_that_could_never_advance_is_refused(tiny: Tiny, override: str, error: str) -> None:
    with pytest.raises(UserError) as refused:
        tiny(*CURRICULUM, override)
    assert str(refused.value) == error
    assert not tiny(override).curriculum.enabled  # which matters to nobody


def test_validation_asks_for_the_same_whatever_the_training_task_asks_for(tiny: Tiny) -> None:
    plain = learner(tiny())
    expected = validated(plain)
    impaired = learner(
        tiny(
            "task.references.lissajous_share=0.2",
            "task.references.langevin_share=0.2",
            "task.references.way_points_share=0.5",
            "task.references.way_points={points: [[0.5, 0, 0], [0, 0.5, 0.5]], speed: 1}",
            "task.initial_states.max_position=0.1",
            "task.disturbances.force=2",
        )
    )
    impaired.update()
    assert validated(impaired, plain.policy, 4)["mean_length"] == expected["mean_length"]
    assert validated(impaired, plain.policy, 4)["mean_return"] == pytest.approx(expected["mean_return"], rel=1e-5)


@pytest.mark.parametrize(
    "impairment", ["task.sensing={position_noise: 0.5, linear_velocity_noise: 0.5}", "task.sensing.action_delay=[2,2]"]
)
def test_validation_flies_with_the_sensors_and_motors_that_the_policy_is_to_live_with(
    tiny: Tiny, impairment: str
) -> None:
    plain, impaired = learner(tiny()), learner(tiny(impairment, "task.clean_share=0", "task.each_share=1"))
    assert validated(impaired, plain.policy, 4)["mean_return"] != pytest.approx(validated(plain)["mean_return"])


def test_vehicles_come_from_the_distribution_that_is_asked_for(tiny: Tiny) -> None:
    light = learner(tiny("distribution.mass=[0.02,0.03]"))
    light.update()
    assert light.quadrotors.mass.max() <= 0.03 < learner(tiny()).quadrotors.mass.max()


def test_training_goes_on_from_a_policy_that_is_given(tiny: Tiny, tmp_path: Path) -> None:
    first = learner(tiny("hidden_dim=8"))
    save_policy(first.policy, tmp_path / "first.pt", {})
    onward = learner(tiny("hidden_dim=8", f"initial_policy={tmp_path / 'first.pt'}"), seed=5)
    for mine, its in zip(onward.policy.parameters(), first.policy.parameters(), strict=True):
        assert torch.equal(mine, its)
    onward.update()
    assert not torch.equal(onward.policy.output_layer.weight, first.policy.output_layer.weight)
    assert not onward.policy.initial_hidden.requires_grad
    with pytest.raises(UserError, match="hidden_dim=8, the settings ask for 16"):
        learner(tiny("hidden_dim=16", f"initial_policy={tmp_path / 'first.pt'}"))


def test_vehicles_with_fast_motors_do_not_blow_up_in_training(tiny: Tiny) -> None:
    fast = (
        "distribution.rotor_time_constant_rising=[0.001,0.003]",
        "distribution.rotor_time_constant_falling=[0.001,0.003]",
    )
    flown, as_l2f = learner(tiny(*fast)), learner(tiny(*fast, "task.exact_rotors=false"))
    for each in (flown, as_l2f):
        for _ in range(6):
            each.update()
    assert (flown.diverged_count, flown.skipped_count) == (0, 0)
    assert as_l2f.diverged_count > 0
