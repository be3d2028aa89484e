"""Stages of a curriculum: what they draw, and who passes from one to another when."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch.utils import _pytree as pytree

from raptor.config import load_config
from raptor.core.errors import UserError
from raptor.environments.episode import Episode, advance, begin_episode, draw_noise, observe
from raptor.quadrotor import Quadrotors, sample_quadrotors
from raptor.rl.curriculum import Curriculum, CurriculumConfig, Stage
from raptor.tasks import InitialStates, Lissajous, References, Sensing, Task, WayPoints

TASK = Task(
    initial_states=InitialStates(guidance=0.0),
    references=References(
        langevin_share=0.3,
        lissajous_share=0.3,
        way_points_share=0.3,
        lissajous=Lissajous(ramp=(0.0, 1.0)),
        way_points=WayPoints(points=((0.5, 0.0, 0.2), (0.0, 0.0, 0.0)), speed=1.0),
    ),
    sensing=Sensing(position_noise=0.01, noise_scale=(0.5, 1.0), observation_delay=(0, 2), action_delay=(0, 1)),
)
WINDOW = 4


def curriculum(num: int = 2, task: Task = TASK, **changes: object) -> Curriculum:
    return Curriculum(CurriculumConfig(**{"window": WINDOW, **changes}), task, num)


def record(one: Curriculum, *successes: list[int]) -> None:
    """One finished episode of every vehicle for each list: 1 where it succeeded."""
    for row in successes:
        outcome = torch.tensor(row) > 0
        one.record(torch.ones_like(outcome), outcome)


def stages(one: Curriculum) -> list[int]:
    return one.stage.tolist()


def passing(one: Curriculum, num: int = 2) -> None:
    """A window of successes, from the beginning of a stage: what was under way when it began counts for nothing."""
    record(one, *[[1] * num] * WINDOW)


def drawn(one: Curriculum, quadrotors: Quadrotors, seed: int = 0) -> Episode:
    return one.begin(quadrotors, torch.Generator().manual_seed(seed))


def leaves(episode: Episode) -> list[torch.Tensor]:
    return pytree.tree_leaves(episode)


def test_four_stages_lead_from_gentle_hover_to_the_task_itself() -> None:
    tasks = [stage.applied_to(TASK) for stage in CurriculumConfig().stages]
    assert len(tasks) == 4
    assert tasks[-1] == TASK
    hover = tasks[0]
    assert hover.initial_states.max_angle < TASK.initial_states.max_angle / 2
    assert hover.references.langevin_share == hover.references.lissajous_share == hover.references.way_points_share == 0
    assert hover.disturbances.force == hover.disturbances.torque == 0
    assert not hover.sensing.noisy


@pytest.mark.parametrize("number", range(4))
def test_vehicles_in_one_stage_begin_as_the_task_of_that_stage_would_have_them_begin(number: int) -> None:
    quadrotors = sample_quadrotors(50, seed=0).component_major()
    one = curriculum(num=50)
    one.stage = torch.full_like(one.stage, number)
    generator = torch.Generator().manual_seed(3)
    expected = begin_episode(one.config.stages[number].applied_to(TASK), quadrotors, generator)
    for ours, theirs in zip(leaves(drawn(one, quadrotors, 3)), leaves(expected), strict=True):
        assert torch.equal(ours, theirs)
        assert ours.stride() == theirs.stride()  # or the step compiled for the task would not fly it


def test_each_vehicle_begins_in_its_own_stage_whatever_the_others_do() -> None:
    quadrotors = sample_quadrotors(6, seed=0)
    one = curriculum(num=6)
    one.stage = torch.tensor([0, 3, 1, 2, 0, 3])
    mixed = leaves(drawn(one, quadrotors))
    for number in range(4):
        mine = one.stage == number
        alone = curriculum(num=6)
        alone.stage = torch.full_like(one.stage, number)
        for ours, theirs in zip(mixed, leaves(drawn(alone, quadrotors)), strict=True):
            assert torch.equal(ours[mine], theirs[mine])


def test_all_episodes_of_a_vehicle_are_of_its_stage() -> None:
    quadrotors = sample_quadrotors(2, seed=0).repeat_interleave(30).map(lambda x: x.unflatten(0, (2, 30)))
    one = curriculum()
    one.stage = torch.tensor([0, 3])
    tilt = 2 * torch.acos(drawn(one, quadrotors).state.orientation[..., 0].clamp(max=1))
    assert tilt.shape == (2, 30)
    assert tilt[0].max() <= 0.2 + 1e-3
    assert tilt[1].max() > 0.5


def test_a_start_within_the_vehicles_own_box_is_scaled_too() -> None:
    quadrotors = sample_quadrotors(200, seed=0)
    free = dataclasses.replace(TASK, initial_states=InitialStates(guidance=0.0, max_position=None))
    small = curriculum(200, free, stages=(Stage("near", position=0.1),))
    whole = begin_episode(free, quadrotors, torch.Generator().manual_seed(0))
    torch.testing.assert_close(drawn(small, quadrotors).state.position, 0.1 * whole.state.position)


def test_smaller_references_are_the_same_flights_on_another_scale() -> None:
    quadrotors = sample_quadrotors(30, seed=0)
    one = curriculum(30, stages=(Stage("small", reference_size=0.5), Stage("task")))

    def targets(stage: int) -> torch.Tensor:
        one.stage = torch.full_like(one.stage, stage)
        generator = torch.Generator().manual_seed(0)
        episode = one.begin(quadrotors, generator)
        path = [torch.cat([episode.reference.position, episode.reference.velocity], dim=-1)]
        for noise in draw_noise(TASK, quadrotors.mass, torch.Generator().manual_seed(1), 60):
            action = torch.zeros(30, 4)
            episode, _ = advance(one.task, quadrotors, episode, action, noise)
            path.append(torch.cat([episode.reference.position, episode.reference.velocity], dim=-1))
        return torch.stack(path)

    large = targets(1)
    assert (large.abs().amax(dim=(0, 2)) > 0.01).sum() > 20
    torch.testing.assert_close(targets(0), 0.5 * large)


def test_the_step_of_the_task_flies_a_stage_without_noise_without_noise() -> None:
    quadrotors = sample_quadrotors(5, seed=0)
    one = curriculum(5, stages=(Stage("calm", noise=0.0), Stage("task")))
    seen = []
    for seed in (1, 2):
        episode = drawn(one, quadrotors)
        for noise in draw_noise(TASK, quadrotors.mass, torch.Generator().manual_seed(seed), 3):
            still = noise._replace(reference=torch.zeros(5, 3))
            episode, _ = advance(one.task, quadrotors, episode, torch.zeros(5, 4), still)
        seen.append(observe(episode))
    assert torch.equal(*seen)


def test_a_vehicle_advances_when_its_last_episodes_succeeded_and_the_others_stay() -> None:
    one = curriculum(advance_at=0.75)
    record(one, [1, 1], [1, 0], [0, 0])
    assert stages(one) == [0, 0]  # three episodes are no window
    record(one, [1, 1])
    assert stages(one) == [1, 0]


def test_only_the_last_episodes_count() -> None:
    one = curriculum(advance_at=1.0)
    record(one, *[[0, 1]] * 3, *[[1, 0]] * 3)
    assert stages(one) == [0, 0]
    record(one, [1, 0])
    assert stages(one) == [1, 0]


def test_counting_restarts_in_a_new_stage_and_what_was_under_way_does_not_count() -> None:
    one = curriculum(advance_at=1.0)
    started_together = torch.tensor([[True, True], [True, True]])  # two episodes of each vehicle at once
    for _ in range(2):
        one.record(started_together, started_together)
    assert stages(one) == [1, 1]
    first = torch.tensor([[True, False], [True, False]])
    for _ in range(4):
        one.record(first, first)
    assert stages(one) == [2, 2]
    one.record(~first, ~first)  # began in stage 1
    assert "success_rate" not in one.summary()
    for _ in range(3):
        one.record(first, first)
    assert stages(one) == [2, 2]
    one.record(~first, ~first)  # began in stage 2, after the one before it
    assert stages(one) == [3, 3]


def test_a_vehicle_falls_back_by_one_stage_when_its_success_collapses() -> None:
    one = curriculum(fall_back_at=0.25)
    passing(one)
    passing(one)
    assert stages(one) == [2, 2]
    record(one, [0, 1], [0, 1], [1, 0], [0, 0])
    assert stages(one) == [1, 2]
    record(one, *[[0, 0]] * 20)
    assert stages(one) == [0, 0]  # and no further


def test_the_last_stage_is_not_passed() -> None:
    one = curriculum(stages=(Stage("only"),))
    passing(one)
    passing(one)
    assert stages(one) == [0, 0]


def test_of_more_episodes_at_once_than_a_window_the_last_ones_count() -> None:
    one = curriculum(num=1, advance_at=1.0)
    outcome = torch.tensor([[0, 0, 1, 0, 1, 1, 1]]) > 0
    finished = torch.tensor([[1, 1, 1, 0, 1, 1, 1]]) > 0  # the failure in the middle is not over
    one.record(finished, outcome)
    assert stages(one) == [1]


def test_the_population_passes_together_by_the_episodes_of_all() -> None:
    one = curriculum(num=3, per="population", advance_at=0.75, window=6)
    record(one, [1, 0, 1])
    assert stages(one) == [0]
    record(one, [1, 0, 1])
    assert stages(one) == [0]  # 4 of 6
    record(one, [1, 1, 1])
    assert stages(one) == [1]  # 5 of 6
    quadrotors = sample_quadrotors(5, seed=0)  # of any number
    expected = begin_episode(one.config.stages[1].applied_to(TASK), quadrotors, torch.Generator().manual_seed(0))
    assert torch.equal(drawn(one, quadrotors).state.position, expected.state.position)


def test_an_episode_succeeds_that_ends_near_its_target_and_was_never_terminated() -> None:
    one = curriculum(num=4, max_position_error=0.5)
    quadrotors = sample_quadrotors(4, seed=0)
    episode = drawn(one, quadrotors)
    target = torch.tensor([1.0, 2.0, 3.0]).expand(4, 3)
    offset = torch.tensor([[0.3, 0.3, 0.0], [0.3, 0.3, 0.3], [0.0, 0.0, 0.0], [float("nan"), 0.0, 0.0]])
    ended = dataclasses.replace(
        episode,
        state=dataclasses.replace(episode.state, position=target + offset),
        reference=dataclasses.replace(episode.reference, position=target),
    )
    terminated = torch.tensor([False, False, True, False])
    assert one.succeeded(ended, terminated).tolist() == [True, False, False, False]


def test_the_summary_tells_the_stages_and_the_success_rate() -> None:
    one = curriculum(num=4)
    assert one.summary()["stage"] == 0.0
    assert "success_rate" not in one.summary()
    record(one, *[[1, 1, 0, 1]] * 4)
    record(one, [1, 1, 0, 1])
    summary = one.summary()
    assert summary["stage"] == 0.75
    assert summary["fraction/hover"] == 0.25
    assert summary["fraction/recovery"] == 0.75
    assert summary["fraction/disturbed-tracking"] == 0.0
    assert summary["success_rate"] == pytest.approx(3 / 7)  # four failures, and one success of each that began anew


@pytest.mark.parametrize("per", ["vehicle", "population"])
def test_a_curriculum_goes_on_from_a_saved_state_as_if_nothing_had_happened(per: str) -> None:
    generator = torch.Generator().manual_seed(0)
    calls = torch.rand((60, 2, 3, 4), generator=generator)

    def go_on(one: Curriculum, first: int, last: int) -> list[list[int]]:
        path = []
        for finished, success, *_ in calls[first:last]:
            one.record(finished < 0.4, success < 0.7)
            path.append(stages(one))
        return path

    settings = {"per": per, "advance_at": 0.8, "fall_back_at": 0.6, "window": 5}
    straight = curriculum(num=3, **settings)
    go_on(straight, 0, 23)
    saved = {name: tensor.clone() for name, tensor in straight.state_dict().items()}
    expected = go_on(straight, 23, 60)
    assert len({tuple(row) for row in expected}) > 2
    resumed = curriculum(num=3, **settings)
    go_on(resumed, 0, 4)
    resumed.load_state_dict(saved)
    assert go_on(resumed, 23, 60) == expected
    for name, tensor in straight.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], tensor)


@pytest.mark.parametrize(
    ("override", "error"),
    [
        ("stages=[]", "stages must be at least one stage, got [] (command line)"),
        ("advance_at=1.01", "advance_at must be above 0 and at most 1, got 1.01 (command line)"),
        ("advance_at=0", "advance_at must be above 0 and at most 1, got 0 (command line)"),
        ("fall_back_at=-0.1", "fall_back_at must be between 0 and 1, got -0.1 (command line)"),
        (
            "fall_back_at=0.9",
            "the configuration is impossible: fall_back_at must be below advance_at, got 0.9 and 0.9 (command line)",
        ),
        ("window=0", "window must be at least 1, got 0 (command line)"),
        ("max_position_error=0", "max_position_error must be positive, got 0 (command line)"),
        ("per=teacher", 'per must be one of vehicle, population, got "teacher" (command line)'),
        (
            "stages=[{name: a}, {name: b}, {name: a}]",
            "the configuration is impossible: stages must have names of their own, and 2 are named 'a' (command line)",
        ),
        ("stages=[{name: a, tilt: -1}]", "stages.0.tilt must be at least 0, got -1 (command line)"),
        ("stages=[{name: a, references: 2}]", "stages.0.references must be between 0 and 1, got 2 (command line)"),
        ("stages=[{tilt: 1}]", "stages.0.name must be text, got null (command line)"),
        ("stages=[{name: ''}]", 'stages.0.name must be at least one character, got "" (command line)'),
    ],
)
def test_an_impossible_curriculum_is_refused_in_a_sentence(override: str, error: str) -> None:
    with pytest.raises(UserError) as refused:
        load_config(CurriculumConfig, None, [override])
    assert str(refused.value) == error
