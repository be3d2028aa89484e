from __future__ import annotations

import pytest
import torch

from raptor.core.devices import WARM_UP_CALLS, CapturedGraph


def counting(
    device: str, generator: torch.Generator, enabled: bool = True
) -> tuple[CapturedGraph, torch.Tensor, list[int]]:
    """A function that adds a random number in place, and notes when Python runs it."""
    total, calls = torch.zeros(3, device=device), []

    def add() -> None:
        calls.append(1)
        total.add_(torch.rand(3, generator=generator, device=device))

    return CapturedGraph(add, device, (generator,), enabled), total, calls


def test_on_a_processor_the_function_is_simply_called():
    function, total, calls = counting("cpu", torch.Generator().manual_seed(0))
    for _ in range(WARM_UP_CALLS + 3):
        function()
    assert len(calls) == WARM_UP_CALLS + 3
    expected = torch.rand((WARM_UP_CALLS + 3, 3), generator=torch.Generator().manual_seed(0)).sum(0)
    torch.testing.assert_close(total, expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_on_a_gpu_it_is_recorded_once_and_replays_give_what_calls_would_have_given():
    num = WARM_UP_CALLS + 5
    generators = [torch.Generator("cuda").manual_seed(0) for _ in range(2)]
    recorded, total, calls = counting("cuda", generators[0])
    called, expected, _ = counting("cuda", generators[1], enabled=False)
    for _ in range(num):
        recorded()
        called()
    assert len(calls) == WARM_UP_CALLS + 1
    torch.testing.assert_close(total, expected)
