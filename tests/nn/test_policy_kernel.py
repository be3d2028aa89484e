"""The kernel of the policy, held to `policy_step` and autograd."""

from __future__ import annotations

import pytest
import torch

from raptor.nn.policy import PolicyParameters, RaptorPolicy, policy_step
from raptor.nn.policy_kernel import policy_kernel


@pytest.mark.parametrize("num", [1, 64, 150])
@pytest.mark.parametrize(("observation_dim", "hidden_dim"), [(22, 16), (58, 64), (3, 5)])
def test_it_is_the_step_of_the_policy_and_its_derivative(num: int, observation_dim: int, hidden_dim: int) -> None:
    generator = torch.Generator().manual_seed(num)
    torch.manual_seed(0)
    parameters = PolicyParameters(*(p.detach() for p in RaptorPolicy(observation_dim, hidden_dim).double().tensors()))
    kernel = policy_kernel(parameters)
    assert kernel is not None

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    observation, hidden = normal(observation_dim, num), normal(hidden_dim, num)
    by_action, by_following, scale = normal(4, num), normal(hidden_dim, num), normal(num).abs()
    results, pull = torch.func.vjp(policy_step, parameters, observation.mT, hidden.mT)
    expected, *by_inputs = pull((by_action.mT, (scale * by_following).mT))
    torch.testing.assert_close(kernel.step(parameters, observation, hidden), tuple(r.mT for r in results))

    sums = kernel.no_sums(scale)
    given = parameters, observation, hidden, by_action, by_following, scale, sums
    for count in (1, 2):  # what is there is added to
        slopes = kernel.pull(*given)
        torch.testing.assert_close(slopes, tuple(slope.mT for slope in by_inputs))
        for ours, theirs in zip(kernel.by_parameters(sums), expected, strict=True):
            assert theirs.abs().max() > 0
            torch.testing.assert_close(ours, count * theirs)


def test_there_is_none_for_numbers_that_it_does_not_know() -> None:
    assert policy_kernel(PolicyParameters(*(p.detach() for p in RaptorPolicy().half().tensors()))) is None
