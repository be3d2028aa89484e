"""Experience replay of a population, drawn uniformly or by priority."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from raptor.core.compilation import FlatFunction, compile_flat
from raptor.core.errors import UserError
from raptor.rl import replay_storage as rings
from raptor.rl.replay_storage import Batch, Experience, ReplayConfig, ReplaySizes, Storage
from raptor.rl.sum_tree import empty_levels, find_leaves, recompute, set_leaves

__all__ = ["Batch", "Experience", "Replay", "ReplayConfig", "ReplaySizes"]


@dataclasses.dataclass(eq=False)
class Replay:
    """The experience of T teachers in E environments each.

    All calls but those of the checkpoint leave the host out: nothing is read back from the device, and the tensors are
    written in place, so that they can be part of a captured graph. Before the first `add` samples are zeros.
    """

    config: ReplayConfig  # capacity and sampling
    sizes: ReplaySizes  # of everything stored
    _: dataclasses.KW_ONLY
    gamma: float  # discount per step
    device: torch.device | str = "cpu"  # of all tensors
    compile: bool = True  # False runs eagerly

    def __post_init__(self) -> None:
        sizes, self.device = self.sizes, torch.device(self.device)
        self.storage = Storage.empty(self.config, sizes, self.device)
        self.priorities: tuple[Tensor, ...] = ()  # levels of a sum tree; none where drawn uniformly
        if self.config.kind == "prioritised":
            self.priorities = empty_levels(sizes.teachers, sizes.environments * sizes.slots, self.device)
        self._largest = torch.ones(sizes.teachers if self.priorities else 0, device=self.device)
        self._state, self._structure = pytree.tree_flatten((self.storage, self._largest, self.priorities))
        self._compiled: dict[Any, FlatFunction] = {}

    @property
    def nbytes(self) -> int:
        """Memory of everything stored, in bytes; on the device `meta` nothing is allocated for it."""
        return sum(tensor.nbytes for tensor in self._state)

    @torch.no_grad()
    def add(self, experience: Experience) -> None:
        """Store one transition of every environment of every teacher."""
        self._run(self._add, *experience)

    @torch.no_grad()
    def sample(
        self, batch_size: int, generator: torch.Generator, progress: float | Tensor = 0.0
    ) -> tuple[Batch, Tensor]:
        """Draw B transitions of each teacher, with replacement, and their places (T, B) int64 for `update_priorities`.

        The fraction `progress` of the training that is done, in [0, 1], anneals the importance weights.
        """
        shape = self.sizes.teachers, batch_size
        # Float32 has too few numbers in [0, 1) to be fair to a million transitions.
        uniform = torch.rand(shape, generator=generator, dtype=torch.float64, device=self.device)
        done = progress if isinstance(progress, Tensor) else torch.full((), progress, device=self.device)
        *batch, index = self._run(self._sample, uniform, *([done] if self.priorities else []))
        return Batch(*batch), index

    @torch.no_grad()
    def update_priorities(self, index: Tensor, td_error: Tensor) -> None:
        """Set the priorities of drawn transitions to (|td_error| + epsilon)^alpha; nothing where drawn uniformly.

        A place in `index` (T, B) that `add` has overwritten since `sample` gave it gains nothing; an error (T, B) that
        is not finite counts as the largest so far.
        """
        if self.priorities:
            self._run(self._update, index, td_error)

    def _run(self, function: Callable[..., Sequence[Tensor]], *arguments: Tensor) -> Sequence[Tensor]:
        tensors = [argument.contiguous() for argument in arguments]
        key = (function.__name__, *((tensor.shape, tensor.dtype) for tensor in tensors))
        if key not in self._compiled:

            def flat(*given: Tensor) -> Sequence[Tensor]:
                state = pytree.tree_unflatten(list(given[len(tensors) :]), self._structure)
                return function(*given[: len(tensors)], *state)

            # Tracing runs the function once. Writing the same into the same slot again does no harm, as long as the
            # counters do not move in between.
            still = self.storage._replace(**{name: getattr(self.storage, name).clone() for name in rings.COUNTERS})
            example = pytree.tree_leaves((tensors, still, self._largest, self.priorities))
            self._compiled[key] = compile_flat(flat, example, self.compile, "the replay memory")
        return self._compiled[key](*tensors, *self._state)

    def _add(self, *arguments: Any) -> list[Tensor]:
        *transition, storage, largest, levels = arguments
        experience = Experience(*transition)
        if levels:
            index = torch.cat(rings.write_places(storage)).expand(self.sizes.teachers, -1)
            value = largest.unsqueeze(-1).expand_as(experience.reward)
            set_leaves(levels, index, torch.cat([value, torch.zeros_like(value)], dim=-1))
        rings.write(storage, experience)
        return []

    def _sample(self, uniform: Tensor, *arguments: Any) -> list[Tensor]:
        *progress, storage, _, levels = arguments
        if not progress:
            index = rings.draw_uniform(storage, uniform)
            return [*rings.read(storage, index, self.config.n_step, self.gamma), index]
        # One place in each of B equal parts of the total: Schaul et al. 2016, B.2.1.
        num, total = uniform.shape[-1], levels[-1].sum(-1, keepdim=True).to(uniform.dtype)
        index = find_leaves(levels, (torch.arange(num, device=uniform.device) + uniform) * (total / num))
        # (N P)^-beta over its largest in the batch of each teacher, in which N and the total cancel out: section 3.4.
        (first, last), priority = self.config.beta, levels[0].gather(-1, index).clamp(min=rings.PRIORITIES[0])
        weight = (priority.amin(-1, keepdim=True) / priority) ** (first + (last - first) * progress[0].clamp(0, 1))
        return [*rings.read(storage, index, self.config.n_step, self.gamma)._replace(weight=weight), index]

    def _update(
        self, index: Tensor, td_error: Tensor, storage: Storage, largest: Tensor, levels: Sequence[Tensor]
    ) -> list[Tensor]:
        priority = (td_error.abs() + self.config.epsilon) ** self.config.alpha
        priority = torch.where(priority.isfinite(), priority, largest.unsqueeze(-1)).clamp(*rings.PRIORITIES)
        # Zero are the leaves of slots that hold no transition: those overwritten since they were drawn.
        set_leaves(levels, index, torch.where(levels[0].gather(-1, index) > 0, priority, 0.0))
        largest.copy_(torch.maximum(largest, priority.amax(-1)))
        return []

    def state_dict(self) -> dict[str, Tensor]:
        """All that later calls depend on; of the rings only what is filled."""
        views = self._views(int(self.storage.filled), int(self.storage.truncations.max()))
        return {"sizes": torch.tensor(self.sizes), **{name: view.clone() for name, view in views.items()}}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from where `state_dict` was called; a `UserError` changes nothing where the state does not fit."""
        views = self._views_for(state)
        for tensor in (*self.storage, *self.priorities):
            tensor.zero_()
        for name, view in views.items():
            view.copy_(state[name])
        recompute(self.priorities)

    def _views(self, filled: int, truncations: int) -> dict[str, Tensor]:
        """What is in use after so many transitions and, at most, truncations per column."""
        storage, places = self.storage, self.storage.action.shape[1]
        slots = {"observation": storage.observation[:, :places]}
        slots |= {name: getattr(storage, name) for name in ("action", "reward", "following")}
        if self.priorities:
            slots["priority"] = self.priorities[0][:, :places]

        def columns(tensor: Tensor, num: int) -> Tensor:
            return tensor.unflatten(1, (self.sizes.environments, -1))[:, :, :num]

        views = {name: columns(tensor, filled + 1) for name, tensor in slots.items()}  # the upcoming slot included
        views["final_observation"] = columns(storage.observation[:, places:], min(truncations, self.sizes.finals))
        views |= {name: getattr(storage, name) for name in rings.COUNTERS}
        return views | ({"largest_priority": self._largest} if self.priorities else {})

    def _views_for(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Where each stored tensor belongs; raises a `UserError` where one does not fit."""
        names = {"sizes", *self._views(0, 0)}
        if names != set(state):
            missing = ", ".join(sorted(names ^ set(state)))
            raise UserError(f"the stored replay does not fit replay.kind {self.config.kind!r} (differs in: {missing})")
        if state["sizes"].tolist() != list(self.sizes):
            sizes = ", ".join(f"{name} {size}" for name, size in self.sizes._asdict().items())
            raise UserError(f"the stored replay is of sizes {state['sizes'].tolist()}, not {sizes}: keep the settings")
        for name in rings.COUNTERS:
            value, most = state[name], torch.inf if name == "truncations" else self.sizes.slots - 1
            if value.shape != getattr(self.storage, name).shape or int(value.min()) < 0 or int(value.max()) > most:
                raise UserError(f"{name} of the stored replay is damaged: resume from another checkpoint")
        views = self._views(int(state["filled"]), int(state["truncations"].max()))
        for name, view in views.items():
            if state[name].shape != view.shape:
                wanted, got = tuple(view.shape), tuple(state[name].shape)
                raise UserError(f"{name} of the stored replay must be of shape {wanted}, got {got}: it is damaged")
        low, high = (int(bound) for bound in state["following"].aminmax())
        if low < rings.TERMINATED or high >= self.storage.observation.shape[1]:
            raise UserError("following of the stored replay points beyond its end: resume from another checkpoint")
        return views
