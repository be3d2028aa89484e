"""A step that carries tensors from call to call."""

from __future__ import annotations

import pytest
import torch

from raptor.core import compilation
from raptor.core.compilation import compiler_problem
from raptor.core.compiled_step import CompiledStep

needs_compiler = pytest.mark.skipif(compiler_problem() is not None, reason="no compiler")
both = pytest.mark.parametrize("compile", [False, pytest.param(True, marks=needs_compiler)])


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
def test_what_it_carries_and_brings_is_what_the_function_says(compile):
    step = CompiledStep(Accumulator(), compile)
    carried = start()
    for _ in range(3):
        carried, outputs = step(carried, [torch.ones(3)])
    assert carried[1].tolist() == [6, 6, 6]
    assert carried[2].item() == 3
    assert outputs[0].item() == 108


@both
def test_what_a_step_does_not_change_is_handed_on_as_it_is(compile):
    carried = start()
    after, _ = CompiledStep(Accumulator(), compile)(carried, [torch.ones(3)])
    assert after[0] is carried[0]
    assert after[1] is not carried[1]


@both
def test_the_gradient_reaches_all_earlier_inputs_and_what_was_carried_at_first(compile):
    step = CompiledStep(Accumulator(), compile)
    carried, inputs = start(), torch.ones(3, 3, requires_grad=True)
    carried[0].requires_grad_()
    for row in inputs:
        carried, outputs = step(carried, [row])
    gradients = torch.autograd.grad(outputs[0], [inputs, carried[0]])
    assert (gradients[0] == 24).all()  # d/da (2 + 2 + 2 a)^2, at a = 1
    assert (gradients[1] == 36).all()  # d/ds (3 s)^2, at s = 2


@needs_compiler
def test_python_runs_again_only_for_other_kinds_of_arguments():
    function = Accumulator()
    step = CompiledStep(function)

    def fly(requires_grad):
        carried = start()
        for _ in range(3):
            carried, _ = step(carried, [torch.ones(3, requires_grad=requires_grad)])

    fly(False)
    assert function.runs == 1
    fly(False)
    assert function.runs == 1
    # With a gradient there is one more graph, and two runs to see which of the carried tensors take it up.
    fly(True)
    assert function.runs <= 4
    runs = function.runs
    fly(True)
    fly(False)
    with torch.no_grad():
        fly(True)
    assert function.runs == runs


def test_without_a_compiler_it_runs_eagerly(monkeypatch):
    monkeypatch.setattr(compilation, "compiler_problem", lambda: "there is none")
    monkeypatch.setattr(compilation, "_warn_of_eager_fallback", lambda: None)
    step = CompiledStep(Accumulator())
    carried, scale = start(), torch.full((3,), 2.0)
    for _ in range(3):
        carried, outputs = step(carried, [torch.ones(3, requires_grad=True)])
    assert outputs[0].item() == 108
    assert outputs[0].requires_grad
    assert torch.equal(carried[0], scale)
