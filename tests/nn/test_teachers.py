"""Populations of teachers: each acts by its own weights, and they can be picked and merged."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from some_teachers import same, teachers

from raptor.core.errors import UserError
from raptor.nn import Activations, ExpertNetwork, Normalizer, TeacherPopulation
from raptor.nn.stacked_mlp import Layer, initial_layers
from raptor.quadrotor import load_platforms, sample_quadrotors


def test_each_teacher_acts_by_its_own_weights_as_a_torch_network_would(generator: torch.Generator) -> None:
    population = teachers(dtype=torch.float64)
    observation = torch.randn(3, 7, 26, generator=generator, dtype=torch.float64)
    action = population(observation)
    assert action.shape == (3, 7, 4)
    for i in range(3):
        modules = []
        for layer in population.layers:
            linear = torch.nn.Linear(*layer.weight.shape[:0:-1], dtype=torch.float64)
            linear.load_state_dict({"weight": layer.weight[i], "bias": layer.bias[i]})
            modules += [linear, torch.nn.ReLU()]
        network = torch.nn.Sequential(*modules[:-1], torch.nn.Tanh())
        torch.testing.assert_close(action[i], network(observation[i]).detach())


@pytest.mark.parametrize("shape", [(3, 26), (2, 5, 26), (3, 5, 22)])
def test_observations_of_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match=r"must have shape \(3 teachers, batch, 26\), got \("):
        teachers()(torch.zeros(shape))


@pytest.mark.parametrize(
    ("index", "chosen"),
    [
        (1, [1]),
        (-1, [2]),
        (slice(1, None), [1, 2]),
        ([2, 0, 2], [2, 0, 2]),
        (torch.tensor([2, 1]), [2, 1]),
        (torch.tensor([True, False, True]), [0, 2]),
        ([], []),
    ],
)
def test_picked_teachers_keep_their_weights_records_and_vehicles(
    index, chosen: list[int], generator: torch.Generator
) -> None:
    population = teachers()
    observation = torch.randn(3, 5, 26, generator=generator)
    picked = population[index]
    assert len(picked) == len(chosen)
    torch.testing.assert_close(picked(observation[chosen]), population(observation)[chosen])
    assert [record["name"] for record in picked.records] == [f"0/{i}" for i in chosen]
    assert torch.equal(picked.quadrotors.mass, population.quadrotors.mass[chosen])
    assert torch.equal(picked.position_offset, population.position_offset[chosen])


def test_an_index_beyond_the_last_teacher_is_an_error() -> None:
    with pytest.raises(IndexError):
        teachers()[3]


def test_merged_populations_are_taken_apart_again() -> None:
    a, b = teachers(3, 0), teachers(2, 1)
    merged = TeacherPopulation.concatenate([a, b])
    assert same(merged[:3], a)
    assert same(merged[3:], b)
    assert torch.equal(merged.quadrotors.mass, torch.cat([a.quadrotors.mass, b.quadrotors.mass]))
    assert TeacherPopulation.concatenate([a, teachers(1, vehicles=False)]).quadrotors is None


def test_teachers_of_other_widths_cannot_be_merged() -> None:
    with pytest.raises(UserError, match="teachers of widths 26-6-5-4 and 26-8-4 cannot be one population"):
        TeacherPopulation.concatenate([teachers(), teachers(widths=(26, 8, 4))])
    with pytest.raises(UserError, match="no teachers were given"):
        TeacherPopulation.concatenate([])


def test_teachers_of_other_activations_cannot_be_merged() -> None:
    other = dataclasses.replace(teachers(), activations=Activations("elu", "clip"))
    with pytest.raises(UserError, match="teachers with relu and tanh and with elu and clip cannot be one population"):
        TeacherPopulation.concatenate([teachers(), other])


def expert(inputs: int = 26, squash: str = "clip", normalizer: Normalizer | None = None, **more) -> ExpertNetwork:
    one = initial_layers(1, (inputs, 6, 5, 4), torch.Generator().manual_seed(inputs))
    layers = tuple(Layer(3 * layer.weight[0], layer.bias[0]) for layer in one)
    return ExpertNetwork(layers, "elu", squash, normalizer=normalizer, **more)


def skewed(inputs: int) -> Normalizer:
    return Normalizer(torch.linspace(-5, 5, inputs), torch.linspace(0.02, 3, inputs))


BOUNDS = {"low": torch.tensor([0.0, -1, -3, -1]), "high": torch.tensor([1.0, 1, 2, 0])}


@pytest.mark.parametrize("inputs", [22, 26])
@pytest.mark.parametrize("squash", ["clip", "tanh"])
@pytest.mark.parametrize("bounds", [{}, BOUNDS], ids=["usual", "bounds"])
def test_experts_become_a_population_that_acts_alike(inputs: int, squash: str, bounds: dict) -> None:
    experts = [expert(inputs, squash, normalizer, **bounds) for normalizer in (None, skewed(inputs))]
    population = TeacherPopulation.of(experts, load_platforms()[:2])
    assert population.activations == Activations("elu", squash)
    seen = torch.randn(2, 40, 26, generator=torch.Generator().manual_seed(1))
    low, high = (bounds.get(name, torch.tensor(limit)) for name, limit in (("low", -1.0), ("high", 1.0)))
    wanted = torch.stack([one(x[:, :inputs]) for one, x in zip(experts, seen, strict=True)])
    torch.testing.assert_close(population(seen), 2 * (wanted - low) / (high - low) - 1, rtol=1e-4, atol=2e-5)
    assert (population(seen).abs() <= 1).all()
    assert (population(seen).abs() < 0.99).any()


def test_an_action_without_bounds_is_clipped_as_the_motors_do() -> None:
    free = expert(squash="none")
    seen = torch.randn(1, 40, 26, generator=torch.Generator().manual_seed(1))
    wanted = free(seen[0])
    assert (wanted.abs() > 1).any()
    torch.testing.assert_close(TeacherPopulation.of([free])(seen)[0], wanted.clamp(-1, 1))


def test_only_actions_with_bounds_are_rescaled() -> None:
    low, high = torch.tensor([0.0, -torch.inf, -1, -1]), torch.tensor([1.0, torch.inf, 1, 3])
    mixed = expert(low=low, high=high)
    seen = torch.randn(1, 40, 26, generator=torch.Generator().manual_seed(1))
    wanted = mixed(seen[0])
    wanted = torch.stack([2 * wanted[:, 0] - 1, wanted[:, 1].clamp(-1, 1), wanted[:, 2], (wanted[:, 3] - 1) / 2], -1)
    torch.testing.assert_close(TeacherPopulation.of([mixed])(seen)[0], wanted, rtol=1e-4, atol=2e-5)
    one_sided = TeacherPopulation.of([expert(low=torch.zeros(4))])  # up to 1
    torch.testing.assert_close(one_sided(seen)[0], 2 * expert(low=torch.zeros(4))(seen[0]) - 1, rtol=1e-4, atol=2e-5)
    with pytest.raises(UserError, match=r"a network that ends in tanh needs finite bounds, got \[0.0, -inf"):
        expert(squash="tanh", low=low, high=high)


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (
            lambda: expert(48),
            r"26 = position error 3 \+ rotation matrix 9 .* rotor speeds 4, or 22",
        ),
        (lambda: expert(48), r"obs=48, actions=4, hidden=\[6, 5\]: give a teacher"),
        (lambda: expert(normalizer=Normalizer(torch.zeros(26), torch.ones(26), 10.0)), "clips at 10, which no layer"),
        (lambda: expert(normalizer=Normalizer(torch.zeros(26), torch.zeros(26))), "divides by a number that is not"),
    ],
)
def test_an_expert_that_sees_or_does_other_than_a_teacher_is_refused(wrong, match: str) -> None:
    with pytest.raises(UserError, match=match):
        TeacherPopulation.of([wrong()])


def test_what_does_not_fit_together_is_no_population() -> None:
    population = teachers()
    first, *rest = population.layers
    with pytest.raises(UserError, match=r"layers\.1\.weight must have shape \(3, 4, 6\), got \(3, 4, 5\)"):
        TeacherPopulation((first, rest[1]))
    with pytest.raises(UserError, match=r"layers\.0\.bias must have shape \(3, 6\), got \(2, 6\)"):
        TeacherPopulation((Layer(first.weight, first.bias[:2]), *rest))
    with pytest.raises(UserError, match=r"must have shape \(teachers, outputs, inputs\), got \(6, 26\)"):
        TeacherPopulation((Layer(first.weight[0], first.bias[0]),))
    with pytest.raises(UserError, match="records must be one for each of the 3 teachers, got 2"):
        dataclasses.replace(population, records=population.records[:2])
    with pytest.raises(UserError, match="quadrotors must be one for each of the 3 teachers, got 1"):
        dataclasses.replace(population, quadrotors=sample_quadrotors(1, 0))
    with pytest.raises(UserError, match="at least one layer"):
        TeacherPopulation(())


def test_what_is_not_on_record_counts_as_unsolved_and_at_rest_on_the_target() -> None:
    population = teachers(2, vehicles=False)
    assert population.solved.tolist() == [True, False]
    torch.testing.assert_close(population.position_offset, torch.tensor([[0.0, 0.0, -0.01], [0.1, 0.0, -0.01]]))
    records = ({}, {"position_offset": [float("nan"), None, 0.5], "solved": None})
    unknown = dataclasses.replace(population, records=records)
    assert unknown.solved.tolist() == [False, False]
    assert unknown.position_offset.tolist() == [[0.0, 0.0, 0.0], [0.0, 0.0, 0.5]]
    assert dataclasses.replace(population, records=()).records == ({}, {})


def test_teachers_and_their_vehicles_move_together() -> None:
    moved = teachers().to("meta")
    assert moved.device.type == moved.quadrotors.device.type == "meta"
    assert moved.records == teachers().records
