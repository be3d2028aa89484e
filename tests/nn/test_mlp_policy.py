"""The memoryless policy: its size, its arithmetic, and that it flies wherever the recurrent one does."""

from __future__ import annotations

import pytest
import torch

from raptor.nn.policy import MLPParameters, MLPPolicy, RaptorPolicy, mlp_step


def test_its_size_is_that_of_three_dense_layers_and_its_card_tells_it():
    policy = MLPPolicy(hidden_dim=64)
    assert policy.num_parameters == 22 * 64 + 64 + 64 * 64 + 64 + 64 * 4 + 4
    assert policy.summary == "dense 22-64 ReLU, dense 64-64 ReLU, dense 64-4, no memory; 5892 parameters"
    assert RaptorPolicy().summary == "dense 22-16 ReLU, GRU 16, dense 16-4; 2084 parameters"
    assert all(parameter.requires_grad for parameter in policy.parameters())


def test_an_action_is_three_layers_with_two_rectifiers(make_mlp, generator):
    policy = make_mlp(dtype=torch.float64)
    layers = (policy.input_layer, torch.nn.ReLU(), policy.middle_layer, torch.nn.ReLU(), policy.output_layer)
    observation = 3 * torch.randn(9, 22, generator=generator, dtype=torch.float64)
    expected = torch.nn.Sequential(*layers)(observation)
    torch.testing.assert_close(policy(observation)[0], expected, rtol=1e-12, atol=1e-12)
    assert expected.abs().max() > 1, "the output is linear and may leave the range of the motors"


def test_a_step_takes_the_tensors_and_gives_components_one_after_the_other(make_mlp, generator):
    policy = make_mlp()
    parameters = policy.tensors()
    assert isinstance(parameters, MLPParameters)
    assert [id(tensor) for tensor in parameters] == [id(tensor) for tensor in policy.parameters()]
    observation = torch.randn(22, 5, generator=generator).mT  # as the simulator lays it out
    action = mlp_step(parameters, observation)
    assert action.mT.is_contiguous()
    torch.testing.assert_close(action, policy(observation.contiguous())[0])


@pytest.mark.parametrize("shape", [(), (1,), (5,), (3, 5)])
def test_any_leading_shape_gives_the_same_numbers_and_an_empty_hidden_state(make_mlp, generator, shape):
    policy = make_mlp()
    observation = torch.randn(*shape, 22, generator=generator)
    hidden = policy.initial_hidden_state(*shape)
    assert hidden.shape == (*shape, 0)
    action, following = policy(observation, hidden)
    assert action.shape == (*shape, 4)
    assert following.shape == (*shape, 0)
    for i, row in enumerate(observation.reshape(-1, 22)):
        torch.testing.assert_close(action.reshape(-1, 4)[i], policy(row)[0])


def test_it_is_flown_like_the_recurrent_policy_and_remembers_nothing(make_mlp, generator):
    policy = make_mlp()
    observation = torch.randn(5, 22, generator=generator)
    first = policy.evaluate_step(observation)
    assert not first.requires_grad
    policy.evaluate_step(torch.randn(5, 22, generator=generator))
    assert policy.get_hidden_state().shape == (5, 0)
    assert torch.equal(policy.evaluate_step(observation), first)
    policy.set_hidden_state(torch.zeros(5, 0))
    assert torch.equal(policy.evaluate_step(observation), first)
    policy.reset()
    assert policy.get_hidden_state() is None
    assert policy.evaluate_step(observation[:2]).shape == (2, 4)


def test_what_does_not_fit_is_an_error(make_mlp):
    policy = make_mlp()
    with pytest.raises(ValueError, match="observes 22 numbers"):
        policy(torch.zeros(5, 26))
    with pytest.raises(ValueError, match="0 numbers"):
        policy.set_hidden_state(torch.zeros(5, 16))
    with pytest.raises(ValueError, match=r"hidden state of shape \(5, 0\), got \(5, 16\)"):
        policy(torch.zeros(5, 22), torch.zeros(5, 16))


def test_its_step_is_differentiable_in_every_weight(make_mlp, generator):
    policy = make_mlp(dtype=torch.float64)
    observation = torch.randn(7, 22, generator=generator, dtype=torch.float64)

    def loss(*tensors):
        return mlp_step(MLPParameters(*tensors), observation).square().mean()

    assert torch.autograd.gradcheck(loss, tuple(t.detach().requires_grad_() for t in policy.tensors()))
