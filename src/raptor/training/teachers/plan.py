"""How a population is cut into shards that fit into memory."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from raptor.core.atomic import write_atomically
from raptor.core.errors import UserError
from raptor.environments.episode import begin_episode, draw_noise
from raptor.quadrotor.sampling import sample_quadrotors
from raptor.rl.analytic_policy_gradient import RolloutState
from raptor.rl.replay import Replay
from raptor.rl.sac import sac_start
from raptor.tasks.observation import TEACHER_DIM
from raptor.training.memory import BASE_BYTES, GIB, budget_bytes, nbytes
from raptor.training.teachers.config import PreTrainConfig
from raptor.training.teachers.gradient import APGTeachers
from raptor.training.teachers.sac import NUM_ACTIONS, replay_sizes
from raptor.training.teachers.shard import make_algorithm

CPU_EPISODES = 1024
"""Episodes that a processor's core computes best at once: enough to fill its vectors, few enough for its cache."""

CPU_AGENTS = 16
"""Agents of soft actor-critic per shard on a processor, where more together are no faster."""


class Plan(NamedTuple):
    """How a population is cut into shards."""

    names: tuple[str, ...]  # of the vehicles
    shard_size: int  # teachers of a shard, at most
    bytes_per_teacher: int
    at_once: int  # shards that share the memory
    budget: float  # bytes

    @property
    def num_shards(self) -> int:
        """How many shards there are; they differ in size by at most one."""
        return math.ceil(len(self.names) / self.shard_size)

    def describe(self) -> str:
        """What will be used, in words."""
        together = f", {self.at_once} at once" if self.at_once > 1 else ""
        taken = self.at_once * (BASE_BYTES + self.shard_size * self.bytes_per_teacher)
        return (
            f"{len(self.names)} teachers in {self.num_shards} shards of at most {self.shard_size}{together}: "
            f"{self.bytes_per_teacher / 2**20:.3g} MiB a teacher, {taken / GIB:.2g} GiB at a time "
            f"of {self.budget / GIB:.3g} GiB"
        )

    def cut(self, members: Sequence[int], attempt: int) -> dict[str, list[int]]:
        """The shards of an attempt at these teachers, of nearly equal size, by name."""
        num = math.ceil(len(members) / self.shard_size)
        bounds = [round(i * len(members) / num) for i in range(num + 1)]
        return {f"{attempt}-{i:04d}": list(members[bounds[i] : bounds[i + 1]]) for i in range(num)}

    def write(self, path: Path) -> None:
        """Write it for later sessions and other parts."""
        write_atomically(path, f"{json.dumps(self._asdict())}\n")


def make_plan(config: PreTrainConfig, names: Sequence[str], at_once: int, num_parts: int = 1) -> Plan:
    """Cut a population into shards that fit.

    Args:
        config: the settings.
        names: of the vehicles.
        at_once: shards that are trained at the same time and share the memory.
        num_parts: at least so many shards are made, where there are so many teachers and no `shard_size` is asked for.

    Raises:
        UserError: not even one teacher fits, or not as many as `shard_size` asks for; names the setting to change.
    """
    num, least = len(names), config.shard_size or 1
    at_once = min(at_once, num)
    budget, each = budget_bytes(config.memory_gib, config.device), bytes_per_teacher(config)
    fitting = int((budget / at_once - BASE_BYTES) // each)
    if fitting < least:
        setting = "apg.num_envs" if config.algorithm == "apg" else "sac.replay.capacity"
        workers = ", engine.num_workers" if at_once > 1 else ""
        raise UserError(
            f"{least} teachers of {each / GIB:.3g} GiB each and {BASE_BYTES / GIB:.2g} GiB of libraries do not fit "
            f"into {budget / at_once / GIB:.3g} GiB: lower {setting}{workers} or shard_size, or raise memory_gib"
        )
    size = config.shard_size or min(_best_size(config, num), math.ceil(num / num_parts))
    size = min(size, fitting, num)
    even = math.ceil(num / math.ceil(num / size))
    return Plan(tuple(names), even, each, min(at_once, math.ceil(num / even)), budget)


def read_plan(path: Path, config: PreTrainConfig, at_once: int) -> Plan:
    """The plan with which a run began, because rounding depends on it.

    Raises:
        UserError: it cannot be read, or the shards do not fit any more.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        names, size = [str(name) for name in document["names"]], int(document["shard_size"])
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path} cannot be read: start anew with --overwrite") from error
    return make_plan(dataclasses.replace(config, shard_size=size), names, at_once)


def bytes_per_teacher(config: PreTrainConfig) -> int:
    """Memory that each teacher of a shard takes, in bytes: the tensors of a single one are measured."""
    vehicle, generator = sample_quadrotors(1, seed=0), torch.Generator().manual_seed(0)
    rollout = nbytes((vehicle, begin_episode(config.task, vehicle, generator)))  # of one environment
    tests = 2 * max(config.num_validation, config.num_evaluation) * rollout
    if config.algorithm == "apg":
        single = make_algorithm(dataclasses.replace(config, compile=False), vehicle, seed=0)
        assert isinstance(single, APGTeachers)
        step = nbytes(
            (RolloutState.begin(single.episode, ()).moving, draw_noise(config.task, single.quadrotors.mass, generator))
        )
        step += 12 * config.apg.num_envs  # cost, reward, termination
        networks = 3 * nbytes((single.layers, single.adam))
        return config.apg.segment_steps * step + 3 * config.apg.num_envs * rollout + networks + tests
    sac = config.sac
    sizes = replay_sizes(sac, 1, config.task)
    replay = Replay(sac.replay, sizes, gamma=sac.gamma, device="meta").nbytes
    agents = 2 * nbytes(sac_start(sac, 1, TEACHER_DIM, NUM_ACTIONS, generator))
    widths = TEACHER_DIM + NUM_ACTIONS + sum(sac.critic_widths)
    activations = 4 * 16 * sac.batch_size * widths  # of two critics and their targets, forward and backward
    return replay + agents + activations + sac.block_steps * sac.num_envs * rollout + tests


def _best_size(config: PreTrainConfig, num: int) -> int:
    """Teachers that are fastest as one program: on a GPU as many as there is room for."""
    if torch.device(config.device).type != "cpu":
        return num
    return max(1, CPU_EPISODES // config.apg.num_envs) if config.algorithm == "apg" else CPU_AGENTS
