"""Experience replay of a population: what was experienced, kept in rings, drawn uniformly or by priority."""

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
    ReplayConfig,
    Storage,
    Transitions,
    draw_prioritised,
    draw_uniform,
    importance_weights,
    layout_of,
    read,
    sizes_of,
    write,
    write_places,
)
from raptor.rl.sum_tree import SumTree, level_sizes, set_leaves

__all__ = ["Batch", "Replay", "ReplayConfig", "Transitions"]


class Replay:
    """The experience of T teachers in E environments each.

    All calls but those of the checkpoint leave the host out: nothing is read back from the device, and the tensors are
    written in place, so that they can be part of a captured graph. Before the first `add` samples are zeros.

    Args:
        config: what is kept and how it is drawn.
        num_teachers: T.
        num_envs: E.
        observation_dim: O.
        action_dim: A.
        gamma: discount per step.
        episode_steps: steps after which an episode is truncated. Where a column is truncated earlier than that more
            than once (besides its first truncation) within its slots, final observations are lost to later ones.
        device: where everything lives.
        compile: False runs eagerly.
    """

    def __init__(
        self,
        config: ReplayConfig,
        num_teachers: int,
        num_envs: int,
        observation_dim: int,
        action_dim: int,
        gamma: float,
        episode_steps: int,
        device: torch.device | str = "cpu",
        compile: bool = True,
    ) -> None:
        self.config, self.gamma, self.device = config, gamma, torch.device(device)
        self.sizes = sizes_of(config, num_teachers, num_envs, observation_dim, action_dim, episode_steps)
        layout = layout_of(config, self.sizes)
        self.storage = Storage(
            **{name: torch.zeros(shape, dtype=dtype, device=device) for name, (shape, dtype) in layout.items()}
        )
        self.priorities: SumTree | None = None
        self._largest = torch.ones(num_teachers if config.kind == "prioritised" else 0, device=device)
        if config.kind == "prioritised":
            self.priorities = SumTree(num_teachers, num_envs * self.sizes.slots, device)
        self._levels = () if self.priorities is None else self.priorities.levels
        self._state = (*self.storage, self._largest, *self._levels)
        self._compile = compile
        self._compiled: dict[Any, FlatFunction] = {}

    @staticmethod
    def bytes_needed(
        config: ReplayConfig,
        num_teachers: int,
        num_envs: int,
        observation_dim: int,
        action_dim: int,
        episode_steps: int,
    ) -> int:
        """What `nbytes` of such a replay would be, without allocating anything."""
        sizes = sizes_of(config, num_teachers, num_envs, observation_dim, action_dim, episode_steps)
        layout = layout_of(config, sizes).values()
        needed = sum(torch.Size(shape).numel() * dtype.itemsize for shape, dtype in layout)
        if config.kind == "prioritised":
            needed += 4 * num_teachers * (1 + sum(level_sizes(num_envs * sizes.slots)))
        return needed

    @property
    def nbytes(self) -> int:
        """Memory of everything stored, in bytes."""
        return sum(tensor.nbytes for tensor in self._state)

    @torch.no_grad()
    def add(
        self,
        observation: Tensor,
        action: Tensor,
        reward: Tensor,
        terminated: Tensor,
        truncated: Tensor,
        next_observation: Tensor,
    ) -> None:
        """Store one transition of every environment of every teacher.

        Args:
            observation: (T, E, O) what the action was chosen from.
            action: (T, E, A).
            reward: (T, E).
            terminated: (T, E) bool; the value of what follows is zero.
            truncated: (T, E) bool; the episode was cut off and the next call's observation is of another one.
            next_observation: (T, E, O) what the step led to, before any reset.
        """
        self._run("add", self._add, observation, action, reward, terminated, truncated, next_observation)

    @torch.no_grad()
    def sample(self, batch_size: int, generator: torch.Generator, progress: float | Tensor = 0.0) -> Batch:
        """Draw transitions of each teacher, with replacement.

        Args:
            batch_size: B.
            generator: source of randomness, on the replay's device.
            progress: share of the training that is done, in [0, 1]; anneals the importance weights.
        """
        shape = self.sizes.teachers, batch_size
        # Float32 has too few numbers in [0, 1) to be fair to a million transitions.
        uniform = torch.rand(shape, generator=generator, dtype=torch.float64, device=self.device)
        if self.priorities is None:
            return Batch(*self._run("sample", self._sample_uniform, uniform))
        if not isinstance(progress, Tensor):
            progress = torch.full((), progress, device=self.device)
        return Batch(*self._run("sample", self._sample_prioritised, uniform, progress))

    @torch.no_grad()
    def gather(self, index: Tensor) -> Transitions:
        """The transitions at `index` (T, B) int64, as in `Batch.index`."""
        return Transitions(*self._run("gather", self._gather, index))

    @torch.no_grad()
    def update_priorities(self, index: Tensor, td_error: Tensor) -> None:
        """Set the priorities of drawn transitions to (|td_error| + epsilon)^alpha; nothing where drawn uniformly.

        Args:
            index: (T, B) as in the batch. What has been overwritten since then by `add` is not drawn because of it.
            td_error: (T, B). One that is not finite counts as the largest so far.
        """
        if self.priorities is not None:
            self._run("update", self._update, index, td_error)

    def _run(self, name: str, function: Callable[..., Sequence[Tensor]], *arguments: Tensor) -> Sequence[Tensor]:
        tensors = [argument.contiguous() for argument in arguments]
        key = (name, *((tensor.shape, tensor.dtype) for tensor in tensors))
        if key not in self._compiled:
            # Tracing runs the function once. Writing the same into the same slot again does no harm, as long as
            # cursor and counts do not move in between.
            num = len(Storage._fields)
            counters = [tensor.clone() for tensor in self._state[num - 3 : num]]
            example = [*tensors, *self._state[: num - 3], *counters, *self._state[num:]]
            self._compiled[key] = compile_flat(function, example, self._compile)
        return self._compiled[key](*tensors, *self._state)

    @staticmethod
    def _parts(state: Sequence[Tensor]) -> tuple[Storage, Tensor, Sequence[Tensor]]:
        num = len(Storage._fields)
        return Storage(*state[:num]), state[num], state[num + 1 :]

    def _add(
        self,
        observation: Tensor,
        action: Tensor,
        reward: Tensor,
        terminated: Tensor,
        truncated: Tensor,
        next_observation: Tensor,
        *state: Tensor,
    ) -> list[Tensor]:
        storage, largest, levels = self._parts(state)
        if levels:
            index = torch.cat(write_places(storage)).expand(self.sizes.teachers, -1)
            value = largest.unsqueeze(-1).expand_as(reward)
            set_leaves(levels, index, torch.cat([value, torch.zeros_like(value)], dim=-1))
        write(storage, observation, action, reward, terminated, truncated, next_observation)
        return []

    def _gather(self, index: Tensor, *state: Tensor) -> list[Tensor]:
        storage, _, _ = self._parts(state)
        return list(read(storage, index, self.config.n_step, self.gamma))

    def _sample_uniform(self, uniform: Tensor, *state: Tensor) -> list[Tensor]:
        storage, _, _ = self._parts(state)
        index = draw_uniform(storage, uniform)
        found = read(storage, index, self.config.n_step, self.gamma)
        return [*found, torch.ones_like(found.reward), index]

    def _sample_prioritised(self, uniform: Tensor, progress: Tensor, *state: Tensor) -> list[Tensor]:
        storage, _, levels = self._parts(state)
        index = draw_prioritised(levels, uniform)
        first, last = self.config.beta
        weight = importance_weights(levels[0].gather(-1, index), first + (last - first) * progress.clamp(0, 1))
        return [*read(storage, index, self.config.n_step, self.gamma), weight, index]

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
        for tensor in (*self.storage, *self._levels):
            tensor.zero_()
        for name, target in targets.items():
            target.copy_(state[name])
        if self.priorities is not None:
            self.priorities.recompute()

    def _counters(self) -> dict[str, Tensor]:
        return {name: getattr(self.storage, name) for name in ("truncations", "cursor", "filled")}

    def _filled(self, filled: int, truncations: int) -> dict[str, Tensor]:
        """Views of what is in use after so many transitions and, at most, truncations per column."""
        places = self.storage.action.shape[1]

        def columns(tensor: Tensor, num: int) -> Tensor:
            return tensor.unflatten(1, (self.sizes.environments, -1))[:, :, :num]

        rows = {
            "observation": self.storage.observation[:, :places],
            "action": self.storage.action,
            "reward": self.storage.reward,
            "following": self.storage.following,
        }
        if self.priorities is not None:
            rows["priority"] = self.priorities.leaves
        views = {name: columns(tensor, filled + 1) for name, tensor in rows.items()}  # the upcoming slot included
        finals = self.storage.observation[:, places:]
        views["final_observation"] = columns(finals, min(truncations, self.sizes.finals))
        if self.priorities is not None:
            views["largest_priority"] = self._largest
        return views

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
