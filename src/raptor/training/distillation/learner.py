"""How a student learns from teachers: by imitation, epoch by epoch, and guided by them in fine-tuning; without files.

In the first epochs the teachers act (behaviour cloning), then the student does and the teachers label what it should
have done (DAgger, Ross et al. 2011). Source: RAPTOR's post-training.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from raptor.environments.rollout import StudentParameters
from raptor.formats.checkpoint import KINDS, StudentPolicy
from raptor.nn.stacked_mlp import Layer
from raptor.nn.teachers import TeacherPopulation
from raptor.rl.demonstrations import Demonstrations
from raptor.rl.imitation import Imitation, ObservationScale, weights_of
from raptor.rl.objective import TeacherGuide
from raptor.runs.learner import Rated
from raptor.training import memory
from raptor.training.direct.learner import Guidance
from raptor.training.distillation.config import EnvDistillConfig, FineTuneConfig, PostTrainConfig, StudentConfig
from raptor.training.distillation.sources import Source


@dataclasses.dataclass
class Distiller:
    """Teaches a student to do what its teachers do."""

    config: PostTrainConfig | EnvDistillConfig
    policy: StudentPolicy  # the student, improved in place
    source: Source  # of demonstrations
    evaluate: Callable[[StudentPolicy], Mapping[str, float]] | None = None  # figures of a policy, for `validate`
    normalize: bool = False  # whether the first layer is trained for the mean and scale of the first epoch

    def __post_init__(self) -> None:
        self.policy.to(self.source.device)
        self.imitation = Imitation(self.config, self.policy, self.source.parts, self.config.precision)
        self.acted: StudentParameters | None = None  # the student that acted, or would have, in the last epoch
        self.rated: Rated | None = None
        self.notes: list[str] = []
        self.env_steps = 0.0
        # What it takes to collect each kept epoch once more: its number, who acted (None: the teachers), and the plan.
        self._recipes: list[tuple[int, StudentParameters | None, Any]] = []
        self._is_collected = True  # False where the data of earlier epochs is still to be collected again
        num, like = self.config.num_slots * self.source.num_episodes, torch.zeros(0, device=self.source.device)
        self.data = Demonstrations.empty(num, self.source.shape[0], like, *self.source.shape[1:])

    @property
    def step_count(self) -> int:
        """Epochs so far."""
        return self.imitation.epoch_count

    def update(self) -> dict[str, float]:
        """Collect demonstrations, then learn from all that are kept."""
        if not self._is_collected:
            state = self.source.state_dict()
            for recipe in self._recipes[max(0, len(self._recipes) + 1 - self.config.num_slots) :]:
                self._collect(*recipe)  # all that this epoch still learns from
            self.source.load_state_dict(state)
            self._is_collected = True
        epoch = self.step_count
        forced = epoch < self.config.epoch_teacher_forcing
        self.acted = pytree.tree_map(torch.clone, weights_of(self.policy))
        recipe = epoch, None if forced else self.acted, self.source.plan(epoch, forced)
        found = self._collect(*recipe)
        self._recipes = [*self._recipes, recipe][-self.config.num_slots :]
        if epoch == 0 and self.normalize:
            place = self._place(epoch)
            self.imitation.rescale(ObservationScale.of(place.observation, place.length))
        before = {name: tensor.clone() for name, tensor in self.policy.state_dict().items()}
        trained = self.imitation.epoch(self.data, self.source.order(epoch))
        self.env_steps += found["num_steps"]
        self.rated = None if forced or self.config.best_by != "data_collection" else (found, before)
        return {**{f"data_collection/{name}": value for name, value in found.items()}, **trained}

    def validate(self) -> Mapping[str, float]:
        """Figures of the student, in episodes that it never learns from."""
        assert self.evaluate is not None, "this learner was made without a validation"
        return self.evaluate(self.policy)

    def _place(self, epoch: int) -> Demonstrations:
        """Where the data of an epoch is kept."""
        num, slot = self.source.num_episodes, epoch % self.config.num_slots
        return Demonstrations(*(tensor[slot * num : (slot + 1) * num] for tensor in self.data))

    def _collect(self, epoch: int, student: StudentParameters | None, plan: Any) -> dict[str, float]:
        return self.source.collect(plan, student, self._place(epoch))

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next epoch depends on; data that is kept is collected again, not stored."""
        return {
            "imitation": self.imitation.state_dict(),
            "source": self.source.state_dict(),
            "recipes": [[epoch, list(student or ()), plan] for epoch, student, plan in self._recipes],
            "env_steps": self.env_steps,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go back to a state that `state_dict` gave."""
        self.imitation.load_state_dict(state["imitation"])
        self.source.load_state_dict(state["source"])
        kind, device = type(self.imitation.weights), self.source.device

        def here(leaf: Any) -> Any:  # all but states of generators
            return leaf.to(device) if isinstance(leaf, Tensor) and leaf.dtype != torch.uint8 else leaf

        self._recipes = [
            (epoch, kind(*student) if student else None, plan)
            for epoch, student, plan in pytree.tree_map(here, state["recipes"])
        ]
        self.env_steps = state["env_steps"]
        self._is_collected = self.config.num_slots == 1


def first_student(config: StudentConfig, seed: int, observation_dim: int = 22, action_dim: int = 4) -> StudentPolicy:
    """An untrained student, drawn as `torch.nn` does."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return KINDS[config.kind](observation_dim, config.hidden_dim, action_dim)


def guidance_of(
    config: FineTuneConfig, teachers: TeacherPopulation | None, device: torch.device | str, compile: bool
) -> Guidance | None:
    """The guidance in fine-tuning that the settings ask for, if any.

    Each vehicle of the batch belongs to one of the teachers; of more teachers than the batch has places, as many as it
    has take part, spread over all of them. See `shared_evenly` for the batch.
    """
    if teachers is None or not config.is_guided:
        return None
    num = min(len(teachers), config.batch_size)
    chosen = teachers[torch.arange(num) * len(teachers) // num].to(device)
    assert chosen.quadrotors is not None
    vehicles = dataclasses.replace(chosen.quadrotors, names=None, documents=None)
    layers = tuple(Layer(*(tensor.detach() for tensor in layer)) for layer in chosen.layers)
    guide = TeacherGuide(layers, config.imitation, compile, chosen.activations)
    return Guidance(
        vehicles.repeat_interleave(config.batch_size // num), guide, config.imitation, config.imitation_updates
    )


def shared_evenly(config: FineTuneConfig, num_teachers: int) -> FineTuneConfig:
    """The settings with a batch that so many teachers share evenly, as long as they take part."""
    if not config.is_guided:
        return config
    taking_part = min(num_teachers, config.batch_size)
    return dataclasses.replace(config, batch_size=taking_part * round(config.batch_size / taking_part))


def imitation_bytes(
    config: PostTrainConfig | EnvDistillConfig, num: int, shape: tuple[int, int, int], together: int | None = None
) -> tuple[float, float]:
    """What `num` kept episodes take, see `Source.shape`, and what learning from them does: their order, and a batch.

    So many sequences of a batch as `together` says, or else all, are computed at once.
    """
    steps, *widths = shape
    data = float(num) * memory.nbytes(Demonstrations.empty(1, steps, torch.empty(0, device="meta"), *widths))
    sequence = 4.0 * config.sequence_length * (2 * sum(widths) + 12 * config.student.hidden_dim)
    return data, 20.0 * num * steps + sequence * (together or config.batch_size)
