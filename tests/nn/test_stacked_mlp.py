"""Stacked networks: each member is an ordinary multi-layer perceptron that knows nothing of the others."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from raptor.nn.stacked_mlp import Layer, Layers, forward, initial_layers, laid_out, linear, tile

SIZES = (5, 7, 6, 2)


def networks(num: int = 3, seed: int = 0) -> Layers:
    return initial_layers(num, SIZES, torch.Generator().manual_seed(seed))


def alone(layers: Layers, member: int, x: torch.Tensor) -> torch.Tensor:
    for number, layer in enumerate(layers):
        x = functional.linear(x, layer.weight[member], layer.bias[member])
        x = functional.relu(x) if number < len(layers) - 1 else x
    return x


def test_each_network_is_an_ordinary_one(generator: torch.Generator) -> None:
    layers, x = networks(), torch.randn((3, 4, 5), generator=generator)
    y = forward(layers, x)
    assert y.shape == (3, 4, 2)
    for member in range(3):
        torch.testing.assert_close(y[member], alone(layers, member, x[member]))


def test_the_gradient_of_a_network_does_not_reach_the_others(generator: torch.Generator) -> None:
    layers, x = networks(), torch.randn((3, 4, 5), generator=generator)
    for layer in layers:
        for tensor in layer:
            tensor.requires_grad_()
    forward(layers, x)[1].square().sum().backward()
    for layer in layers:
        for tensor in layer:
            assert tensor.grad is not None
            assert tensor.grad[1].any()
            assert not tensor.grad[[0, 2]].any()


def test_initial_weights_fill_the_bounds_of_torch_and_differ_between_members() -> None:
    for layer, fan_in in zip(initial_layers(40, SIZES, torch.Generator().manual_seed(0)), SIZES, strict=False):
        bound = 1 / math.sqrt(fan_in)
        for tensor in layer:
            assert tensor.abs().max() <= bound
            assert tensor.abs().max() > 0.95 * bound
            assert tensor.mean().abs() < 0.15 * bound
            assert not torch.equal(tensor[0], tensor[1])
    assert [tuple(layer.weight.shape) for layer in networks()] == [(3, 7, 5), (3, 6, 7), (3, 2, 6)]


def test_the_same_seed_gives_the_same_networks() -> None:
    for one, same, other in zip(networks(), networks(), networks(seed=1), strict=True):
        assert torch.equal(one.weight, same.weight)
        assert torch.equal(one.bias, same.bias)
        assert not torch.equal(one.weight, other.weight)


def test_laying_out_changes_the_order_in_memory_and_no_number() -> None:
    layers = tuple(Layer(layer.weight.contiguous(), layer.bias) for layer in networks())
    for before, after in zip(layers, laid_out(layers), strict=True):
        assert torch.equal(before.weight, after.weight)
        assert torch.equal(before.bias, after.bias)
        assert after.weight.mT.is_contiguous()


def test_tiling_repeats_each_network_in_a_row(generator: torch.Generator) -> None:
    layers, x = networks(), torch.randn((6, 4, 5), generator=generator)
    y = forward(tile(layers, 2), x)
    for place in range(6):
        torch.testing.assert_close(y[place], alone(layers, place // 2, x[place]))


def test_half_precision_rounds_the_factors_and_keeps_the_type(generator: torch.Generator) -> None:
    layer, x = networks()[0], torch.randn((3, 4, 5), generator=generator)
    rounded, exact = linear(layer, x, "bfloat16"), linear(layer, x)
    assert rounded.dtype == torch.float32
    assert 0 < (rounded - exact).abs().max() < 0.05
    twice = torch.stack([a.bfloat16().float() @ w.bfloat16().float().T for a, w in zip(x, layer.weight, strict=True)])
    torch.testing.assert_close(rounded, twice + layer.bias.unsqueeze(-2), rtol=1e-2, atol=5e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_networks_are_of_the_type_that_is_asked_for(dtype: torch.dtype) -> None:
    layers = initial_layers(2, SIZES, torch.Generator().manual_seed(0), dtype)
    assert {tensor.dtype for layer in layers for tensor in layer} == {dtype}
    assert forward(layers, torch.zeros((2, 1, 5), dtype=dtype)).dtype == dtype
