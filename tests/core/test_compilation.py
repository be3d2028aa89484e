from __future__ import annotations

import dataclasses
import warnings

import pytest
import torch
from torch import Tensor

from raptor.core import compilation
from raptor.core.compilation import compile_flat, compile_pure, register


@register(constant=("label",))
@dataclasses.dataclass(frozen=True)
class Pair:
    first: Tensor
    second: Tensor
    label: str | None = None


def combine(pair: Pair, options: dict[str, Tensor], factor: float) -> tuple[Pair, Tensor]:
    return Pair(pair.first * factor, torch.sin(pair.second)), options["shift"] + pair.first


def test_a_compiled_function_returns_the_nesting_and_the_numbers_of_the_eager_one():
    compiled = compile_pure(combine)
    for size, factor in ((4, 2.0), (4, 3.0), (7, 2.0)):
        pair = Pair(torch.arange(float(size)), torch.ones(size), "lost")
        shift = {"shift": torch.full((size,), 0.5)}
        (expected, total), (got, got_total) = combine(pair, shift, factor), compiled(pair, shift, factor)
        torch.testing.assert_close(got.first, expected.first)
        torch.testing.assert_close(got.second, expected.second)
        torch.testing.assert_close(got_total, total)
        assert got.label is None


def test_the_gradient_flows_through_a_compiled_function():
    x = torch.tensor([0.3, 0.7], requires_grad=True)
    compiled = compile_pure(lambda pair: torch.sin(pair.first) * pair.second)
    compiled(Pair(x, torch.tensor([2.0, 3.0]))).sum().backward()
    torch.testing.assert_close(x.grad, torch.cos(x.detach()) * torch.tensor([2.0, 3.0]))


def test_the_same_tensor_may_be_given_twice_and_later_different_ones():
    compiled = compile_pure(lambda a, b: a + 2 * b)
    x, y = torch.ones(3), torch.full((3,), 5.0)
    torch.testing.assert_close(compiled(x, x), torch.full((3,), 3.0))
    torch.testing.assert_close(compiled(x, y), torch.full((3,), 11.0))


def test_switched_off_it_is_the_function_itself():
    assert compile_pure(combine, enabled=False) is combine


def test_without_a_compiler_it_runs_eagerly_and_says_why_once(monkeypatch, tmp_path):
    def broken(*arguments):
        raise RuntimeError("no g++")

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(compilation, "build_kernel", broken)
    monkeypatch.setattr(compilation, "compiler_problem", lambda: "CppCompileError: no g++")
    compilation._warn_of_eager_fallback.cache_clear()
    with pytest.warns(UserWarning, match="no g\\+\\+"):
        doubled = compile_flat(lambda x: [2 * x], [torch.ones(2)])
    torch.testing.assert_close(doubled(torch.ones(2))[0], torch.full((2,), 2.0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.testing.assert_close(compile_pure(lambda x: 3 * x)(torch.ones(2)), torch.full((2,), 3.0))
    compilation._warn_of_eager_fallback.cache_clear()
