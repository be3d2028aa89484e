"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Policy = Annotated[
    str,
    typer.Argument(
        metavar="POLICY",
        help="published, default, large, robust, the folder of a run, or a .pt, .h5 or .onnx file.",
        show_default=False,
    ),
]
Policies = Annotated[
    list[str],
    typer.Argument(
        metavar="POLICY",
        help="Each: published, default, large, robust, the folder of a run, or a .pt, .h5 or .onnx file.",
        show_default=False,
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE",
        help="Settings over those of the file: learning_rate=1e-3 task.references.lissajous.interval=[4,10]",
        show_default=False,
    ),
]
Config = Annotated[
    str | None,
    typer.Option("--config", "-c", metavar="FILE", help="YAML file with settings, or a preset: large, paper, robust."),
]
PaperConfig = Annotated[
    str | None, typer.Option("--config", "-c", metavar="FILE", help="YAML file with settings, or a preset: paper.")
]
Output = Annotated[
    Path, typer.Option("--output", "-o", metavar="DIR", help="Folder of the run.", show_default=False, file_okay=True)
]
Seed = Annotated[int | None, typer.Option("--seed", help="Same as seed=SEED.", metavar="SEED")]
Device = Annotated[
    str | None, typer.Option("--device", help="Same as device=DEVICE: cpu, cuda, cuda:1.", metavar="DEVICE")
]
Suites = Annotated[
    list[str] | None,
    typer.Option(
        "--suite",
        "-s",
        metavar="SUITE",
        help="paper, unseen, platforms, figure-eight or robustness; may be given several times. All by default.",
        show_default=False,
    ),
]
NumQuadrotors = Annotated[
    int, typer.Option("--num-quadrotors", min=1, metavar="N", help="Vehicles drawn for each suite.")
]
LargestBatch = Annotated[
    bool,
    typer.Option("--largest-batch", help="Find the largest batch that fits into memory, and train with it."),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run in DIR; start it where there is none.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the run in DIR.")]


def overrides(settings: list[str] | None, seed: int | None, device: str | None) -> list[str]:
    """All settings of a command line as `key=value`."""
    return [
        *(settings or []),
        *([] if seed is None else [f"seed={seed}"]),
        *([] if device is None else [f"device={device}"]),
    ]
