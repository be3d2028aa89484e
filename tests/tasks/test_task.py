"""A task decides how the rotors of its vehicles are integrated."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from raptor.quadrotor import Distribution, Quadrotors, load_platform, load_platforms, sample_quadrotors
from raptor.tasks import References, Task
from raptor.tasks.trajectories import Trajectory


def quick(tau: float) -> Quadrotors:
    mrs = load_platform("mrs")
    return dataclasses.replace(mrs, rotor_time_constants_falling=torch.full((1, 4), tau))


@pytest.mark.parametrize("tau", [5e-3, 12e-3])
def test_fast_rotors_are_integrated_exactly_and_others_as_in_l2f(tau: float) -> None:
    task = Task()
    assert task.for_vehicles(Quadrotors.concatenate([load_platform("mrs"), quick(tau)])).exact_rotors
    for slow in (load_platforms(), sample_quadrotors(1000, 0), quick(13e-3), Distribution()):
        assert task.for_vehicles(slow) is task
    assert task.for_vehicles(Distribution(rotor_time_constant_rising=(tau, 0.1))).exact_rotors
    assert not Task(dt=0.002).for_vehicles(quick(tau)).exact_rotors


def test_the_task_of_the_paper_keeps_the_integrator_of_l2f() -> None:
    assert Task.paper().for_vehicles(quick(5e-3)) == Task.paper()
    assert Task(exact_rotors=True).for_vehicles(load_platforms()).exact_rotors


def test_print_says_what_is_flown_and_what_differs_from_the_default() -> None:
    assert str(Task()).splitlines() == [
        "Task of episodes of 500 steps of 0.01 s: 50% hover, 50% langevin",
        "  all settings as by default",
    ]
    head, *others = str(Task(references=References(langevin_share=0.0), dt=0.02)).splitlines()
    assert head == "Task of episodes of 500 steps of 0.02 s: 100% hover"
    assert others == ["  references.langevin_share (0.5, now 0.0)", "  dt (0.01, now 0.02)"]
    circling = Task(references=References(langevin_share=1.0, trajectory_share=0.25, trajectory=Trajectory("circle")))
    assert circling.summary.endswith(": 75% langevin, 25% trajectory circle")
