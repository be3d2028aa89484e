"""Training a policy through the simulator's gradient: the learner, without files."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from raptor.core.distributed import ALONE, Parts, World, cut
from raptor.core.pool import Pool
from raptor.environments.episode import Episode, begin_episode
from raptor.environments.rollout import Memory, Student, controller_of
from raptor.formats.checkpoint import StudentPolicy
from raptor.quadrotor.around import Around, draw_vehicles
from raptor.quadrotor.parameters import Quadrotors
from raptor.rl.adam import warmup_cosine
from raptor.rl.analytic_policy_gradient import SegmentGradient
from raptor.rl.curriculum import Curriculum
from raptor.rl.not_finite import has_terms, warn_of_terms
from raptor.rl.objective import TeacherGuide
from raptor.rl.soap import Soap
from raptor.runs.learner import Rated
from raptor.training.direct.blocks import VEHICLES, BlockGradient, Places
from raptor.training.direct.config import GradientConfig
from raptor.training.validation import TRAINING_SEEDS, Validation


@dataclasses.dataclass
class Guidance:
    """Teachers whose actions a batch of their own vehicles imitates, until that has no weight any more."""

    vehicles: Quadrotors  # one for each place of the batch
    guide: TeacherGuide
    initial_weight: float
    num_updates: int  # over which the weight falls to zero


@dataclasses.dataclass
class GradientLearner:
    """Flies a batch of vehicles and improves a policy after each segment.

    A vehicle is replaced by a newly drawn one when its episode is over, or at the end of the segment in which it leaves
    its bounds. Episodes are staggered: each update sees all parts of an episode.
    """

    config: GradientConfig
    policy: StudentPolicy  # where it begins; improved in place
    seed: int = 0  # of the vehicles and everything else that is drawn
    device: torch.device | str = "cpu"  # of all tensors
    compile: bool = True  # False runs eagerly
    world: World = ALONE  # the processes that share each batch; every one of them holds all vehicles
    _: dataclasses.KW_ONLY
    pool: Pool = dataclasses.field(default_factory=Pool)  # that computes the blocks of the batch
    validation: Validation | None = None
    guidance: Guidance | None = None
    around: Around | None = None  # what vehicles are drawn from; by default the distribution in the settings
    group: str = "training"  # what the names of its figures begin with
    updates_per_step: int = 1  # updates that make a step, see `raptor.runs.learner.Learner`

    def __post_init__(self) -> None:
        self.config = config = dataclasses.replace(self.config, task=self.config.task.simplified)
        num, guidance = config.batch_size, self.guidance
        on_cpu = torch.device(self.device).type == "cpu"
        self.parts = Parts(self.world, config.block_size or (VEHICLES["cpu"] if on_cpu else None))
        self.parts.refuse_fewer("vehicles flown at once", num)
        self.generator = torch.Generator(self.device).manual_seed(TRAINING_SEEDS + self.seed)
        self.policy.to(self.device)
        self.rated: Rated | None = None
        self.notes: list[str] = []
        trained = [parameter for parameter in self.policy.parameters() if parameter.requires_grad]
        optimizers: dict[str, Any] = {"soap": Soap, "adam": functools.partial(torch.optim.Adam, betas=(0.9, 0.999))}
        self.optimizer: torch.optim.Optimizer = optimizers[config.optimizer](trained, lr=config.learning_rate)
        self.drawn_from = self.around or config.distribution
        task = config.task.for_vehicles(self.drawn_from)
        self.gradient = SegmentGradient(
            task if guidance is None else task.for_vehicles(guidance.vehicles),
            config.objective,
            method=config.method,
            gradient_decay=config.gradient_decay,
            adjoint_limit=config.adjoint_limit,
            compile=self.compile,
            controller=Student(config.precision),
        )
        self.block = BlockGradient(self.gradient, config.segment_steps)
        self.update_count = 0
        self.diverged_count = 0  # vehicles that left their bounds and were replaced
        self.skipped_count = 0  # updates without a step, because their gradient was not finite
        self._explained = not has_terms(self.gradient)  # whether numbers that are not finite need no look any more
        self.curriculum: Curriculum | None = None
        if config.curriculum.enabled:
            self.curriculum = Curriculum(config.curriculum, config.task, num, self.device)
        # Whether a step of the present episode would have ended it.
        self.terminated = torch.zeros(num, dtype=torch.bool, device=self.device)
        places = torch.arange(num, device=self.device)
        self.quadrotors, self.episode = self._draw(places)
        self.memory = controller_of(self.policy, num)[2]
        segments = math.ceil(config.task.episode_steps / config.segment_steps)
        self.age = places * segments // num * config.segment_steps

    @property
    def step_count(self) -> int:
        """Whole steps so far; the last one may have fewer updates."""
        whole, rest = divmod(self.update_count, self.updates_per_step)
        return whole + (rest > 0 and self.update_count >= self.config.num_updates)

    @property
    def fraction(self) -> float:
        """Part of the next step that is done."""
        return max(0.0, self.update_count / self.updates_per_step - self.step_count)

    @property
    def env_steps(self) -> float:
        """Steps of simulation so far."""
        return self.update_count * self.config.batch_size * self.config.segment_steps

    @property
    def imitation(self) -> float:
        """Weight of imitation in the coming update."""
        if self.guidance is None:
            return 0.0
        return self.guidance.initial_weight * max(0.0, 1 - self.update_count / self.guidance.num_updates)

    @property
    def clean_share(self) -> float:
        """Fraction of the episodes that begin now without imperfections; 0 where there are none to draw."""
        if self.config.task.is_perfect:
            return 0.0
        (first, last), begun = self.config.distrust, self.update_count / max(self.config.num_updates, 1)
        distrust = min(1.0, max(0.0, (begun - first) / (last - first))) if last > first else float(begun >= first)
        return 1 - distrust * (1 - self.config.task.clean_share)

    def _draw(self, places: Tensor) -> tuple[Quadrotors, Episode]:
        """New vehicles for these places of the batch, and their episodes."""
        if self.guidance and self.imitation:
            quadrotors = self.guidance.vehicles[places]
        else:
            quadrotors = draw_vehicles(self.drawn_from, len(places), self.generator, self.device)
        quadrotors = quadrotors.component_major()
        if self.curriculum is None:
            task = dataclasses.replace(self.config.task, clean_share=self.clean_share)
            return quadrotors, begin_episode(task, quadrotors, self.generator)
        return quadrotors, self.curriculum.begin(quadrotors, self.generator, self.clean_share)

    def update(self) -> dict[str, float] | None:
        """Run one segment and take one step of the optimiser; figures where that completes a step of the training."""
        config, count, imitation = self.config, self.update_count, self.imitation
        begun, places = (self.quadrotors, self.episode, self.memory), self._places(slice(0, config.batch_size))
        (*gradient, cost, reward), (self.episode, self.memory, alive, terminated) = self._fly()
        norm = torch.stack([(g * g).sum() for g in gradient]).sum().sqrt().item()
        share = count / max(config.num_updates, 1)
        rate = warmup_cosine(config.learning_rate, config.final_learning_rate, share, count, config.warm_up_updates)
        if math.isfinite(norm):
            scale = min(1.0, config.gradient_norm / max(norm, 1e-12))
            for parameter, g in zip(self.policy.tensors(), gradient, strict=True):
                parameter.grad = g * scale
            self.optimizer.param_groups[0]["lr"] = rate
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
            "learning_rate": rate,
            "reward": reward.item(),
            "out_of_bounds": 1 - alive.mean().item(),
            "num_skipped": float(self.skipped_count),
        }
        sound = math.isfinite(norm + figures["loss"] + figures["reward"]) and figures["out_of_bounds"] < 1
        if not (sound or self._explained):
            self._explained = True
            noise = places.noise(self.gradient.task, self.quadrotors.mass, config.segment_steps)
            self.notes += warn_of_terms(self.gradient, self.policy.tensors(), *begun, noise)
        if self.guidance is not None:
            figures["imitation"] = imitation
        if self.fraction:
            return None
        stages = {} if self.curriculum is None else self.curriculum.summary()
        groups = ((self.group, figures), ("curriculum", stages))
        return {f"{group}/{name}": value for group, values in groups for name, value in values.items()}

    def _fly(self) -> tuple[list[Tensor], tuple[Episode, Memory, Tensor, Tensor]]:
        """Fly a segment block by block; gives the means over the batch, and the end of the segment, see `Flown`."""
        num, parameters, guide = self.config.batch_size, self.policy.tensors(), None
        if self.guidance and self.imitation:
            guide = self.guidance.guide
            guide.weight.fill_(self.imitation)
        pieces = []
        for own in self.parts.own(num):
            there = cut((self.quadrotors, self.episode, self.memory), own)
            pieces.append((parameters, *there, self._places(own), guide and guide.of(own, num)))
        means, ends = zip(*self.pool.map(self.block, pieces), strict=True)
        return self.parts.mean(means, num), self.parts.gather(ends, num)

    def _places(self, own: slice) -> Places:
        return Places(own.start, own.stop, self.config.batch_size, self.update_count, self.generator.initial_seed())

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
        new = (*self._draw(places), controller_of(self.policy, len(places))[2])

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
        state = {
            "policy": self.policy.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "flight": pytree.tree_leaves((self.quadrotors, self.episode, self.memory, self.age)),
            "counts": [self.update_count, self.diverged_count, self.skipped_count],
        }
        if self.curriculum is None:
            return state
        return state | {"curriculum": {**self.curriculum.state_dict(), "terminated": self.terminated}}

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
