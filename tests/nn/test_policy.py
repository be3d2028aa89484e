"""The policy: its size, its arithmetic, its sequences and its memory."""

from __future__ import annotations

import pytest
import torch

from raptor.nn.policy import PolicyParameters, RaptorPolicy, policy_step


def flown_step_by_step(policy, observations, hidden, resets=None):
    actions = []
    for t, observation in enumerate(observations):
        if resets is not None:
            hidden = torch.where(resets[t].unsqueeze(-1), policy.initial_hidden_state(observation.shape[0]), hidden)
        action, hidden = policy(observation, hidden)
        actions.append(action)
    return torch.stack(actions), hidden


@pytest.mark.parametrize(("hidden_dim", "expected"), [(16, 2084), (64, 26756)])
def test_the_number_of_parameters_counts_the_initial_hidden_state(hidden_dim, expected):
    assert RaptorPolicy(hidden_dim=hidden_dim).num_parameters == expected


def test_all_but_the_initial_hidden_state_is_trained():
    policy = RaptorPolicy()
    assert sum(p.numel() for p in policy.parameters() if p.requires_grad) == 2068
    assert not policy.initial_hidden.requires_grad
    assert not policy.initial_hidden.any()


def test_a_step_is_that_of_torchs_gru_cell(make_policy, generator):
    policy = make_policy(dtype=torch.float64)
    p = policy.tensors()
    cell = torch.nn.GRUCell(16, 16, dtype=torch.float64)
    weights = {"weight_ih": p.gru_weight_ih, "weight_hh": p.gru_weight_hh, "bias_ih": p.gru_bias_ih}
    cell.load_state_dict(weights | {"bias_hh": p.gru_bias_hh})
    observation = torch.randn(9, 22, generator=generator, dtype=torch.float64)
    hidden = torch.randn(9, 16, generator=generator, dtype=torch.float64)

    expected_hidden = cell(torch.relu(observation @ p.input_weight.T + p.input_bias), hidden)
    expected_action = expected_hidden @ p.output_weight.T + p.output_bias
    action, following = policy(observation, hidden)
    assert torch.allclose(following, expected_hidden, atol=1e-13)
    assert torch.allclose(action, expected_action, atol=1e-13)


def test_the_gates_mix_the_candidate_and_the_old_hidden_state():
    zero = PolicyParameters(*(torch.zeros(s) for s in ((1, 1), (1,), (3, 1), (3, 1), (3,), (3,), (1, 1), (1,))))
    keep = zero._replace(gru_bias_ih=torch.tensor([0.0, 30.0, 1.0]))  # update gate 1: the old state stays
    renew = zero._replace(gru_bias_ih=torch.tensor([0.0, -30.0, 1.0]))  # update gate 0: the candidate replaces it
    forget = renew._replace(  # reset gate 0: the old state does not reach the candidate
        gru_bias_ih=torch.tensor([-30.0, -30.0, 1.0]), gru_weight_hh=torch.tensor([[0.0], [0.0], [5.0]])
    )
    hidden = torch.tensor([[0.25]])
    for parameters, expected in ((keep, 0.25), (renew, torch.tensor(1.0).tanh()), (forget, torch.tensor(1.0).tanh())):
        _, following = policy_step(parameters, torch.zeros(1, 1), hidden)
        assert following.item() == pytest.approx(float(expected), abs=1e-6)


@pytest.mark.parametrize("shape", [(), (1,), (5,), (3, 5), (2, 3, 5)])
def test_any_leading_shape_gives_the_same_numbers(policy, generator, shape):
    observation = torch.randn(*shape, 22, generator=generator)
    hidden = torch.randn(*shape, 16, generator=generator)
    action, following = policy(observation, hidden)
    assert action.shape == (*shape, 4)
    assert following.shape == (*shape, 16)
    rows = zip(observation.reshape(-1, 22), hidden.reshape(-1, 16), strict=True)
    for i, (observation_row, hidden_row) in enumerate(rows):
        row_action, row_following = policy(observation_row, hidden_row)
        assert row_action.shape == (4,)
        assert torch.allclose(action.reshape(-1, 4)[i], row_action, atol=1e-6)
        assert torch.allclose(following.reshape(-1, 16)[i], row_following, atol=1e-6)


@pytest.mark.parametrize("shape", [(), (5,), (3, 5)])
def test_a_step_begins_from_the_initial_hidden_state_by_default(policy, generator, shape):
    observation = torch.randn(*shape, 22, generator=generator)
    initial = policy.initial_hidden_state(*shape)
    assert torch.equal(initial, policy.initial_hidden.expand(*shape, 16))
    for ours, theirs in zip(policy(observation), policy(observation, initial), strict=True):
        assert torch.equal(ours, theirs)


def test_the_memory_layout_does_not_change_the_result(policy, generator):
    observation = torch.randn(22, 5, generator=generator).mT
    hidden = torch.randn(16, 5, generator=generator).mT
    for ours, theirs in zip(
        policy(observation, hidden), policy(observation.contiguous(), hidden.contiguous()), strict=True
    ):
        assert torch.allclose(ours, theirs, atol=1e-6)


def test_an_action_is_linear_and_may_leave_the_range_of_the_motors(policy):
    with torch.no_grad():
        policy.output_layer.bias.fill_(50.0)
    assert (policy(torch.zeros(3, 22))[0] > 10).all()


@pytest.mark.parametrize("given_hidden", [True, False])
def test_a_sequence_is_its_steps(make_policy, generator, given_hidden):
    policy = make_policy(dtype=torch.float64)
    observations = torch.randn(40, 6, 22, generator=generator, dtype=torch.float64)
    hidden = torch.randn(6, 16, generator=generator, dtype=torch.float64) if given_hidden else None
    actions, last = policy.forward_sequence(observations, hidden)
    start = policy.initial_hidden_state(6) if hidden is None else hidden
    expected_actions, expected_last = flown_step_by_step(policy, observations, start)
    assert torch.allclose(actions, expected_actions, atol=1e-12)
    assert torch.allclose(last, expected_last, atol=1e-12)


def test_a_sequence_with_resets_is_its_steps_with_resets(make_policy, generator):
    policy = make_policy(dtype=torch.float64)
    observations = torch.randn(40, 6, 22, generator=generator, dtype=torch.float64)
    hidden = torch.randn(6, 16, generator=generator, dtype=torch.float64)
    resets = torch.rand(40, 6, generator=generator) < 0.1
    assert resets.any()
    assert not resets.all()
    actions, last = policy.forward_sequence(observations, hidden, resets)
    expected_actions, expected_last = flown_step_by_step(policy, observations, hidden, resets)
    assert torch.allclose(actions, expected_actions, atol=1e-12)
    assert torch.allclose(last, expected_last, atol=1e-12)


def test_a_row_that_is_reset_forgets_and_its_neighbours_do_not(policy, generator):
    observations = torch.randn(10, 2, 22, generator=generator)
    resets = torch.zeros(10, 2, dtype=torch.bool)
    resets[6, 1] = True
    actions, _ = policy.forward_sequence(observations, resets=resets)
    unbroken, _ = policy.forward_sequence(observations)
    fresh, _ = policy.forward_sequence(observations[6:])
    assert torch.allclose(actions[:, 0], unbroken[:, 0], atol=1e-6)
    assert torch.allclose(actions[:6, 1], unbroken[:6, 1], atol=1e-6)
    assert torch.allclose(actions[6:, 1], fresh[:, 1], atol=1e-6)
    assert not torch.allclose(actions[6, 1], unbroken[6, 1], atol=1e-3)


def test_no_resets_are_the_same_as_resets_that_are_never_set(policy, generator):
    observations = torch.randn(10, 3, 22, generator=generator)
    never = torch.zeros(10, 3, dtype=torch.bool)
    for ours, theirs in zip(
        policy.forward_sequence(observations, resets=never), policy.forward_sequence(observations), strict=True
    ):
        assert torch.allclose(ours, theirs, atol=1e-6)


def test_no_gradient_crosses_a_reset(policy, generator):
    observations = torch.randn(10, 2, 22, generator=generator, requires_grad=True)
    hidden = torch.randn(2, 16, generator=generator, requires_grad=True)
    resets = torch.zeros(10, 2, dtype=torch.bool)
    resets[6, 1] = True
    actions, _ = policy.forward_sequence(observations, hidden, resets)
    of_observations, of_hidden = torch.autograd.grad(actions[9].sum(), (observations, hidden))
    assert not of_observations[:6, 1].any()
    assert not of_hidden[1].any()
    assert of_observations[6:, 1].flatten(1).any(dim=1).all()
    assert of_observations[:, 0].flatten(1).any(dim=1).all()
    assert of_hidden[0].any()


def test_the_gradient_of_a_sequence_is_that_of_its_steps(make_policy, generator):
    policy = make_policy(dtype=torch.float64)
    observations = torch.randn(12, 3, 22, generator=generator, dtype=torch.float64)
    hidden = policy.initial_hidden_state(3)
    trained = [p for p in policy.parameters() if p.requires_grad]
    of_sequence = torch.autograd.grad(policy.forward_sequence(observations)[0].square().sum(), trained)
    of_steps = torch.autograd.grad(flown_step_by_step(policy, observations, hidden)[0].square().sum(), trained)
    for ours, theirs in zip(of_sequence, of_steps, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("shape", [(), (5,)])
def test_evaluate_step_remembers_from_call_to_call(policy, generator, shape):
    observations = torch.randn(4, *shape, 22, generator=generator)
    hidden = policy.initial_hidden_state(*shape)
    for observation in observations:
        expected, hidden = policy(observation, hidden)
        assert torch.equal(policy.evaluate_step(observation), expected)
        assert torch.equal(policy.get_hidden_state(), hidden)


def test_a_reset_forgets(policy, generator):
    observation = torch.randn(5, 22, generator=generator)
    first = policy.evaluate_step(observation)
    assert not torch.equal(policy.evaluate_step(observation), first)
    policy.reset()
    assert policy.get_hidden_state() is None
    assert torch.equal(policy.evaluate_step(observation), first)
    policy.reset()
    assert policy.evaluate_step(observation[:2]).shape == (2, 4)


def test_a_hidden_state_that_is_put_back_repeats_the_flight(policy, generator):
    observations = torch.randn(6, 5, 22, generator=generator)
    for observation in observations[:3]:
        policy.evaluate_step(observation)
    kept = policy.get_hidden_state()
    first = [policy.evaluate_step(observation) for observation in observations[3:]]
    policy.set_hidden_state(kept)
    again = [policy.evaluate_step(observation) for observation in observations[3:]]
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(first, again, strict=True))
    policy.set_hidden_state(None)
    assert policy.get_hidden_state() is None


def test_the_hidden_state_that_is_handed_out_is_a_copy(policy, generator):
    policy.evaluate_step(torch.randn(5, 22, generator=generator))
    handed_out = policy.get_hidden_state()
    handed_out.zero_()
    assert policy.get_hidden_state().any()
    policy.set_hidden_state(handed_out)
    handed_out.fill_(1.0)
    assert not policy.get_hidden_state().any()


def test_evaluate_step_records_no_gradient(policy):
    assert not policy.evaluate_step(torch.zeros(5, 22)).requires_grad
    assert policy(torch.zeros(5, 22))[0].requires_grad


@pytest.mark.parametrize("shape", [(21,), (5, 26), ()])
def test_an_observation_of_another_width_is_an_error(policy, shape):
    with pytest.raises(ValueError, match="observes 22 numbers"):
        policy(torch.zeros(shape))


def test_a_hidden_state_that_does_not_go_with_the_observation_is_an_error(policy):
    with pytest.raises(ValueError, match="16 numbers"):
        policy.set_hidden_state(torch.zeros(5, 17))
    policy.evaluate_step(torch.zeros(5, 22))
    with pytest.raises(ValueError, match=r"\(3, 16\), got \(5, 16\): reset"):
        policy.evaluate_step(torch.zeros(3, 22))
    with pytest.raises(ValueError, match="needs a hidden state"):
        policy.evaluate_step(torch.zeros(22))


def test_print_says_what_the_network_is_and_how_its_weights_came_about(policy):
    policy.card = {"training": "60 updates", "settings": {"seed": 0}}
    assert str(policy).splitlines() == [
        "RaptorPolicy",
        "  network     dense 22-16 ReLU, GRU 16, dense 16-4; 2084 parameters",
        "  observation (..., 22) -> action (..., 4), memory 16",
        "  training    60 updates",
    ]


def test_a_policy_that_looks_ahead_says_what_it_needs(policy):
    policy.layout = {"observation": ["position_error", "position_error@+25"]}
    with pytest.raises(
        ValueError, match=r"22 numbers, .*\(3, 21\); they are position_error, position_error@\+25: Quad"
    ):
        policy(torch.zeros(3, 21))
