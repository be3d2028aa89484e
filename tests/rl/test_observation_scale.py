"""A scale of the observations that is part of the first layer."""

from __future__ import annotations

import pytest
import torch

from raptor.nn import MLPPolicy, RaptorPolicy
from raptor.rl.imitation import LEAST_DEVIATION, ObservationScale


@pytest.mark.parametrize("kind", [RaptorPolicy, MLPPolicy])
def test_a_folded_policy_does_with_an_observation_what_the_other_does_with_the_scaled_one(kind, generator):
    torch.manual_seed(0)
    policy, folded = kind(5, 4, 2).double(), kind(5, 4, 2).double()
    scale = ObservationScale(torch.tensor([3.0, -2, 0, 1, 9]).double(), torch.tensor([0.1, 5, 1, 40, 2]).double())
    weights = scale.fold(policy.tensors())
    with torch.no_grad():
        for weight, new in zip(folded.tensors(), weights, strict=True):
            weight.copy_(new)
    observation = torch.randn(7, 5, generator=generator, dtype=torch.float64) * 10
    expected, _ = policy((observation - scale.mean) / scale.deviation)
    torch.testing.assert_close(folded(observation)[0], expected)


def test_the_gradient_that_is_pulled_back_is_that_of_the_folded_policy(generator):
    torch.manual_seed(0)
    weights = type(RaptorPolicy(3, 4, 2).tensors())(
        *(tensor.detach().double().requires_grad_() for tensor in RaptorPolicy(3, 4, 2).tensors())
    )
    scale = ObservationScale(torch.tensor([3.0, -2, 1]).double(), torch.tensor([0.1, 5, 2]).double())
    folded = scale.fold(weights)
    upstream = type(weights)(*(torch.randn(w.shape, generator=generator, dtype=torch.float64) for w in weights))
    total = sum((w * g).sum() for w, g in zip(folded, upstream, strict=True))
    expected = torch.autograd.grad(total, list(weights))
    for got, wanted in zip(scale.pull_back(upstream), expected, strict=True):
        torch.testing.assert_close(got, wanted)


def test_the_scale_counts_the_steps_of_the_episodes_and_magnifies_nothing_without_bounds():
    observation = torch.full((2, 3, 2), 1e6)
    observation[0, :2, 0] = torch.tensor([1.0, 3.0])
    observation[1, :1, 0] = 2.0
    observation[0, :2, 1] = observation[1, :1, 1] = 4.0
    scale = ObservationScale.of(observation, torch.tensor([2, 1]))
    torch.testing.assert_close(scale.mean, torch.tensor([2.0, 4.0]))
    torch.testing.assert_close(scale.deviation, torch.tensor([(2 / 3) ** 0.5, LEAST_DEVIATION]))
