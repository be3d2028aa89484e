"""Motors too fast for one step of l2f's integrator are flown exactly by everything that flies given vehicles."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from raptor.environments.episode import begin_episode
from raptor.environments.rollout import controller_of, rollout
from raptor.formats import load_policy
from raptor.nn.stacked_mlp import Layer, Layers, initial_layers
from raptor.quadrotor import Quadrotors, load_platform
from raptor.rl.collection import ExperienceCollector
from raptor.rl.demonstrations import DemonstrationFlight, Demonstrations, SimulatedDemonstrations
from raptor.rl.teacher_test import TeacherTest
from raptor.tasks import InitialStates, References, Task

NUM, STEPS = 4, 60
TASK = Task(
    episode_steps=STEPS,
    initial_states=InitialStates(guidance=1.0, rotor_speed=(0.55, 0.6)),
    references=References(langevin_share=0.0),
)
AS_L2F = dataclasses.replace(TASK, exact_rotors=False)


def vehicles(tau: float = 2e-3) -> Quadrotors:
    mrs = load_platform("mrs")
    taus = torch.full((1, 4), tau)
    fast = dataclasses.replace(mrs, rotor_time_constants_rising=taus, rotor_time_constants_falling=taus)
    return fast.repeat_interleave(NUM)


def hovering_teachers() -> Layers:
    """Networks whose action is the one at which each vehicle hovers."""
    *hidden, last = initial_layers(NUM, (26, 8, 4), torch.Generator().manual_seed(2))
    bias = torch.atanh(2 * vehicles().hover_throttle - 1).view(-1, 1)
    return (*hidden, Layer(0 * last.weight, bias.expand_as(last.bias).clone()))


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def lost_by_student(task: Task) -> torch.Tensor:
    controller = controller_of(load_policy("published"), NUM)
    episodes, _ = rollout(*controller, task, vehicles(), generator(), compile=False)
    return episodes.terminated


def lost_by_teachers(task: Task) -> torch.Tensor:
    return TeacherTest(task, vehicles(), 2, 1, compile=False)(hovering_teachers()).terminated


def lost_in_demonstrations(task: Task) -> torch.Tensor:
    flight = DemonstrationFlight(task, 2, compile=False)
    source = SimulatedDemonstrations(flight, vehicles(), hovering_teachers(), torch.zeros(NUM, 3))
    room = Demonstrations.empty(2 * NUM, task.episode_steps, torch.zeros(0))
    return source.collect(None, generator(), room).terminated


def lost_in_collection(task: Task) -> torch.Tensor:
    *hidden, last = hovering_teachers()
    certain = torch.full_like(last.bias, -10.0)  # logarithm of the standard deviation
    actor = (*hidden, Layer(torch.cat([last.weight, last.weight], -2), torch.cat([last.bias, certain], -1)))
    collector = ExperienceCollector(
        task,
        vehicles(),
        2,
        begin=lambda quadrotors, source: begin_episode(task, quadrotors, source),
        generator=generator(),
        compile=False,
    )
    return torch.stack([collector.step(actor)[0].terminated for _ in range(STEPS - 1)]).any(0)


@pytest.mark.parametrize("lost", [lost_by_student, lost_by_teachers, lost_in_demonstrations, lost_in_collection])
def test_no_vehicle_is_lost_but_those_flown_as_in_l2f(lost) -> None:
    assert not lost(TASK).any()
    assert lost(AS_L2F).all()
