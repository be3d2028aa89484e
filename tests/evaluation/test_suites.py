"""Each condition is what its name says, and its vehicles are nobody's training."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from rollouts import fly

from raptor.core.errors import UserError
from raptor.evaluation import SUITES, TEST_SEEDS, Estimate, Evaluation, plots
from raptor.evaluation.suites import (
    IMPAIRMENTS,
    NOISE,
    SURVIVAL_AXES,
    THRUST_FACTORS,
    VISIBLE,
    conditions,
    figure_eight,
)
from raptor.quadrotor import PLATFORMS, load_platforms, rotation_matrix
from raptor.tasks import References, Task, advance_reference
from raptor.training.validation import TRAINING_SEEDS, VALIDATION_SEED

CPU = torch.device("cpu")


def condition(suite, name="", num_quadrotors=8, episodes=1, seed=0):
    (found,) = [c for c in conditions(suite, num_quadrotors, episodes, seed, CPU) if c.name == name]
    return found


def listen(condition, listener, num_steps=12):
    """What a policy observes, and what really happens."""
    start, generator = condition.begin()
    _, _, recording = fly(listener, condition.task, condition.quadrotors, generator, num_steps, start=start)
    return torch.stack(listener.observations), recording


def test_test_vehicles_are_drawn_apart_from_those_of_training_and_validation():
    last = 999_999
    assert TRAINING_SEEDS + last < VALIDATION_SEED < VALIDATION_SEED + last < TEST_SEEDS
    for seed in (-1, last + 1):
        with pytest.raises(UserError, match=f"seed must be between 0 and 999999.*{seed}"):
            conditions("unseen", 4, 1, seed, CPU)


def test_suites_of_sampled_vehicles_share_them_for_one_seed_only():
    mass = {suite: condition(suite, name).quadrotors.mass for suite, name in (("paper", ""), ("robustness", "noise"))}
    assert torch.equal(mass["paper"], mass["robustness"])
    assert torch.equal(mass["paper"], condition("unseen").quadrotors.mass)
    assert not torch.equal(mass["paper"], condition("unseen", seed=1).quadrotors.mass)


def test_starts_come_with_the_seed():
    first, again, other = (condition("unseen", seed=seed).begin()[0] for seed in (0, 0, 1))
    assert torch.equal(first.state.position, again.state.position)
    assert not torch.equal(first.state.position, other.state.position)


def test_all_conditions_of_robustness_start_alike():
    starts = [c.begin()[0] for c in conditions("robustness", 8, 1, 0, CPU)]
    for start in starts[1:]:
        assert torch.equal(start.state.as_tensor(), starts[0].state.as_tensor())
        assert torch.equal(start.force, starts[0].force)


def test_the_paper_suite_is_the_papers_task():
    paper = condition("paper")
    assert paper.task == Task.paper()
    start, _ = paper.begin()
    assert paper.starts.initial_states.max_position == 0.5
    torch.testing.assert_close(start.sensed[0][:, :3], start.state.position)
    torch.testing.assert_close(paper.quadrotors.position_threshold, 20 * paper.quadrotors.arm_length)


@pytest.mark.parametrize("suite", ["unseen", "platforms"])
def test_what_shows_the_target_is_the_default_task_without_any_noise(suite, published):
    tested = condition(suite)
    start, generator = tested.begin()
    still = dataclasses.replace(start.reference, langevin_sigma=torch.zeros_like(start.reference.langevin_sigma))
    start = dataclasses.replace(start, reference=still)
    plain = dataclasses.replace(start, sensed=start.sensed[:1], commanded=())
    task = Task(references=References(langevin_share=0.0))
    returns = [
        fly(published, *arguments, generator, 80, start=begun)[0].returns
        for *arguments, begun in ((tested.task, tested.quadrotors, start), (task, tested.quadrotors, plain))
    ]
    assert torch.equal(*returns)


def test_half_of_the_unseen_episodes_follow_a_moving_target_and_none_of_the_platforms():
    moving = condition("unseen", num_quadrotors=1000).begin()[0].reference.langevin_sigma > 0
    assert 0.4 < moving.float().mean() < 0.6
    start, _ = condition("platforms").begin()
    assert not start.reference.langevin_sigma.any()
    assert not start.reference.amplitude.any()


def test_platforms_are_the_nine_named_ones_with_many_starts_each():
    tested = condition("platforms", num_quadrotors=2048)
    assert tested.groups == PLATFORMS
    assert torch.equal(tested.quadrotors.mass, load_platforms().mass.repeat_interleave(256))
    assert tested.quadrotors.position_threshold.unique().tolist() == [1.0]
    assert not condition("platforms").begin()[0].force.any()


def test_episodes_of_a_vehicle_stand_side_by_side():
    tested = condition("unseen", num_quadrotors=3, episodes=2)
    mass = tested.quadrotors.mass
    assert torch.equal(mass[::2], mass[1::2])
    assert tested.episodes == 2
    assert len(condition("platforms", num_quadrotors=16, episodes=3).quadrotors) == 9 * 2 * 3


@pytest.mark.parametrize(("name", "late"), [("10ms-late", 1), ("20ms-late", 2), ("30ms-late", 3)])
def test_late_observations_are_those_of_earlier_steps_but_for_the_previous_action(name, late, listener):
    observed, happened = listen(condition("robustness", name), listener(lambda step: 0.1 * math.sin(step)))
    apart = happened.position - happened.target
    torch.testing.assert_close(observed[late:, :, :3], apart[: 12 - late])
    torch.testing.assert_close(observed[late:, :, 3:12], rotation_matrix(happened.orientation[: 12 - late]))
    torch.testing.assert_close(observed[:late, :, :3], apart[:1].expand(late, -1, -1))
    acted = torch.tensor([0.1 * math.sin(step) for step in range(11)])
    torch.testing.assert_close(observed[1:, :, 18:], acted[:, None, None].expand(-1, 8, 4))


@pytest.mark.parametrize(("name", "late"), [("motors-10ms-late", 1), ("motors-20ms-late", 2)])
def test_late_motors_hold_their_speed_until_the_first_command_reaches_them(name, late, constant):
    tested = condition("robustness", name)
    start, generator = tested.begin()
    speeds = [start.state.rotor_speed]
    for num_steps in range(1, 5):
        begun, generator = tested.begin()
        speeds.append(_rotor_speed_after(tested, begun, generator, constant(1), num_steps))
    for step in range(late):
        torch.testing.assert_close(speeds[step + 1], speeds[0], atol=1e-5, rtol=0)
    assert (speeds[late + 1] > speeds[late]).all()


def _rotor_speed_after(tested, start, generator, policy, num_steps):
    from raptor.environments.episode import advance, draw_noise, observe

    hidden = policy.initial_hidden_state(len(tested.quadrotors))
    for noise in draw_noise(tested.task, tested.quadrotors.mass, generator, num_steps):
        action, hidden = policy(observe(start), hidden)
        start, _ = advance(tested.task, tested.quadrotors, start, action, noise)
    return start.state.rotor_speed


def test_noise_is_as_large_as_it_says(listener):
    observed, happened = listen(condition("robustness", "noise", num_quadrotors=400), listener(), num_steps=6)
    clean = torch.cat([happened.position - happened.target, rotation_matrix(happened.orientation)], dim=-1)[:6]
    spread = (observed[..., :12] - clean).std(dim=(0, 1))
    assert spread[:3].tolist() == pytest.approx([0.01] * 3, rel=0.1)
    assert spread[3:].tolist() == pytest.approx([0.02] * 9, rel=0.1)
    assert NOISE.standard_deviations[12:] == (0.05,) * 3 + (0.1,) * 3


@pytest.mark.parametrize("name", [name for name, sensing in IMPAIRMENTS.items() if not sensing.noise_scale[1]])
def test_delays_come_without_noise(name):
    start, _ = condition("robustness", name).begin()
    assert not start.noise_scale.any()


def test_thrust_is_that_of_the_model_times_the_factor():
    plain = condition("unseen").quadrotors
    for name, factor in THRUST_FACTORS.items():
        tested = condition("robustness", name).quadrotors
        torch.testing.assert_close(tested.thrust_to_weight, factor * plain.thrust_to_weight)
        assert torch.equal(tested.mass, plain.mass)


def test_a_figure_eight_takes_its_seconds_and_its_half_metre_by_one():
    tested = figure_eight(5.0, 1, 0, load_platforms())
    start, _ = tested.begin()
    assert not start.state.position.any()
    assert not start.state.linear_velocity.any()
    reference, targets = start.reference, [start.reference.position]
    for _ in range(800):
        reference = advance_reference(reference, tested.task.references, torch.zeros(9, 3), tested.task.dt)
        targets.append(reference.position)
    target = torch.stack(targets)[:, 0]
    torch.testing.assert_close(target[800], target[300], atol=1e-4, rtol=0)  # one interval, after the ramp of 3 s
    assert target.abs().amax(0).tolist() == pytest.approx([0.5, 1.0, 0.0], abs=1e-3)


def test_every_suite_that_shows_the_target_flies_the_same_task_so_that_it_is_compiled_once():
    tasks = {c.task for suite in SUITES if suite != "paper" for c in conditions(suite, 8, 1, 0, CPU)}
    assert tasks == {VISIBLE}


def test_agility_is_ever_faster_figures_on_which_a_vehicle_may_be_fast_then_the_same_late_and_noisy():
    flown = conditions("agility", 32, 1, 0, CPU)
    clean, impaired = flown[:7], flown[7:]
    assert [c.name for c in clean] == ["10s", "6.5s", "5s", "4s", "3s", "2.5s", "2s"]
    assert [c.name for c in impaired] == [f"{c.name}-noise+20ms-late" for c in clean]
    assert len({c.task for c in flown}) == 1
    assert flown[0].task.termination.linear_velocity > 5
    for condition in (clean[-1], impaired[-1]):
        start, _ = condition.begin()
        late = condition is impaired[-1]
        assert (start.observation_delay == 2 * late).all()
        assert (start.noise_scale == late).all()
        speed = start.reference.amplitude * start.reference.rate
        assert speed.norm(dim=-1).amin().item() == pytest.approx(2**0.5 * torch.pi, rel=1e-4)
    assert len(conditions("agility", 32, 1, 0, CPU, quadrotors=load_platforms()[:2])) == 14


def test_survival_makes_one_thing_at_a_time_worse():
    flown = {condition.name: condition for condition in conditions("survival", 4, 1, 0, CPU)}
    assert len(flown) == 6 + 6 + 7 + 6
    starts = {name: condition.begin()[0] for name, condition in flown.items()}
    plain = starts["delay-0"]
    assert (starts["delay-40"].observation_delay == 4).all()
    assert (starts["noise-1.5"].noise_scale == 1.5).all()
    assert (starts["delay-40"].noise_scale == 0).all()
    ratio = flown["thrust-0.7"].quadrotors.full_thrust / flown["thrust-1"].quadrotors.full_thrust
    torch.testing.assert_close(ratio, torch.full_like(ratio, 0.7))
    wind = starts["wind-8"].imperfections.wind[0]
    torch.testing.assert_close(wind[:, :2].norm(dim=-1), torch.full((4,), 8.0))
    assert (wind[:, 3] == 2).all()
    assert (starts["wind-8"].imperfections.drag[0] == 0.3).all()
    for name, start in starts.items():
        assert torch.equal(start.state.position, plain.state.position), name
        assert len(start.sensed) == 6
    assert len({condition.task for condition in flown.values()}) == 2


def test_the_picture_of_survival_has_a_line_for_each_policy_along_each_axis():
    names = [f"{axis}-{amount:g}" for axis, amounts in SURVIVAL_AXES.items() for amount in amounts]
    found = {f"{name}/return": Estimate(600.0, 590.0, 610.0) for name in names}
    found |= {f"{name}/terminated": Estimate(0.25, 0.2, 0.3) for name in names}
    figure = plots.survival(Evaluation({name: {"survival": found} for name in ("one", "other")}, {}))
    returns, lost = figure.axes[:4], figure.axes[4:]
    for axis, amounts in zip(returns, SURVIVAL_AXES.values(), strict=True):
        assert [line.get_xdata().tolist() for line in axis.lines] == [[*amounts]] * 2
        assert (axis.lines[0].get_ydata() == 600).all()
    assert all((axis.lines[1].get_ydata() == 25).all() for axis in lost)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("unseeen", 8, 1), "no suite 'unseeen': choose from paper, unseen"),
        (("unseen", 0, 1), "num_quadrotors must be at least 1, got 0"),
        (("unseen", 8, -1), "episodes must be at least 1, got -1"),
    ],
)
def test_impossible_requests_are_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        conditions(*arguments, 0, CPU)
