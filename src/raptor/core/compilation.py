"""Compile pure functions of tensors, with an eager fallback that says why.

A function is compiled once per structure, shape, memory layout, type and device of its arguments. That takes about
twenty seconds for a step of the simulator, once on a machine: see `raptor.core.kernels`. Calls then go to the compiled
code directly: nothing is guarded at each call, because a pure function depends on nothing but its arguments.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import operator
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from raptor.core.errors import first_line
from raptor.core.kernels import build_kernel, kernel_key, load_kernel, log, log_once

Tensors = list[Tensor]
FlatFunction = Callable[..., Sequence[Tensor]]
FlatStep = Callable[[Tensors, Tensors], tuple[Tensors, Tensors]]

HEARTBEAT_S = 15.0
"""Seconds between two lines which say that something long goes on."""


def register(*, constant: tuple[str, ...] = ()) -> Callable[[type], type]:
    """Let `compile_pure` see into a frozen dataclass of tensors; of `constant` fields it sees the defaults."""

    def decorate(cls: type) -> type:
        names = [field.name for field in dataclasses.fields(cls) if field.name not in constant]
        pytree.register_dataclass(cls, field_names=names, drop_field_names=list(constant))
        return cls

    return decorate


@functools.cache
def compiler_problem() -> str | None:
    """Why torch's compiler does not work on this machine, or None where it does; compiles a one-line function once."""
    try:
        example = [torch.zeros(8)]
        _compile(_trace(lambda x: [torch.sin(x) + 1], example), example)(*example)
    except Exception as error:  # whatever the compiler's tool chain raises
        return f"{type(error).__name__}: {first_line(error)}"
    return None


@functools.cache
def _warn_of_eager_fallback() -> None:
    result = "everything runs eagerly and several times slower"
    warnings.warn(f"torch's compiler does not work here, so {result}: {compiler_problem()}", stacklevel=3)


def steps_before_compiling(num_vehicles: int) -> int:
    """How many eager steps of so many vehicles take as long as compiling one: 8000 of few, 4800 of 2048.

    Measured on one core: a step takes 2.7 ms and 0.9 us for each vehicle, to compile it with all that goes before 22 s.
    """
    return round(8000 / (1 + num_vehicles / 3000))


@contextlib.contextmanager
def heartbeat(what: str) -> Iterator[None]:
    """Log every `HEARTBEAT_S` that something goes on, until the block ends."""
    over, begun = threading.Event(), time.monotonic()

    def beat() -> None:
        while not over.wait(HEARTBEAT_S):
            log.info("still %s, for %.0f s now", what, time.monotonic() - begun)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def compile_flat(
    function: FlatFunction, example: Sequence[Tensor], enabled: bool = True, what: str = "a step of the simulator"
) -> FlatFunction:
    """Compile a pure function of tensors for the shapes, layouts, types and devices of `example`.

    Arguments that require a gradient give a differentiable result. A machine without a compiler returns the function as
    it is, after one warning. `what` is compiled, for the log.
    """
    if not enabled:
        return function
    example = [tensor.detach().requires_grad_(tensor.requires_grad and torch.is_grad_enabled()) for tensor in example]
    key = kernel_key(function, example)
    if key is not None and (kernel := load_kernel(key)) is not None:
        return kernel
    log.info("compiling %s: half a minute or more, kept for later starts", what)
    with heartbeat(f"compiling {what}"):
        return _build(function, example, key)


def _build(function: FlatFunction, example: Sequence[Tensor], key: str | None) -> FlatFunction:
    """Compile ahead of time where that is possible, else for this process alone, or not at all."""
    problem = None
    if key is not None:
        try:
            return build_kernel(_trace(function, example), example, key)
        except Exception as error:  # not everything can be compiled ahead of time, nor everywhere
            problem = f"{type(error).__name__}: {first_line(error)}"
    if compiler_problem() is not None:
        _warn_of_eager_fallback()
        return function
    if problem is not None:
        log_once("no compiled code is kept, so that every start takes some seconds more", problem)
    return _compile(_trace(function, example), example)


def _trace(function: FlatFunction, example: Sequence[Tensor]) -> torch.fx.GraphModule:
    from torch._guards import TracingContext, tracing
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.proxy_tensor import make_fx

    with tracing(TracingContext(FakeTensorMode())):  # else each node is described in a mode of its own, which is slow
        graph: torch.fx.GraphModule = make_fx(function)(*example)
    _take_apart(graph.graph)
    for node in graph.graph.nodes:
        node.meta.clear()
    graph.recompile()
    return graph


def _take_apart(graph: torch.fx.Graph) -> None:
    """Compute with the parts of what is stacked and later unbound; the compiler would write stacks to memory between.

    Known by their parts are stacks, these with axes permuted, and sums with those; sums are what gradients add up in.
    """
    aten, known = torch.ops.aten, dict[Any, tuple[list[Any], int]]()  # the parts of a node, and their axis

    def parts_of(node: Any, axis: int, num: int) -> list[Any]:
        if node in known and known[node][1] == axis:
            return known[node][0]
        whole = graph.call_function(aten.unbind.int, (node, axis))
        return [graph.call_function(operator.getitem, (whole, i)) for i in range(num)]

    for node in list(graph.nodes):
        operands = [each for each in node.args if isinstance(each, torch.fx.Node) and each in known]
        if node.target is aten.stack.default:
            known[node] = list(node.args[0]), [*node.args, 0][1] % node.meta["val"].ndim
        if not operands:
            continue
        parts, axis = known[operands[0]]
        if node.target is aten.permute.default:
            order = [place % len(node.args[1]) for place in node.args[1]]
            others = [place for place in order if place != axis]
            if others == sorted(others):
                known[node] = parts, order.index(axis)
        elif node.target is aten.add.Tensor and not node.kwargs and _alike(*node.args):
            counted = [each for each in node.args if each.target is not aten.zeros_like.default]
            with graph.inserting_before(node):
                columns = [parts_of(each, axis, len(parts)) for each in counted]
                if len(columns) > 1:
                    parts = [graph.call_function(aten.add.Tensor, pair) for pair in zip(*columns, strict=True)]
            known[node] = parts, axis
        elif node.target in (aten.unbind.int, aten.select.int):
            along, *place = [*node.args, 0][1:3]
            if along % operands[0].meta["val"].ndim != axis:
                continue
            if node.target is aten.select.int:
                node.replace_all_uses_with(parts[place[0]])
            else:
                for user in list(node.users):
                    user.replace_all_uses_with(parts[user.args[1]])
    graph.eliminate_dead_code()


def _alike(one: Any, other: Any) -> bool:
    """Whether two operands are tensors of one shape."""
    tensors = isinstance(one, torch.fx.Node) and isinstance(other, torch.fx.Node)
    return tensors and one.meta["val"].shape == other.meta["val"].shape


def _compile(graph: torch.fx.GraphModule, example: Sequence[Tensor]) -> FlatFunction:
    from torch._guards import TracingContext, tracing
    from torch._inductor import compile as inductor_compile
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    # Compiled code is stored on disk only for arguments that come with an environment of shapes.
    mode = FakeTensorMode(shape_env=ShapeEnv())
    fakes: list[Any] = [mode.from_tensor(tensor, static_shapes=True) for tensor in example]
    with tracing(TracingContext(mode)):
        compiled: FlatFunction = inductor_compile(graph, fakes)
    return compiled


def compile_pure(function: Callable[..., Any], enabled: bool = True) -> Callable[..., Any]:
    """Compile a pure function of nested tuples, lists, dicts and registered dataclasses of tensors.

    Arguments are positional; those that are not tensors are constants of the compiled code. It is compiled anew for
    each structure, shape and layout that it meets.
    """
    if not enabled:
        return function
    graphs: dict[Any, tuple[FlatFunction, Any]] = {}

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        leaves, structure = pytree.tree_flatten(arguments)
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        constants = tuple(None if isinstance(leaf, Tensor) else (leaf,) for leaf in leaves)
        grad = torch.is_grad_enabled()
        kinds = tuple((t.shape, t.stride(), t.dtype, t.device, grad and t.requires_grad) for t in tensors)
        key = (structure, constants, kinds)
        if key not in graphs:
            out_structure: list[Any] = []

            def flat(*flat_tensors: Tensor) -> Tensors:
                remaining = iter(flat_tensors)
                filled = [next(remaining) if constant is None else constant[0] for constant in constants]
                outputs, structure_out = pytree.tree_flatten(function(*pytree.tree_unflatten(filled, structure)))
                out_structure[:] = [structure_out]
                return list(outputs)

            graph = compile_flat(flat, tensors)
            graphs[key] = graph, out_structure[0]
        graph, structure_out = graphs[key]
        return pytree.tree_unflatten(list(graph(*tensors)), structure_out)

    return call


class CompiledStep:
    """A pure function (carried, given) -> (carried, outputs) of lists of tensors, each of fixed length.

    There is less to do at each call than for `compile_pure`, whose look at the structure of its arguments takes longer
    than the step of a single vehicle: tensors that are carried on unchanged, in their place or another, never pass
    through the compiled code, and one graph serves whether or not its arguments carry a gradient. So many steps as
    `patience` says are run eagerly before one is compiled; `what` is compiled, for the log.
    """

    def __init__(
        self, function: FlatStep, compile: bool = True, patience: int = 0, what: str = "a step of the simulator"
    ) -> None:
        self._function, self._compile, self._patience, self._what = function, compile, patience, what
        self._graphs: dict[Any, tuple[FlatFunction, list[int | None]]] = {}  # and what is carried on, from which place

    def __call__(self, carried: Tensors, given: Tensors) -> tuple[Tensors, Tensors]:
        """Run the step; shapes and types must be those of the first call."""
        if not self._compile or self._patience > 0:
            self._patience -= 1
            return self._function(carried, given)
        arguments = [*carried, *given]
        requiring: frozenset[int] = frozenset()
        if torch.is_grad_enabled():
            requiring = frozenset(i for i, tensor in enumerate(arguments) if tensor.requires_grad)
        key = (requiring, tuple(tensor.stride() for tensor in given))
        if key not in self._graphs:
            self._graphs[key] = self._graph(arguments, len(carried), *key)
        function, sources = self._graphs[key]
        outputs = iter(function(*arguments))
        moved = [next(outputs) if source is None else carried[source] for source in sources]
        return moved, list(outputs)

    def _graph(
        self, arguments: Tensors, num_carried: int, requiring: frozenset[int], layout: Any
    ) -> tuple[FlatFunction, list[int | None]]:
        """Compile for these arguments, or for more of them carrying a gradient, so that later steps need no other."""
        sources: list[int | None] = []

        def example() -> Tensors:
            return [tensor.detach().requires_grad_(i in requiring) for i, tensor in enumerate(arguments)]

        def flat(*tensors: Tensor) -> Tensors:
            carried, given = list(tensors[:num_carried]), list(tensors[num_carried:])
            moved, outputs = self._function(carried, given)
            places = {id(tensor): i for i, tensor in enumerate(carried)}
            sources[:] = [places.get(id(tensor)) for tensor in moved]
            return [*(tensor for tensor in moved if id(tensor) not in places), *outputs]

        before: frozenset[int] = frozenset()
        while requiring != before:
            leaves, before = example(), requiring
            moved, _ = self._function(leaves[:num_carried], leaves[num_carried:])
            requiring |= {i for i, tensor in enumerate(moved) if tensor.requires_grad}
        if (requiring, layout) not in self._graphs:
            function = compile_flat(flat, example(), what=self._what)
            if not sources:  # running eagerly: nothing was traced
                flat(*example())
            self._graphs[requiring, layout] = function, sources
        return self._graphs[requiring, layout]
