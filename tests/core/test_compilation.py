"""Compiled functions and steps give what eager ones give, also where there is no compiler."""

from __future__ import annotations

import dataclasses
import logging
import time
import warnings

import pytest
import torch
from torch import Tensor

from raptor.core import compilation
from raptor.core.compilation import (
    CompiledStep,
    compile_flat,
    compile_pure,
    compiler_problem,
    heartbeat,
    register,
    steps_before_compiling,
)

needs_compiler = pytest.mark.skipif(compiler_problem() is not None, reason="no compiler")
both = pytest.mark.parametrize("compile", [False, pytest.param(True, marks=needs_compiler)])


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


class Accumulator:
    """Adds the scaled input to what it carries; counts how often its Python code runs."""

    def __init__(self):
        self.runs = 0

    def __call__(self, carried, given):
        self.runs += 1
        scale, total, count = carried
        total = total + scale * given[0]
        return [scale, total, count + 1], [total.square().sum()]


def start():
    return [torch.full((3,), 2.0), torch.zeros(3), torch.zeros((), dtype=torch.int64)]


@both
def test_a_step_carries_and_outputs_what_its_function_does(compile):
    step = CompiledStep(Accumulator(), compile)
    carried = start()
    for _ in range(3):
        carried, outputs = step(carried, [torch.ones(3)])
    assert carried[1].tolist() == [6, 6, 6]
    assert carried[2].item() == 3
    assert outputs[0].item() == 108


@both
def test_a_step_hands_on_what_it_does_not_change(compile):
    carried = start()
    after, _ = CompiledStep(Accumulator(), compile)(carried, [torch.ones(3)])
    assert after[0] is carried[0]
    assert after[1] is not carried[1]


@both
def test_the_gradient_of_steps_reaches_all_earlier_inputs_and_what_was_carried_at_first(compile):
    step = CompiledStep(Accumulator(), compile)
    carried, inputs = start(), torch.ones(3, 3, requires_grad=True)
    carried[0].requires_grad_()
    for row in inputs:
        carried, outputs = step(carried, [row])
    gradients = torch.autograd.grad(outputs[0], [inputs, carried[0]])
    assert (gradients[0] == 24).all()  # d/da (2 + 2 + 2 a)^2, at a = 1
    assert (gradients[1] == 36).all()  # d/ds (3 s)^2, at s = 2


@needs_compiler
def test_a_step_is_traced_again_only_for_other_kinds_of_arguments():
    function = Accumulator()
    step = CompiledStep(function)

    def fly(requires_grad):
        carried = start()
        for _ in range(3):
            carried, _ = step(carried, [torch.ones(3, requires_grad=requires_grad)])

    fly(False)
    runs = function.runs
    assert runs <= 2  # to find the compiled code, and to compile it where there is none
    fly(False)
    assert function.runs == runs
    # With a gradient there is one more graph, and two runs to see which of the carried tensors take it up.
    fly(True)
    assert function.runs <= runs + 3
    runs = function.runs
    fly(True)
    fly(False)
    with torch.no_grad():
        fly(True)
    assert function.runs == runs


def test_without_a_compiler_a_step_runs_eagerly(monkeypatch):
    monkeypatch.setattr(compilation, "compiler_problem", lambda: "there is none")
    monkeypatch.setattr(compilation, "_warn_of_eager_fallback", lambda: None)
    step = CompiledStep(Accumulator())
    carried, scale = start(), torch.full((3,), 2.0)
    for _ in range(3):
        carried, outputs = step(carried, [torch.ones(3, requires_grad=True)])
    assert outputs[0].item() == 108
    assert outputs[0].requires_grad
    assert torch.equal(carried[0], scale)


@needs_compiler
def test_it_runs_eagerly_until_that_has_taken_as_long_as_compiling():
    function = Accumulator()
    step, carried = CompiledStep(function, patience=3), start()
    for _ in range(3):
        carried, _ = step(carried, [torch.ones(3)])
    assert function.runs == 3
    for _ in range(2):
        carried, _ = step(carried, [torch.ones(3)])
    compiled_at = function.runs
    carried, outputs = step(carried, [torch.ones(3)])
    assert function.runs == compiled_at
    assert carried[2].item() == 6
    assert outputs[0].item() == 3 * 12**2


def test_fewer_steps_of_more_vehicles_are_worth_compiling():
    assert 7000 < steps_before_compiling(1) <= 8000
    assert steps_before_compiling(65536) < steps_before_compiling(2048) < steps_before_compiling(256)


def test_something_long_says_that_it_goes_on_and_stops_saying_so_when_it_ends(monkeypatch, caplog):
    monkeypatch.setattr(compilation, "HEARTBEAT_S", 0.02)
    with caplog.at_level(logging.INFO, logger="raptor.core.compilation"):
        with heartbeat("compiling a step"):
            while len(caplog.records) < 2:
                time.sleep(0.01)
        lines = [record.getMessage() for record in caplog.records]
        assert all(line.startswith("still compiling a step, for ") for line in lines)
        time.sleep(0.06)
        assert len(caplog.records) == len(lines)


def test_what_is_stacked_and_taken_apart_is_computed_in_parts():
    a, b = torch.rand(2, 5).unbind()
    rows = torch.rand(3, 5)

    def sums(a: Tensor, b: Tensor, rows: Tensor) -> list[Tensor]:
        stack = torch.stack([a * b, a - b, b])
        whole = stack.permute(1, 0) + torch.stack([b, a, a * a]).permute(1, 0) + torch.zeros_like(stack.permute(1, 0))
        return [*whole.unbind(1), (rows + stack).select(0, 1)]

    graph = compilation._trace(sums, [a, b, rows])
    names = [str(node.target) for node in graph.graph.nodes]
    assert not any("stack" in name for name in names)
    torch.testing.assert_close(graph(a, b, rows), sums(a, b, rows))


def test_stacks_along_another_axis_stay():
    a, b = torch.rand(2, 2, 2).unbind()

    def rows(a: Tensor, b: Tensor) -> list[Tensor]:
        return [*torch.stack([a, b]).unbind(1), torch.stack([a, b], -1).select(0, 1), torch.stack([a, b]) + a]

    graph = compilation._trace(rows, [a, b])
    torch.testing.assert_close(graph(a, b), rows(a, b))
