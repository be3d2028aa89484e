"""SOAP: Adam in axes that turn."""

from __future__ import annotations

import pytest
import torch

from raptor.rl.soap import Soap


def descend(make, steps=200, seed=0):
    """Loss of a layer that is to be another one, with inputs whose directions differ a thousandfold."""
    torch.manual_seed(seed)
    turned = torch.linalg.qr(torch.randn(8, 8))[0]
    inputs = torch.randn(256, 8) @ torch.diag(torch.logspace(-1.5, 1.5, 8)) @ turned
    wanted = inputs @ torch.randn(8, 4)
    weight = torch.nn.Parameter(torch.zeros(8, 4))
    optimizer = make([weight])
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 0.1 * (1 - step / steps)
        loss = (inputs @ weight - wanted).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


def test_it_descends_where_the_axes_of_adam_are_the_wrong_ones():
    assert descend(lambda p: Soap(p, lr=0.1)) < 0.1 * descend(lambda p: torch.optim.Adam(p, lr=0.1, betas=(0.9, 0.99)))


@pytest.mark.parametrize("shape", [(5,), (3, 2)])
def test_as_long_as_its_axes_stay_it_is_adam(shape):
    torch.manual_seed(0)
    ours, theirs = torch.nn.Parameter(torch.randn(shape)), torch.nn.Parameter(torch.zeros(shape))
    theirs.data.copy_(ours.data)
    soap = Soap([ours], lr=0.1, epsilon=1e-8, axes_interval=5 if len(shape) == 1 else 100)
    adam = torch.optim.Adam([theirs], lr=0.1, betas=(0.9, 0.99))
    for _ in range(20):
        slope = torch.randn(shape)
        ours.grad, theirs.grad = slope.clone(), slope.clone()
        soap.step()
        adam.step()
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_weights_without_a_gradient_do_not_follow_its_rounding_errors():
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.zeros(8, 4))
    optimizer = Soap([weight], lr=0.1)
    for _ in range(20):
        weight.grad = torch.randn(8, 4)
        weight.grad[2] = 1e-8 * torch.randn(4)
        optimizer.step()
    assert weight[2].abs().max() < 1e-3 < 0.1 < weight.abs().max()


@pytest.mark.parametrize("shape", [(5,), (4, 3)])
def test_it_goes_on_where_its_state_was_kept(shape):
    torch.manual_seed(0)
    slopes = torch.randn(12, *shape)

    def run(interrupted):
        weight = torch.nn.Parameter(torch.zeros(shape))
        optimizer = Soap([weight], lr=0.1)
        for step, slope in enumerate(slopes):
            if interrupted and step == 7:
                kept = optimizer.state_dict()
                optimizer = Soap([weight], lr=0.5)
                optimizer.load_state_dict(kept)
            weight.grad = slope.clone()
            optimizer.step()
        return weight.data

    assert torch.equal(run(True), run(False))


def test_a_parameter_without_a_gradient_stays():
    one, other = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    one.grad = torch.ones(2)
    Soap([one, other], lr=0.1).step()
    assert torch.equal(other.data, torch.ones(2))
    assert (one.data < 1).all()
