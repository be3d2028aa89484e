"""Flights of a student are those of a slow loop over vehicles and steps."""

from __future__ import annotations

import math

import pytest
import torch
from torch.utils import _pytree as pytree

from raptor.environments.episode import Noise, advance, begin_episode, draw_noise
from raptor.nn.mlp_policy import MLPPolicy
from raptor.nn.policy import RaptorPolicy
from raptor.quadrotor import Quadrotors, sample_quadrotors
from raptor.rl import student_flights
from raptor.rl.student_flights import StudentFlights, StudentParameters, StudentTest, controller_of, initial_memory
from raptor.tasks.observation import Sensing
from raptor.tasks.task import Task
from raptor.tasks.termination import Termination

NUM, SEED, STEPS = 6, 5, 14
TASK = Task(
    episode_steps=STEPS,
    termination=Termination(linear_velocity=1.0),
    sensing=Sensing(position_noise=0.1, observation_delay=(0, 1)),
)


@pytest.fixture(autouse=True)
def several_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(student_flights, "STEPS_PER_DRAW", 5)


def vehicles() -> Quadrotors:
    return sample_quadrotors(NUM, seed=8)


def student(kind: str) -> StudentParameters:
    torch.manual_seed(1)
    policy = RaptorPolicy(hidden_dim=6) if kind == "gru" else MLPPolicy(hidden_dim=6)
    return policy.tensors()


def fly(kind: str = "gru", seed: int = SEED, **more) -> StudentFlights:
    return StudentTest(TASK, vehicles(), seed, **{"compile": False, **more})(student(kind))


@pytest.mark.parametrize("kind", ["gru", "mlp"])
def test_they_are_those_of_a_slow_loop(kind: str) -> None:
    flights, parameters = fly(kind, num_recorded=NUM), student(kind)
    assert flights.track is not None
    generator = torch.Generator().manual_seed(SEED)
    start = begin_episode(TASK, vehicles(), generator)
    noise = [step for num in (5, 5, 4) for step in draw_noise(TASK, vehicles().mass, generator, num)]
    for n in range(NUM):
        vehicle, memory = vehicles()[n : n + 1], initial_memory(parameters, 1)
        episode = pytree.tree_map(lambda tensor, n=n: tensor[n : n + 1], start)
        total, length, over = 0.0, 0, False
        with torch.no_grad():
            while length < STEPS and not over:
                for kept, value in zip(
                    flights.track,
                    (
                        episode.state.position,
                        episode.state.orientation,
                        episode.reference.position,
                        torch.tensor([True]),
                    ),
                    strict=True,
                ):
                    torch.testing.assert_close(kept[length, n], value[0], rtol=1e-3, atol=1e-4)
                action, memory = controller_of(parameters).act(parameters, vehicle, episode, memory)
                own = Noise(*(None if draw is None else draw[n : n + 1] for draw in noise[length]))
                episode, rating = advance(TASK, vehicle, episode, action, own)
                total, length, over = total + rating.reward.item(), length + 1, bool(rating.terminated)
        assert flights.lengths[n] == length
        assert flights.terminated[n] == over
        assert flights.returns[n].item() == pytest.approx(total, rel=1e-3, abs=1e-2)
        assert flights.track.flying[:, n].sum() == length + (not over)
    assert 0 < flights.terminated.sum() < NUM


def test_episodes_are_the_same_at_each_call_and_others_with_another_seed() -> None:
    test = StudentTest(TASK, vehicles(), SEED, compile=False)
    first, again = test(student("gru")), test(student("gru"))
    assert first.track is None
    assert all(torch.equal(a, b) for a, b in zip(first[:3], again[:3], strict=True))
    assert not torch.equal(first.returns, fly(seed=SEED + 1).returns)


def test_only_the_first_vehicles_are_recorded() -> None:
    track = fly(num_recorded=2).track
    assert track is not None
    assert track.orientation.shape == (STEPS + 1, 2, 4)
    torch.testing.assert_close(track.orientation.norm(dim=-1), torch.ones(STEPS + 1, 2))


def test_a_student_that_is_not_finite_terminates_at_once_with_finite_figures() -> None:
    broken = pytree.tree_map(torch.Tensor.clone, student("gru"))
    broken.output_bias.data[0] = math.nan
    flights = StudentTest(TASK, vehicles(), SEED, compile=False)(broken)
    assert flights.terminated.all()
    assert (flights.lengths == 1).all()
    assert flights.returns.isfinite().all()
