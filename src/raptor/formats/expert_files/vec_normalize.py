"""Observation statistics of a VecNormalize of stable-baselines3: a pickle, read without executing anything."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from raptor.core.atomic import PathLike, checked_path
from raptor.core.errors import UserError, first_line
from raptor.formats.pickles import Record, array_of, read_pickle
from raptor.nn.expert import ExpertNetwork, Normalizer

_LARGEST = 2**26  # bytes


def with_statistics(expert: ExpertNetwork, file: PathLike) -> ExpertNetwork:
    """The network behind the normaliser that a VecNormalize has learnt.

    Raises:
        UserError: the file is of another kind or damaged, or its statistics do not fit the network.
    """
    path = checked_path(file, "the normaliser")
    if expert.normalizer is not None:
        raise UserError(f"the {expert.source} has a normaliser of its own: leave out {path}")
    normalizer = read_vec_normalize(path)
    note = f"statistics of {path.name}" if normalizer else f"{path.name}, which leaves observations as they are"
    try:
        return dataclasses.replace(expert, normalizer=normalizer, notes=(*expert.notes, note))
    except UserError as error:
        raise UserError(f"{path} does not go with the teacher, which has {expert.architecture}: {error}") from error


def read_vec_normalize(path: Path) -> Normalizer | None:
    """The normaliser in the file of a VecNormalize; None where it does not normalise observations.

    Raises:
        UserError: the file is of another kind or damaged.
    """
    try:
        with path.open("rb") as stream:
            found = read_pickle(stream.read(_LARGEST))
        if not isinstance(found, Record) or "norm_obs" not in (found.state or ()):
            raise UserError(f"{path} holds no VecNormalize of stable-baselines3: give what its save() wrote")
        if not found.state["norm_obs"]:
            return None
        if isinstance(found.state["obs_rms"], dict):
            raise UserError(f"{path} is of observations of several parts: a teacher sees one row of numbers")
        statistics, epsilon, clip = (found.state[name] for name in ("obs_rms", "epsilon", "clip_obs"))
        mean, variance = (
            torch.tensor(array_of(statistics.state[name]), dtype=torch.float64) for name in ("mean", "var")
        )
        divisor = (variance + float(epsilon)).sqrt()
        if not (mean.isfinite() & divisor.isfinite() & (divisor > 0)).all() or not float(clip) > 0:
            raise UserError(f"{path} holds statistics that are not finite, or not positive: it is damaged")
        return Normalizer(mean, divisor, float(clip))
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"cannot read the normaliser {path}: {error.strerror or error}") from error
    except Exception as error:  # whatever a damaged pickle raises
        raise UserError(f"{path} is damaged, or no VecNormalize of stable-baselines3: {first_line(error)}") from error


def found_beside(archive: Path) -> list[Path]:
    """Files of a VecNormalize beside an archive, or in the folder of its name, where rl-zoo puts them."""
    folders = (archive.parent, archive.with_suffix(""))
    files = [file for folder in folders if folder.is_dir() for file in sorted(folder.glob("*.pkl"))]
    return [file for file in files if "vecnormalize" in file.name.lower().replace("_", "")]
