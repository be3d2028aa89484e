"""What every job does around its training: settle the settings, hold the folder, train to the end, sum up."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from raptor.config import to_dict, to_yaml
from raptor.config.settings import Settings, show
from raptor.core.atomic import write_atomically
from raptor.core.devices import host
from raptor.core.distributed import ALONE, World
from raptor.core.errors import UserError
from raptor.formats.checkpoint import StudentPolicy, architecture_of, assemble, policy_document, save_policy
from raptor.runs.folder import RunFolder
from raptor.runs.learner import Best, Figures
from raptor.runs.progress import ProgressFunction
from raptor.runs.stopping import StopRequest, stop_on_signal
from raptor.runs.trainer import Phase, Trainer
from raptor.tasks.terms import unused_extensions

Names = Callable[[], Sequence[str]]
T = TypeVar("T", bound=Settings)
S = TypeVar("S", bound="RunSummary")


@dataclasses.dataclass(frozen=True)
class RunSummary:
    """What came of a run."""

    output: Path
    finished: bool  # False where a request to stop came before its end
    unit: str  # what a step is
    num_steps: int  # that were made
    total_steps: int  # of the whole run
    wall_clock_s: float  # of all sessions, compilation included
    rate: float  # steps per second of the last session, compilation excluded
    env_steps: float  # steps of simulation
    validation: dict[str, float]  # of the last policy; empty where there was none
    best: dict[str, float]  # step and figures of the best policy; empty where there is none
    best_by: str  # what the figures of the best policy are of


@dataclasses.dataclass
class PolicyFiles:
    """Checkpoints, best and final policy in the folder of a run: each a file that `load_policy` reads."""

    folder: RunFolder
    policy: StudentPolicy  # that is trained; every file holds one of its architecture
    settings: Any  # of the job
    describe: Callable[[int], str]  # how the policy of a step was trained, in words
    milestone: str | None = None  # name of the file of the best policy of a phase that is over
    final: str | None = None  # name of the file of the last policy
    beside: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # what checkpoints hold beside the state

    def __post_init__(self) -> None:
        folder, checkpoints = self.folder, self.folder.checkpoints
        checkpoints.keep = self.settings.keep_checkpoints
        self.newest_first, self.pass_over = checkpoints.newest_first, checkpoints.pass_over
        self.log, self.record, self.record_from = folder.log, folder.record, folder.record_from

    def write(self, step: int, training: Mapping[str, Any]) -> str:
        """Write a checkpoint, which is a policy file too."""
        if not self.folder.writes:
            return ""
        document = policy_document(self.policy, self._card(step, training["validation"]), self.folder.path)
        return self.folder.checkpoints.write(step, {**document, "training": {**training, **self.beside}})

    def write_best(self, best: Best, milestone: bool) -> None:
        """Write the best policy, or that of a phase that is over."""
        name = self.milestone if milestone else self.folder.layout.best
        if name is not None and self.folder.writes:
            path = self.folder.path / name
            policy = assemble(architecture_of(self.policy), best.weights, path)
            save_policy(policy, path, self._card(best.step, best.figures, best.by))

    def write_final(self, step: int, figures: Figures, is_new: bool) -> None:
        """Write the last policy, where it is new or not written yet."""
        if self.final is None or not self.folder.writes:
            return
        path = self.folder.path / self.final
        if is_new or not path.exists():
            save_policy(self.policy, path, self._card(step, figures))

    def _card(self, step: int, figures: Figures, by: str = "validation") -> dict[str, Any]:
        unused = getattr(self.settings, "unused", ())
        return {
            "what": self.policy.summary,
            "training": self.describe(step),
            "command": f"raptor {self.folder.layout.job} with the settings below",
            "results": {f"{by} {name}": value for name, value in figures.items()} or "not validated",
            "licence": "MIT",
            "raptor-python": importlib.metadata.version("raptor-python"),
            "settings": {key: value for key, value in to_dict(self.settings).items() if key not in unused},
        }


def settle(
    folder: RunFolder, cls: type[T], given: T | None, resume: bool, overwrite: bool, free: Names = tuple, **changes: Any
) -> tuple[T, T | None]:
    """The settings of a run, and those that it began with, None where it begins now; writes nothing.

    Where none are given, they are those that the run began with, or else the default ones; `changes` that are not None
    take their place. Groups named by `free` may differ from those that the run began with. See `RunFolder.check` and
    `RunFolder.refuse_changes` for what is refused.
    """
    stored = folder.settings(cls) if folder.check(resume, overwrite) else None
    changes = {name: value for name, value in changes.items() if value is not None}
    settings = dataclasses.replace(given or stored or cls(), **changes)
    if stored is not None:
        folder.refuse_changes(stored, settings, (*free(), *_lengthened(folder, stored, settings, free())))
    if idle := unused_extensions(to_yaml(settings)):
        name, example = idle[0].name, next(iter(vars(idle[0]().settings).items()), None)
        use = "" if example is None else f"task.extra.{name}.{example[0]}={show(example[1])}, or "
        names = ", ".join(f"{term.name} ({term.kind})" for term in idle)
        warnings.warn(
            f"no setting uses {names}, which --extend adds: put it to use by {use}task.extra=[{name}]", stacklevel=2
        )
    return settings, stored


def _lengthened(folder: RunFolder, stored: Settings, settings: Settings, free: Sequence[str]) -> tuple[str, ...]:
    """The setting that makes a run longer than it was begun, if one does; refused where its schedule depends on it."""
    name, rate = getattr(settings, "LENGTH", ("", ""))
    if not name or getattr(settings, name) <= (length := getattr(stored, name)):
        return ()
    try:
        folder.refuse_changes(stored, dataclasses.replace(settings, **{name: length}), free)
    except UserError:
        return ()  # there are other changes, which are named with this one
    if (end := getattr(stored, rate)) != 1:
        why = f"its learning rate fell to {rate}={end:g} over {name}={length}"
        raise UserError(
            f"the run in {folder.path} cannot be made longer, because {why} (with {rate}=1 it could have been): "
            "begin another one from its policy"
        )
    known: Any = stored
    if getattr(known, "distrust", (0, 0))[1] > 0 and not known.task.simplified.is_perfect:
        why = f"its imperfections came in at parts of {name}={length} (with distrust=[0,0] it could have been)"
        raise UserError(f"the run in {folder.path} cannot be made longer: {why}: begin another one from its policy")
    return (name,)


@contextlib.contextmanager
def held(
    folder: RunFolder, settings: Settings, resume: bool, overwrite: bool, world: World = ALONE
) -> Iterator[StopRequest]:
    """Hold the folder of a run while a job works in it; see `RunFolder.open`."""
    with contextlib.closing(folder), stop_on_signal() as stop:
        with world.main_process_first():
            folder.open(settings, resume, overwrite)
            if folder.writes and (name := getattr(settings, "LENGTH", ("",))[0]):
                stored, length = folder.settings(type(settings)), getattr(settings, name)
                if getattr(stored, name) != length:
                    folder.write_manifest(dataclasses.replace(stored, **{name: length}))
        yield stop


def run_to_end(
    files: PolicyFiles,
    phases: Sequence[Phase],
    stop: StopRequest,
    cls: type[S],
    own: Callable[[Trainer], Mapping[str, Any]],
    progress: ProgressFunction | None = None,
    **options: Any,
) -> S:
    """Train until the end, where the final policy is written, or until a request to stop; then sum up.

    Phases without a step are left out. `own` gives the fields of the summary that only this job has; `progress` is
    called by the main process; `options` are those of the `Trainer`: world, clock, callbacks.
    """
    folder, settings = files.folder, files.settings
    trainer = Trainer(
        [phase for phase in phases if phase.num_steps],
        files,
        stop,
        unit=folder.layout.unit,
        device=settings.device,
        compiles=settings.compile,
        **options,
    )
    for standing in trainer:
        if progress is not None and trainer.world.is_main_process:
            progress(standing)
    if trainer.finished:
        files.write_final(trainer.step, trainer.validation, trainer.step > trainer.begun_at)
    summary = cls(
        output=folder.path,
        finished=trainer.finished,
        unit=trainer.unit,
        num_steps=trainer.step,
        total_steps=trainer.num_steps,
        wall_clock_s=trainer.clock.elapsed_s,
        rate=trainer.clock.rate,
        env_steps=trainer.env_steps,
        validation=trainer.validation,
        best=trainer.best_figures,
        best_by="validation" if trainer.best is None else trainer.best.by,
        **own(trainer),
    )
    if folder.writes:
        document = {**dataclasses.asdict(summary), "output": str(folder.path), "host": host(settings.device)}
        write_atomically(folder.summary, f"{json.dumps(document, indent=2)}\n")
        status = "finished" if summary.finished else "stopped"
        folder.note_status(status)
        folder.log(f"{status} after {summary.wall_clock_s:.1f} s")
    trainer.call("on_end", finished=trainer.finished)
    trainer.callbacks.raise_failure()
    return summary
