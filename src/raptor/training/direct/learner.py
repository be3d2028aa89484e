"""Training a policy through the simulator's gradient: the learner, without files."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from raptor.config.settings import at_least, setting
from raptor.core.distributed import ALONE, Parts, World, cut
from raptor.core.errors import UserError
from raptor.environments.controllers import Student
from raptor.environments.episode import Episode, Noise, begin_episode, draw_noise
from raptor.formats.checkpoint import StudentPolicy
from raptor.formats.policy_files import load_policy
from raptor.nn.policy import RaptorPolicy
from raptor.quadrotor.parameters import Quadrotors
from raptor.quadrotor.sampling import sample_quadrotors
from raptor.rl.analytic_policy_gradient import Guide, SegmentGradient
from raptor.rl.curriculum import Curriculum
from raptor.rl.flight import RolloutState
from raptor.training.direct.config import TRAINING_SEEDS, GradientConfig, validation_task
from raptor.training.validation import Validation, figures


class _End(NamedTuple):
    """Where a segment of flight ended; N vehicles."""

    flight: RolloutState
    alive: Tensor  # (N,) 1 where the vehicle stayed within bounds, else 0
    terminated: Tensor  # (N,) 1 where some step would have ended the episode, else 0


class GradientLearner:
    """Flies a batch of ever new vehicles and improves a policy after each segment.

    Every vehicle flies one episode and is then replaced by a newly drawn one; the episodes are staggered, so that each
    update sees all parts of an episode. A vehicle that leaves its bounds is replaced at the end of the segment.

    Args:
        config: the settings.
        policy: where it begins; improved in place.
        seed: of the vehicles and everything else that is drawn.
        device: of all tensors.
        compile: False runs eagerly.
        world: the processes that share each batch; every one of them holds all vehicles.
    """

    def __init__(
        self,
        config: GradientConfig,
        policy: StudentPolicy,
        seed: int = 0,
        device: torch.device | str = "cpu",
        compile: bool = True,
        world: World = ALONE,
    ) -> None:
        self.config, self.device = config, torch.device(device)
        self.parts = Parts(world, config.accumulation)
        self.parts.refuse_fewer("vehicles flown at once", config.batch_size)
        self.generator = torch.Generator(self.device).manual_seed(TRAINING_SEEDS + seed)
        self.policy = policy.to(self.device)
        self.optimizer = torch.optim.Adam(
            [p for p in self.policy.parameters() if p.requires_grad], lr=config.learning_rate, betas=(0.9, 0.999)
        )
        self.gradient = SegmentGradient(
            config.task,
            config.objective,
            config.method,
            config.gradient_decay,
            config.adjoint_limit,
            compile,
            Student(config.precision),
        )
        self._compile = compile
        self._validation: Validation | None = None
        self.update_count = 0
        self.diverged_count = 0
        self.skipped_count = 0
        self.curriculum = (
            Curriculum(config.curriculum, config.task, config.batch_size, device) if config.curriculum.enabled else None
        )
        # Whether a step of the present episode would have ended it.
        self.terminated = torch.zeros(config.batch_size, dtype=torch.bool, device=self.device)
        places = torch.arange(config.batch_size, device=self.device)
        self.quadrotors, self.episode = self._draw(places)
        self.memory = self._initial_memory(config.batch_size)
        self.age = places * self._segments_per_episode // config.batch_size * config.segment_steps

    @property
    def _segments_per_episode(self) -> int:
        return math.ceil(self.config.task.episode_steps / self.config.segment_steps)

    def _draw(self, places: Tensor) -> tuple[Quadrotors, Episode]:
        quadrotors = self._vehicles(places)
        if self.curriculum is not None:
            return quadrotors, self.curriculum.begin(quadrotors, self.generator)
        return quadrotors, begin_episode(self.config.task, quadrotors, self.generator)

    def _vehicles(self, places: Tensor) -> Quadrotors:
        """New vehicles for these places of the batch."""
        return self._sample(len(places), self.generator)

    def _guide(self, places: slice) -> Guide | None:
        """Whose actions the vehicles at these places imitate in the coming update."""
        return None

    def _initial_memory(self, num: int) -> tuple[Tensor, ...]:
        hidden = self.policy.initial_hidden_state(num).detach()
        return (hidden,) if hidden.shape[-1] else ()

    def _sample(self, num: int, generator: torch.Generator) -> Quadrotors:
        return sample_quadrotors(num, None, generator, self.config.distribution, self.device).component_major()

    def _learning_rate(self) -> float:
        config = self.config
        progress = self.update_count / max(config.num_updates, 1)
        cosine = 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
        warm_up = min(1.0, (self.update_count + 1) / max(config.warm_up_updates, 1))
        share = config.final_learning_rate + (1 - config.final_learning_rate) * cosine
        return config.learning_rate * warm_up * share

    def update(self) -> dict[str, float]:
        """Fly one segment and take one step of the optimiser; returns what happened, as numbers."""
        config = self.config
        noise = draw_noise(config.task, self.quadrotors.mass, self.generator, config.segment_steps)
        (*gradient, cost, reward), end = self._fly(noise)
        norm = torch.stack([(g * g).sum() for g in gradient]).sum().sqrt().item()
        learning_rate = self._learning_rate()
        if math.isfinite(norm):
            scale = min(1.0, config.gradient_norm / max(norm, 1e-12))
            for parameter, g in zip(self.policy.tensors(), gradient, strict=True):
                parameter.grad = g * scale
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate
            self.optimizer.step()
        else:
            self.skipped_count += 1
        self.episode, self.memory = end.flight.into(self.episode), end.flight.memory
        self.age = self.age + config.segment_steps
        self.terminated = self.terminated | (end.terminated > 0)
        self._replace(end.alive)
        self.update_count += 1
        return {
            "loss": cost.item(),
            "gradient_norm": norm,
            "learning_rate": learning_rate,
            "reward": reward.item(),
            "out_of_bounds": 1 - end.alive.mean().item(),
        }

    def _fly(self, noise: Sequence[Noise]) -> tuple[list[Tensor], _End]:
        """Fly a segment part by part; the gradient, followed by the mean cost and the mean reward, and its end."""
        num, parameters = self.config.batch_size, self.policy.tensors()
        means, ends = [], []
        for places in self.parts.own(num):
            there = cut((self.quadrotors, self.episode, self.memory, list(noise)), places)
            gradient, segment = self.gradient(parameters, *there, self._guide(places))
            means.append([*gradient, segment.cost.mean(), segment.reward.clamp(min=-20).mean()])
            flight, alive = RolloutState.begin(segment.episode, segment.memory), segment.alive
            ends.append(_End(flight, alive, segment.terminated.any(0).to(alive.dtype)))
        return self.parts.mean(means, num), self.parts.gather(ends, num)

    def _replace(self, alive: Tensor) -> None:
        """Put new vehicles where an episode is over or a vehicle left its bounds."""
        lost = alive == 0
        over = lost | (self.age >= self.config.task.episode_steps)
        self.diverged_count += int(lost.sum())
        if self.curriculum is not None:
            self.curriculum.record(over, self.curriculum.succeeded(self.episode, self.terminated | lost))
        self.terminated = self.terminated & ~over
        places = over.nonzero().squeeze(-1)
        if len(places) == 0:
            return
        old = (self.quadrotors, self.episode, self.memory)
        new = (*self._draw(places), self._initial_memory(len(places)))

        def put(kept: Tensor, fresh: Tensor) -> Tensor:
            merged = kept.clone(memory_format=torch.preserve_format)
            merged[places] = fresh
            return merged

        self.quadrotors, self.episode, self.memory = pytree.tree_map(put, old, new)
        self.age = self.age.masked_fill(over, 0)

    def validate(self, policy: StudentPolicy, num_episodes: int) -> dict[str, float]:
        """Mean return, fraction terminated and length on validation vehicles, hovering or following a Langevin target.

        The vehicles and starts are the same at each call, and none of them is ever trained on.
        """
        config, validation = self.config, self._validation
        if validation is None or len(validation.vehicles) != num_episodes:
            settings = self.device, self._compile, config.distribution, self.parts.world
            validation = self._validation = Validation(num_episodes, *settings)
        found = figures(validation(policy, validation_task(config.task)))
        return {
            "return": found["mean_return"],
            "terminated": found["share_terminated"],
            "length": found["mean_length"],
        }

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next update depends on."""
        state: dict[str, Any] = {
            "policy": self.policy.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "flight": pytree.tree_leaves((self.quadrotors, self.episode, self.memory, self.age)),
            "counts": [self.update_count, self.diverged_count, self.skipped_count],
        }
        if self.curriculum is not None:
            state["curriculum"] = {**self.curriculum.state_dict(), "terminated": self.terminated}
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go back to a state that `state_dict` gave, in place of what this learner did since."""
        self.policy.load_state_dict(state["policy"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
        structure = pytree.tree_structure((self.quadrotors, self.episode, self.memory, self.age))
        leaves = [leaf.to(self.device) for leaf in state["flight"]]
        self.quadrotors, self.episode, self.memory, self.age = pytree.tree_unflatten(leaves, structure)
        self.update_count, self.diverged_count, self.skipped_count = state["counts"]
        if self.curriculum is not None:
            self.curriculum.load_state_dict(state["curriculum"])
            self.terminated = state["curriculum"]["terminated"].to(self.device)


@dataclasses.dataclass(frozen=True)
class DirectConfig(GradientConfig):
    """Settings of `raptor train-direct`."""

    hidden_dim: int = setting(16, "width of both hidden layers of the policy", at_least(1))
    initial_policy: str | None = setting(
        None, "name, run folder or file of the policy to begin with; null: drawn by the seed"
    )


class DirectLearner(GradientLearner):
    """A `GradientLearner` that begins with a policy of its own.

    Args:
        config: the settings.
        seed: of the weights, the vehicles and everything else that is drawn.
        device: of all tensors.
        compile: False runs eagerly.
        world: the processes that share each batch.

    Raises:
        UserError: the policy to begin with cannot be read, or has another width; the batch cannot be cut evenly.
    """

    def __init__(
        self,
        config: DirectConfig,
        seed: int = 0,
        device: torch.device | str = "cpu",
        compile: bool = True,
        world: World = ALONE,
    ) -> None:
        Parts(world, config.accumulation).refuse_uneven("batch_size", config.batch_size)
        super().__init__(config, _first_policy(config, TRAINING_SEEDS + seed), seed, device, compile, world)


def _first_policy(config: DirectConfig, seed: int) -> RaptorPolicy:
    if config.initial_policy is None:
        return _initial_policy(config.hidden_dim, seed)
    policy = load_policy(config.initial_policy)
    if not isinstance(policy, RaptorPolicy):
        raise UserError(f"initial_policy must be a recurrent policy that can be trained, got {config.initial_policy}")
    if policy.hidden_dim != config.hidden_dim:
        raise UserError(
            f"initial_policy {config.initial_policy} has hidden_dim={policy.hidden_dim}, the settings ask for "
            f"{config.hidden_dim}: give the same"
        )
    return policy


def _initial_policy(hidden_dim: int, seed: int) -> RaptorPolicy:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        policy = RaptorPolicy(hidden_dim=hidden_dim)
    shrink_output_layer(policy)
    return policy


@torch.no_grad()
def shrink_output_layer(policy: StudentPolicy) -> None:
    """Make the outputs of a policy that knows nothing small, so that its first flights are near hover."""
    policy.output_layer.weight.mul_(0.3)
    policy.output_layer.bias.zero_()
