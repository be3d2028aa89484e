"""Teachers that guide the training of a student through the simulator's gradient, less and less."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from raptor.nn.stacked_mlp import Layer
from raptor.nn.teachers import TeacherPopulation
from raptor.quadrotor.parameters import Quadrotors
from raptor.rl.objective import TeacherGuide
from raptor.training.distillation.config import FineTuneConfig


class TeacherGuidance:
    """Each vehicle of the batch belongs to one of the teachers, whose action is imitated, until that has no weight.

    Args:
        config: the settings of fine-tuning; see `shared_evenly` for its batch.
        teachers: with their vehicles; of more than the batch has places, as many as it has, spread over all of them.
        device: of all tensors.
        compile: False runs eagerly.
    """

    def __init__(
        self, config: FineTuneConfig, teachers: TeacherPopulation, device: torch.device | str, compile: bool
    ) -> None:
        self.config = config
        num = min(len(teachers), config.batch_size)
        chosen = teachers[torch.arange(num) * len(teachers) // num].to(device)
        assert chosen.quadrotors is not None
        plain = dataclasses.replace(chosen.quadrotors, names=None, documents=None)
        self._vehicles = plain.repeat_interleave(config.batch_size // num)
        layers = tuple(Layer(*(tensor.detach() for tensor in layer)) for layer in chosen.layers)
        self._guide = TeacherGuide(layers, config.imitation, compile, chosen.activations)

    def weight(self, update: int) -> float:
        """Weight of imitation in the update after so many."""
        return self.config.imitation * max(0.0, 1 - update / self.config.imitation_updates)

    def vehicles(self, places: Tensor) -> Quadrotors:
        """The teachers' own at some places of the batch."""
        return self._vehicles[places]

    def guide(self, places: slice, update: int) -> TeacherGuide:
        """Whose actions the vehicles at these places imitate."""
        self._guide.weight.fill_(self.weight(update))
        return self._guide.of(places, self.config.batch_size)


def guidance_of(
    config: FineTuneConfig, teachers: TeacherPopulation | None, device: torch.device | str, compile: bool
) -> TeacherGuidance | None:
    """The guidance that the settings ask for, if any."""
    return TeacherGuidance(config, teachers, device, compile) if teachers is not None and config.is_guided else None


def shared_evenly(config: FineTuneConfig, num_teachers: int) -> FineTuneConfig:
    """The settings with a batch that so many teachers share evenly, as long as they take part.

    Raises:
        UserError: the other settings do not go with that batch.
    """
    if not config.is_guided:
        return config
    taking_part = min(num_teachers, config.batch_size)
    return dataclasses.replace(config, batch_size=taking_part * round(config.batch_size / taking_part))
