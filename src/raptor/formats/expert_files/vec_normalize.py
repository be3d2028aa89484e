"""Observation statistics of a VecNormalize of stable-baselines3: a pickle, read without executing anything."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from raptor.core.atomic import PathLike, checked_path
from raptor.core.errors import UserError, first_line
from raptor.formats.pickles import Record, array_of, read_pickle
from raptor.nn.expert import ExpertNetwork, Normalizer

_LARGEST = 2**26  # bytes


def with_statistics(expert: ExpertNetwork, file: PathLike) -> ExpertNetwork:
    """The network with the normaliser of a VecNormalize before it.

    Raises:
        UserError: the file is of another kind or damaged, or its statistics do not fit the network.
    """
    path = checked_path(file, "the normaliser")
    if expert.normalizer is not None:
        raise UserError(f"the {expert.source} has a normaliser of its own: leave out {path}")
    note = f"statistics of {path.name}"
    normalizer = read_vec_normalize(path)
    if normalizer is None:
        note = f"{path.name} leaves observations as they are"
    elif normalizer.mean.shape != (expert.observation_dim,):
        shape = tuple(normalizer.mean.shape)
        raise UserError(f"{path} is of observations of shape {shape}, the teacher has {expert.architecture}")
    return dataclasses.replace(expert, normalizer=normalizer, notes=(*expert.notes, note))


def read_vec_normalize(path: Path) -> Normalizer | None:
    """The normaliser in the file of a VecNormalize; None where it does not normalise observations.

    Raises:
        UserError: the file is of another kind or damaged.
    """
    try:
        with path.open("rb") as stream:
            content = stream.read(_LARGEST + 1)
        found = read_pickle(content)
        if len(content) > _LARGEST or not isinstance(found, Record) or "norm_obs" not in (found.state or ()):
            raise UserError(f"{path} holds no VecNormalize of stable-baselines3: give what its save() wrote")
        state = found.state
        if not state["norm_obs"]:
            return None
        if isinstance(state["obs_rms"], dict):
            raise UserError(f"{path} is of observations of several parts: a teacher sees one row of numbers")
        statistics, epsilon, clip = state["obs_rms"].state, float(state["epsilon"]), float(state["clip_obs"])
        mean, variance = _numbers(statistics["mean"]), _numbers(statistics["var"])
        divisor = (variance + epsilon).sqrt()
        if not (mean.isfinite().all() and divisor.isfinite().all() and (divisor > 0).all() and clip > 0):
            raise UserError(f"{path} holds statistics that are not finite, or not positive: it is damaged")
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"cannot read the normaliser {path}: {error.strerror or error}") from error
    except Exception as error:  # whatever a damaged pickle raises
        raise UserError(f"{path} is damaged, or no VecNormalize of stable-baselines3: {first_line(error)}") from error
    return Normalizer(mean, divisor, clip)


def found_beside(archive: Path) -> list[Path]:
    """Files of a VecNormalize beside an archive, or in the folder of its name, where rl-zoo puts them."""
    folders = (archive.parent, archive.with_suffix(""))
    files = [file for folder in folders if folder.is_dir() for file in sorted(folder.glob("*.pkl"))]
    return [file for file in files if "vecnormalize" in file.name.lower().replace("_", "")]


def _numbers(value: Any) -> Tensor:
    array = array_of(value)
    if array is None:
        raise ValueError("its statistics are no arrays of numbers")
    return torch.tensor(array.tolist(), dtype=torch.float64)
