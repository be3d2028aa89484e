"""Small teachers with records and vehicles."""

from __future__ import annotations

import torch

from raptor.nn import TeacherPopulation
from raptor.nn.stacked_mlp import initial_layers
from raptor.quadrotor import sample_quadrotors

WIDTHS = (26, 6, 5, 4)


def teachers(num: int = 3, seed: int = 0, widths=WIDTHS, dtype=torch.float32, vehicles=True) -> TeacherPopulation:
    layers = initial_layers(num, widths, torch.Generator().manual_seed(seed), dtype)
    records = tuple(
        {"name": f"{seed}/{i}", "return": 600.0 + i, "solved": i != 1, "position_offset": [0.1 * i, 0.0, -0.01]}
        for i in range(num)
    )
    return TeacherPopulation(layers, sample_quadrotors(num, seed) if vehicles else None, records)


def same(a: TeacherPopulation, b: TeacherPopulation) -> bool:
    weights = zip((t for layer in a.layers for t in layer), (t for layer in b.layers for t in layer), strict=True)
    return all(torch.equal(x, y) for x, y in weights) and a.records == b.records
