"""What a pipeline has to do: which stages are done, which go on, which run anew, and why."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from raptor.core.atomic import PathLike
from raptor.core.errors import UserError
from raptor.lab.pipeline.document import Input, Pipeline, Stage
from raptor.lab.pipeline.records import Identity, StageRecord, changes, content, fingerprint, read_record

NUM_CHANGES = 3
"""How many changes a sentence names."""

Action = Literal["skip", "run", "resume", "anew", "wait"]


@dataclasses.dataclass(frozen=True)
class Step:
    """What is to be done about a stage."""

    stage: Stage
    folder: Path
    action: Action  # wait: decided when what it reads has been made again, and only if that came out differently
    why: str
    inputs: tuple[Identity, ...]
    fingerprint: str  # of what the stage is made from
    content: str | None  # fingerprint of what it made, where that stays
    before: StageRecord | None

    @property
    def replaces(self) -> bool:
        """Whether an expensive result is lost."""
        return self.action == "anew" and self.stage.job.TRAINS


class Planner:
    """Examines stages in the order in which they run; one that was not examined is read as it is in `output`."""

    def __init__(self, pipeline: Pipeline, output: Path) -> None:
        self.pipeline, self.output = pipeline, output
        self._made: dict[str, tuple[str, str | None]] = {}  # by stage: fingerprints of it and of what it makes

    def plan(self, only: str | None = None, until: str | None = None) -> list[Step]:
        """What there is to do, stage by stage: `only` for one, or `until` one, which is it and what it needs.

        Raises:
            UserError: see `examine`; there is no such stage, or both are asked for.
        """
        if only is not None and until is not None:
            raise UserError("--only and --until exclude each other: keep one of them")
        names = frozenset(self.pipeline.names) if until is None else self.pipeline.needed_for(until)
        stages = self.pipeline.stages if only is None else [self.pipeline[only]]
        return [self.examine(stage) for stage in stages if stage.name in names]

    def examine(self, stage: Stage) -> Step:
        """What is to be done about a stage, as things are now.

        Raises:
            UserError: its folder holds something else, or what it reads is not there.
        """
        folder = self.output / stage.name
        inputs = tuple(self._identity(stage, given) for given in stage.inputs)
        made_from, before = fingerprint(stage.job, inputs), read_record(folder)
        if before is not None and before.job != stage.job.NAME:
            raise UserError(
                f"{folder} was made by {before.job}, and the stage {stage.name} is {stage.job.NAME} now: "
                "call the stage something else, or move the folder away"
            )
        made = None
        if before is not None and before.state == "finished":
            with contextlib.suppress(UserError):  # what it made is gone
                made = content(stage.job.GIVES, self.product(stage))
        action, why = _decide(stage, inputs, before, made)
        step = Step(stage, folder, action, why, inputs, made_from, made if action == "skip" else None, before)
        self._made[stage.name] = made_from, step.content
        return step

    def note(self, stage: Stage, made_from: str) -> str:
        """Take note that a stage has made something; returns the fingerprint of that."""
        made = content(stage.job.GIVES, self.product(stage))
        self._made[stage.name] = made_from, made
        return made

    def product(self, stage: Stage) -> Path:
        """What other stages read of a stage."""
        return self.output / stage.name / stage.job.product

    def _identity(self, stage: Stage, given: Input) -> Identity:
        if not given.is_stage:
            found = content(given.kind, given.name)
            return Identity(given.key, given.name, found, found)
        if given.name not in self._made:
            self._made[given.name] = self._as_it_is(stage, self.pipeline[given.name])
        return Identity(given.key, given.name, *self._made[given.name])

    def _as_it_is(self, reader: Stage, stage: Stage) -> tuple[str, str]:
        """What a stage made that is not to run now."""
        record = read_record(self.output / stage.name)
        if record is None or record.state != "finished":
            raise UserError(
                f"{reader.name} reads {stage.name}, which has not finished in {self.output}: "
                f"run that first, or both with --until {reader.name}"
            )
        return record.fingerprint, content(stage.job.GIVES, self.product(stage))


def make_plan(pipeline: Pipeline, output: PathLike, only: str | None = None, until: str | None = None) -> list[Step]:
    """What there is to do, see `Planner.plan`; nothing is written."""
    return Planner(pipeline, Path(output).expanduser()).plan(only, until)


def refuse_replacing(steps: Sequence[Step]) -> None:
    """Raise an error that names the trainings that would be thrown away, and what has changed."""
    lost = [f"{step.folder} was trained differently: {step.why}" for step in steps if step.replaces]
    if lost:
        raise UserError(f"{'; '.join(lost)}; take that back, replace it with --overwrite, or choose another folder")


def _decide(
    stage: Stage, inputs: tuple[Identity, ...], before: StageRecord | None, made: str | None
) -> tuple[Action, str]:
    if before is None:
        return "run", "has not run yet"
    goes_on = stage.job.TRAINS and (before.state == "begun" or made is None)
    differs = [*changes(stage.job, before, goes_on), *_other_inputs(inputs, before.inputs)]
    if differs:
        more = f" and {len(differs) - NUM_CHANGES} more" if len(differs) > NUM_CHANGES else ""
        return "anew", f"{', '.join(differs[:NUM_CHANGES])}{more}"
    if made is None:
        why = "was interrupted" if before.state == "begun" else "what it made is gone"
        return ("resume" if goes_on else "run"), why
    if unknown := [given.name for given in inputs if given.content is None]:
        return "wait", f"runs anew if {', '.join(unknown)} comes out differently"
    return "skip", "unchanged" if made == before.content else "unchanged, but what it made was altered since"


def _other_inputs(now: tuple[Identity, ...], before: tuple[Identity, ...]) -> list[str]:
    """What a stage reads that is not what it was made from."""
    differs = []
    for key in dict.fromkeys(given.key for given in (*now, *before)):
        new, old = ([given for given in some if given.key == key] for some in (now, before))
        if len(new) != len(old):
            differs.append(f"other {key}")
            continue
        for given, was in zip(new, old, strict=True):
            same = given.fingerprint == was.fingerprint if given.content is None else given.content == was.content
            if not same:
                replaced = given.name != was.name
                differs.append(f"{given.name} in place of {was.name}" if replaced else f"{given.name} changed")
    return list(dict.fromkeys(differs))
