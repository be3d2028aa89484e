"""Beyond imitation: a student trained on through the simulator's gradient, held by its teachers until it stands."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from raptor.config.settings import at_least, not_negative, setting
from raptor.core.distributed import ALONE, World
from raptor.formats.checkpoint import StudentPolicy
from raptor.nn.stacked_mlp import Layer
from raptor.nn.teachers import TeacherPopulation
from raptor.quadrotor.parameters import Quadrotors
from raptor.rl.analytic_policy_gradient import Guide
from raptor.rl.guide import TeacherGuide
from raptor.training.direct.config import GradientConfig
from raptor.training.direct.learner import GradientLearner


@dataclasses.dataclass(frozen=True)
class FineTuneConfig(GradientConfig):
    """Settings of what follows imitation: training through the simulator's gradient."""

    num_updates: int = setting(3000, "steps of the optimiser; 0: imitation only", at_least(0))
    batch_size: int = setting(
        2048, "vehicles flown at once; rounded to a multiple of the teachers, as long as these take part"
    )
    learning_rate: float = setting(2e-2, "of Adam, at its highest")
    updates_per_epoch: int = setting(100, "updates that are validated and written as one epoch", at_least(1))
    imitation: float = setting(
        1.0, "weight of the mean squared difference from the teachers' actions, at the beginning", not_negative
    )
    imitation_updates: int = setting(
        300, "updates over which that weight falls to zero; 0: teachers play no part", at_least(0)
    )


def fitted(config: FineTuneConfig, num_teachers: int) -> FineTuneConfig:
    """The settings with a batch that so many teachers share evenly.

    Raises:
        UserError: the other settings do not go with that batch.
    """
    taking_part = min(num_teachers, config.batch_size)
    return dataclasses.replace(config, batch_size=taking_part * round(config.batch_size / taking_part))


class FineTuner(GradientLearner):
    """Trains a student on through the simulator's gradient.

    As long as imitation has a weight, each vehicle of the batch belongs to one of the teachers, which says what it
    would do; after that, vehicles are ever new ones.

    Args:
        config: the settings; see `fitted` for the batch that is flown where teachers take part.
        policy: the student, improved in place.
        teachers: with their vehicles; of more than the batch has places, as many as it has, spread over all of them.
        seed: of everything that is drawn.
        device: of all tensors.
        compile: False runs eagerly.
        world: the processes that share each batch.
    """

    def __init__(
        self,
        config: FineTuneConfig,
        policy: StudentPolicy,
        teachers: TeacherPopulation | None = None,
        seed: int = 0,
        device: torch.device | str = "cpu",
        compile: bool = True,
        world: World = ALONE,
    ) -> None:
        self.fine_tune = config
        self._teacher_guide: TeacherGuide | None = None
        if teachers is not None and config.imitation and config.imitation_updates:
            num = min(len(teachers), config.batch_size)
            there = teachers[torch.arange(num) * len(teachers) // num].to(device)
            config = fitted(config, num)
            each = config.batch_size // num
            assert there.quadrotors is not None
            plain = dataclasses.replace(there.quadrotors, names=None, documents=None)
            self._own = plain.repeat_interleave(each)
            layers = tuple(Layer(*(tensor.detach() for tensor in layer)) for layer in there.layers)
            self._teacher_guide = TeacherGuide(layers, config.imitation, compile, there.activations)
        self.update_count = 0
        super().__init__(config, policy, seed, device, compile, world)

    @property
    def imitation(self) -> float:
        """Weight of imitation in the coming update."""
        config = self.fine_tune
        if self._teacher_guide is None:
            return 0.0
        return config.imitation * max(0.0, 1 - self.update_count / config.imitation_updates)

    def _vehicles(self, places: Tensor) -> Quadrotors:
        return self._own[places].component_major() if self.imitation else super()._vehicles(places)

    def _guide(self, places: slice) -> Guide | None:
        if not self.imitation or self._teacher_guide is None:
            return None
        self._teacher_guide.weight.fill_(self.imitation)
        return self._teacher_guide.of(places, self.config.batch_size)

    def update(self) -> dict[str, float]:
        """See `GradientLearner`; also tells the weight of imitation, and how many updates were left out so far."""
        imitation = self.imitation
        return {**super().update(), "imitation": imitation, "num_skipped": float(self.skipped_count)}
