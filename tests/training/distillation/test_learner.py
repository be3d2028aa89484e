"""Imitation: whose flights the student learns from, which labels it gets there, and that it learns."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import pytest
import torch
from short_distillation import few_teachers, tiny
from torch import Tensor
from torch.utils import _pytree as pytree

from raptor.environments.rollout import StudentParameters
from raptor.nn.policy import MLPPolicy, RaptorPolicy
from raptor.nn.stacked_mlp import Layer
from raptor.nn.teachers import TeacherPopulation
from raptor.rl.demonstrations import DemonstrationFlight, Demonstrations, SimulatedDemonstrations
from raptor.rl.imitation import pack, weights_of
from raptor.training.distillation.learner import Distiller, first_student
from raptor.training.distillation.sources import SimulatorSource
from raptor.training.validation import TRAINING_SEEDS

KINDS = pytest.mark.parametrize("kind", ["gru", "mlp"])


def distiller(*overrides: str, teachers: TeacherPopulation | None = None) -> Distiller:
    config = tiny(*overrides)
    source = SimulatorSource(config, teachers or few_teachers())
    return Distiller(config, first_student(config.student, 5), source)


def constant_teachers(num: int = 3) -> TeacherPopulation:
    """Each always does the same, by which it is told apart: its number in tenths, below hover for the last."""
    teachers = few_teachers(num)
    *hidden, last = teachers.layers
    bias = torch.atanh(0.1 * torch.arange(1.0, num + 1)).unsqueeze(-1).expand_as(last.bias)
    return dataclasses.replace(teachers, layers=(*hidden, Layer(torch.zeros_like(last.weight), bias.contiguous())))


def with_offsets(teachers: TeacherPopulation, offsets: Sequence[Sequence[float]]) -> TeacherPopulation:
    return dataclasses.replace(teachers, records=tuple({"position_offset": list(offset)} for offset in offsets))


def flown_by(who: StudentParameters | None, one: Distiller, state: Tensor) -> tuple[Tensor, float]:
    """Labels and mean return of the flights of all teachers' vehicles from this state of the generator."""
    config, teachers = one.config, one.source.teachers
    offset = torch.zeros(len(teachers), 3)
    flight = DemonstrationFlight(config.flown_task, config.num_episodes, compile=False, method=config.method)
    flights = SimulatedDemonstrations(flight, teachers.quadrotors, teachers.layers, offset)
    generator = torch.Generator()
    generator.set_state(state)
    data = Demonstrations.empty(one.source.num_episodes, config.task.episode_steps, torch.zeros(0))
    outcome = flights.collect(who, generator, data)
    return data.label, outcome.returns.mean().item()


def who_flew(one: Distiller) -> list[int]:
    """The teachers of the flights that are kept, by what constant teachers say; -1 where there are none yet."""
    return [round(10 * label) - 1 for label in one.data.label[:: one.config.num_episodes, 0, 0].tolist()]


def of_one_mind(teachers: TeacherPopulation) -> TeacherPopulation:
    """The vehicles of all, with the network of the first: what to do does not depend on who is asked."""
    layers = tuple(Layer(*(part[:1].expand_as(part).contiguous() for part in layer)) for layer in teachers.layers)
    return dataclasses.replace(teachers, layers=layers)


@KINDS
def test_a_student_becomes_like_its_teachers(kind: str) -> None:
    one = distiller(
        f"student.kind={kind}",
        "student.hidden_dim=16",
        "num_epochs=14",
        "num_episodes=5",
        "epoch_teacher_forcing=7",
        "learning_rate=3e-2",
        teachers=of_one_mind(few_teachers(2)),
    )
    losses = [one.update()["training/loss"] for _ in range(14)]
    assert losses[6] < 0.5 * losses[0]
    assert losses[-1] < 0.1 * losses[0]
    assert one.imitation.skipped_count == 0


def loss_of(policy: RaptorPolicy | MLPPolicy, one: Distiller) -> tuple[int, Tensor]:
    """Number of rows and mean squared error over them, in the order of the store, as one would write it down."""
    config, data = one.config, one.data
    length = config.sequence_length
    rows = [(e, s) for e, steps in enumerate(data.length.tolist()) for s in range(steps)]
    rows = rows[: length * config.batch_size]
    errors, hidden = [], None
    for number, (episode, step) in enumerate(rows):
        if step == 0 or number % length == 0:
            hidden = policy.initial_hidden_state(1)
        action, hidden = policy(data.observation[episode, step][None], hidden)
        errors.append((action[0] - data.label[episode, step]).square())
    return len(rows), torch.stack(errors).mean()


@KINDS
def test_an_epoch_is_a_step_of_adam_along_the_gradient_of_the_mean_squared_error(kind: str) -> None:
    """With an epsilon that makes the step nearly proportional to the gradient, where it would else be its sign."""
    one = distiller(
        f"student.kind={kind}",
        "shuffle=false",
        "batch_size=7",
        "sequence_length=6",
        "gradient_norm=null",
        "warm_up_batches=0",
        "epsilon=1",
        "learning_rate=1",
        "task.termination.linear_velocity=1.1",
        "epoch_teacher_forcing=0",
    )
    policy = first_student(one.config.student, 5)
    optimizer = torch.optim.Adam(policy.parameters(), lr=one.config.learning_rate, eps=one.config.epsilon)
    values = one.update()
    assert len(one.data.length.unique()) > 1
    num, loss = loss_of(policy, one)
    assert (num, values["training/num_batches"]) == (42, 1)
    assert values["training/loss"] == pytest.approx(loss.item(), rel=1e-5)
    loss.backward()
    optimizer.step()
    for mine, its in zip(one.policy.tensors(), policy.tensors(), strict=True):
        torch.testing.assert_close(mine.detach(), its.detach(), rtol=1e-6, atol=1e-6)
    moved = torch.cat([(new - old).abs().flatten() for new, old in zip(weights_of(policy), one.acted, strict=True)])
    assert moved.max() > 1e-2


def test_the_teachers_fly_at_first_and_then_the_student_as_it_was_before_the_epoch() -> None:
    one = distiller("epoch_teacher_forcing=2")
    for epoch in range(4):
        state, before = one.source.generator.get_state(), [weight.clone() for weight in weights_of(one.policy)]
        values = one.update()
        assert all(torch.equal(a, b) for a, b in zip(one.acted, before, strict=True))
        assert not torch.equal(one.acted[0], weights_of(one.policy)[0])
        labels, mean_return = flown_by(None if epoch < 2 else one.acted, one, state)
        assert torch.equal(one.data.label, labels)
        assert values["data_collection/mean_return"] == pytest.approx(mean_return)


@pytest.mark.parametrize("forcing", [0, 1])
def test_every_step_is_labelled_by_the_vehicles_own_teacher(forcing: int) -> None:
    one = distiller(f"epoch_teacher_forcing={forcing}", teachers=constant_teachers())
    one.update()
    labels = one.data.label.unflatten(0, (3, 2))
    flown = torch.arange(8) < one.data.length.unsqueeze(-1)
    expected = 0.1 * torch.arange(1.0, 4.0)[:, None, None] * flown.unflatten(0, (3, 2))
    torch.testing.assert_close(labels, expected.unsqueeze(-1).expand_as(labels))


def test_off_policy_the_newest_epochs_are_kept_and_all_of_them_trained_on() -> None:
    settings = ("shuffle=false", "epoch_teacher_forcing=4", "num_data_epochs=3")
    fresh, kept = distiller(*settings), distiller(*settings, "on_policy=false")
    epochs = []
    for epoch in range(4):
        values, kept_values = fresh.update(), kept.update()
        epochs.append([tensor.clone() for tensor in fresh.data])
        present = range(max(0, epoch - 2), epoch + 1)
        length = torch.cat([epochs[i][2] for i in present])
        assert kept_values["training/num_batches"] == len(pack(length, 8, 5, 2, None))
        assert kept_values["data_collection/num_steps"] == values["data_collection/num_steps"]
    for number, tensor in enumerate(kept.data):
        slots = [epochs[epoch][number] for epoch in (3, 1, 2)]  # the fourth took the place of the first
        assert torch.equal(tensor, torch.cat(slots))


def test_teachers_take_turns_while_they_fly() -> None:
    one = distiller("num_active_teachers=2", teachers=constant_teachers())
    flew = []
    for _ in range(2):
        one.update()
        flew.append(who_flew(one))
    assert flew == [[0, 1], [0, 2]]


def test_the_student_flies_first_with_whom_it_never_has_and_then_where_it_is_worst() -> None:
    one = distiller("num_active_teachers=1", "epoch_teacher_forcing=0", "num_epochs=9", teachers=constant_teachers())
    returns = {}
    for number in range(3):
        values = one.update()
        assert who_flew(one) == [number]
        returns[number] = values["data_collection/mean_return"]
    for _ in range(4):
        worst = min(returns, key=returns.__getitem__)
        values = one.update()
        assert who_flew(one) == [worst]
        returns[worst] = values["data_collection/mean_return"]


def test_a_student_that_does_not_see_the_target_sees_where_it_is_in_the_world() -> None:
    moving = "task.references.langevin_share=1"
    visible, hidden = distiller(moving), distiller(moving, "target_visible=false")
    for one in (visible, hidden):
        one.update()
    assert torch.equal(visible.data.label, hidden.data.label)  # a teacher sees it in any case
    apart = (visible.data.observation - hidden.data.observation).abs().amax((0, 1))
    position, rotation, velocity, rest = apart.split([3, 9, 3, 7])
    assert position.min() > 0
    assert velocity.min() > 0
    assert not rotation.any()
    assert not rest.any()


def test_the_correction_of_the_offset_changes_what_is_learnt_and_not_what_is_flown() -> None:
    offsets = [[0.1, 0.0, -0.2], [0.0, 0.3, 0.0], [0.05, -0.1, 0.4]]
    teachers = with_offsets(few_teachers(), offsets)
    settings = ("epoch_teacher_forcing=0", "steady_state_position_correction")
    with_it, without = (distiller(settings[0], f"{settings[1]}={on}", teachers=teachers) for on in ("true", "false"))
    values, plain = with_it.update(), without.update()
    assert torch.equal(with_it.data.label, without.data.label)
    assert values["data_collection/mean_return"] == plain["data_collection/mean_return"]
    assert values["training/loss"] != plain["training/loss"]
    apart = without.data.observation - with_it.data.observation
    flown = (torch.arange(8) < with_it.data.length.unsqueeze(-1)).unsqueeze(-1)
    expected = torch.tensor(offsets).repeat_interleave(2, dim=0).unsqueeze(1) * flown
    torch.testing.assert_close(apart[..., :3], expected)
    assert not apart[..., 3:].any()


def test_noise_on_the_teachers_actions_moves_the_flights_and_not_the_labels() -> None:
    calm, shaken = (
        distiller(f"teacher_deterministic={on}", "teacher_noise=0.5", teachers=constant_teachers())
        for on in ("true", "false")
    )
    for one in (calm, shaken):
        one.update()
    assert torch.equal(calm.data.label, shaken.data.label)
    assert not torch.equal(calm.data.observation, shaken.data.observation)


@pytest.mark.parametrize(
    ("after", "settings"),
    [
        (1, ("student.kind=gru", "teacher_deterministic=false")),
        (3, ("student.kind=mlp",)),
        (1, ("on_policy=false", "task.sensing.position_noise=0.01")),
        (3, ("on_policy=false", "num_active_teachers=2")),
    ],
)
def test_a_learner_goes_on_from_a_saved_state_as_if_nothing_had_happened(after: int, settings: tuple[str, ...]) -> None:
    straight = distiller(*settings, "num_epochs=5")
    for _ in range(after):
        straight.update()
    state = pytree.tree_map(lambda x: x.clone() if isinstance(x, Tensor) else x, straight.state_dict())
    expected = [straight.update() for _ in range(2)]
    resumed = distiller(*settings, "num_epochs=5")
    resumed.load_state_dict(state)
    assert [resumed.update() for _ in range(2)] == expected
    mine, its = (pytree.tree_leaves(one.state_dict()) for one in (resumed, straight))
    assert all(torch.equal(a, b) if isinstance(a, Tensor) else a == b for a, b in zip(mine, its, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(resumed.data, straight.data, strict=True))


def test_a_return_that_is_not_a_number_does_not_put_its_teacher_last_for_ever() -> None:
    """Without termination, a vehicle may fly on into what is no number; the student is worst there."""
    teachers = few_teachers()
    gravity = teachers.quadrotors.gravity.clone()
    gravity[1] = math.nan
    lost = dataclasses.replace(teachers, quadrotors=dataclasses.replace(teachers.quadrotors, gravity=gravity))
    settings = ("num_active_teachers=1", "epoch_teacher_forcing=0", "num_epochs=9")
    one = distiller(*settings, "task.termination.enabled=false", "task.reward.action=1", teachers=lost)
    returns = [one.update()["data_collection/mean_return"] for _ in range(3)]
    assert [math.isnan(value) for value in returns] == [False, True, False]
    assert one.source.student_returns.isfinite().all()  # each has flown
    assert one.source.plan(9, forced=False)[1].tolist() == [1]


def test_a_seed_gives_the_same_student_and_nothing_else_is_drawn_from() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one, other = distiller(), distiller("seed=1")
    again = distiller()
    for each in (one, other, again):
        each.update()
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one.policy.output_layer.weight, again.policy.output_layer.weight)
    assert not torch.equal(one.policy.output_layer.weight, other.policy.output_layer.weight)
    assert one.source.generator.initial_seed() == TRAINING_SEEDS
