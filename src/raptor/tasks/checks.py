"""Terms tried on a few vehicles before anything starts, so that a mistake is a sentence, not a lost training."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from raptor.core.errors import UserError, first_line
from raptor.quadrotor.parameters import Quadrotors, load_platform
from raptor.quadrotor.state import State
from raptor.tasks.initial_state import InitialStates, sample_initial_state
from raptor.tasks.observation import sense, split_sensed
from raptor.tasks.reference import Langevin, References, sample_reference
from raptor.tasks.terms import Use
from raptor.tasks.views import DisturbanceView, ObservationView, StepView, Wrench

NUM = 3  # vehicles, the first one hovering on its target
View = StepView | ObservationView | DisturbanceView


@functools.lru_cache(maxsize=256)
def checked_width(use: Use, dt: float = 0.01) -> int:
    """How many numbers a term gives, 1 for all but observations; a `UserError` that names the term if it is unfit.

    It must give the right shape for vehicles with one leading axis or several, the same numbers for a vehicle whatever
    others there are and whenever it is called, finite ones with a finite gradient, and be open to the compiler.
    """
    if use.term.kind == "trajectory":
        return 1
    view = _example(use, dt)
    given, versions = pytree.tree_map_only(Tensor, torch.clone, view), _versions(view)
    result = _tried(use, view)
    width = _checked_shape(use, result, (NUM,))
    if not _same(given, view) or versions != _versions(view):
        raise _unfit(use, "writes into what it is given: compute new tensors instead")
    if not all(leaf.isfinite().all() for leaf in _tensors(result)):
        raise _unfit(use, "is not finite for every vehicle, such as one that hovers on its target")
    if not _same(result, _tried(use, view)):
        raise _unfit(use, "gives other numbers when it is called again: random numbers come by noise=K or draws=K")
    second = pytree.tree_map_only(Tensor, lambda tensor: tensor[1:2], view)
    if not _close(_tensors(_tried(use, second)), [leaf[1:2] for leaf in _tensors(result)]):
        raise _unfit(use, "gives a vehicle other numbers beside others: do not mix vehicles, by mean() for instance")
    grid = pytree.tree_map_only(Tensor, lambda tensor: torch.stack([tensor, tensor]), view)
    several = _tried(use, grid)
    _checked_shape(use, several, (2, NUM), ": take components as x[..., 0], since there may be several leading axes")
    if not _close(_tensors(several), [torch.stack([leaf, leaf]) for leaf in _tensors(result)]):
        raise _unfit(use, "gives other numbers for two leading axes: take components as x[..., 0]")
    _refuse_untraceable(use, view)
    _refuse_bad_gradient(use, view)
    return width


def _unfit(use: Use, why: str) -> UserError:
    return UserError(f"the {use.term.kind} term {use.term.name} {why}")


def _tried(use: Use, view: View) -> Any:
    try:
        return use(view)
    except Exception as error:
        if isinstance(error, AttributeError) and isinstance(error.obj, type(view)):
            there = ", ".join(view._fields)
            raise _unfit(use, f"reads {error.name}, which it is not given: it is given {there}") from error
        raise _unfit(use, f"cannot be computed: {type(error).__name__}: {first_line(error)}") from error


def _tensors(result: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(result) if isinstance(leaf, Tensor)]


def _checked_shape(use: Use, result: Any, shape: tuple[int, ...], hint: str = "") -> int:
    """Refuse a result of another type or shape; the width of an observation, else 1."""
    kind, expected = use.term.kind, dict[str, Any]()
    if kind == "disturbance":
        if not isinstance(result, Wrench):
            raise _unfit(use, f"must give a raptor.tasks.views.Wrench, got {type(result).__name__}")
        expected = {"force": (*shape, 3), "torque": (*shape, 3), "memory": (*shape, use.term.memory)}
        given = {name: value for name, value in result._asdict().items() if value is not None}
    elif kind == "observation":
        value, memory = result if use.term.memory and isinstance(result, tuple) else (result, None)
        if use.term.memory and memory is None:
            raise _unfit(use, "remembers, so it must give (observation, memory)")
        width = value.shape[-1] if isinstance(value, Tensor) and value.ndim == len(shape) + 1 else "K"
        expected = {"observation": (*shape, width), "memory": (*shape, use.term.memory)}
        given = {"observation": value, **({} if memory is None else {"memory": memory})}
    else:
        expected, given = {kind: shape}, {kind: result}
    for name, value in given.items():
        got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        if got != expected[name]:
            wanted = str(expected[name]).replace("'", "")
            raise _unfit(use, f"must give {name} of shape {wanted} for {shape} vehicles, got {got}{hint}")
        right = value.dtype == torch.bool if kind == "termination" else value.is_floating_point()
        if not right:
            what = "true or false" if kind == "termination" else "floating-point numbers"
            raise _unfit(use, f"must give {what}, got {value.dtype}")
    return int(given["observation"].shape[-1]) if kind == "observation" else 1


def _refuse_untraceable(use: Use, view: View) -> None:
    from torch.fx.experimental.proxy_tensor import make_fx

    leaves, structure = pytree.tree_flatten(view)
    places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]

    def flat(*tensors: Tensor) -> list[Tensor]:
        filled = list(leaves)
        for place, tensor in zip(places, tensors, strict=True):
            filled[place] = tensor
        return _tensors(use(pytree.tree_unflatten(filled, structure)))

    try:
        make_fx(flat, tracing_mode="fake")(*(leaves[place] for place in places))
    except Exception as error:
        remedy = "do not read numbers out of tensors (float(), .item(), if), use torch.where"
        raise _unfit(use, f"cannot be compiled: {remedy} ({type(error).__name__}: {first_line(error)})") from error


@torch.enable_grad()
def _refuse_bad_gradient(use: Use, view: View) -> None:
    if use.term.kind == "termination":
        return
    leaves, structure = pytree.tree_flatten(view)
    leaves = [leaf.detach().requires_grad_() if isinstance(leaf, Tensor) else leaf for leaf in leaves]
    results = [each for each in _tensors(_tried(use, pytree.tree_unflatten(leaves, structure))) if each.requires_grad]
    given = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    sums = [each.sum() for each in results]
    gradients = torch.autograd.grad(sums, given, allow_unused=True) if sums else (None,)
    if use.term.kind == "cost" and all(gradient is None for gradient in gradients):
        raise _unfit(use, "has no gradient to descend: in place of a comparison take a slope, such as torch.relu")
    if not all(gradient is None or gradient.isfinite().all() for gradient in gradients):
        remedy = "add a small number under a root, or clamp (view.norm of a cost or a reward does)"
        raise _unfit(use, f"has a gradient that is not finite where a vehicle hovers on its target: {remedy}")


def _versions(tree: Any) -> list[int]:
    """How often each tensor was written to."""
    return [tensor._version for tensor in _tensors(tree)]


def _same(a: Any, b: Any) -> bool:
    return all(torch.equal(x, y) for x, y in zip(_tensors(a), _tensors(b), strict=True))


def _close(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.allclose(x.double(), y.double(), rtol=1e-4, atol=1e-6) for x, y in zip(a, b, strict=True))


def _example(use: Use, dt: float) -> View:
    """A view of vehicles of which the first hovers on its target and the others are on their way."""
    quadrotors, generator = load_platform("crazyflie"), torch.Generator().manual_seed(0)
    quadrotors = quadrotors[torch.zeros(NUM, dtype=torch.long)]
    here, there = (_states(quadrotors, generator) for _ in range(2))
    walks = References(langevin_share=1.0, langevin=Langevin())
    reference = sample_reference((NUM,), walks, quadrotors.mass, generator)

    def draw(*size: int) -> Tensor:
        return torch.randn(NUM, *size, generator=generator)

    def hovering(tensor: Tensor) -> Tensor:
        return torch.cat([torch.zeros_like(tensor[:1]), tensor[1:]])

    action, last = (hovering(0.5 * draw(4)) for _ in range(2))
    own = (0.5 * draw(use.term.memory), draw(use.term.noise), draw(use.term.draws))
    if use.term.kind == "observation":
        measured = split_sensed(sense(here, reference, target_visible=True))
        return ObservationView(*measured, action, quadrotors, here, reference, dt, *own)
    if use.term.kind == "disturbance":
        return DisturbanceView(quadrotors, here, reference, action, dt, *own)
    smooth = use.term.kind == "cost"
    return StepView(quadrotors, here, reference, action, last, there, reference, dt, smooth)


def _states(quadrotors: Quadrotors, generator: torch.Generator) -> State:
    still, moving = (sample_initial_state(quadrotors, InitialStates(guidance=share), generator) for share in (1.0, 0.0))
    mixed: State = pytree.tree_map(lambda a, b: torch.cat([a[:1], b[1:]]), still, moving)
    return mixed
