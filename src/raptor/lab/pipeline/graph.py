"""Stages and what they read from each other."""

from __future__ import annotations

import dataclasses
import difflib
import graphlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from raptor.core.errors import UserError
from raptor.lab.pipeline.jobs import Job


class Input(NamedTuple):
    """Something that a stage reads."""

    key: str  # of the stage, which names it
    kind: str
    name: str  # of a stage, or of what is there already
    is_stage: bool


@dataclasses.dataclass(frozen=True)
class Stage:
    """A job and all that was said of it."""

    name: str
    job: Job
    keys: Any  # a dataclass that extends that of the job, see `raptor.lab.pipeline.stages`
    inputs: tuple[Input, ...] = ()


@dataclasses.dataclass(frozen=True)
class Pipeline:
    """Stages in an order in which each comes after all that it reads."""

    source: str  # the file, or the name of the preset
    output: str | None
    stages: tuple[Stage, ...]
    document: Mapping[str, Any]  # what the files and the command line say, put together

    def __getitem__(self, name: str) -> Stage:
        """The stage of that name.

        Raises:
            UserError: there is none.
        """
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise UserError(f"there is no stage {name!r}{close(name, self.names)}: the stages are {', '.join(self.names)}")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the stages, in the order in which they run."""
        return tuple(stage.name for stage in self.stages)

    def needed_for(self, name: str) -> frozenset[str]:
        """A stage and all that it reads from, directly and indirectly."""
        inner = (self.needed_for(given.name) for given in self[name].inputs if given.is_stage)
        return frozenset({name}).union(*inner)


def in_order(stages: Mapping[str, Stage]) -> list[Stage]:
    """Stages after those that they read from.

    Raises:
        UserError: names the circle in which they need each other.
    """
    read = {name: [given.name for given in stage.inputs if given.is_stage] for name, stage in stages.items()}
    try:
        return [stages[name] for name in graphlib.TopologicalSorter(read).static_order()]
    except graphlib.CycleError as error:
        circle = " -> ".join(reversed(error.args[1]))
        raise UserError(
            f"the stages need each other in a circle: {circle}; let one of them read something else"
        ) from None


def close(name: str, names: Iterable[str]) -> str:
    """A hint at what may have been meant."""
    matches = difflib.get_close_matches(name, list(names), n=1)
    return f", did you mean {matches[0]!r}?" if matches else ""
