"""Several processes that torchrun starts for one job, and batches that are computed in blocks.

Each process holds everything and computes its own blocks; results are put together in the order of the batch. So they
do not depend, but for rounding, on how many processes and blocks there are.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import itertools
import os
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils import _pytree as pytree

from raptor.core.errors import LostProcessError, UserError, first_line
from raptor.core.torchrun import started_together

T = TypeVar("T")

PATIENCE = datetime.timedelta(minutes=10)  # for a process that does not answer; compiling takes a minute or two


@dataclasses.dataclass(frozen=True)
class World:
    """The processes that work at one job, each of which calls the same methods in the same order."""

    rank: int = 0
    size: int = 1

    @property
    def is_main_process(self) -> bool:
        """Whether this is the process that writes files and prints."""
        return self.rank == 0

    def any_rank(self, flag: bool) -> bool:
        """Whether the flag is set in some process; all wait for each other."""
        return any(self.all_gather(flag))

    def all_gather(self, thing: T) -> list[T]:
        """The things of all processes, in the order of their ranks."""
        things: list[Any] = [thing] * self.size
        if self.size > 1:
            with _losing_processes():
                dist.all_gather_object(things, thing)
        return things

    def all_gather_into(self, whole: Tensor, slices: Sequence[slice]) -> None:
        """Fill in the other processes' slices of the first axis of a contiguous tensor; this one has filled its own."""
        if self.size > 1:
            with _losing_processes():
                for rank, places in enumerate(slices):
                    if places.stop > places.start:
                        dist.broadcast(whole[places], src=rank)

    @contextlib.contextmanager
    def main_process_first(self) -> Iterator[None]:
        """Let the main process through the block before all others; where it fails, all fail with its message."""
        if not self.is_main_process:
            problem = self.all_gather(None)[0]
            if problem is not None:
                raise UserError(problem)
            yield
            return
        try:
            yield
        except Exception as error:
            self.all_gather(str(error))
            raise
        self.all_gather(None)


ALONE = World()


class DryRunWorld(World):
    """A single process that computes and holds what it would among `size` processes."""

    def all_gather(self, thing: T) -> list[T]:
        """The thing of this process, `size` times."""
        return [thing] * self.size

    def all_gather_into(self, whole: Tensor, slices: Sequence[slice]) -> None:
        """Zero the slices of the other processes."""
        own = slices[self.rank]
        whole[: own.start].zero_()
        whole[own.stop :].zero_()


def blocks_of(num: int, most: int | None = None) -> list[slice]:
    """Cut a batch into blocks of at most so many: the fewest, or up to twice as many where those have one size."""
    least = 1 if most is None else max(1, -(-num // most))
    count = next((count for count in range(least, 2 * least + 1) if num % count == 0), least)
    ends = [block * num // count for block in range(count + 1)]
    return [slice(begin, end) for begin, end in itertools.pairwise(ends)]


@dataclasses.dataclass(frozen=True)
class Parts:
    """How a batch is cut: into a share for each process that torchrun started, and each share into blocks."""

    world: World = ALONE
    block_size: int | None = None  # most that are computed together; None: a share is one block

    def shares(self, num: int) -> list[slice]:
        """The share of each process of a batch of `num`."""
        ends = [rank * num // self.world.size for rank in range(self.world.size + 1)]
        return [slice(begin, end) for begin, end in itertools.pairwise(ends)]

    def own(self, num: int) -> list[slice]:
        """The blocks of this process of a batch of `num`."""
        share = self.shares(num)[self.world.rank]
        blocks = blocks_of(share.stop - share.start, self.block_size)
        return [slice(share.start + block.start, share.start + block.stop) for block in blocks]

    def refuse_fewer(self, what: str, num: int) -> None:
        """Raise a `UserError` that names `what` if there are fewer than processes."""
        if num < self.world.size:
            raise UserError(f"there must be at least {self.world.size} {what} for as many processes, got {num}")

    def refuse_uneven(self, name: str, num: int) -> None:
        """Raise a `UserError` that names the setting `name` if `num` cannot be shared evenly."""
        size = self.world.size
        if num % size:
            near = max(1, round(num / size)) * size
            raise UserError(f"{name} must be a multiple of {size} for {size} processes, got {num}: take {near}")

    def mean(self, values: Sequence[Sequence[Tensor]], num: int) -> list[Tensor]:
        """Means over a batch of `num`, from those over the blocks of this process; the same bits in each process."""
        if self.world.size == len(values) == 1:
            return list(values[0])
        weights = [(part.stop - part.start) / num for part in self.own(num)]
        flat = [weight * torch.cat([v.flatten() for v in part]) for weight, part in zip(weights, values, strict=True)]
        rows = flat[0].new_empty(self.world.size, len(flat[0]))
        rows[self.world.rank] = sum(flat[1:], flat[0])
        self.world.all_gather_into(rows, [slice(rank, rank + 1) for rank in range(self.world.size)])
        sizes = [value.numel() for value in values[0]]
        return [mean.view(value.shape) for mean, value in zip(rows.sum(0).split(sizes), values[0], strict=True)]

    def gather(self, pieces: Sequence[T], num: int) -> T:
        """Put a batch of `num` together again, from the blocks of this process and those of all others.

        Each block is any nesting of tensors (n, ...) of one floating-point type, whose memory order is kept.
        """
        if self.world.size == len(pieces) == 1:
            return pieces[0]
        leaves, structure = pytree.tree_flatten(pieces[0])
        rows = [torch.cat([leaf.unsqueeze(-1).flatten(1) for leaf in pytree.tree_leaves(piece)], 1) for piece in pieces]
        whole = rows[0].new_empty(num, rows[0].shape[1])
        torch.cat(rows, out=whole[self.shares(num)[self.world.rank]])
        self.world.all_gather_into(whole, self.shares(num))
        columns = whole.split([leaf[0].numel() for leaf in leaves], 1)
        merged = []
        for leaf, column in zip(leaves, columns, strict=True):
            tensor = column.reshape(num, *leaf.shape[1:])
            by_component = leaf.ndim > 1 and leaf.stride(0) == 1
            merged.append(tensor.movedim(0, -1).contiguous().movedim(-1, 0) if by_component else tensor.contiguous())
        return pytree.tree_unflatten(merged, structure)


def cut(tree: T, places: slice) -> T:
    """The part of a population, in any nesting of tensors (N, ...), each in the memory order that it has."""

    def part(tensor: Any) -> Any:
        if not isinstance(tensor, Tensor) or (places.start, places.stop) == (0, len(tensor)):
            return tensor
        return tensor[places].clone(memory_format=torch.preserve_format)

    result: T = pytree.tree_map(part, tree)
    return result


@contextlib.contextmanager
def process_group(device: str) -> Iterator[World]:
    """Connect the processes that torchrun started; `ALONE` without torchrun.

    `cuda` is from then on a GPU of this process's own.
    """
    if not started_together():
        yield ALONE
        return
    if dist.is_initialized():
        yield World(dist.get_rank(), dist.get_world_size())
        return
    if device not in ("cpu", "cuda"):
        raise UserError(f"device must be cpu or cuda where several processes work at a job, got {device!r}")
    if device == "cuda":
        here, place = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), int(os.environ["LOCAL_RANK"])
        there = torch.cuda.device_count()
        if max(here, place + 1) > there:
            remedy = f"start torchrun with --nproc-per-node={there or 1}, or with device=cpu"
            raise UserError(f"{here} processes need as many GPUs, this machine has {there}: {remedy}")
        torch.cuda.set_device(place)
    try:
        dist.init_process_group("cpu:gloo,cuda:nccl" if device == "cuda" else "gloo", timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        why = f"the processes of this job do not find each other ({first_line(error)})"
        raise UserError(f"{why}: start them with torchrun") from error
    try:
        yield World(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


@contextlib.contextmanager
def _losing_processes() -> Iterator[None]:
    """Turn a collective operation's error into one that says that another process is gone."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise LostProcessError from error
