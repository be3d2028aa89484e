"""Demonstrations in any vector environment: whole episodes, what is seen in them, and what a teacher does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from raptor.environments.collectors import Episodes
from raptor.environments.controllers import Memory, StudentParameters, initial_memory, student_step
from raptor.environments.vec_env import CheckedVecEnv
from raptor.rl.demonstrations import Demonstrations

Observations = Mapping[str, Tensor]
Label = Callable[[Observations], Tensor]
"""From all groups of observations, (N, D) each, to the actions (N, A) of a teacher."""
VecController = Callable[[Observations, Tensor], Tensor]
"""From observations, and where episodes begin (N,) bool, to actions (N, A)."""


class VecStudent:
    """A student as a `VecController`, with a memory for each environment.

    Args:
        parameters: recurrent or not.
        group: of observations, that it sees.
    """

    def __init__(self, parameters: StudentParameters, group: str) -> None:
        self.parameters, self.group = parameters, group
        self._memory: Memory | None = None

    def __call__(self, observations: Observations, begins: Tensor) -> Tensor:
        """Actions (N, A); the memory starts afresh where an episode `begins`, (N,)."""
        observation = observations[self.group]
        fresh = initial_memory(self.parameters, len(observation))
        kept = fresh if self._memory is None else self._memory
        memory = tuple(torch.where(begins.unsqueeze(-1), new, old) for new, old in zip(fresh, kept, strict=True))
        action, self._memory = student_step(self.parameters, observation, memory)
        return action


class Record(NamedTuple):
    """Where demonstrations are written to."""

    demonstrations: Demonstrations  # (N K, S, ...), the environment's number first
    group: str  # of observations, that the student sees
    label: Label

    def write(self, observations: Observations, flying: Tensor, row: Tensor, step: Tensor) -> None:
        """Note a step of the environments `flying`; what an ignored action leaves is not counted."""
        stored = self.demonstrations
        fits = step < stored.observation.shape[1]  # all but what is seen after the last step of an episode
        flying, row, step = flying[fits], row[fits], step[fits]
        stored.observation[row, step] = observations[self.group][flying]
        stored.label[row, step] = self.label(observations)[flying]


@torch.no_grad()
def rollout_vec_env(
    env: CheckedVecEnv, controller: VecController, num_episodes: int, record: Record | None = None
) -> Episodes:
    """Run the same number of whole episodes in each environment, so that short ones do not count more.

    Args:
        env: in which episodes have begun; one that is under way is run to its end and not counted.
        controller: acts.
        num_episodes: K.
        record: where to write what is seen and what is to be done there.

    Returns:
        What came of the episodes, (N, K).
    """
    shape = env.num_envs, num_episodes
    returns, lengths = torch.zeros(2, *shape, device=env.device)
    terminated = torch.zeros(shape, dtype=torch.bool, device=env.device)
    observations = env.observe()
    begins = torch.ones(env.num_envs, dtype=torch.bool, device=env.device)
    episode = -(env.steps > 0).long()  # (N,) which of the K; -1 for one that is under way
    while bool((episode < num_episodes).any()):
        flying = ((episode >= 0) & (episode < num_episodes)).nonzero().squeeze(-1)
        action = controller(observations, begins)
        if record is not None:
            record.write(observations, flying, flying * num_episodes + episode[flying], env.steps[flying])
        result = env.step(action)
        counted = flying[~result.ignored[flying]]
        place = counted, episode[counted]
        returns[place] += result.reward[counted]
        lengths[place] += 1
        terminated[flying, episode[flying]] = result.done[flying] & ~result.timed_out[flying]
        observations, begins = result.observations, result.done
        episode = episode + begins
    if record is not None:
        record.demonstrations.length.copy_(lengths.flatten())
    return Episodes(returns, lengths, terminated)
