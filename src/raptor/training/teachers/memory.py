"""How much memory teachers take, and how many of them are trained as one program."""

from __future__ import annotations

import itertools
import math
import os
from typing import NamedTuple

import torch

from raptor.core.errors import UserError
from raptor.rl.replay import Replay
from raptor.tasks.observation import NUM_SENSED, TEACHER_DIM
from raptor.training.teachers.config import PreTrainConfig
from raptor.training.teachers.sac import NUM_ACTIONS, replay_sizes

GIB = 2**30
SHARE_OF_FREE = 0.7
"""What is taken of the free memory where nothing is said."""

CPU_FLIGHTS = 1024
"""Flights that a processor's core computes best at once: enough to fill its vectors, few enough for its cache."""

CPU_AGENTS = 16
"""Agents of soft actor-critic per shard on a processor, where more together are no faster."""

VEHICLE_NUMBERS, EPISODE_NUMBERS = 85, 75
"""Numbers that describe a vehicle, and where its episode stands, without histories."""

BASE_BYTES = 0.6 * GIB
"""Of a process that does nothing yet: the libraries and the compiler."""


class Plan(NamedTuple):
    """How a population is cut into shards."""

    num_teachers: int
    shard_size: int  # teachers of a shard, at most
    bytes_per_teacher: int
    at_once: int  # shards that share the memory
    budget: float  # bytes

    @property
    def num_shards(self) -> int:
        """How many shards there are; they differ in size by at most one."""
        return math.ceil(self.num_teachers / self.shard_size)

    @property
    def bytes_at_once(self) -> float:
        """What all shards that are trained at a time take together."""
        return self.at_once * (BASE_BYTES + self.shard_size * self.bytes_per_teacher)

    def describe(self) -> str:
        """What will be used, in words."""
        together = f", {self.at_once} at once" if self.at_once > 1 else ""
        return (
            f"{self.num_teachers} teachers in {self.num_shards} shards of at most {self.shard_size}{together}: "
            f"{self.bytes_per_teacher / 2**20:.3g} MiB a teacher, {self.bytes_at_once / GIB:.2g} GiB at a time "
            f"of {self.budget / GIB:.3g} GiB"
        )


def plan(config: PreTrainConfig, num_teachers: int, at_once: int) -> Plan:
    """Cut a population into shards that fit.

    Args:
        config: the settings.
        num_teachers: size of the population.
        at_once: shards that are trained at the same time and share the memory.

    Raises:
        UserError: not even one teacher fits, or not as many as `shard_size` asks for; names the setting to change.
    """
    at_once = min(at_once, num_teachers)
    budget = budget_bytes(config.memory_gib, config.device)
    each = bytes_per_teacher(config)
    room = budget / at_once - BASE_BYTES
    fitting = int(room // each)
    wanted = config.shard_size or _best(config)
    setting = "apg.num_envs" if config.algorithm == "apg" else "sac.replay.capacity"
    if fitting < (config.shard_size or 1):
        workers = ", engine.num_workers" if at_once > 1 else ""
        raise UserError(
            f"{config.shard_size or 1} teachers of {each / GIB:.3g} GiB each and {BASE_BYTES / GIB:.2g} GiB of "
            f"libraries do not fit into {budget / at_once / GIB:.3g} GiB: "
            f"lower {setting}{workers} or shard_size, or raise memory_gib"
        )
    size = min(wanted, fitting, num_teachers)
    even = math.ceil(num_teachers / math.ceil(num_teachers / size))
    return Plan(num_teachers, even, each, min(at_once, math.ceil(num_teachers / even)), budget)


def budget_bytes(memory_gib: float | None, device: str) -> float:
    """What may be taken: what is given, or most of what is free on the device."""
    return memory_gib * GIB if memory_gib is not None else SHARE_OF_FREE * _free(device)


def bytes_per_teacher(config: PreTrainConfig) -> int:
    """Memory that each teacher of a shard takes, in bytes."""
    sensing = config.task.sensing
    history = NUM_SENSED * (sensing.observation_delay[1] + 1) + 4 * sensing.action_delay[1]
    tests = max(config.num_validation, config.num_evaluation) * 2 * (VEHICLE_NUMBERS + EPISODE_NUMBERS)
    if config.algorithm == "apg":
        apg = config.apg
        trail = 45 + history + (3 + NUM_SENSED * sensing.noisy) + 3
        flights = apg.num_envs * (apg.segment_steps * trail + 3 * (VEHICLE_NUMBERS + EPISODE_NUMBERS + history))
        return 4 * (flights + tests + 12 * _num_weights((TEACHER_DIM, *apg.widths, 4)))
    sac = config.sac
    replay = Replay.bytes_needed(sac.replay, replay_sizes(sac, 1, config.task))
    critics = 2 * _num_weights((TEACHER_DIM + NUM_ACTIONS, *sac.critic_widths, 1))
    weights = 5 * critics + 4 * _num_weights((TEACHER_DIM, *sac.actor_widths, 2 * NUM_ACTIONS))
    activations = 8 * 2 * sac.batch_size * (sum(sac.critic_widths) + TEACHER_DIM + NUM_ACTIONS)
    block = 60 * sac.num_envs * (VEHICLE_NUMBERS + EPISODE_NUMBERS)
    return replay + 4 * (weights + activations + block + tests)


def _num_weights(widths: tuple[int, ...]) -> int:
    return sum((fan_in + 1) * out for fan_in, out in itertools.pairwise(widths))


def _best(config: PreTrainConfig) -> int:
    """Teachers that are fastest as one program: on a GPU as many as there is room for."""
    if torch.device(config.device).type != "cpu":
        return 1 << 30
    return max(1, CPU_FLIGHTS // config.apg.num_envs) if config.algorithm == "apg" else CPU_AGENTS


def _free(device: str) -> float:
    """Free memory of a device, in bytes."""
    if torch.device(device).type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    try:
        with open("/proc/meminfo", encoding="utf-8") as file:
            fields = dict(line.split(":", 1) for line in file)
        return 1024.0 * float(fields["MemAvailable"].split()[0])
    except (OSError, KeyError):
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
