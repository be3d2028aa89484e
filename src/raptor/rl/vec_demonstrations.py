"""Demonstrations in environments from elsewhere: whole episodes, what is seen in them, and what the teacher does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from raptor.environments.vec_env import CheckedVecEnv
from raptor.formats.checkpoint import StudentPolicy
from raptor.rl.demonstrations import Demonstrations

Observations = Mapping[str, Tensor]
Teach = Callable[[Observations], Tensor]
"""From all groups of observations, (N, D) each, to the actions (N, A) of a teacher."""


class Flights(NamedTuple):
    """What came of K whole episodes in each of N environments."""

    returns: Tensor  # (N, K)
    lengths: Tensor  # (N, K) int64
    terminated: Tensor  # (N, K) bool; the episode ended before its time


class StudentPilot:
    """A student that acts, with a hidden state for each environment.

    Args:
        policy: recurrent or not.
        group: of observations, that it sees.
    """

    def __init__(self, policy: StudentPolicy, group: str) -> None:
        self.policy, self.group = policy, group
        self.hidden: Tensor | None = None

    def __call__(self, observations: Observations, begins: Tensor) -> Tensor:
        """Actions (N, A); what is remembered goes where an episode `begins`, (N,)."""
        observation = observations[self.group]
        fresh = self.policy.initial_hidden_state(len(observation))
        hidden = fresh if self.hidden is None else torch.where(begins.unsqueeze(-1), fresh, self.hidden)
        action, self.hidden = self.policy(observation, hidden)
        return action


class Record(NamedTuple):
    """Where demonstrations are written to."""

    demonstrations: Demonstrations  # (N K, S, ...), the environment's number first
    group: str  # of observations, that the student sees
    label: Teach  # what the student is to do


@torch.no_grad()
def fly(
    env: CheckedVecEnv,
    pilot: Callable[[Observations, Tensor], Tensor],
    num_episodes: int,
    record: Record | None = None,
    stopping: Callable[[], bool] = lambda: False,
) -> Flights | None:
    """Fly the same number of whole episodes in each environment, so that short ones do not count more.

    Args:
        env: in which episodes have begun; one that is under way is flown to its end and not counted.
        pilot: from observations, and where episodes begin (N,), to actions (N, A).
        num_episodes: K.
        record: where to write what is seen and what is to be done there.
        stopping: asked in each step whether to give up.

    Returns:
        What came of the episodes; None where it was given up.
    """
    device, shape = env.device, (env.num_envs, num_episodes)
    flights = Flights(
        torch.zeros(shape, device=device),
        torch.zeros(shape, dtype=torch.long, device=device),
        torch.zeros(shape, dtype=torch.bool, device=device),
    )
    observations = env.observe()
    begins = torch.ones(env.num_envs, dtype=torch.bool, device=device)
    episode = -(env.steps > 0).long()  # (N,) which of the K; -1 for one that is under way
    while bool((episode < num_episodes).any()):
        if stopping():
            return None
        flying = ((episode >= 0) & (episode < num_episodes)).nonzero().squeeze(-1)
        action = pilot(observations, begins)
        if record is not None:
            _write(record, observations, flying, flying * num_episodes + episode[flying], env.steps[flying])
        result = env.step(action)
        counted = flying[~result.ignored[flying]]
        place = counted, episode[counted]
        flights.returns[place] += result.reward[counted]
        flights.lengths[place] += 1
        flights.terminated[flying, episode[flying]] = result.done[flying] & ~result.timed_out[flying]
        observations, begins = result.observations, result.done
        episode = episode + begins
    if record is not None:
        record.demonstrations.length.copy_(flights.lengths.flatten())
    return flights


def _write(record: Record, observations: Observations, flying: Tensor, row: Tensor, step: Tensor) -> None:
    """Note what is seen and to be done in the environments `flying`; what an ignored action leaves is not counted."""
    stored = record.demonstrations
    fits = step < stored.observation.shape[1]  # all but what is seen after the last step of an episode
    flying, row, step = flying[fits], row[fits], step[fits]
    stored.observation[row, step] = observations[record.group][flying]
    stored.label[row, step] = record.label(observations)[flying]
