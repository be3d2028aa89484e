"""Imitation: how demonstrations become batches, and what a step of the optimiser does with them."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from raptor.core.distributed import Parts
from raptor.nn import MLPPolicy, RaptorPolicy
from raptor.rl.demonstrations import Demonstrations
from raptor.rl.imitation import Imitation, ImitationConfig, ObservationScale, weights_of

KINDS = pytest.mark.parametrize("kind", [RaptorPolicy, MLPPolicy])
SMALL = {"compile": False, "batch_size": 2, "sequence_length": 5, "num_epochs": 4, "warm_up_batches": 0}


def demonstrations(num: int = 6, steps: int = 8, seed: int = 0) -> Demonstrations:
    """Random ones, of random length."""
    generator = torch.Generator().manual_seed(seed)
    observation = torch.randn(num, steps, 22, generator=generator)
    label = torch.rand(num, steps, 4, generator=generator) * 2 - 1
    return Demonstrations(observation, label, torch.randint(1, steps + 1, (num,), generator=generator))


def imitation(kind: type[RaptorPolicy | MLPPolicy] = RaptorPolicy, **settings: object) -> Imitation:
    torch.manual_seed(5)
    return Imitation(ImitationConfig(**{**SMALL, **settings}), kind(hidden_dim=5))


def order(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def flat(one: Imitation) -> torch.Tensor:
    return torch.cat([weight.flatten() for weight in weights_of(one.policy)])


@KINDS
def test_episodes_that_do_not_fill_one_batch_are_repeated(kind) -> None:
    one, data = imitation(kind, batch_size=20, sequence_length=8, shuffle=False), demonstrations()
    (batch,) = one.batches(data, order())
    assert batch.row.numel() == 160
    counts, steps = batch.row.flatten().bincount(), int(data.length.sum())
    assert int((counts > 0).sum()) == steps < 160
    assert counts[counts > 0].min() == 160 // steps


@KINDS
def test_without_shuffling_steps_come_in_the_order_in_which_they_were_recorded(kind) -> None:
    data = demonstrations()
    for shuffle in (False, True):
        batches = imitation(kind, shuffle=shuffle).batches(data, order())
        rows = torch.cat([batch.row.mT.flatten() if kind is RaptorPolicy else batch.row for batch in batches])
        assert (rows.tolist() == sorted(rows.tolist())) == (not shuffle)
        assert len(rows.unique()) == len(rows)


@KINDS
def test_an_epoch_lowers_the_error_and_changes_the_policy_at_its_end(kind) -> None:
    one, data = imitation(kind, num_epochs=20, final_learning_rate=1.0), demonstrations()
    before = flat(one)
    losses = [one.epoch(data, order())["training/loss"] for _ in range(20)]
    assert losses[-1] < 0.8 * losses[0]
    assert not torch.equal(flat(one), before)


def test_the_norm_of_the_gradient_is_bounded_before_the_step() -> None:
    """Adam alone would not notice a scale, but its epsilon does."""
    moved = []
    for bound in (None, 0.25, 0.0025):
        one = imitation(shuffle=False, epsilon=1.0, gradient_norm=bound)
        before = flat(one)
        one.epoch(demonstrations(2), order())
        moved.append((flat(one) - before).norm().item())
    assert moved[0] > moved[1] > moved[2]
    assert moved[1] == pytest.approx(100 * moved[2], rel=0.2)


def test_the_learning_rate_warms_up_over_batches_and_falls_over_epochs() -> None:
    one, data = imitation(warm_up_batches=3), demonstrations()
    assert one.learning_rate(0.0) == pytest.approx(1e-2 / 3)
    figures = [one.epoch(data, order()) for _ in range(4)]
    done = torch.tensor([f["training/num_batches"] for f in figures]).cumsum(0)
    falling = [0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * epoch / 4)) for epoch in (1, 2, 3, 4)]
    expected = [1e-2 * share * min(1.0, (float(num) + 1) / 3) for share, num in zip(falling, done, strict=True)]
    assert [f["training/learning_rate"] for f in figures] == pytest.approx(expected)


def test_a_batch_whose_gradient_is_not_finite_is_left_out() -> None:
    one, data = imitation(shuffle=False), demonstrations()
    data.label[0] = math.nan
    figures = one.epoch(data, order())
    assert 0 < figures["training/num_skipped"] == one.skipped_count < figures["training/num_batches"]
    assert flat(one).isfinite().all()


def test_a_batch_computed_in_blocks_gives_the_same_step() -> None:
    whole, data = imitation(batch_size=4), demonstrations()
    torch.manual_seed(5)
    parts = Imitation(whole.config, RaptorPolicy(hidden_dim=5), Parts(block_size=2))
    for one in (whole, parts):
        one.epoch(data, order())
    torch.testing.assert_close(flat(parts), flat(whole))


def test_scaled_observations_are_learnt_from_like_raw_ones_of_that_scale() -> None:
    data, scale = demonstrations(), ObservationScale(torch.full((22,), 3.0), torch.full((22,), 2.0))
    stretched = data._replace(observation=data.observation * scale.deviation + scale.mean)
    plain, scaled = imitation(), imitation()
    scaled.rescale(scale)
    for one, seen in ((plain, data), (scaled, stretched)):
        one.epoch(seen, order())
    torch.testing.assert_close(tuple(scaled.weights), tuple(plain.weights), rtol=1e-3, atol=1e-5)


@KINDS
def test_a_restored_imitation_goes_on_as_if_nothing_had_happened(kind) -> None:
    straight, resumed, data = imitation(kind), imitation(kind), demonstrations()
    straight.epoch(data, order())
    resumed.load_state_dict(copy.deepcopy(straight.state_dict()))
    assert resumed.epoch(data, order(2)) == straight.epoch(data, order(2))
    assert torch.equal(flat(resumed), flat(straight))
    assert resumed.state_dict()["counts"] == straight.state_dict()["counts"]
