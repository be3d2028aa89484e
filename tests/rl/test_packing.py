"""Packing, held to filling the sequences one row after the other."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from raptor.rl.imitation import pack

STEPS = 9


def filled(order: list[int], length: list[int], sequence_length: int, batch_size: int) -> list[tuple[list, list]]:
    """Rows and resets of each batch, sequence by sequence: one step at a time, as the original goes about it."""
    batches = []
    episode, step = 0, 0
    while True:
        rows, resets = [], []
        for _ in range(batch_size):
            sequence, begins = [], []
            for place in range(sequence_length):
                sequence.append(order[episode] * STEPS + step)
                begins.append(step == 0 and place > 0)
                step += 1
                if step == length[order[episode]]:
                    episode, step = episode + 1, 0
                    if episode == len(order):
                        return batches
            rows.append(sequence)
            resets.append(begins)
        batches.append((rows, resets))


@given(
    length=st.lists(st.integers(1, STEPS), min_size=1, max_size=40),
    sequence_length=st.integers(1, 12),
    batch_size=st.integers(1, 4),
    seed=st.none() | st.integers(0, 9),
)
def test_sequences_are_filled_row_by_row_from_one_shuffled_episode_after_the_other(
    length: list[int], sequence_length: int, batch_size: int, seed: int | None
) -> None:
    order = list(range(len(length)))
    generator = None
    if seed is not None:
        order = torch.randperm(len(length), generator=torch.Generator().manual_seed(seed)).tolist()
        generator = torch.Generator().manual_seed(seed)
    batches = pack(torch.tensor(length), STEPS, sequence_length, batch_size, generator)
    assert all(batch.row.shape == batch.reset.shape == (sequence_length, batch_size) for batch in batches)
    packed = [(batch.row.mT.tolist(), batch.reset.mT.tolist()) for batch in batches]
    assert packed == filled(order, length, sequence_length, batch_size)


@pytest.mark.parametrize(("last", "num_batches"), [(5, 1), (6, 1), (7, 2)])
def test_the_last_batch_is_dropped_unless_something_is_left_once_it_is_full(last: int, num_batches: int) -> None:
    assert len(pack(torch.tensor([9, 9, last]), STEPS, 4, 3, None)) == num_batches


def test_an_episode_that_a_sequence_cuts_goes_on_in_the_next_without_a_reset() -> None:
    (batch,) = pack(torch.tensor([5, 6]), STEPS, 4, 2, None)
    assert batch.row.mT.tolist() == [[0, 1, 2, 3], [4, 9, 10, 11]]
    assert batch.reset.mT.tolist() == [[False] * 4, [False, True, False, False]]


def test_every_packed_row_is_of_an_episode_and_comes_once(generator: torch.Generator) -> None:
    length = torch.randint(1, STEPS + 1, (50,), generator=generator)
    rows = torch.cat([batch.row.flatten() for batch in pack(length, STEPS, 7, 3, generator)])
    assert len(rows) > 100
    assert len(rows.unique()) == len(rows)
    assert (rows % STEPS < length[rows // STEPS]).all()


def test_episodes_that_fill_no_batch_give_none(generator: torch.Generator) -> None:
    assert pack(torch.tensor([3, 3]), STEPS, 4, 2, generator) == []
    assert pack(torch.tensor([], dtype=torch.long), STEPS, 4, 2, generator) == []
