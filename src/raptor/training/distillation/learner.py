"""Imitation: one student learns what teachers do, epoch by epoch; the learner, without files.

In the first epochs the teachers act (behaviour cloning), then the student does and the teachers label what it should
have done (DAgger, Ross et al. 2011). Source: RAPTOR's post-training.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from raptor.environments.rollout import StudentParameters
from raptor.formats.checkpoint import StudentPolicy
from raptor.nn.policy import MLPPolicy, RaptorPolicy
from raptor.rl.demonstrations import Demonstrations
from raptor.rl.imitation import Imitation, ObservationScale, weights_of
from raptor.runs.learner import Rated
from raptor.training.distillation.config import PostTrainConfig, StudentConfig
from raptor.training.distillation.env_config import EnvDistillConfig
from raptor.training.distillation.sources import Source


class _Recipe(NamedTuple):
    """All that is needed to collect the data of an epoch once more, as far as its source repeats itself."""

    epoch: int
    student: StudentParameters | None  # None: the teachers act
    plan: Any  # of the source


class Distiller:
    """Teaches a student.

    Args:
        config: the settings.
        policy: the student, improved in place.
        source: of demonstrations.
        validate: figures of a policy, see `raptor.runs.trainer.Learner`.
        normalize: whether the first layer is trained for the mean and scale of what is seen in the first epoch.
    """

    def __init__(
        self,
        config: PostTrainConfig | EnvDistillConfig,
        policy: StudentPolicy,
        source: Source,
        validate: Callable[[StudentPolicy], Mapping[str, float]] | None = None,
        normalize: bool = False,
    ) -> None:
        self.config, self.source, self._validate, self.normalize = config, source, validate, normalize
        self.policy = policy.to(source.device)
        self.imitation = Imitation(config, self.policy, source.parts, config.precision)
        self.acted = self._copy()  # the student as it was in the last epoch's episodes, before it learnt from them
        self.rated: Rated | None = None
        self.notes: list[str] = []
        self.env_steps = 0.0
        self._recipes: list[_Recipe] = []
        self._is_collected = True  # False where the data of earlier epochs is still to be collected again
        self.data = source.room(config.num_slots)

    @property
    def step_count(self) -> int:
        """Epochs so far."""
        return self.imitation.epoch_count

    def update(self) -> dict[str, float]:
        """Collect demonstrations, then learn from all that are kept."""
        self._collect_again()
        epoch = self.step_count
        forced = epoch < self.config.epoch_teacher_forcing
        self.acted = self._copy()
        recipe = _Recipe(epoch, None if forced else self.acted, self.source.plan(epoch, forced))
        found = self._collect(recipe)
        self._recipes = [*self._recipes, recipe][-self.config.num_slots :]
        if epoch == 0 and self.normalize:
            place = self._place(epoch)
            self.imitation.rescale(ObservationScale.of(place.observation, place.length))
        before = {name: tensor.clone() for name, tensor in self.policy.state_dict().items()}
        trained = self.imitation.epoch(self.data, self.source.order(epoch))
        self.env_steps += found["num_steps"]
        self.rated = None if forced or self.config.best_by != "data_collection" else Rated(found, before)
        return {**{f"data_collection/{name}": value for name, value in found.items()}, **trained}

    def validate(self) -> Mapping[str, float]:
        """Figures of the student, in episodes that it never learns from."""
        assert self._validate is not None, "this learner was made without a validation"
        return self._validate(self.policy)

    def _copy(self) -> StudentParameters:
        return pytree.tree_map(torch.clone, weights_of(self.policy))

    def _place(self, epoch: int) -> Demonstrations:
        """Where the data of an epoch is kept."""
        num = self.source.num_episodes
        first = epoch % self.config.num_slots * num
        return Demonstrations(*(tensor[first : first + num] for tensor in self.data))

    def _collect(self, recipe: _Recipe) -> dict[str, float]:
        return self.source.collect(recipe.plan, recipe.student, self._place(recipe.epoch))

    def _collect_again(self) -> None:
        """Collect the data of earlier epochs that the next ones still learn from."""
        if not self._is_collected:
            state = self.source.state_dict()
            for recipe in self._recipes[max(0, len(self._recipes) + 1 - self.config.num_slots) :]:
                self._collect(recipe)  # all but what the next epoch replaces
            self.source.load_state_dict(state)
            self._is_collected = True

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
        self._recipes = [
            _Recipe(epoch, kind(*(w.to(device) for w in student)) if student else None, _on(device, plan))
            for epoch, student, plan in state["recipes"]
        ]
        self.env_steps = state["env_steps"]
        self._is_collected = self.config.num_slots == 1


def _on(device: torch.device, plan: Any) -> Any:
    return pytree.tree_map(lambda x: x.to(device) if isinstance(x, Tensor) and x.dtype != torch.uint8 else x, plan)


def first_student(config: StudentConfig, seed: int, observation_dim: int = 22, action_dim: int = 4) -> StudentPolicy:
    """An untrained student, drawn as `torch.nn` does."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        kind = RaptorPolicy if config.kind == "gru" else MLPPolicy
        return kind(observation_dim, config.hidden_dim, action_dim)
