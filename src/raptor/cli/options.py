"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer


def option(names: str, metavar: str | None, help: str, show_default: bool = False, **more: Any) -> Any:
    """Declare an option by its names, separated by spaces, what is given for it, and what it does."""
    return typer.Option(*names.split(), metavar=metavar, help=help, show_default=show_default, **more)


def argument(metavar: str, help: str) -> Any:
    """Declare an argument."""
    return typer.Argument(metavar=metavar, help=help, show_default=False)


POLICY = "published, default, large, robust, the folder of a run, or a .pt, .h5 or .onnx file."
PICKLED = "VecNormalize of stable-baselines3 (.pkl) that the teacher was trained with; nothing in it is executed."

Policies = Annotated[list[str], argument("POLICY", f"Each: {POLICY}")]
Settings = Annotated[
    list[str] | None,
    argument("KEY=VALUE", "Settings over the file's: learning_rate=1e-3 task.references.lissajous.interval=[4,10]"),
]
Config = Annotated[str | None, option("--config -c", "FILE", "YAML file, a run, or a preset: large, paper, robust.")]
PaperConfig = Annotated[str | None, option("--config -c", "FILE", "YAML file, a run, or the preset paper.")]
Output = Annotated[Path, option("--output -o", "DIR", "Folder of the run.")]
Seed = Annotated[int | None, option("--seed", "SEED", "Same as seed=SEED.")]
Device = Annotated[str | None, option("--device", "DEVICE", "Same as device=DEVICE: cpu, cuda, cuda:1.")]
Suites = Annotated[
    list[str] | None,
    option("--suite -s", "SUITE", "paper, unseen, platforms, figure-eight or robustness, several times; else all."),
]
NumQuadrotors = Annotated[int, option("--num-quadrotors", "N", "Vehicles drawn for each suite.", True, min=1)]
TeacherNormalizer = Annotated[Path | None, option("--teacher-normalizer", "FILE", PICKLED)]
LargestBatch = Annotated[bool, option("--largest-batch", None, "Train with the largest batch that fits into memory.")]
Resume = Annotated[bool, option("--resume", None, "Go on with the run in DIR; start it where there is none.")]
Overwrite = Annotated[bool, option("--overwrite", None, "Replace the run in DIR.")]


def overrides(settings: list[str] | None, seed: int | None, device: str | None) -> list[str]:
    """All settings of a command line as `key=value`."""
    named = {"seed": seed, "device": device}
    return [*(settings or []), *(f"{name}={value}" for name, value in named.items() if value is not None)]
