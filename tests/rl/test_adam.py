"""Adam over populations: torch's own, member by member."""

from __future__ import annotations

import pytest
import torch

from raptor.rl.adam import adam_start, adam_step

STEPS = 5


def drawn(seed: int, scale: float = 1.0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: scale * torch.randn(shape, generator=generator) for name, shape in (("w", (3, 4, 2)), ("b", (3, 4)))}


def walked(rate: torch.Tensor | float, **settings: float) -> dict[str, torch.Tensor]:
    parameters = drawn(0)
    state = adam_start(parameters)
    for number in range(STEPS):
        parameters, state = adam_step(parameters, drawn(number + 1), state, rate, **settings)
    return parameters


def walked_by_torch(rate: float, **settings: float) -> dict[str, torch.Tensor]:
    parameters = drawn(0)
    optimizer = torch.optim.Adam(parameters.values(), rate, **settings)
    for number in range(STEPS):
        for name, gradient in drawn(number + 1).items():
            parameters[name].grad = gradient
        optimizer.step()
    return parameters


@pytest.mark.parametrize(("betas", "epsilon"), [((0.9, 0.999), 1e-8), ((0.5, 0.7), 0.1)])
def test_several_steps_are_those_of_torch(betas: tuple[float, float], epsilon: float) -> None:
    ours = walked(0.05, betas=betas, epsilon=epsilon)
    for name, expected in walked_by_torch(0.05, betas=betas, eps=epsilon).items():
        torch.testing.assert_close(ours[name], expected, rtol=1e-4, atol=1e-5)


def test_each_member_can_have_a_learning_rate_of_its_own() -> None:
    rates = torch.tensor([0.0, 0.01, 0.1])
    together = walked(rates)
    for place, rate in enumerate(rates.tolist()):
        for name, alone in walked(rate).items():
            torch.testing.assert_close(together[name][place], alone[place])
    assert torch.equal(together["w"][0], drawn(0)["w"][0])


def test_the_floor_bounds_the_step_of_weights_that_are_rarely_used() -> None:
    start, gradient = {"w": torch.zeros(2)}, {"w": torch.tensor([1e-6, 1.0])}
    free, _ = adam_step(start, gradient, adam_start(start), 0.1)
    bound, _ = adam_step(start, gradient, adam_start(start), 0.1, variance_floor=1e-4)
    torch.testing.assert_close(free["w"], torch.tensor([-0.1, -0.1]), rtol=0.02, atol=0)
    torch.testing.assert_close(bound["w"], torch.tensor([-0.1 * 1e-6 / 1e-2, -0.1]), rtol=1e-4, atol=0)


def test_nothing_that_is_given_is_changed() -> None:
    parameters, gradient = drawn(0), drawn(1)
    state = adam_start(parameters)
    adam_step(parameters, gradient, state, 0.1)
    assert all(torch.equal(parameters[name], drawn(0)[name]) for name in parameters)
    assert all(torch.equal(gradient[name], drawn(1)[name]) for name in gradient)
    assert not state.mean["w"].any()
    assert state.remains.tolist() == [1.0, 1.0]
