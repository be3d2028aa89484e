"""Training a policy through the simulator's gradient: the learner, without files."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from raptor.core.distributed import ALONE, Parts, World, cut
from raptor.environments.episode import Episode, Noise, begin_episode, draw_noise
from raptor.environments.rollout import Memory, Student
from raptor.formats.checkpoint import StudentPolicy
from raptor.quadrotor.parameters import Quadrotors
from raptor.quadrotor.sampling import sample_quadrotors
from raptor.rl.adam import warmup_cosine
from raptor.rl.analytic_policy_gradient import SegmentGradient
from raptor.rl.curriculum import Curriculum
from raptor.rl.objective import TeacherGuide
from raptor.runs.learner import Rated
from raptor.training.direct.config import GradientConfig
from raptor.training.validation import TRAINING_SEEDS, Validation


class Guidance(Protocol):
    """Vehicles and labels that are given for some updates, in place of ever new vehicles."""

    def weight(self, update: int) -> float:
        """Weight of imitation in the update after so many; 0: there is no guidance any more."""
        ...

    def vehicles(self, places: Tensor) -> Quadrotors:
        """Those at some places of the batch."""
        ...

    def guide(self, places: slice, update: int) -> TeacherGuide:
        """Whose actions the vehicles at these places imitate."""
        ...


class GradientLearner:
    """Flies a batch of vehicles and improves a policy after each segment.

    A vehicle is replaced by a newly drawn one when its episode is over, or at the end of the segment in which it leaves
    its bounds. Episodes are staggered: each update sees all parts of an episode.

    Args:
        config: the settings.
        policy: where it begins; improved in place.
        seed: of the vehicles and everything else that is drawn.
        device: of all tensors.
        compile: False runs eagerly.
        world: the processes that share each batch; every one of them holds all vehicles.
        validation: that `validate` flies.
        guidance: vehicles and labels of teachers.
        group: what the names of its figures begin with.
        updates_per_step: updates that make a step, see `raptor.runs.trainer.Learner`.
    """

    def __init__(
        self,
        config: GradientConfig,
        policy: StudentPolicy,
        seed: int = 0,
        device: torch.device | str = "cpu",
        compile: bool = True,
        world: World = ALONE,
        *,
        validation: Validation | None = None,
        guidance: Guidance | None = None,
        group: str = "training",
        updates_per_step: int = 1,
    ) -> None:
        self.config, self.device = config, torch.device(device)
        self.validation, self.guidance, self.group = validation, guidance, group
        self.updates_per_step = updates_per_step
        self.parts = Parts(world, config.accumulation)
        self.parts.refuse_fewer("vehicles flown at once", config.batch_size)
        self.generator = torch.Generator(self.device).manual_seed(TRAINING_SEEDS + seed)
        self.policy = policy.to(self.device)
        self.rated: Rated | None = None
        self.notes: list[str] = []
        self.optimizer = torch.optim.Adam(
            [p for p in self.policy.parameters() if p.requires_grad], lr=config.learning_rate, betas=(0.9, 0.999)
        )
        places = torch.arange(config.batch_size, device=self.device)
        task = config.task.for_vehicles(config.distribution)
        self.gradient = SegmentGradient(
            task if guidance is None else task.for_vehicles(guidance.vehicles(places)),
            config.objective,
            method=config.method,
            gradient_decay=config.gradient_decay,
            adjoint_limit=config.adjoint_limit,
            compile=compile,
            controller=Student(config.precision),
        )
        self.update_count = 0
        self.diverged_count = 0  # vehicles that left their bounds and were replaced
        self.skipped_count = 0  # updates without a step, because their gradient was not finite
        self.curriculum = (
            Curriculum(config.curriculum, config.task, config.batch_size, device) if config.curriculum.enabled else None
        )
        # Whether a step of the present episode would have ended it.
        self.terminated = torch.zeros(config.batch_size, dtype=torch.bool, device=self.device)
        self.quadrotors, self.episode = self._draw(places)
        self.memory = self._initial_memory(config.batch_size)
        segments = math.ceil(config.task.episode_steps / config.segment_steps)
        self.age = places * segments // config.batch_size * config.segment_steps

    @property
    def step_count(self) -> int:
        """Whole steps so far."""
        steps = self.update_count / self.updates_per_step
        return math.ceil(steps) if self._is_complete else math.floor(steps)

    @property
    def fraction(self) -> float:
        """Part of the next step that is done."""
        return 0.0 if self._is_complete else self.update_count % self.updates_per_step / self.updates_per_step

    @property
    def _is_complete(self) -> bool:
        return self.update_count >= self.config.num_updates

    @property
    def env_steps(self) -> float:
        """Steps of simulation so far."""
        return self.update_count * self.config.batch_size * self.config.segment_steps

    @property
    def imitation(self) -> float:
        """Weight of imitation in the coming update."""
        return 0.0 if self.guidance is None else self.guidance.weight(self.update_count)

    def _draw(self, places: Tensor) -> tuple[Quadrotors, Episode]:
        """New vehicles for these places of the batch, and their episodes."""
        if self.guidance and self.imitation:
            quadrotors = self.guidance.vehicles(places).component_major()
        else:
            drawn = sample_quadrotors(len(places), None, self.generator, self.config.distribution, self.device)
            quadrotors = drawn.component_major()
        if self.curriculum is None:
            return quadrotors, begin_episode(self.config.task, quadrotors, self.generator)
        return quadrotors, self.curriculum.begin(quadrotors, self.generator)

    def _initial_memory(self, num: int) -> tuple[Tensor, ...]:
        hidden = self.policy.initial_hidden_state(num).detach()
        return (hidden,) if hidden.shape[-1] else ()

    def update(self) -> dict[str, float] | None:
        """Run one segment and take one step of the optimiser; figures where that completes a step of the training."""
        config, imitation = self.config, self.imitation
        noise = draw_noise(config.task, self.quadrotors.mass, self.generator, config.segment_steps)
        (*gradient, cost, reward), (self.episode, self.memory, alive, terminated) = self._fly(noise)
        norm = torch.stack([(g * g).sum() for g in gradient]).sum().sqrt().item()
        learning_rate = warmup_cosine(
            config.learning_rate,
            config.final_learning_rate,
            self.update_count / max(config.num_updates, 1),
            self.update_count,
            config.warm_up_updates,
        )
        if math.isfinite(norm):
            scale = min(1.0, config.gradient_norm / max(norm, 1e-12))
            for parameter, g in zip(self.policy.tensors(), gradient, strict=True):
                parameter.grad = g * scale
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate
            self.optimizer.step()
        else:
            self.skipped_count += 1
        self.age = self.age + config.segment_steps
        self.terminated = self.terminated | (terminated > 0)
        self._replace(alive)
        self.update_count += 1
        figures = {
            "loss": cost.item(),
            "gradient_norm": norm,
            "learning_rate": learning_rate,
            "reward": reward.item(),
            "out_of_bounds": 1 - alive.mean().item(),
            "num_skipped": float(self.skipped_count),
        }
        if self.guidance is not None:
            figures["imitation"] = imitation
        if self.fraction:
            return None
        staged = {} if self.curriculum is None else self.curriculum.summary()
        named = {f"{self.group}/{name}": value for name, value in figures.items()}
        return named | {f"curriculum/{name}": value for name, value in staged.items()}

    def _fly(self, noise: Sequence[Noise]) -> tuple[list[Tensor], tuple[Episode, Memory, Tensor, Tensor]]:
        """Fly a segment part by part.

        Returns:
            The gradient, followed by the mean cost and the mean reward; and the end of the segment: episode, memory,
            and (N,) 1 or 0 each, whether a vehicle stayed within bounds, and whether some step would have ended its
            episode.
        """
        num, parameters = self.config.batch_size, self.policy.tensors()
        means, ends = [], []
        for places in self.parts.own(num):
            there = cut((self.quadrotors, self.episode, self.memory, list(noise)), places)
            guide = self.guidance.guide(places, self.update_count) if self.guidance and self.imitation else None
            gradient, segment = self.gradient(parameters, *there, guide)
            means.append([*gradient, segment.cost.mean(), segment.reward.clamp(min=-20).mean()])
            ends.append((*segment[:3], segment.terminated.any(0).to(segment.alive.dtype)))
        return self.parts.mean(means, num), self.parts.gather(ends, num)

    def _replace(self, alive: Tensor) -> None:
        """Put new vehicles where an episode is over or a vehicle left its bounds."""
        lost = alive == 0
        over = lost | (self.age >= self.config.task.episode_steps)
        self.diverged_count += int(lost.sum())
        if self.curriculum is not None:
            self._advance_curriculum(self.curriculum, over, lost)
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

    def _advance_curriculum(self, curriculum: Curriculum, over: Tensor, lost: Tensor) -> None:
        before = int(curriculum.stage[0])
        curriculum.record(over, curriculum.succeeded(self.episode, self.terminated | lost))
        stage, stages = int(curriculum.stage[0]), self.config.curriculum.stages
        if stage != before:
            moves = "advances" if stage > before else "falls back"
            self.notes.append(f"the curriculum {moves} to {stages[stage].name} ({stage + 1} of {len(stages)})")

    def validate(self) -> dict[str, float]:
        """Figures of the policy on validation vehicles; the same vehicles and episodes at each call."""
        assert self.validation is not None, "this learner was made without a validation"
        return self.validation(self.policy)

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


@torch.no_grad()
def shrink_output_layer(policy: StudentPolicy) -> None:
    """Make the outputs of an untrained policy small, so that its first episodes are near hover."""
    policy.output_layer.weight.mul_(0.3)
    policy.output_layer.bias.zero_()
