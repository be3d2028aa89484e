"""Storage of a replay: rings of transitions, and the pure functions that write, read and draw.

Every environment of every teacher fills a column of its own, one slot per step, so that a transition and the one that
follows it are neighbours. Each observation is therefore stored once.
"""

from __future__ import annotations

import dataclasses
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from raptor.config.settings import Settings, ascending, at_least, between, positive, setting

PRIORITIES = (1e-30, 1e30)
"""Bounds on stored priorities: above zero, and so that no sum overflows."""

TERMINATED = -1
"""Stands in `Storage.following` where nothing follows."""

COUNTERS = ("truncations", "cursor", "filled")
"""What moves in a `Storage` with every step."""


@dataclasses.dataclass(frozen=True)
class ReplayConfig(Settings):
    """Capacity and sampling of a replay."""

    kind: Literal["uniform", "prioritised"] = setting("uniform", "sampling: uniform, or by the error of the critics")
    capacity: int = setting(1_000_000, "transitions per teacher, over all its environments", between(1, 1e9))
    n_step: int = setting(1, "rewards summed before the value of the observation that they led to", at_least(1))
    alpha: float = setting(0.6, "prioritised: 0 draws uniformly, 1 in proportion to the error", between(0, 1))
    beta: tuple[float, float] = setting(
        (0.4, 1.0), "prioritised: exponent of the importance weights, first and last", ascending(between(0, 1))
    )
    epsilon: float = setting(1e-6, "prioritised: added to the error, so that every transition can be drawn", positive)
    precision: Literal["float32", "float16"] = setting("float32", "of the stored observations")


class Experience(NamedTuple):
    """One step of every environment of every teacher."""

    observation: Tensor  # (T, E, O) that the action was chosen from
    action: Tensor  # (T, E, A)
    reward: Tensor  # (T, E)
    terminated: Tensor  # (T, E) bool; the value of what follows is zero
    truncated: Tensor  # (T, E) bool; the episode was cut off, and the next step is of another one
    next_observation: Tensor  # (T, E, O) after the step, before any new episode


class Batch(NamedTuple):
    """B transitions of each of T teachers."""

    observation: Tensor  # (T, B, O)
    action: Tensor  # (T, B, A)
    reward: Tensor  # (T, B) discounted sum over the window of at most n steps
    next_observation: Tensor  # (T, B, O) where the window ended; of no meaning where `discount` is 0
    discount: Tensor  # (T, B) factor on the value of `next_observation`: gamma^steps, or 0 after a termination
    weight: Tensor  # (T, B) importance weights, at most 1


class ReplaySizes(NamedTuple):
    """Extents of the tensors."""

    teachers: int
    environments: int
    slots: int
    finals: int  # rows for final observations per column
    observation: int
    action: int

    @classmethod
    def of(
        cls,
        config: ReplayConfig,
        *,
        num_teachers: int,
        num_envs: int,
        observation_dim: int,
        action_dim: int,
        episode_steps: int,
    ) -> ReplaySizes:
        """Extents for episodes that are truncated after `episode_steps`.

        Where a column is truncated earlier more than twice within its slots, final observations are lost to later ones.
        """
        slots = -(-config.capacity // num_envs) + 1
        return cls(num_teachers, num_envs, slots, slots // episode_steps + 2, observation_dim, action_dim)


class Storage(NamedTuple):
    """The rings: S slots per column, of which the one at the cursor is the next to be filled.

    A transition's place is its column's number times S plus its slot. Rows of `observation` are these places, then F
    rows per column for the final observations of truncated episodes.
    """

    observation: Tensor  # (T, E S + E F, O)
    action: Tensor  # (T, E S, A)
    reward: Tensor  # (T, E S)
    following: Tensor  # (T, E S) int32; row of `observation` that the transition led to, or TERMINATED
    truncations: Tensor  # (T, E) int64; how many there were
    cursor: Tensor  # () int64
    filled: Tensor  # () int64; transitions per column, at most S - 1

    @property
    def num_envs(self) -> int:
        """E."""
        return self.truncations.shape[1]

    @property
    def num_slots(self) -> int:
        """S."""
        return self.action.shape[1] // self.num_envs

    @classmethod
    def empty(cls, config: ReplayConfig, sizes: ReplaySizes, device: torch.device | str) -> Storage:
        """Rings without a transition."""
        num, envs, places = sizes.teachers, sizes.environments, sizes.environments * sizes.slots
        precision = torch.float16 if config.precision == "float16" else torch.float32
        count = torch.zeros((), dtype=torch.int64, device=device)
        return cls(
            observation=count.new_zeros(num, places + envs * sizes.finals, sizes.observation, dtype=precision),
            action=count.new_zeros(num, places, sizes.action, dtype=torch.float32),
            reward=count.new_zeros(num, places, dtype=torch.float32),
            following=count.new_zeros(num, places, dtype=torch.int32),
            truncations=count.new_zeros(num, envs),
            cursor=count,
            filled=count.clone(),
        )


def write_places(storage: Storage) -> tuple[Tensor, Tensor]:
    """Place (E,) at the cursor of each column, and the one after it, which is to hold the upcoming observation."""
    slots = storage.num_slots
    first = slots * torch.arange(storage.num_envs, device=storage.cursor.device)
    return first + storage.cursor, first + (storage.cursor + 1) % slots


def write(storage: Storage, experience: Experience) -> None:
    """Fill the slot at the cursor of every column, in place, and move on."""
    observation, action, reward, terminated, truncated, next_observation = experience
    places, envs, slots = storage.action.shape[1], storage.num_envs, storage.num_slots
    finals = storage.observation.shape[1] // envs - slots
    here, upcoming = write_places(storage)
    cut = truncated & ~terminated
    final = places + finals * torch.arange(envs, device=here.device) + storage.truncations % finals
    row = torch.where(cut, final, upcoming)
    rows = torch.cat([here.expand_as(row), row], dim=1)
    observations = torch.cat([observation, next_observation], dim=1)
    if storage.observation.dtype == torch.float16:
        largest = torch.finfo(torch.float16).max
        observations = observations.clamp(-largest, largest).to(torch.float16)
    # The compiler writes `index_put_` in place; of what other writes change it makes a copy first.
    teacher = torch.arange(row.shape[0], device=here.device).unsqueeze(-1)
    storage.observation.index_put_((teacher, rows), observations)
    storage.action.index_put_((teacher, here), action)
    storage.reward.index_put_((teacher, here), reward)
    storage.following.index_put_((teacher, here), torch.where(terminated, TERMINATED, row).to(torch.int32))
    storage.truncations.add_(cut.to(torch.int64))
    storage.filled.copy_((storage.filled + 1).clamp(max=slots - 1))
    storage.cursor.copy_((storage.cursor + 1) % slots)


def read(storage: Storage, index: Tensor, n_step: int, gamma: float) -> Batch:
    """Transitions at `index` (T, B), with a weight of 1, each the start of a window of at most `n_step` steps.

    A window ends, inclusively, with a termination, a truncation or the newest transition of the column.
    """
    places = storage.action.shape[1]
    teacher = torch.arange(index.shape[0], device=index.device).unsqueeze(-1)
    reward = storage.reward[teacher, index]
    row = storage.following[teacher, index].long()
    discount = torch.full_like(reward, gamma)
    for step in range(1, n_step):
        going = (row >= 0) & (row < places) & (row % storage.num_slots != storage.cursor)
        at = torch.where(going, row, index)
        reward = torch.where(going, reward + gamma**step * storage.reward[teacher, at], reward)
        row = torch.where(going, storage.following[teacher, at].long(), row)
        discount = torch.where(going, gamma ** (step + 1), discount)
    return Batch(
        observation=storage.observation[teacher, index].float(),
        action=storage.action[teacher, index],
        reward=reward,
        next_observation=storage.observation[teacher, row.clamp(min=0)].float(),
        discount=torch.where(row == TERMINATED, 0.0, discount),
        weight=torch.ones_like(reward),
    )


def draw_uniform(storage: Storage, uniform: Tensor) -> Tensor:
    """Places (T, B) of transitions, each as likely as any other, from numbers in [0, 1) (T, B), float64."""
    slots, envs = storage.num_slots, storage.num_envs
    column = (uniform * envs).long().clamp(max=envs - 1)
    oldest_first = ((uniform * envs - column) * storage.filled).long()
    slot = storage.cursor - storage.filled + torch.minimum(oldest_first, storage.filled - 1).clamp(min=0)
    return column * slots + torch.where(slot < 0, slot + slots, slot)
