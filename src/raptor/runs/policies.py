"""Policies of a run: its checkpoints, its best and its final policy, each a file that `load_policy` reads."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from raptor.config import to_dict
from raptor.core.atomic import write_atomically
from raptor.core.devices import host
from raptor.formats.checkpoint import StudentPolicy, architecture_of, assemble, policy_document, save_policy
from raptor.runs.folder import RunFolder
from raptor.runs.learner import Best
from raptor.runs.progress import ProgressFunction
from raptor.runs.trainer import Trainer

Card = Callable[[int, Mapping[str, float], str], dict[str, Any]]
"""The card of the policy of a step, with its figures and what they are of."""


class PolicyFiles:
    """Checkpoints and policies in the folder of a run; see `raptor.runs.trainer.Checkpointing`.

    Args:
        folder: of the run.
        policy: that is trained; every file holds one of its architecture.
        card: what its files say of it.
        milestone: name of the file of the best policy of a phase that is over.
        final: name of the file of the last policy.
    """

    def __init__(
        self,
        folder: RunFolder,
        policy: StudentPolicy,
        card: Card,
        milestone: str | None = None,
        final: str | None = None,
    ) -> None:
        self.folder, self.policy, self.card, self.milestone, self.final = folder, policy, card, milestone, final

    def write(self, step: int, training: Mapping[str, Any]) -> str:
        """Write a checkpoint, which is a policy file too."""
        if not self.folder.writes:
            return ""
        card = self.card(step, training["validation"], "validation")
        document = policy_document(self.policy, card, self.folder.path)
        return self.folder.checkpoints.write(step, {**document, "training": dict(training)})

    def newest_first(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """The states that were written, the newest first."""
        for name, document in self.folder.checkpoints.newest_first():
            yield name, document["training"]

    def pass_over(self, name: str, problem: object) -> None:
        """Warn that a checkpoint is of no use."""
        self.folder.checkpoints.pass_over(name, problem)

    def write_best(self, best: Best, milestone: bool) -> None:
        """Write the best policy, or that of a phase that is over."""
        name = self.milestone if milestone else self.folder.layout.best
        if name is not None and self.folder.writes:
            path = self.folder.path / name
            policy = assemble(architecture_of(self.policy), best.weights, path)
            save_policy(policy, path, self.card(best.step, best.figures, best.by))

    def write_final(self, step: int, figures: Mapping[str, float]) -> None:
        """Write the last policy, once."""
        if self.final is not None and self.folder.writes and not (path := self.folder.path / self.final).exists():
            save_policy(self.policy, path, self.card(step, figures, "validation"))


@dataclasses.dataclass(frozen=True)
class RunSummary:
    """What came of a run."""

    output: Path
    finished: bool  # False where it was asked to stop before its end
    unit: str  # what a step is
    num_steps: int  # that were made
    wall_clock_s: float  # of all sessions, compilation included
    rate: float  # steps per second of the last session, compilation excluded
    env_steps: float  # steps of flight
    validation: dict[str, float]  # of the last policy; empty where there was none
    best: dict[str, float]  # step and figures of the best policy; empty where there is none
    best_by: str  # what the figures of the best policy are of


def run_to_end(trainer: Trainer, folder: RunFolder, progress: ProgressFunction | None) -> RunSummary:
    """Train until the end or until somebody asks to stop; what came of it, of which nothing is written yet."""
    for standing in trainer:
        if progress is not None:
            progress(standing)
    return RunSummary(
        output=folder.path,
        finished=trainer.finished,
        unit=trainer.unit,
        num_steps=trainer.step,
        wall_clock_s=trainer.clock.elapsed_s,
        rate=trainer.clock.rate,
        env_steps=trainer.env_steps,
        validation=trainer.validation,
        best={} if trainer.best is None else trainer.best.summary(trainer.unit),
        best_by="validation" if trainer.best is None else trainer.best.by,
    )


def write_summary(folder: RunFolder, summary: RunSummary, device: str) -> None:
    """Write what came of a session, with where it ran; note and log how it ended."""
    if not folder.writes:
        return
    document = {**dataclasses.asdict(summary), "output": str(folder.path), "host": host(device)}
    write_atomically(folder.summary, f"{json.dumps(document, indent=2)}\n")
    status = "finished" if summary.finished else "stopped"
    folder.note_status(status)
    folder.log(f"{status} after {summary.wall_clock_s:.1f} s")


def policy_card(
    policy: StudentPolicy, job: str, settings: Any, training: str, figures: Mapping[str, float], by: str = "validation"
) -> dict[str, Any]:
    """The card of a policy that a job made.

    Args:
        policy: of the architecture that the card describes.
        job: as it is called on the command line.
        settings: of the job.
        training: what was done, in words.
        figures: of the policy; empty where there are none.
        by: what the figures are of.
    """
    return {
        "what": policy.summary,
        "training": training,
        "command": f"raptor {job} with the settings below",
        "results": {f"{by} {name}": value for name, value in figures.items()} or "not validated",
        "licence": "MIT",
        "raptor-python": importlib.metadata.version("raptor-python"),
        "settings": to_dict(settings),
    }
