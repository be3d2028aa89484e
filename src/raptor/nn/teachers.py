"""Teachers: one small expert network for each vehicle, all of them run at once."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from raptor.core.errors import UserError
from raptor.nn.activations import RELU_TANH, Activations
from raptor.nn.expert import ExpertNetwork, fold_normalizer
from raptor.nn.stacked_mlp import Layer, Layers, act, check_layers, members
from raptor.quadrotor import Quadrotors


@dataclasses.dataclass(frozen=True)
class TeacherPopulation:
    """T multi-layer perceptrons of one architecture: by default ReLU between the layers, tanh at the end.

    A record is plain data about one teacher: `name`, `quadrotor` (name or file), `return`, `return_low`,
    `return_high`, `termination_rate`, `steps`, `seed`, `solved`, `position_offset` (m, three numbers: where it comes
    to rest relative to its target) and `algorithm`; any of them may be missing. What does not fit is a `UserError`.
    """

    layers: Layers  # weights (T, out, in) and biases (T, out), from the observation to the action
    quadrotors: Quadrotors | None = None  # the vehicle that each was trained on
    records: tuple[dict[str, Any], ...] = ()  # one per teacher; empty ones by default
    activations: Activations = RELU_TANH

    def __post_init__(self) -> None:
        """Check that everything fits together."""
        object.__setattr__(self, "layers", tuple(Layer(*layer) for layer in self.layers))
        check_layers(self.layers, stacked=True)
        object.__setattr__(self, "records", tuple(dict(record) for record in self.records) or ({},) * len(self))
        for what in ("records", "quadrotors"):
            given = getattr(self, what)
            if given is not None and len(given) != len(self):
                raise UserError(f"{what} must be one for each of the {len(self)} teachers, got {len(given)}")

    def __call__(self, observation: Tensor) -> Tensor:
        """Action (T, B, A) in [-1, 1] of each teacher for B observations (T, B, D) of its own."""
        if observation.ndim != 3 or len(observation) != len(self) or observation.shape[-1] != self.observation_dim:
            wanted = f"({len(self)} teachers, batch, {self.observation_dim})"
            raise UserError(f"observation must have shape {wanted}, got {tuple(observation.shape)}")
        return act(self.layers, observation, self.activations)

    def __len__(self) -> int:
        """Number of teachers."""
        return len(self.layers[0].weight)

    def __getitem__(self, index: int | slice | Tensor | Sequence[int]) -> TeacherPopulation:
        """Select teachers with their vehicles and records; an integer gives a population of one."""
        if not isinstance(index, (int, slice)):
            index = torch.as_tensor(index, device="cpu").reshape(-1)
            index = index if index.numel() else index.long()
        chosen = torch.arange(len(self))[index].reshape(-1)
        layers, records = members(self.layers, chosen.to(self.device)), tuple(self.records[i] for i in chosen.tolist())
        quadrotors = None if self.quadrotors is None else self.quadrotors[chosen]
        return TeacherPopulation(layers, quadrotors, records, self.activations)

    @staticmethod
    def concatenate(populations: Iterable[TeacherPopulation]) -> TeacherPopulation:
        """Concatenate populations of one architecture on the device of the first; with vehicles where all have them."""
        parts = list(populations)
        if not parts:
            raise UserError("no teachers were given: concatenate needs at least one population")
        first, device = parts[0], parts[0].device
        for part in parts:
            if part.widths != first.widths:
                found = " and ".join("-".join(map(str, widths)) for widths in (first.widths, part.widths))
                raise UserError(
                    f"teachers of widths {found} cannot be one population: train them with the same hidden layers"
                )
            if part.activations != first.activations:
                found = " and with ".join(f"{a.hidden} and {a.output}" for a in (first.activations, part.activations))
                raise UserError(
                    f"teachers with {found} cannot be one population: train them with the same activation functions"
                )
        vehicles = [part.quadrotors for part in parts if part.quadrotors is not None]
        return TeacherPopulation(
            pytree.tree_map(lambda *some: torch.cat([t.to(device) for t in some]), *(part.layers for part in parts)),
            Quadrotors.concatenate(q.to(device) for q in vehicles) if len(vehicles) == len(parts) else None,
            tuple(record for part in parts for record in part.records),
            first.activations,
        )

    @staticmethod
    def of(
        experts: Sequence[ExpertNetwork],
        quadrotors: Quadrotors | None = None,
        records: Sequence[Mapping[str, Any]] = (),
    ) -> TeacherPopulation:
        """Stack expert networks of one architecture, such as `load_expert` reads, in single precision on the CPU.

        A normaliser becomes part of the first layer, bounds of the action part of the last; where an expert sees the
        student's 22 numbers, the rotor speeds have no weight. By default a record says what kind of file it is from. A
        `UserError` where there is none, or they cannot be one population of teachers.
        """
        parts = []
        for expert in experts:
            (layers, activations), record = fold_normalizer(expert), {"algorithm": expert.source}
            parts.append(TeacherPopulation(members(layers, None), None, (record,), activations))
        population = TeacherPopulation.concatenate(parts)
        given = tuple(dict(record) for record in records) or population.records
        return dataclasses.replace(population, quadrotors=quadrotors, records=given)

    def expert(self, index: int, source: str = "teacher of this package") -> ExpertNetwork:
        """Extract one teacher as a network."""
        layers: Layers = pytree.tree_map(Tensor.detach, members(self.layers, index))
        return ExpertNetwork(layers, self.activations.hidden, self.activations.output, source=source)

    def to(self, device: torch.device | str) -> TeacherPopulation:
        """Copy teachers and vehicles to another device."""
        layers = pytree.tree_map(lambda tensor: tensor.to(device), self.layers)
        quadrotors = None if self.quadrotors is None else self.quadrotors.to(device)
        return dataclasses.replace(self, layers=layers, quadrotors=quadrotors)

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.layers[0].weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the weights."""
        return self.layers[0].weight.dtype

    @property
    def widths(self) -> tuple[int, ...]:
        """From the observation over the hidden layers to the action."""
        return self.observation_dim, *(layer.weight.shape[-2] for layer in self.layers)

    @property
    def observation_dim(self) -> int:
        """Width of the observation."""
        return self.layers[0].weight.shape[-1]

    @property
    def action_dim(self) -> int:
        """Width of the action."""
        return self.layers[-1].weight.shape[-2]

    @property
    def position_offset(self) -> Tensor:
        """(T, 3) m, world; where each teacher comes to rest relative to its target; zero where it is not known."""
        known = [record.get("position_offset") for record in self.records]
        numbers = [[0.0] * 3 if offset is None else [math.nan if x is None else x for x in offset] for offset in known]
        return torch.tensor(numbers, dtype=self.dtype, device=self.device).reshape(-1, 3).nan_to_num(0.0)

    @property
    def solved(self) -> Tensor:
        """(T,) whether each teacher is good enough by its own record; False where that is not known."""
        solved = [bool(record.get("solved")) for record in self.records]
        return torch.tensor(solved, dtype=torch.bool, device=self.device)
