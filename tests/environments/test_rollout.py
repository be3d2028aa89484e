"""What a rollout is worth, counted until it is over; and that it is the rollout of a slow loop."""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import pytest
import torch
from rollouts import Listener, constant, fly
from torch import Tensor
from torch.utils import _pytree as pytree

from raptor.environments.collectors import ActionChanges, Recorder
from raptor.environments.episode import Noise, advance, begin_episode, draw_noise
from raptor.environments.rollout import Student, controller_of, initial_memory, rollout
from raptor.nn import MLPPolicy, RaptorPolicy
from raptor.quadrotor import from_axis_angle, load_platform, sample_quadrotors
from raptor.tasks import InitialStates, References, Sensing, Task, Termination

STILL = References(langevin_share=0.0)
GRAVITY, DT = 9.81, 0.01
NUM, SEED, STEPS, BLOCK = 6, 5, 14, 5
SHORT = Task(
    episode_steps=STEPS,
    termination=Termination(linear_velocity=1.0),
    sensing=Sensing(position_noise=0.1, observation_delay=(0, 1)),
)


def at_rest(rotor_speed, **options):
    """A task that starts at the origin, level and at rest, with rotors at this fraction of their range."""
    starts = InitialStates(guidance=1.0, rotor_speed=(rotor_speed, rotor_speed))
    return Task(initial_states=starts, references=STILL, **options)


def student(network, **options):
    torch.manual_seed(1)
    return network(hidden_dim=6, **options)


def seeded(seed=SEED):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("num_steps", [21, 60])
def test_a_vehicle_whose_rotors_stand_still_falls_until_it_is_too_fast(num_steps, generator):
    quadrotors = load_platform("x500_sim").repeat_interleave(2)
    episodes, _, _ = fly(constant(-1), at_rest(0.0), quadrotors, generator, num_steps)
    fallen = [0.5 * GRAVITY * (DT * k) ** 2 for k in range(20)]  # before each step; after 21, faster than 2 m/s
    expected = sum(1.5 - x for x in fallen) - 2 - 100  # the first action departs from 0 by 1 on each rotor
    assert episodes.terminated.tolist() == [True, True]
    assert episodes.lengths.tolist() == [21, 21]
    assert episodes.returns.tolist() == pytest.approx([expected] * 2, abs=1e-3)


def test_a_vehicle_that_hovers_perfectly_gets_all_there_is(generator):
    quadrotors = load_platform("x500_real")
    hover = quadrotors.hover_throttle.item()
    action = 2 * hover - 1
    episodes, errors, _ = fly(constant(action), at_rest(hover), quadrotors, generator)
    assert episodes.returns.item() == pytest.approx(750 - 2 * abs(action), abs=0.05)
    assert episodes.lengths.item() == 500
    assert not episodes.terminated.item()
    assert errors.rmse.item() < 1e-4
    assert errors.offset.abs().max() < 1e-4


def test_position_errors_count_from_the_given_step_on_whether_terminated_or_not(generator):
    quadrotors = load_platform("x500_sim")
    _, errors, _ = fly(constant(-1), at_rest(0.0), quadrotors, generator, 40, first_counted_step=30)
    below = [0.5 * GRAVITY * (DT * k) ** 2 for k in range(31, 41)]
    assert errors.num_steps.item() == 10
    assert errors.offset[0].tolist() == pytest.approx([0, 0, -sum(below) / 10], abs=1e-5)
    assert errors.rmse.item() == pytest.approx(math.sqrt(sum(x * x for x in below) / 10), abs=1e-5)


def test_a_lost_vehicle_counts_as_far_away_even_if_nothing_is_finite_any_more(generator):
    episodes, errors, _ = fly(constant(math.nan), at_rest(0.0), load_platform("mrs"), generator, 10)
    assert episodes.terminated.item()
    assert episodes.lengths.item() == 1
    assert episodes.returns.item() == -100
    assert errors.rmse.item() == pytest.approx(100 * math.sqrt(3))


def test_a_lost_vehicle_that_nothing_terminates_has_no_return_and_the_worst_position_error(generator):
    task = at_rest(0.0, termination=Termination(enabled=False))
    episodes, errors, _ = fly(constant(math.nan), task, load_platform("mrs"), generator, 10)
    assert not episodes.terminated.item()
    assert math.isnan(episodes.returns.item())
    assert math.isnan(episodes.figures()["mean_return"])
    assert errors.rmse.item() == pytest.approx(100 * math.sqrt(3))


def test_vehicles_do_not_touch_each_other(generator):
    task, policy = Task(references=STILL), student(RaptorPolicy)
    quadrotors = sample_quadrotors(6, seed=5)
    start = begin_episode(task, quadrotors, generator)
    together, errors, _ = fly(policy, task, quadrotors, generator, 100, start=start)
    one = pytree.tree_map(lambda tensor: tensor[4:5], start)
    alone, its_errors, _ = fly(policy, task, quadrotors[4], generator, 100, start=one)
    assert alone.returns.item() == pytest.approx(together.returns[4].item(), abs=1e-3)
    assert its_errors.rmse.item() == pytest.approx(errors.rmse[4].item(), abs=1e-5)


@pytest.mark.parametrize("network", [RaptorPolicy, MLPPolicy])
def test_it_is_that_of_a_slow_loop_over_vehicles_and_steps(network):
    parameters, quadrotors, recorder = student(network).tensors(), sample_quadrotors(NUM, seed=8), Recorder(DT)
    memory = initial_memory(parameters, NUM)
    options = {"watch": recorder, "block_steps": BLOCK, "compile": False}
    episodes, _ = rollout(Student(), parameters, memory, SHORT, quadrotors, seeded(), **options)
    generator = seeded()
    start = begin_episode(SHORT, quadrotors, generator)
    noise = [step for num in (5, 5, 4) for step in draw_noise(SHORT, quadrotors.mass, generator, num)]
    for n in range(NUM):
        vehicle, memory = quadrotors[n : n + 1], initial_memory(parameters, 1)
        episode = pytree.tree_map(lambda tensor, n=n: tensor[n : n + 1], start)
        total, length, over = 0.0, 0, False
        with torch.no_grad():
            while length < STEPS and not over:
                state, target = episode.state, episode.reference.position
                for name, value in (
                    ("position", state.position),
                    ("orientation", state.orientation),
                    ("linear_velocity", state.linear_velocity),
                    ("target", target),
                ):
                    kept = getattr(recorder.recording, name)[length, n]
                    torch.testing.assert_close(kept, value[0], rtol=1e-3, atol=1e-4)
                action, memory = Student().act(parameters, vehicle, episode, memory)
                own = Noise(*(None if draw is None else draw[n : n + 1] for draw in noise[length]))
                episode, outcome = advance(SHORT, vehicle, episode, action, own)
                total, length, over = total + outcome.reward.item(), length + 1, bool(outcome.terminated)
        assert episodes.lengths[n] == length
        assert episodes.terminated[n] == over
        assert episodes.returns[n].item() == pytest.approx(total, rel=1e-3, abs=1e-2)
        assert recorder.recording.flying[:, n].sum() == length + (not over)
    assert 0 < episodes.terminated.sum() < NUM


@pytest.mark.parametrize("network", [RaptorPolicy, MLPPolicy])
def test_a_policy_that_is_called_flies_as_one_that_is_part_of_the_step(network):
    inside = student(network)

    class Called:
        initial_hidden_state = inside.initial_hidden_state

        def __call__(self, observation, hidden):
            return inside(observation, hidden)

    quadrotors = sample_quadrotors(5, seed=1)
    both = [fly(policy, Task(), quadrotors, seeded(2), 120)[0] for policy in (inside, Called())]
    assert both[0].lengths.unique().numel() > 1
    torch.testing.assert_close(both[0].returns, both[1].returns, atol=1e-3, rtol=0)


def test_the_same_seed_flies_the_same_and_another_does_not():
    quadrotors, policy = sample_quadrotors(4, seed=1), student(RaptorPolicy)
    first, again, other = (fly(policy, SHORT, quadrotors, seeded(seed))[0].returns for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_rollout_that_is_interrupted_leaves_nothing_behind():
    policy, quadrotors = student(RaptorPolicy), sample_quadrotors(4, seed=1)
    options = {"block_steps": BLOCK, "compile": False}
    arguments = *controller_of(policy, 4), SHORT, quadrotors

    def interrupt(snapshot):
        if snapshot.step == 7:
            raise KeyboardInterrupt

    expected, _ = rollout(*arguments, seeded(), **options)
    with pytest.raises(KeyboardInterrupt):
        rollout(*arguments, seeded(), watch=interrupt, **options)
    again, _ = rollout(*arguments, seeded(), **options)
    assert all(torch.equal(a, b) for a, b in zip(again, expected, strict=True))
    short, _ = rollout(*arguments, seeded(), stop=lambda snapshot: snapshot.step == BLOCK, **options)
    assert short.lengths.max() == BLOCK


def alternating(step):
    """An action that jumps at the start, and then by 0.3 within bounds, 0.1 of which is beyond them."""
    return 0.5 if step == 0 else 0.8 + 0.3 * (step % 2)


def changes(policy, num_steps, first_counted_step=0, task=None):
    quadrotors = load_platform("x500_sim")
    collectors = [ActionChanges.begin(quadrotors.mass, first_counted_step)]
    task = task or at_rest(0.0, termination=Termination(enabled=False))
    how = {"num_steps": num_steps, "collectors": collectors, "compile": False}
    _, (found,) = rollout(*controller_of(policy, 1), task, quadrotors, seeded(), **how)
    return found


def test_a_wobble_counts_by_how_far_the_clipped_action_moves_in_each_step():
    assert changes(Listener(alternating), 11).mean.item() == pytest.approx((0.5 + 9 * 0.2) / 10)
    late = changes(Listener(alternating), 11, first_counted_step=5)
    assert (late.num_steps.item(), late.mean.item()) == (6, pytest.approx(0.2))


def test_actions_that_are_fed_back_unclipped_change_as_far_as_the_motors_see():
    task = at_rest(0.0, termination=Termination(enabled=False), clip_previous_action=False)
    assert changes(Listener(alternating), 11, 1, task).mean.item() == pytest.approx((0.5 + 9 * 0.2) / 10)


def test_action_changes_end_with_the_episode():
    fallen = changes(Listener(alternating), 60, task=at_rest(0.0, termination=Termination(linear_velocity=0.2)))
    assert 1 < fallen.num_steps.item() < 60
    assert math.isnan(changes(constant(-1), 60, 30, at_rest(0.0)).mean.item())  # too fast after 21 steps


def test_an_action_that_is_not_finite_changes_by_the_whole_range():
    assert changes(Listener(lambda step: math.nan if step else 0.0), 2).mean.item() == 2


class Actions(NamedTuple):
    """A collector of what the controller and the motors did last."""

    chosen: Tensor
    applied: Tensor

    def add(self, moment):
        return Actions(moment.action, moment.after.previous_action)


def test_noise_on_the_actions_reaches_the_motors_and_is_not_part_of_the_action():
    quadrotors, like = load_platform("mrs").repeat_interleave(2), torch.zeros(2, 4)
    options = {"collectors": [Actions(like, like)], "action_noise": 0.2, "compile": False}
    _, (last,) = rollout(*controller_of(constant(0.1), 2), SHORT, quadrotors, seeded(), **options)
    assert (last.chosen == 0.1).all()
    deviation = last.applied - last.chosen
    assert 0.05 < deviation.abs().mean() < 0.5
    assert len(deviation.unique()) == 8


def test_a_recording_holds_the_start_and_every_step_until_and_after_the_end(generator):
    quadrotors = load_platform("x500_sim").repeat_interleave(3)
    _, _, recording = fly(constant(-1), at_rest(0.0), quadrotors, generator, 30)
    assert recording.position.shape == (31, 3, 3)
    assert recording.time[-1].item() == pytest.approx(0.3)
    assert recording.flying[:, 0].tolist() == [True] * 21 + [False] * 10
    height = recording.position[:, 0, 2]
    torch.testing.assert_close(height, -0.5 * GRAVITY * recording.time**2, atol=1e-5, rtol=0)
    torch.testing.assert_close(recording.tracking_error[:, 0], -height, atol=1e-6, rtol=0)
    assert recording[:5, 1:].orientation.shape == (5, 2, 4)


def test_tilt_is_the_angle_between_the_body_and_the_vertical(generator):
    task, quadrotors = at_rest(0.0), load_platform("mrs")
    start = begin_episode(task, quadrotors, generator)
    for axis, angle, tilt in (([1.0, 0, 0], 2.0, 2.0), ([0, 1.0, 0], -0.5, 0.5), ([0, 0, 1.0], 1.0, 0.0)):
        turned = from_axis_angle(torch.tensor([axis]), torch.tensor([angle]))
        begun = dataclasses.replace(start, state=dataclasses.replace(start.state, orientation=turned))
        _, _, recording = fly(constant(0), task, quadrotors, generator, 1, start=begun)
        assert recording.tilt[0].item() == pytest.approx(tilt, abs=1e-3)


def test_without_termination_every_episode_lasts(generator):
    task = at_rest(0.0, termination=Termination(enabled=False))
    episodes, _, _ = fly(constant(-1), task, load_platform("x500_sim"), generator, 40)
    assert episodes.lengths.item() == 40
    assert not episodes.terminated.item()


def test_a_student_that_is_not_finite_terminates_at_once_with_finite_figures():
    policy = student(RaptorPolicy)
    policy.output_layer.bias.data[0] = math.nan
    episodes, errors, _ = fly(policy, SHORT, sample_quadrotors(NUM, seed=8), seeded())
    assert episodes.terminated.all()
    assert (episodes.lengths == 1).all()
    assert episodes.returns.isfinite().all()
    assert (errors.rmse > 50).all()
