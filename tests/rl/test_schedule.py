"""Learning rates rise, then fall to their end."""

from __future__ import annotations

import math

import pytest
import torch

from raptor.rl.adam import linear_decay, warm_up, warmup_cosine


def test_the_warm_up_is_linear_and_ends_at_one() -> None:
    assert [warm_up(step, 4) for step in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert warm_up(0, 0) == 1.0


def test_the_cosine_falls_from_the_peak_to_the_final_fraction_of_it_and_stays_there() -> None:
    rates = [warmup_cosine(2.0, 0.1, progress, step=9, warm_up_steps=5) for progress in (0.0, 0.25, 0.5, 1.0, 1.5)]
    quarter = 2 * (0.1 + 0.9 * 0.5 * (1 + math.sqrt(0.5)))
    assert rates == pytest.approx([2.0, quarter, 1.1, 0.2, 0.2])
    assert warmup_cosine(2.0, 0.1, 0.5, step=1, warm_up_steps=4) == pytest.approx(0.5 * 1.1)


def test_the_linear_decay_ends_at_the_final_fraction() -> None:
    falling = linear_decay(0.2, torch.tensor([0.0, 0.5, 1.0]))
    torch.testing.assert_close(falling, torch.tensor([1.0, 0.6, 0.2]))
