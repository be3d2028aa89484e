"""The outcome of an evaluation."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raptor.core.atomic import replacing
from raptor.core.errors import UserError
from raptor.evaluation.statistics import Estimate, Estimates

if TYPE_CHECKING:
    from rich.table import Table


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Estimates by policy, suite and metric, and the settings that they were made with.

    A metric is one of `raptor.evaluation.METRICS`, for the suite as a whole, or that name after what it is of: a
    condition, a platform, or both: `noise/return`, `x500_real/return`, `10s/x500_real/position_rmse`.
    """

    policies: Estimates
    settings: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and dicts; None where there is no number, as with the RMSE where no vehicle survived."""
        return {"policies": _each(self.policies, Estimate.to_dict), "settings": dict(self.settings)}

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write `to_dict` as JSON; a file that was there is replaced at once or not at all.

        Raises:
            UserError: the file cannot be written.
        """
        text = json.dumps(self.to_dict(), indent=2, allow_nan=False)
        with replacing(path) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")
        return Path(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Evaluation:
        """Read what `save` wrote.

        Raises:
            UserError: the file cannot be read, or holds something else.
        """
        try:
            document = json.loads(Path(path).read_text(encoding="utf-8"))
            return cls(_each(document["policies"], Estimate.from_dict), dict(document["settings"]))
        except OSError as error:
            raise UserError(f"cannot read the evaluation {path}: {error.strerror or error}") from error
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise UserError(f"{path} holds no evaluation: make one with raptor evaluate --json") from error

    def table(self, details: bool = True) -> Table:
        """A rich table, a column for each policy; with details, also rows for each platform and each condition."""
        from raptor.evaluation.table import rich_table

        return rich_table(self.policies, self.settings, details)


def column_names(policies: Sequence[str], stages: Sequence[str] = ()) -> dict[str, str]:
    """Short names that distinguish policies, by what names them: a stage, or else a file, folder or packaged policy."""
    short = {policy: policy if policy in stages else Path(policy).name or policy for policy in policies}
    taken = list(short.values())
    return {policy: name if policy in stages or taken.count(name) == 1 else policy for policy, name in short.items()}


def _each(policies: Mapping[str, Any], convert: Callable[[Any], Any]) -> dict[str, Any]:
    return {
        name: {
            suite: {metric: convert(estimate) for metric, estimate in metrics.items()}
            for suite, metrics in suites.items()
        }
        for name, suites in policies.items()
    }
