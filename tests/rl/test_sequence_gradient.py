"""Gradients that are written out by hand, held to autograd through the students step by step."""

from __future__ import annotations

import pytest
import torch

from raptor.nn.policy import MLPPolicy, PolicyParameters, RaptorPolicy, policy_step
from raptor.rl import sequence_gradient, sequence_kernel
from raptor.rl.sequence_gradient import SequenceGradient, transition_gradient
from raptor.rl.sequence_kernel import NUM_SEQUENCES

BATCH, BLOCK_STEPS = 5, 20
Sequences = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def student(hidden_dim: int = 4) -> RaptorPolicy:
    torch.manual_seed(hidden_dim)
    return RaptorPolicy(hidden_dim=hidden_dim).double()


def drawn(steps: int, generator: torch.Generator, resets: float = 0.2, batch: int = BATCH) -> Sequences:
    """Observations, labels and resets."""

    def normal(width: int) -> torch.Tensor:
        return torch.randn(steps, batch, width, generator=generator, dtype=torch.double)

    return normal(22), normal(4), torch.rand(steps, batch, generator=generator) < resets


def by_autograd(policy: RaptorPolicy, sequences: Sequences) -> tuple[PolicyParameters, torch.Tensor]:
    """The same, step by step, and where an episode begins with a hidden state that nothing has gone into."""
    observation, label, reset = sequences
    hidden = observation.new_zeros(observation.shape[1], policy.hidden_dim)
    actions = []
    for seen, begins in zip(observation, reset, strict=True):
        hidden = torch.where(begins.unsqueeze(-1), torch.zeros_like(hidden), hidden)
        action, hidden = policy_step(policy.tensors(), seen, hidden)
        actions.append(action)
    error = torch.nn.functional.mse_loss(torch.stack(actions), label)
    return PolicyParameters(*torch.autograd.grad(error, policy.tensors())), error.detach()


def assert_close(ours: tuple[PolicyParameters, torch.Tensor], expected: tuple[PolicyParameters, torch.Tensor]) -> None:
    assert torch.stack([part.abs().max() for part in expected[0]]).min() > 1e-4
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("hidden_dim", [4, 16, 33])
@pytest.mark.parametrize("steps", [1, BLOCK_STEPS, 2 * BLOCK_STEPS + 3])
def test_the_gradient_through_all_steps_is_that_of_autograd(
    hidden_dim: int, steps: int, generator: torch.Generator
) -> None:
    policy, sequences = student(hidden_dim), drawn(steps, generator, resets=0.1 if steps > 1 else 0)
    ours = SequenceGradient(compile=False)(policy.tensors(), *sequences)
    expected = by_autograd(policy, sequences)
    if steps == 1:  # nothing has come in through the weights of the hidden state yet
        assert not ours[0].gru_weight_hh.any()
        torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-9)
    else:
        assert_close(ours, expected)


def test_without_resets_it_is_the_gradient_of_torchs_own_recurrent_layer(generator: torch.Generator) -> None:
    policy, (observation, label, reset) = student(), drawn(BLOCK_STEPS + 3, generator, resets=0)
    actions, _ = policy.forward_sequence(observation)
    error = torch.nn.functional.mse_loss(actions, label)
    expected = PolicyParameters(*torch.autograd.grad(error, policy.tensors()))
    assert_close(SequenceGradient(compile=False)(policy.tensors(), observation, label, reset), (expected, error))


@pytest.mark.parametrize(("hidden_dim", "batch"), [(4, 2 * NUM_SEQUENCES), (33, NUM_SEQUENCES + 1)])
def test_the_kernel_gives_the_gradient_of_autograd(hidden_dim: int, batch: int, generator: torch.Generator) -> None:
    policy, gradient = student(hidden_dim), SequenceGradient()
    for steps in (6, 2 * sequence_kernel.BLOCK_STEPS + 1, 6):
        sequences = drawn(steps, generator, resets=0.05, batch=batch)
        assert_close(gradient(policy.tensors(), *sequences), by_autograd(policy, sequences))


def test_the_kernel_in_single_precision_is_as_close_as_that_allows(generator: torch.Generator) -> None:
    policy, sequences = student(16), drawn(50, generator, resets=0.05, batch=33)
    expected = by_autograd(policy, sequences)
    policy, (observation, label, reset) = policy.float(), sequences
    gradient, error = SequenceGradient()(policy.tensors(), observation.float(), label.float(), reset)
    torch.testing.assert_close(error.double(), expected[1], rtol=1e-5, atol=0)
    for ours, part in zip(gradient, expected[0], strict=True):
        torch.testing.assert_close(ours.double(), part, rtol=1e-4, atol=1e-6)


def test_compiled_blocks_are_eager_ones(generator: torch.Generator) -> None:
    policy, sequences = student(), drawn(4, generator, batch=18)
    ours, eager = (SequenceGradient(compile, kernel=False, block_steps=2) for compile in (True, False))
    compiled, expected = (gradient(policy.tensors(), *sequences) for gradient in (ours, eager))
    torch.testing.assert_close(compiled, expected, rtol=1e-12, atol=1e-12)


def test_a_reset_inside_a_sequence_cuts_what_came_before_it_out_of_the_gradient(generator: torch.Generator) -> None:
    policy, (observation, label, reset) = student(), drawn(12, generator, resets=0)
    reset[7] = True
    gradient = SequenceGradient(compile=False)
    together, error = gradient(policy.tensors(), observation, label, reset)
    parts = [gradient(policy.tensors(), observation[s], label[s], reset[s]) for s in (slice(7), slice(7, None))]
    mean = [(7 * a + 5 * b) / 12 for a, b in zip(*(part[0] for part in parts), strict=True)]
    assert_close((together, error), (PolicyParameters(*mean), (7 * parts[0][1] + 5 * parts[1][1]) / 12))
    uncut, _ = gradient(policy.tensors(), observation, label, torch.zeros_like(reset))
    assert (uncut.gru_weight_hh - together.gru_weight_hh).abs().max() > 1e-4


def test_the_first_step_begins_afresh_with_or_without_a_reset(generator: torch.Generator) -> None:
    policy, (observation, label, reset) = student(), drawn(4, generator, resets=0)
    gradient = SequenceGradient(compile=False)
    without = gradient(policy.tensors(), observation, label, reset.clone())
    reset[0] = True
    torch.testing.assert_close(gradient(policy.tensors(), observation, label, reset), without, rtol=0, atol=0)


def test_tensors_of_any_memory_layout_give_the_same(generator: torch.Generator) -> None:
    policy, sequences = student(), drawn(6, generator)
    gradient = SequenceGradient()
    expected = gradient(policy.tensors(), *sequences)
    turned = [tensor.transpose(0, 1).contiguous().transpose(0, 1) for tensor in sequences]
    torch.testing.assert_close(gradient(policy.tensors(), *turned), expected, rtol=0, atol=0)


@pytest.mark.parametrize("compile", [False, True])
def test_the_gradient_over_transitions_is_that_of_autograd(compile: bool, generator: torch.Generator) -> None:
    policy = MLPPolicy(hidden_dim=9).double()
    observation, label, _ = (tensor.flatten(0, 1) for tensor in drawn(6, generator))
    error = torch.nn.functional.mse_loss(policy(observation)[0], label)
    expected = torch.autograd.grad(error, policy.tensors())
    gradient, ours = transition_gradient(compile)(policy.tensors(), observation, label)
    torch.testing.assert_close((tuple(gradient), ours), (expected, error.detach()), rtol=1e-9, atol=1e-9)


def test_where_the_kernel_cannot_be_built_torch_does_the_work(
    generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*widths: object) -> None:
        raise RuntimeError("no such tool chain")

    monkeypatch.setattr(sequence_kernel, "build_kernels", fail)
    monkeypatch.setattr(sequence_gradient, "compile_pure", lambda function, enabled: function)
    policy, sequences = student(), drawn(3, generator)
    gradient = SequenceGradient()
    with pytest.warns(UserWarning, match="without a kernel: RuntimeError: no such tool chain"):
        ours = gradient(policy.tensors(), *sequences)
    assert_close(ours, by_autograd(policy, sequences))
