from __future__ import annotations

import torch

from raptor.core.packing import Packing, Rows

NUM = 5


def tensors() -> list[torch.Tensor]:
    """A weight, constants, what changes, a history of two entries, and numbers of another type, of five vehicles."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(7, 2), (NUM,), (NUM, 3, 4), (NUM, 0), (NUM, 4), (NUM,), (NUM, 6), (NUM, 6)]
    drawn = [torch.randn(shape, generator=generator) for shape in shapes]
    return [*drawn, torch.arange(NUM)]


def moved(carried: list[torch.Tensor]) -> list[torch.Tensor]:
    """A step of them."""
    weight, mass, arms, nothing, action, time, newest, _, count = carried
    return [weight, mass, arms, nothing, action + mass[:, None], time + 1, 2 * newest, newest, count + 1]


def test_tensors_come_back_component_by_component_in_memory():
    some = [torch.randn(NUM), torch.randn(NUM, 3), torch.randn(NUM, 2, 2), torch.randn(NUM, 0)]
    rows = Rows(some, 1)
    packed = rows.pack(some)
    assert packed.shape == (1 + 3 + 4, NUM)
    for tensor, view in zip(some, rows.unpack(packed), strict=True):
        assert torch.equal(view, tensor)
        assert view.ndim == 1 or view.movedim(0, -1).is_contiguous() or not view.numel()


def test_a_population_of_two_axes_is_packed_too():
    some = [torch.randn(2, NUM), torch.randn(2, NUM, 3)]
    rows = Rows(some, 2)
    assert rows.pack(some).shape == (4, 2, NUM)
    assert all(map(torch.equal, rows.unpack(rows.pack(some)), some))


def test_what_is_packed_is_what_was_carried_before_and_after_a_step():
    carried = tensors()
    packing = Packing(carried, moved(carried), carried[1])
    packed = packing.pack(carried)
    assert all(map(torch.equal, packing.unpack(packed), carried))
    after = packing.pack(moved(packing.unpack(packed)), packed[0])
    assert all(map(torch.equal, packing.unpack(after), moved(carried)))


def test_constants_and_histories_are_handed_on_without_a_copy():
    carried = tensors()
    packing = Packing(carried, moved(carried), carried[1])
    packed = packing.pack(carried)
    after = packing.pack(moved(packing.unpack(packed)), packed[0])
    assert after[0] is packed[0]
    assert carried[6] in [tensor for tensor in after if tensor is carried[6]]
    assert len(packed) == packing.num_packed == 2 + 4  # weight, both entries of the history, and the count
