"""What a job is in a pipeline, and what it knows of its stage."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from raptor.config.settings import Settings, setting
from raptor.formats import load_policy

QUADROTORS, TEACHERS, POLICY, EVALUATION, REPORT = "quadrotors", "teachers", "policy", "evaluation", "report"
"""Kinds of what stages hand on."""


@dataclasses.dataclass(frozen=True)
class StageContext:
    """Where a job finds what its stage reads, and how it goes about its work."""

    folder: Path  # of the stage
    sources: Mapping[str, tuple[str | Path, ...]]  # by key: where what it names is
    policies: Mapping[str, str | Path]  # by short name: where those are that the key `policies` names
    overwrite: bool  # replace what an earlier run left; else go on with it
    progress: Callable[..., None]  # called as the job calls its own
    announce: Callable[[str], None]

    def source(self, key: str) -> str | Path | None:
        """Where the only thing is that a key names."""
        return next(iter(self.sources.get(key, ())), None)

    @property
    def training(self) -> dict[str, Any]:
        """Arguments of every training."""
        return {"resume": not self.overwrite, "overwrite": self.overwrite, "progress": self.progress}

    def loaded(self, device: str) -> dict[str, Any]:
        """The policies by short name."""
        return {name: load_policy(source, device) for name, source in self.policies.items()}


class StageOutcome(NamedTuple):
    """What came of a stage."""

    finished: bool  # False where it was asked to stop
    sentence: str


@dataclasses.dataclass(frozen=True)
class Job(Settings, abc.ABC):
    """Base of all jobs; the fields of one are the keys of its stage in a pipeline file.

    A field `settings` holds those of the training, and a field `config` names a file or a preset with some of these.
    """

    NAME: ClassVar[str]  # that of the command that does the same
    GIVES: ClassVar[str]  # kind of what it makes
    NEEDS: ClassVar[tuple[str, ...]] = ()  # one of these keys must be given
    INHERITS: ClassVar[tuple[str, ...]] = ()  # what the pipeline says for all
    TRAINS: ClassVar[bool] = False  # is expensive, and goes on where it was interrupted
    FREE: ClassVar[tuple[str, ...]] = ()  # dotted keys that never make a difference
    HELD: ClassVar[tuple[str, ...]] = ()  # that must stay until it has finished, and make no difference then

    @property
    def product(self) -> str:
        """The file in the stage's folder that other stages read; empty where they read the folder."""
        return ""

    @abc.abstractmethod
    def run(self, stage: StageContext) -> StageOutcome:
        """Do it."""

    @classmethod
    def default(cls, said: Mapping[str, Any]) -> Job:
        """The keys where nothing else is said than this."""
        return cls()

    def completed(self, jobs: Mapping[str, Job]) -> Job:
        """The keys with what follows from other stages where nothing is said of it."""
        return self

    @classmethod
    def references(cls) -> dict[str, str]:
        """The keys that name stages, and the kind of each."""
        return {field.name: field.metadata["kind"] for field in dataclasses.fields(cls) if "kind" in field.metadata}

    def named(self, key: str) -> tuple[str, ...]:
        """What a reference names."""
        value = getattr(self, key)
        return () if value is None else (value,) if isinstance(value, str) else tuple(value)


def reference(kind: str, meaning: str = "") -> Any:
    """A field that names a stage, or several, or what else is of that kind."""
    return setting(None, meaning, kind=kind)
