"""What a pipeline has to do: which stages are done, which go on, which run anew, and why.

The folder of a stage holds a record of what it was made from: its settings, and fingerprints of what it read.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from raptor.config import to_dict
from raptor.config.files import leaves
from raptor.config.load import changed
from raptor.core.atomic import PathLike, write_atomically
from raptor.core.errors import UserError
from raptor.core.yaml_files import dump_yaml, read_yaml
from raptor.formats import load_policy
from raptor.formats.teacher_files import QUADROTORS as VEHICLES
from raptor.formats.teacher_files import WEIGHTS
from raptor.lab.pipeline.document import Input, Pipeline, Stage
from raptor.lab.pipeline.jobs import POLICY, QUADROTORS, TEACHERS, Job
from raptor.quadrotor import PLATFORMS
from raptor.quadrotor.reader import vehicle_files

RECORD, HEADER = "stage.yaml", "# Written by raptor run: what this folder was made from.\n"
RENAMED = {"recipe": "fingerprint"}  # keys of records that earlier versions wrote
NUM_CHANGES = 3  # that a sentence names
SHOWN = "policies"  # the key of which the result shows the names, so that others make it another result
Action = Literal["skip", "run", "resume", "anew", "wait"]


@dataclasses.dataclass(frozen=True)
class Identity:
    """What something is that a stage reads."""

    key: str  # of the stage, which names it
    name: str
    fingerprint: str  # of what it is made from
    content: str | None  # fingerprint of itself; None where it is still to be made


@dataclasses.dataclass(frozen=True)
class StageRecord:
    """What a stage was made from."""

    state: Literal["begun", "finished"]
    job: str
    settings: Mapping[str, Any]  # by dotted key
    inputs: tuple[Identity, ...]
    fingerprint: str  # of all of these
    content: str | None = None  # fingerprint of what it made
    result: str = ""

    def write(self, folder: Path) -> None:
        """Put it into the folder of the stage."""
        write_atomically(folder / RECORD, HEADER + dump_yaml(to_dict(self)))


@dataclasses.dataclass(frozen=True)
class Step:
    """What is to be done about a stage."""

    stage: Stage
    folder: Path
    action: Action  # wait: decided when what it reads has been made again, and only if that came out differently
    why: str
    record: StageRecord  # of a stage that begins
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
        """What there is to do, stage by stage: `only` for one, or `until` one, which is it and what it needs."""
        if only is not None and until is not None:
            raise UserError("--only and --until exclude each other: keep one of them")
        names = self.pipeline.names if until is None else self.pipeline.needed_for(until)
        stages = self.pipeline.stages if only is None else [self.pipeline[only]]
        return [self.examine(stage) for stage in stages if stage.name in names]

    def examine(self, stage: Stage) -> Step:
        """What is to be done about a stage; `UserError` where its folder holds something else, or an input lacks."""
        folder, job = self.output / stage.name, stage.job
        inputs = tuple(self._identity(stage, given) for given in stage.inputs)
        facts = [job.NAME, relevant_settings(job, job.HELD), [[each.key, each.fingerprint] for each in inputs]]
        made_from = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
        before, made = read_record(folder), None
        if before is not None and before.job != job.NAME:
            raise UserError(
                f"{folder} was made by {before.job}, and the stage {stage.name} is {job.NAME} now: "
                "call the stage something else, or move the folder away"
            )
        if before is not None and before.state == "finished":
            with contextlib.suppress(UserError):  # what it made is gone
                made = content(job.GIVES, folder / job.product)
        action, why = _decide(job, inputs, before, made)
        self._made[stage.name] = made_from, made if action == "skip" else None
        record = StageRecord("begun", job.NAME, relevant_settings(job), inputs, made_from)
        return Step(stage, folder, action, why, record, before)

    def note(self, step: Step) -> str:
        """Take note that a stage has made something; returns the fingerprint of that."""
        made = content(step.stage.job.GIVES, self.product(step.stage))
        self._made[step.stage.name] = step.record.fingerprint, made
        return made

    def product(self, stage: Stage) -> Path:
        """What other stages read of a stage."""
        return self.output / stage.name / stage.job.product

    def source(self, given: Input) -> Path | str:
        """Where something is that a stage reads."""
        return self.product(self.pipeline[given.name]) if given.is_stage else given.name

    def _identity(self, reader: Stage, given: Input) -> Identity:
        if given.is_stage and given.name in self._made:
            return Identity(given.key, given.name, *self._made[given.name])
        record = read_record(self.output / given.name) if given.is_stage else None  # it is not to run now
        if given.is_stage and (record is None or record.state != "finished"):
            raise UserError(
                f"{reader.name} reads {given.name}, which has not finished in {self.output}: "
                f"run that first, or both with --until {reader.name}"
            )
        found = content(given.kind, self.source(given))
        return Identity(given.key, given.name, found if record is None else record.fingerprint, found)


def make_plan(pipeline: Pipeline, output: PathLike, only: str | None = None, until: str | None = None) -> list[Step]:
    """What there is to do, see `Planner.plan`; nothing is written."""
    return Planner(pipeline, Path(output).expanduser()).plan(only, until)


def refuse_replacing(steps: Sequence[Step]) -> None:
    """Raise an error that names the trainings that would be thrown away, and what has changed."""
    lost = [f"{step.folder} was trained differently: {step.why}" for step in steps if step.replaces]
    if lost:
        raise UserError(f"{'; '.join(lost)}; take that back, replace it with --overwrite, or choose another folder")


def read_record(folder: Path) -> StageRecord | None:
    """The record in a folder; None where there is none, or where a stage began and left nothing else."""
    path, others = folder / RECORD, sorted(name for name in entries(folder) if name[0] != ".")
    if not path.exists():
        if others or (folder.exists() and not folder.is_dir()):
            what = f"holds {', '.join(others[:3])} that no pipeline wrote" if others else "is a file"
            raise UserError(f"{folder} {what}: choose another output folder")
        return None

    def renamed(document: Mapping[str, Any]) -> dict[str, Any]:
        return {RENAMED.get(key, key): value for key, value in document.items()}

    try:
        document = renamed(read_yaml(path))
        inputs = tuple(Identity(**renamed(each)) for each in document.pop("inputs"))
        record = StageRecord(inputs=inputs, **document)
    except (UserError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path} cannot be read: move {folder} away, or choose another output folder") from error
    return record if others or record.state == "finished" else None


def entries(folder: Path) -> dict[str, int]:
    """What is in a folder besides the record, and when each was written."""
    files = folder.iterdir() if folder.is_dir() else ()
    return {entry.name: entry.stat().st_mtime_ns for entry in files if entry.name != RECORD}


def relevant_settings(job: Job, without: Iterable[str] = ()) -> dict[str, Any]:
    """All that can make a difference to a stage except for what it reads, by dotted key, `without` some groups."""
    left_out = {*job.references(), "config", *job.FREE, *without} - {SHOWN}
    return {
        key: value
        for key, value in leaves(to_dict(job), take_lists_apart=False)
        if not any(key == each or key.startswith(f"{each}.") for each in left_out)
    }


def content(kind: str, source: PathLike) -> str:
    """Fingerprint of a folder, a file, or a policy by name; `UserError` where it is not there or cannot be read."""
    path, digest = Path(source), hashlib.sha256()
    if kind == POLICY and not path.is_file():
        policy = load_policy(source)
        assert isinstance(policy, torch.nn.Module)
        for name, tensor in policy.state_dict().items():  # whatever its card says
            digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()
    files = [path]
    if kind == TEACHERS:
        files = [path / WEIGHTS, *sorted((path / VEHICLES).glob("*.json"))]
    elif kind == QUADROTORS and source in PLATFORMS:
        return str(source)
    elif kind == QUADROTORS and path.is_dir():
        files = sorted(vehicle_files(path))
    try:
        for file in files:
            digest.update(f"{file.name}\n".encode() if path.is_dir() else b"")
            digest.update(file.read_bytes())
    except OSError as error:
        raise UserError(f"cannot read {error.filename or path}: {error.strerror}") from error
    return digest.hexdigest()


def _decide(job: Job, inputs: tuple[Identity, ...], before: StageRecord | None, made: str | None) -> tuple[Action, str]:
    """What is to be done about a stage, and why.

    A setting that the record does not know came with a newer version of the package; its default changes nothing.
    """
    if before is None:
        return "run", "has not run yet"
    goes_on = job.TRAINS and (before.state == "begun" or made is None)
    now = relevant_settings(job, () if goes_on else job.HELD)
    defaults = dict(leaves(to_dict(job.default(to_dict(job))), take_lists_apart=False))
    differs = changed({key: before.settings.get(key, defaults.get(key)) for key in now}, now)
    for key in dict.fromkeys(given.key for given in (*inputs, *before.inputs)):
        new, old = ([given for given in some if given.key == key] for some in (inputs, before.inputs))
        if len(new) != len(old):
            differs.append(f"other {key}")
            continue
        for given, was in zip(new, old, strict=True):
            same = given.fingerprint == was.fingerprint if given.content is None else given.content == was.content
            how = "changed" if given.name == was.name else f"in place of {was.name}"
            differs += [] if same else [f"{given.name} {how}"]
    differs = list(dict.fromkeys(differs))
    if differs:
        more = f" and {len(differs) - NUM_CHANGES} more" if len(differs) > NUM_CHANGES else ""
        return "anew", f"{', '.join(differs[:NUM_CHANGES])}{more}"
    if made is None:
        why = "was interrupted" if before.state == "begun" else "what it made is gone"
        return ("resume" if goes_on else "run"), why
    if unknown := [given.name for given in inputs if given.content is None]:
        return "wait", f"runs anew if {', '.join(unknown)} comes out differently"
    return "skip", "unchanged" if made == before.content else "unchanged, but what it made was altered since"
