"""Beyond imitation: how the teachers' hold on a student falls, and whose vehicles it flies meanwhile."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from short_distillation import few_teachers, tiny
from torch import Tensor
from torch.utils import _pytree as pytree

from raptor.environments.episode import draw_noise
from raptor.formats.checkpoint import StudentPolicy
from raptor.nn.teachers import TeacherPopulation
from raptor.rl.objective import TeacherGuide
from raptor.rl.segment import RolloutState, StepInputs
from raptor.training.direct.learner import GradientLearner
from raptor.training.distillation.learner import first_student, guidance_of, shared_evenly
from raptor.training.memory import batch_bytes, nbytes


def student(kind: str = "gru") -> StudentPolicy:
    return first_student(tiny(f"student.kind={kind}").student, 5)


def tuner(
    *overrides: str, teachers: TeacherPopulation | None = None, kind: str = "gru", alone: bool = False
) -> GradientLearner:
    config = tiny(*(f"fine_tune.{override}" for override in overrides)).fine_tune
    chosen = None if alone else (teachers or few_teachers())
    shared = shared_evenly(config, len(chosen)) if chosen else config
    guidance = guidance_of(shared, chosen, "cpu", compile=False)
    return GradientLearner(shared, student(kind), seed=0, compile=False, guidance=guidance)


def owners(one: GradientLearner, teachers: TeacherPopulation) -> list[int]:
    """Whose vehicle is in each place; -1 where it is nobody's."""
    same = one.quadrotors.mass.unsqueeze(-1) == teachers.quadrotors.mass
    return [row.index(True) if True in row else -1 for row in same.tolist()]


def copied(state: Any) -> Any:
    return pytree.tree_map(lambda x: x.clone() if isinstance(x, Tensor) else x, state)


def test_the_weight_of_imitation_falls_to_zero() -> None:
    one = tuner("imitation=0.5", "imitation_updates=4")
    assert [one.update()["training/imitation"] for _ in range(6)] == [0.5, 0.375, 0.25, 0.125, 0.0, 0.0]


def test_as_long_as_imitation_has_weight_the_vehicles_are_the_teachers_own_and_after_that_new_ones() -> None:
    teachers = few_teachers()
    one = tuner("imitation_updates=3", teachers=teachers)
    seen = [owners(one, teachers)]
    for _ in range(6):
        one.update()
        seen.append(owners(one, teachers))
    assert seen[:4] == [[0, 0, 1, 1, 2, 2]] * 4  # places for two of each; episodes end at every update
    assert seen[4] != seen[3]
    assert seen[6] == [-1] * 6  # the last one's episode of three segments is over
    newest = one.quadrotors.mass
    assert len(newest.unique()) == 6


def test_of_more_teachers_than_there_are_places_some_from_all_over_take_part() -> None:
    teachers = few_teachers(6)
    one = tuner("batch_size=3", teachers=teachers)
    assert owners(one, teachers) == [0, 2, 4]
    assert one.update()["training/imitation"] == 1.0


@pytest.mark.parametrize("none", ["imitation=0", "imitation_updates=0", "alone"])
@pytest.mark.parametrize("kind", ["gru", "mlp"])
def test_without_imitation_it_is_training_through_the_gradient_and_nothing_else(kind: str, none: str) -> None:
    one = tuner(*([] if none == "alone" else [none]), kind=kind, alone=none == "alone")
    plain = GradientLearner(one.config, student(kind), seed=0, compile=False)
    assert len(one.quadrotors) == 7
    for _ in range(3):
        assert one.update() == plain.update()
    assert all(torch.equal(a, b) for a, b in zip(one.policy.tensors(), plain.policy.tensors(), strict=True))


@pytest.mark.parametrize("kind", ["gru", "mlp"])
def test_a_student_that_is_held_tightly_becomes_like_its_teachers(kind: str) -> None:
    settings = ("learning_rate=0.05", "num_updates=14", "warm_up_updates=0", "imitation_updates=1000")
    one = tuner("imitation=100", "optimizer=adam", *settings, kind=kind)
    guide = TeacherGuide(few_teachers().layers, compile=False)

    def apart() -> float:
        (label,) = guide.labels(one.quadrotors, [one.episode])
        done, _ = one.gradient.controller.act(one.policy.tensors(), one.quadrotors, one.episode, one.memory)
        return (done - label).square().mean().item()

    before = apart()
    for _ in range(14):
        one.update()
    assert apart() < 0.35 * before


@pytest.mark.parametrize("segment_steps", [10, 40])
def test_the_plan_of_the_memory_is_what_a_segment_keeps(segment_steps: int) -> None:
    settings = (f"segment_steps={segment_steps}", "batch_size=60", "task.episode_steps=80")
    one = tuner(*settings)
    noise = draw_noise(one.config.task, one.quadrotors.mass, one.generator, segment_steps)
    draws = [tuple(draw for draw in step if draw is not None) for step in noise]
    flight = RolloutState.begin(one.episode, one.memory)
    _, trail = one.gradient.fly(StepInputs(one.policy.tensors(), one.quadrotors, flight, draws[0]), draws)
    measured = nbytes(list({tensor for inputs in trail for tensor in inputs}))
    assert 0.3 < measured / batch_bytes(one.config, student(), 60) < 1.0


@pytest.mark.parametrize("after", [1, 4])
def test_it_goes_on_from_a_saved_state_as_if_nothing_had_happened(after: int) -> None:
    straight = tuner()
    for _ in range(after):
        straight.update()
    state = copied(straight.state_dict())
    expected = [straight.update() for _ in range(4)]
    resumed = tuner()
    resumed.load_state_dict(state)
    assert [resumed.update() for _ in range(4)] == expected
    mine, its = (pytree.tree_leaves(one.state_dict()) for one in (resumed, straight))
    assert all(torch.equal(a, b) if isinstance(a, Tensor) else a == b for a, b in zip(mine, its, strict=True))
