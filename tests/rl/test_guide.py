"""A guide says what each teacher does with its own vehicles."""

from __future__ import annotations

import pytest
import torch

from raptor.environments.episode import begin_episode, observe_as_teacher
from raptor.nn.activations import RELU_TANH, Activations
from raptor.nn.stacked_mlp import Layer, initial_layers
from raptor.nn.teachers import TeacherPopulation
from raptor.quadrotor import sample_quadrotors
from raptor.rl.objective import TeacherGuide
from raptor.tasks.task import Task

NUM, EACH = 3, 4


@pytest.mark.parametrize("activations", [RELU_TANH, Activations("elu", "clip")], ids=["usual", "clipped"])
def test_labels_are_the_actions_of_the_vehicles_own_teacher(activations: Activations) -> None:
    layers = initial_layers(NUM, (26, 8, 4), torch.Generator().manual_seed(0))
    teachers = TeacherPopulation(tuple(Layer(3 * w, b) for w, b in layers), activations=activations)
    vehicles = sample_quadrotors(NUM, seed=1).repeat_interleave(EACH).component_major()
    episodes = [begin_episode(Task(), vehicles, torch.Generator().manual_seed(seed)) for seed in range(2)]
    guide = TeacherGuide(teachers.layers, compile=False, activations=teachers.activations)
    for label, episode in zip(guide.labels(vehicles, episodes), episodes, strict=True):
        seen = observe_as_teacher(vehicles, episode).unflatten(0, (NUM, EACH))
        torch.testing.assert_close(label.unflatten(0, (NUM, EACH)), teachers(seen))
        assert (label.abs() == 1).any() == (activations.output == "clip")
