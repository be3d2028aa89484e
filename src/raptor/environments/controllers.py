"""Controllers: pure functions from what vehicles are in to an action, and a memory of what they did before."""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol

from torch import Tensor
from torch.utils import _pytree as pytree

from raptor.environments.episode import Episode, observe, observe_as_teacher
from raptor.nn.activations import RELU_TANH, Activations
from raptor.nn.policy import MLPParameters, MLPPolicy, PolicyParameters, RaptorPolicy, mlp_step, policy_step
from raptor.nn.stacked_mlp import Layers, act
from raptor.quadrotor.parameters import Quadrotors
from raptor.quadrotor.state import component_major, components, from_components

StudentParameters = PolicyParameters | MLPParameters
"""Of a recurrent student, or of one without memory."""

Memory = tuple[Tensor, ...]
"""What a controller remembers, (N, H) each."""


class Controller(Protocol):
    """A pure function of parameters, of what the vehicles are in, and of what it remembers."""

    def act(self, parameters: Any, quadrotors: Quadrotors, episode: Episode, memory: Memory) -> tuple[Tensor, Memory]:
        """Action (..., 4), component by component in memory, and what to remember."""
        ...


@dataclasses.dataclass(frozen=True)
class Student:
    """A policy of this package, one for all vehicles; its parameters are `StudentParameters`."""

    precision: str = "float32"  # of the matrix products

    def act(self, parameters: Any, quadrotors: Quadrotors, episode: Episode, memory: Memory) -> tuple[Tensor, Memory]:
        """See `Controller`."""
        return student_step(parameters, observe(episode), memory, self.precision)


@dataclasses.dataclass(frozen=True)
class Teachers:
    """T stacked networks, whose layers are the parameters; each acts for B vehicles, (T, B) or side by side (T B,)."""

    activations: Activations = RELU_TANH

    def act(
        self, parameters: Layers, quadrotors: Quadrotors, episode: Episode, memory: Memory
    ) -> tuple[Tensor, Memory]:
        """See `Controller`; the action lies in [-1, 1], and nothing is remembered."""
        observation = observe_as_teacher(quadrotors, episode)
        if observation.ndim > 2:
            return from_components(components(act(parameters, observation, self.activations))), ()
        own = observation.contiguous().view(len(parameters[0].weight), -1, observation.shape[-1])
        return component_major(act(parameters, own, self.activations).flatten(0, 1)), ()


class Policy(Protocol):
    """What can be evaluated: anything recurrent that maps observations (N, 22) to actions (N, 4)."""

    def initial_hidden_state(self, *shape: int) -> Tensor:
        """Hidden state of a fresh start, (*shape, H)."""
        ...

    def __call__(self, observation: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Action (N, 4) and next hidden state (N, H)."""
        ...


@dataclasses.dataclass(frozen=True)
class CalledPolicy:
    """Any other policy: it is called before each step, whose parameter its action is, outside of what is compiled."""

    policy: Policy = dataclasses.field(compare=False)

    def call(self, episode: Episode, memory: Memory) -> tuple[Tensor, Memory]:
        """Action and memory of the policy."""
        action, hidden = self.policy(observe(episode), memory[0])
        return component_major(action.to(episode.noise_scale.device)), (hidden,)

    def act(self, parameters: Any, quadrotors: Quadrotors, episode: Episode, memory: Memory) -> tuple[Tensor, Memory]:
        """See `Controller`."""
        return parameters, memory


def student_step(
    parameters: StudentParameters, observation: Tensor, memory: Memory, precision: str = "float32"
) -> tuple[Tensor, Memory]:
    """Action (N, A) of a student for observations (N, D), and what it remembers then."""
    if isinstance(parameters, MLPParameters):
        return mlp_step(parameters, observation, precision), ()
    action, hidden = policy_step(parameters, observation, memory[0], precision)
    return action, (hidden,)


def initial_memory(parameters: StudentParameters, num: int) -> Memory:
    """What a student remembers at the start of `num` episodes: a hidden state (num, H) of zeros, or nothing."""
    if isinstance(parameters, MLPParameters):
        return ()
    return (parameters.output_weight.new_zeros(num, parameters.output_weight.shape[-1]),)


def controller_of(policy: Policy, num: int) -> tuple[Controller, Any, Memory]:
    """What `rollout` begins with: the controller of a policy, its parameters, and its memory for `num` vehicles."""
    hidden = policy.initial_hidden_state(num).detach()
    if not isinstance(policy, (RaptorPolicy, MLPPolicy)):
        return CalledPolicy(policy), (), (hidden,)
    parameters = pytree.tree_map(lambda tensor: tensor.detach().contiguous(), policy.tensors())
    return Student(), parameters, (hidden,) if hidden.shape[-1] else ()
