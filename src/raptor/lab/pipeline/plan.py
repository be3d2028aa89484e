"""What a pipeline has to do: which stages are done, which go on, which run anew, and why."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from raptor.core.atomic import PathLike
from raptor.core.errors import UserError
from raptor.lab.pipeline import stamps
from raptor.lab.pipeline.graph import Input, Pipeline, Stage
from raptor.lab.pipeline.stamps import Identity, Stamp

NUM_CHANGES = 3
"""Of how many changes a sentence tells."""

Action = Literal["skip", "run", "resume", "anew", "wait"]


@dataclasses.dataclass(frozen=True)
class Step:
    """What is to be done about a stage."""

    stage: Stage
    folder: Path
    action: Action  # wait: decided when what it reads has been made again, and only if that came out differently
    why: str
    inputs: tuple[Identity, ...]
    recipe: str
    content: str | None  # of what the stage made, where that stays
    before: Stamp | None

    @property
    def replaces(self) -> bool:
        """Whether an expensive result is lost."""
        return self.action == "anew" and self.stage.job.trains


class Planner:
    """Looks at stages in the order in which they run; what was not looked at is read as it is.

    Args:
        pipeline: the stages.
        output: the folder of everything.
    """

    def __init__(self, pipeline: Pipeline, output: Path) -> None:
        self.pipeline, self.output = pipeline, output
        self._made: dict[str, tuple[str, str | None]] = {}  # recipe and content of what each stage makes

    def plan(self, only: str | None = None, until: str | None = None) -> list[Step]:
        """What there is to do, stage by stage.

        Args:
            only: no other stage than this one.
            until: only this stage and what it needs.

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
        recipe, before = stamps.recipe(stage, inputs), stamps.read_stamp(folder)
        if before is not None and before.job != stage.job.name:
            raise UserError(
                f"{folder} was made by {before.job}, and the stage {stage.name} is {stage.job.name} now: "
                "call the stage something else, or move the folder away"
            )
        content = None
        if before is not None and before.state == "finished":
            with contextlib.suppress(UserError):  # what it made is gone
                content = stamps.content(stage.job.gives, self.product(stage))
        action, why = _decide(stage, inputs, before, content)
        step = Step(stage, folder, action, why, inputs, recipe, content if action == "skip" else None, before)
        self._made[stage.name] = recipe, step.content
        return step

    def note(self, stage: Stage, recipe: str) -> str:
        """Take note that a stage has made something; returns the fingerprint of that."""
        content = stamps.content(stage.job.gives, self.product(stage))
        self._made[stage.name] = recipe, content
        return content

    def product(self, stage: Stage) -> Path:
        """What other stages read of a stage."""
        return self.output / stage.name / stage.job.product(stage.keys)

    def _identity(self, stage: Stage, given: Input) -> Identity:
        if not given.is_stage:
            content = stamps.content(given.kind, given.name)
            return Identity(given.key, given.name, content, content)
        if given.name not in self._made:
            self._made[given.name] = self._as_it_is(stage, self.pipeline[given.name])
        return Identity(given.key, given.name, *self._made[given.name])

    def _as_it_is(self, reader: Stage, stage: Stage) -> tuple[str, str]:
        """What a stage made that is not to run now."""
        stamp = stamps.read_stamp(self.output / stage.name)
        if stamp is None or stamp.state != "finished":
            raise UserError(
                f"{reader.name} reads {stage.name}, which has not finished in {self.output}: "
                f"run that first, or both with --until {reader.name}"
            )
        return stamp.recipe, stamps.content(stage.job.gives, self.product(stage))


def make_plan(pipeline: Pipeline, output: PathLike, only: str | None = None, until: str | None = None) -> list[Step]:
    """What there is to do, see `Planner.plan`; nothing is written."""
    return Planner(pipeline, Path(output).expanduser()).plan(only, until)


def refuse_replacing(steps: Sequence[Step]) -> None:
    """Refuse to throw trainings away.

    Raises:
        UserError: names the stages and what has changed.
    """
    lost = [f"{step.folder} was trained differently: {step.why}" for step in steps if step.replaces]
    if lost:
        raise UserError(f"{'; '.join(lost)}; take that back, replace it with --overwrite, or choose another folder")


def _decide(
    stage: Stage, inputs: tuple[Identity, ...], before: Stamp | None, content: str | None
) -> tuple[Action, str]:
    if before is None:
        return "run", "has not run yet"
    goes_on = stage.job.trains and (before.state == "begun" or content is None)
    changed = [*stamps.changes(stage, before, goes_on), *_other_inputs(inputs, before.inputs)]
    if changed:
        more = f" and {len(changed) - NUM_CHANGES} more" if len(changed) > NUM_CHANGES else ""
        return "anew", f"{', '.join(changed[:NUM_CHANGES])}{more}"
    if content is None:
        why = "was interrupted" if before.state == "begun" else "what it made is gone"
        return ("resume" if goes_on else "run"), why
    if unknown := [given.name for given in inputs if given.content is None]:
        return "wait", f"runs anew if {', '.join(unknown)} comes out differently"
    return "skip", "unchanged" if content == before.content else "unchanged, but what it made was altered since"


def _other_inputs(now: tuple[Identity, ...], before: tuple[Identity, ...]) -> list[str]:
    """What a stage reads that is not what it was made from."""
    told = []
    for key in dict.fromkeys(given.key for given in (*now, *before)):
        new, old = ([given for given in some if given.key == key] for some in (now, before))
        if len(new) != len(old):
            told.append(f"other {key}")
            continue
        for given, was in zip(new, old, strict=True):
            if given.recipe != was.recipe if given.content is None else given.content != was.content:
                told.append(
                    f"{given.name} changed" if given.name == was.name else f"{given.name} in place of {was.name}"
                )
    return list(dict.fromkeys(told))
