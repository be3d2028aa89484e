"""A population in a folder: one JSON file for each vehicle, and their characteristics in numbers and plots."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from raptor.config import to_dict
from raptor.core.atomic import PathLike, write_atomically
from raptor.core.errors import UserError
from raptor.core.yaml_files import dump_yaml
from raptor.quadrotor.characteristics import cannot_hover, characteristics
from raptor.quadrotor.parameters import Quadrotors
from raptor.quadrotor.sampling import Distribution

SUMMARY, PICTURE = "summary.yaml", "summary.png"
QUANTILES = {"min": 0.0, "p5": 0.05, "p50": 0.5, "p95": 0.95, "max": 1.0}
NUM_REASONS, NUM_NAMES = 3, 20  # of how many broken files an error gives the reason, and of how many more the name


def write_population(
    quadrotors: Quadrotors,
    folder: PathLike,
    overwrite: bool = False,
    seed: int | None = None,
    distribution: Distribution | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Write 0000.json, ... as `Quadrotors.save` does, then `summary.yaml` and `summary.png`.

    The summary notes the seed and the distribution that the vehicles were drawn with.
    """
    from raptor.core.plotting import to_png
    from raptor.quadrotor.plots import plot_population

    target = Path(folder)
    paths = quadrotors.save(target, overwrite, numbered=True, progress=progress)
    origin: dict[str, Any] = {} if seed is None else {"seed": seed}
    if distribution is not None:
        origin["distribution"] = to_dict(distribution)
    write_atomically(target / PICTURE, to_png(plot_population(quadrotors)))
    write_atomically(target / SUMMARY, dump_yaml(summarise(quadrotors, origin)))
    return paths


def read_population(folder: PathLike, num: int | None = None) -> Quadrotors:
    """Read the vehicles of a folder of JSON files, or the first `num`, in natural order; each is named by its file.

    Raises:
        UserError: names every file that cannot be read or cannot hover; or there are no files, or fewer than `num`.
    """
    source = Path(folder)
    if not source.is_dir():
        raise UserError(f"{source} is no folder of quadrotors: make one with raptor sample, or give another")
    try:
        quadrotors = Quadrotors.from_json(source)
    except UserError:
        _refuse_broken(source)
        raise  # the folder holds nothing to read
    if cannot_hover(quadrotors).any():
        _refuse_broken(source)
    if num is None:
        return quadrotors
    if isinstance(num, bool) or not isinstance(num, int) or not 1 <= num <= len(quadrotors):
        raise UserError(f"num must be between 1 and the {len(quadrotors)} quadrotors in {source}, got {num!r}")
    return quadrotors[:num]


def summarise(quadrotors: Quadrotors, origin: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What `summary.yaml` holds: number, origin, the fraction that cannot hover, and quantiles in their units."""

    def quantiles(values: Tensor) -> dict[str, float]:
        exact = values.detach().double().cpu()
        return {name: _rounded(torch.nanquantile(exact, share)) for name, share in QUANTILES.items()}

    traits = characteristics(quadrotors).items()
    return {
        "number": len(quadrotors),
        **(origin or {}),
        "share_that_cannot_hover": _rounded(cannot_hover(quadrotors).double().mean()),
        "quantiles": {name: {"unit": trait.unit or "1"} | quantiles(trait.values) for name, trait in traits},
    }


def _rounded(number: Tensor) -> float:
    return float(f"{number.item():.6g}")


def _refuse_broken(folder: Path) -> None:
    """Name every file of a folder that cannot be used, the first ones with the reason."""
    reasons: dict[str, str] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for path in sorted(folder.glob("*.json")):
            try:
                quadrotor = Quadrotors.from_json(path)
                if cannot_hover(quadrotor).any():
                    ratio = f"{quadrotor.thrust_to_weight.item():.4g}"
                    raise UserError(f"thrust_to_weight must be above 1 to hover, got {ratio} ({path})")
            except UserError as error:
                reasons[path.name] = str(error)
    if len(reasons) == 1:
        raise UserError(*reasons.values())
    if reasons:
        told, named = list(reasons.values())[:NUM_REASONS], list(reasons)[NUM_REASONS : NUM_REASONS + NUM_NAMES]
        text = "; also ".join(filter(None, ("; ".join(told), ", ".join(named))))
        left = len(reasons) - len(told) - len(named)
        text += f" and {left} more" if left else ""
        raise UserError(f"{len(reasons)} quadrotors in {folder} cannot be used: {text}")
