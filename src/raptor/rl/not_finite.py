"""Which term of one's own is to blame where a training meets numbers that are not finite."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from raptor.environments.episode import Episode, Noise
from raptor.environments.rollout import Memory
from raptor.quadrotor.parameters import Quadrotors
from raptor.rl.analytic_policy_gradient import SegmentGradient
from raptor.rl.segment import RolloutState, StepInputs
from raptor.tasks.terms import Terms, Use


def has_terms(gradient: SegmentGradient) -> bool:
    """Whether terms of one's own, or chosen components of the observation, take part in a gradient."""
    task = gradient.task
    return bool(task.extra or task.extra_rewards or gradient.objective.terms) or not task.observes_default


def warn_of_terms(gradient: SegmentGradient, *begun: Any) -> list[str]:
    """Warn of what `terms_not_finite` finds in the same segment; returns the warnings as lines of a log."""
    remedy = "add a small number under a root or in a logarithm, or clamp"
    notes = [f"{fault} in a segment: {remedy}" for fault in terms_not_finite(gradient, *begun)]
    for note in notes:
        warnings.warn(note, stacklevel=4)
    return [f"warning: {note}" for note in notes]


@torch.no_grad()
def terms_not_finite(
    gradient: SegmentGradient,
    parameters: Any,
    quadrotors: Quadrotors,
    episode: Episode,
    memory: Memory,
    noise: Sequence[Noise],
) -> list[str]:
    """The terms of one's own that give what is not finite in a segment, or have such a gradient, in words.

    The segment is flown again, eagerly; arguments are those of `SegmentGradient`. A term is blamed only where what it
    is given is finite.
    """
    found: dict[str, str] = {}
    flying = False

    def watched(use: Use) -> Use:
        def function(view: Any, **settings: Any) -> Any:
            if flying and use.term.name not in found and (fault := _fault(use, view)):
                found[use.term.name] = f"the {use.term.kind} term {use.term.name} {fault}"
            return use.term.function(view, **settings)

        is_tensor_function = use.term.kind != "trajectory"
        return Use(dataclasses.replace(use.term, function=function), use.settings) if is_tensor_function else use

    task, objective = gradient.task, gradient.objective
    observed = () if task.observes_default else task.layout.uses
    extra = Terms(map(watched, dict.fromkeys((*task.extra.uses, *observed))))
    rewards = Terms(map(watched, task.extra_rewards.uses))
    eager = dataclasses.replace(
        gradient,
        task=dataclasses.replace(task, extra=extra, extra_rewards=rewards),
        objective=dataclasses.replace(objective, terms=Terms(map(watched, objective.terms.uses))),
        compile=False,
    )
    draws = [tuple(draw for draw in step if draw is not None) for step in noise]
    flying = True
    eager.fly(StepInputs(parameters, quadrotors, RolloutState.begin(episode, memory), draws[0]), draws)
    return list(found.values())


def _fault(use: Use, view: Any) -> str:
    """What is wrong with what a term gives for the vehicles whose own numbers are finite; empty: nothing."""
    leaves, structure = pytree.tree_flatten(view)
    given = [leaf.detach().requires_grad_() if isinstance(leaf, Tensor) else leaf for leaf in leaves]
    tensors = [leaf for leaf in given if isinstance(leaf, Tensor)]
    sound = _finite([leaf for leaf in pytree.tree_leaves(view._replace(quadrotors=None)) if isinstance(leaf, Tensor)])
    with torch.enable_grad():
        results = pytree.tree_leaves(use(pytree.tree_unflatten(given, structure)))
        results = [leaf for leaf in results if isinstance(leaf, Tensor)]
        if not (_finite(results) | ~sound).all():
            return "is not finite"
        graded = [leaf.sum() for leaf in results if leaf.requires_grad]
        slopes = torch.autograd.grad(graded, tensors, allow_unused=True) if graded else ()
    flat = [slope for slope in slopes if slope is not None]
    return "has a gradient that is not finite" if flat and not (_finite(flat) | ~sound).all() else ""


def _finite(tensors: Sequence[Tensor]) -> Tensor:
    """Whether all numbers of each vehicle (N,) are finite."""
    rows = [tensor.isfinite().reshape(len(tensor), -1).all(1) for tensor in tensors]
    return torch.stack(rows).all(0)
