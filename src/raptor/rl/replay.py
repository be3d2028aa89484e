"""Experience replay of a population, drawn uniformly or by priority."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from raptor.core.compilation import FlatFunction, compile_flat
from raptor.core.errors import UserError
from raptor.rl.replay_storage import (
    PRIORITIES,
    TERMINATED,
    Batch,
    Experience,
    ReplayConfig,
    ReplaySizes,
    Storage,
    draw_prioritised,
    draw_uniform,
    importance_weights,
    read,
    write,
    write_places,
)
from raptor.rl.sum_tree import empty_levels, recompute, set_leaves

__all__ = ["Batch", "Experience", "Replay", "ReplayConfig", "ReplaySizes"]

NUM_STORED = len(Storage._fields)


class Replay:
    """The experience of T teachers in E environments each.

    All calls but those of the checkpoint leave the host out: nothing is read back from the device, and the tensors are
    written in place, so that they can be part of a captured graph. Before the first `add` samples are zeros.

    Args:
        config: capacity and sampling.
        sizes: extents of everything stored.
        gamma: discount per step.
        device: of all tensors.
        compile: False runs eagerly.
    """

    def __init__(
        self,
        config: ReplayConfig,
        sizes: ReplaySizes,
        *,
        gamma: float,
        device: torch.device | str = "cpu",
        compile: bool = True,
    ) -> None:
        self.config, self.sizes, self.gamma, self.device = config, sizes, gamma, torch.device(device)
        self.storage = Storage.empty(config, sizes, device)
        self.priorities: tuple[Tensor, ...] = ()  # levels of a sum tree; none where drawn uniformly
        if config.kind == "prioritised":
            self.priorities = empty_levels(sizes.teachers, sizes.environments * sizes.slots, device)
        self._largest = torch.ones(sizes.teachers if self.priorities else 0, device=device)
        self._state = (*self.storage, self._largest, *self.priorities)
        self._compile = compile
        self._compiled: dict[Any, FlatFunction] = {}

    @property
    def nbytes(self) -> int:
        """Memory of everything stored, in bytes; on the device `meta` nothing is allocated for it."""
        return sum(tensor.nbytes for tensor in self._state)

    @torch.no_grad()
    def add(self, experience: Experience) -> None:
        """Store one transition of every environment of every teacher."""
        self._run("add", self._add, *experience)

    @torch.no_grad()
    def sample(
        self, batch_size: int, generator: torch.Generator, progress: float | Tensor = 0.0
    ) -> tuple[Batch, Tensor]:
        """Draw transitions of each teacher, with replacement.

        Args:
            batch_size: B.
            generator: source of randomness, on the replay's device.
            progress: fraction of the training that is done, in [0, 1]; anneals the importance weights.

        Returns:
            The transitions, and their places (T, B) int64 in the replay of the teacher, for `update_priorities`.
        """
        shape = self.sizes.teachers, batch_size
        # Float32 has too few numbers in [0, 1) to be fair to a million transitions.
        uniform = torch.rand(shape, generator=generator, dtype=torch.float64, device=self.device)
        if not self.priorities:
            *batch, index = self._run("sample", self._sample_uniform, uniform)
        else:
            if not isinstance(progress, Tensor):
                progress = torch.full((), progress, device=self.device)
            *batch, index = self._run("sample", self._sample_prioritised, uniform, progress)
        return Batch(*batch), index

    @torch.no_grad()
    def update_priorities(self, index: Tensor, td_error: Tensor) -> None:
        """Set the priorities of drawn transitions to (|td_error| + epsilon)^alpha; nothing where drawn uniformly.

        Args:
            index: (T, B) places as `sample` gives them. A place that `add` has overwritten since then gains nothing.
            td_error: (T, B). One that is not finite counts as the largest so far.
        """
        if self.priorities:
            self._run("update", self._update, index, td_error)

    def _run(self, name: str, function: Callable[..., Sequence[Tensor]], *arguments: Tensor) -> Sequence[Tensor]:
        tensors = [argument.contiguous() for argument in arguments]
        key = (name, *((tensor.shape, tensor.dtype) for tensor in tensors))
        if key not in self._compiled:
            # Tracing runs the function once. Writing the same into the same slot again does no harm, as long as the
            # counters, last in the storage, do not move in between.
            first = NUM_STORED - 3
            counters = [tensor.clone() for tensor in self._state[first:NUM_STORED]]
            example = [*tensors, *self._state[:first], *counters, *self._state[NUM_STORED:]]
            self._compiled[key] = compile_flat(function, example, self._compile, "the replay memory")
        return self._compiled[key](*tensors, *self._state)

    @staticmethod
    def _parts(state: Sequence[Tensor]) -> tuple[Storage, Tensor, Sequence[Tensor]]:
        return Storage(*state[:NUM_STORED]), state[NUM_STORED], state[NUM_STORED + 1 :]

    def _add(self, *tensors: Tensor) -> list[Tensor]:
        num = len(Experience._fields)
        experience, (storage, largest, levels) = Experience(*tensors[:num]), self._parts(tensors[num:])
        if levels:
            index = torch.cat(write_places(storage)).expand(self.sizes.teachers, -1)
            value = largest.unsqueeze(-1).expand_as(experience.reward)
            set_leaves(levels, index, torch.cat([value, torch.zeros_like(value)], dim=-1))
        write(storage, experience)
        return []

    def _sample_uniform(self, uniform: Tensor, *state: Tensor) -> list[Tensor]:
        storage, _, _ = self._parts(state)
        index = draw_uniform(storage, uniform)
        return [*read(storage, index, self.config.n_step, self.gamma), index]

    def _sample_prioritised(self, uniform: Tensor, progress: Tensor, *state: Tensor) -> list[Tensor]:
        storage, _, levels = self._parts(state)
        index = draw_prioritised(levels, uniform)
        first, last = self.config.beta
        weight = importance_weights(levels[0].gather(-1, index), first + (last - first) * progress.clamp(0, 1))
        return [*read(storage, index, self.config.n_step, self.gamma)._replace(weight=weight), index]

    def _update(self, index: Tensor, td_error: Tensor, *state: Tensor) -> list[Tensor]:
        _, largest, levels = self._parts(state)
        priority = (td_error.abs() + self.config.epsilon) ** self.config.alpha
        priority = torch.where(priority.isfinite(), priority, largest.unsqueeze(-1)).clamp(*PRIORITIES)
        # Zero are the leaves of slots that hold no transition: those overwritten since they were drawn.
        set_leaves(levels, index, torch.where(levels[0].gather(-1, index) > 0, priority, 0.0))
        largest.copy_(torch.maximum(largest, priority.amax(-1)))
        return []

    def state_dict(self) -> dict[str, Tensor]:
        """All that later calls depend on; of the rings only what is filled."""
        state = self._filled(int(self.storage.filled), int(self.storage.truncations.max())) | self._counters()
        return {"sizes": torch.tensor(self.sizes), **{name: tensor.clone() for name, tensor in state.items()}}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from where `state_dict` was called.

        Raises:
            UserError: the state is of a replay of another kind or size, or damaged; nothing is changed.
        """
        targets = self._targets(state)
        for tensor in (*self.storage, *self.priorities):
            tensor.zero_()
        for name, target in targets.items():
            target.copy_(state[name])
        recompute(self.priorities)

    def _counters(self) -> dict[str, Tensor]:
        return {name: getattr(self.storage, name) for name in ("truncations", "cursor", "filled")}

    def _filled(self, filled: int, truncations: int) -> dict[str, Tensor]:
        """Views of what is in use after so many transitions and, at most, truncations per column."""
        observation, places = self.storage.observation, self.storage.action.shape[1]
        rows = {"observation": observation[:, :places]}
        rows |= {name: getattr(self.storage, name) for name in ("action", "reward", "following")}
        if self.priorities:
            rows["priority"] = self.priorities[0][:, :places]

        def columns(tensor: Tensor, num: int) -> Tensor:
            return tensor.unflatten(1, (self.sizes.environments, -1))[:, :, :num]

        views = {name: columns(tensor, filled + 1) for name, tensor in rows.items()}  # the upcoming slot included
        views["final_observation"] = columns(observation[:, places:], min(truncations, self.sizes.finals))
        return views | ({"largest_priority": self._largest} if self.priorities else {})

    def _targets(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Where each stored tensor belongs; raises a `UserError` where one does not fit."""
        slots, counters = self.sizes.slots, self._counters()
        names = {"sizes", *counters, *self._filled(0, 0)}
        if names != set(state):
            missing = ", ".join(sorted(names ^ set(state)))
            raise UserError(f"the stored replay does not fit replay.kind {self.config.kind!r} (differs in: {missing})")
        if state["sizes"].tolist() != list(self.sizes):
            sizes = ", ".join(f"{name} {size}" for name, size in self.sizes._asdict().items())
            raise UserError(f"the stored replay is of sizes {state['sizes'].tolist()}, not {sizes}: keep the settings")
        most = {"truncations": torch.iinfo(torch.int64).max, "cursor": slots - 1, "filled": slots - 1}
        for name, counter in counters.items():
            value = state[name]
            if value.shape != counter.shape or int(value.min()) < 0 or int(value.max()) > most[name]:
                raise UserError(f"{name} of the stored replay is damaged: resume from another checkpoint")
        views = self._filled(int(state["filled"]), int(state["truncations"].max()))
        for name, view in views.items():
            if state[name].shape != view.shape:
                wanted, got = tuple(view.shape), tuple(state[name].shape)
                raise UserError(f"{name} of the stored replay must be of shape {wanted}, got {got}: it is damaged")
        low, high = (int(bound) for bound in state["following"].aminmax())
        if low < TERMINATED or high >= self.storage.observation.shape[1]:
            raise UserError("following of the stored replay points beyond its end: resume from another checkpoint")
        return views | counters
