from __future__ import annotations

import pytest
import torch

from raptor.core import native
from raptor.nn import stacked_kernel
from raptor.nn.activations import RELU_TANH, Activations
from raptor.nn.stacked_kernel import StackedActor
from raptor.nn.stacked_mlp import act, initial_layers

WIDTHS = (26, 64, 64, 4)


@pytest.mark.parametrize(
    ("widths", "dtype", "close"), [(WIDTHS, torch.float32, 1e-6), ((3, 17, 81, 18), torch.float64, 1e-14)]
)
@pytest.mark.parametrize("rows", [1, 13])
def test_the_kernel_gives_what_torch_gives(
    widths: tuple[int, ...], dtype: torch.dtype, close: float, rows: int, generator: torch.Generator
) -> None:
    layers = initial_layers(3, widths, generator, dtype)
    observation = torch.randn(3, rows, widths[0], generator=generator, dtype=dtype)
    actor = StackedActor(layers, RELU_TANH)
    assert actor._call is not None
    torch.testing.assert_close(actor(observation), act(layers, observation, RELU_TANH), rtol=0, atol=close)
    torch.testing.assert_close(actor(observation.mT.contiguous().mT), actor(observation), rtol=0, atol=0)


@pytest.mark.parametrize("compile", [False, True])
def test_other_activations_and_what_is_not_compiled_are_left_to_torch(
    compile: bool, generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stacked_kernel, "ROWS_TOGETHER", 5)
    layers, observation = initial_layers(7, WIDTHS, generator), torch.randn(7, 2, 26, generator=generator)
    activations = Activations("elu", "clip") if compile else RELU_TANH
    actor = StackedActor(layers, activations, compile)
    assert actor._call is None
    torch.testing.assert_close(actor(observation), act(layers, observation, activations))


def test_where_the_kernel_cannot_be_built_torch_does_the_work(
    generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise RuntimeError("no such tool chain")

    monkeypatch.setattr(stacked_kernel, "load_native", fail)
    monkeypatch.setattr(native, "compiler_problem", lambda: None)
    layers, observation = initial_layers(2, (26, 9, 4), generator), torch.randn(2, 3, 26, generator=generator)
    with pytest.warns(UserWarning, match="teachers act at a third of the speed, without a kernel: RuntimeError"):
        actor = StackedActor(layers, RELU_TANH)
    torch.testing.assert_close(actor(observation), act(layers, observation, RELU_TANH))
    stacked_kernel._kernel.cache_clear()
