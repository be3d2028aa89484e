"""The loop of a training job: update, record, validate, write checkpoints; and what the loops of jobs share."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import json
import math
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import torch

from raptor.config import to_dict
from raptor.config.settings import at_least, between, setting
from raptor.core.atomic import write_atomically
from raptor.core.errors import LostProcessError
from raptor.core.host import gpu_use, host
from raptor.formats.checkpoint import StudentPolicy, architecture_of, assemble, save_policy
from raptor.runs.folder import RunFolder
from raptor.runs.progress import Clock, Progress, ProgressFunction, StopRequest
from raptor.training.direct.config import TRAINING_SEEDS, VALIDATION_SEED
from raptor.training.direct.learner import DirectConfig, DirectLearner

JOB = "train-direct"


@dataclasses.dataclass(frozen=True)
class TrainDirectConfig(DirectConfig):
    """Settings of `raptor train-direct`: those of the learner, and those of the run."""

    seed: int = setting(
        0,
        "of the weights and of all vehicles and flights; beyond its limit it would draw validation vehicles",
        between(0, VALIDATION_SEED - TRAINING_SEEDS - 1),
    )
    device: str = setting("cpu", "cpu, cuda, or cuda:1 and so on")
    compile: bool = setting(True, "false runs uncompiled: at once, but several times slower")
    checkpoint_interval: int = setting(
        100, "updates between two checkpoints; the last update writes one in any case", at_least(1)
    )
    keep_checkpoints: int = setting(3, "how many of the newest checkpoints stay", at_least(1))
    validation_interval: int = setting(
        100, "updates between two validations, the last update being validated too; 0: never", at_least(0)
    )
    num_validation: int = setting(2048, "validation vehicles, which are never trained on; an episode each", at_least(1))


@dataclasses.dataclass(frozen=True)
class RunSummary:
    """What a job did."""

    output: Path
    finished: bool  # False where it was asked to stop before its last update
    num_updates: int
    wall_clock_s: float  # of all sessions of the run, compilation included
    updates_per_s: float  # of the last session, compilation excluded
    env_steps: int
    validation: dict[str, float]  # of the last policy; empty where no validation happened
    best: dict[str, float]  # update, return, terminated and length of the best policy by its return; may be empty
    diverged: int  # vehicles that left their bounds and were replaced
    skipped: int  # updates that were left out because their gradient was not finite


class Session:
    """One session of a run: from its beginning, or from where an earlier session left off."""

    def __init__(
        self, folder: RunFolder, config: TrainDirectConfig, learner: DirectLearner, progress: ProgressFunction | None
    ) -> None:
        self.folder, self.config, self.learner, self.progress = folder, config, learner, progress
        self.clock = Clock()
        self.values: dict[str, float] = {}
        self.curriculum: dict[str, float] = {}
        self.validation: dict[str, float] = {}
        self.best: dict[str, float] = {}
        self.best_weights: dict[str, torch.Tensor] = {}

    def run(self, stop: StopRequest) -> RunSummary:
        """Go on until the last update, or until someone asks to stop."""
        config, learner, folder, world = self.config, self.learner, self.folder, self.learner.parts.world
        self._restore()
        folder.record_from(learner.update_count)
        folder.log(", ".join(f"{name} {fact}" for name, fact in host(config.device).items()))
        folder.log(f"begins after update {learner.update_count} of {config.num_updates}")
        self._curriculum()
        self._tell("compiling" if config.compile and learner.update_count < config.num_updates else "training")
        saved = learner.update_count
        if world.size > 1:
            folder.log(f"shared by {world.size} processes")
        while learner.update_count < config.num_updates and not world.any_rank(stop.made):
            with stoppable(stop):
                self.values = learner.update()
            self.clock.tick()
            update = learner.update_count
            last = update == config.num_updates
            training = {f"training/{name}": value for name, value in self.values.items()}
            folder.record(update, training | self._curriculum() | self._rates() | gpu_use(config.device))
            self._tell("training")
            if config.validation_interval and (update % config.validation_interval == 0 or last):
                self._validate()
            if update % config.checkpoint_interval == 0 or last:
                self._save()
                saved = update
        if saved != learner.update_count:
            self._save()
        return self._summarise()

    def _restore(self) -> None:
        document = newest_checkpoint(self.folder)
        if document is None:
            return
        training = document["training"]
        self.learner.load_state_dict(training["learner"])
        self.validation, self.best = dict(training["validation"]), dict(training["best"])
        self.best_weights = dict(training["best_weights"])
        self.clock = Clock(training["elapsed_s"])
        if self.best and not self.folder.checkpoints.best.exists():
            self._save_best()

    def _validate(self) -> None:
        self._tell("validating")
        learner, update = self.learner, self.learner.update_count
        result = learner.validate(learner.policy, self.config.num_validation)
        self.validation = {"update": update, **result}
        self.folder.record(update, {f"validation/{name}": value for name, value in result.items()})
        self.folder.log(f"update {update}: validation {', '.join(f'{k} {v:.5g}' for k, v in result.items())}")
        if math.isfinite(result["return"]) and result["return"] > self.best.get("return", -math.inf):
            self.best = self.validation
            self.best_weights = {name: tensor.cpu().clone() for name, tensor in learner.policy.state_dict().items()}
            self._save_best()
        self._tell("training")

    def _save_best(self) -> None:
        if not self.folder.writes:
            return
        card = self._card(int(self.best["update"]), self.best)
        write_weights(self.folder.checkpoints.best, self.learner.policy, self.best_weights, card)

    def _save(self) -> None:
        if not self.folder.writes:
            return
        learner = self.learner
        training = {
            "learner": learner.state_dict(),
            "validation": self.validation,
            "best": self.best,
            "best_weights": self.best_weights,
            "elapsed_s": self.clock.elapsed_s,
        }
        card = self._card(learner.update_count, self.validation)
        path = self.folder.checkpoints.write(learner.update_count, learner.policy, card, training)
        self.folder.log(f"update {learner.update_count}: wrote {path.name}")

    def _card(self, update: int, validation: dict[str, float]) -> dict[str, Any]:
        config = self.config
        training = (
            f"through the gradient of the simulator: update {update} of {config.num_updates}, "
            f"{config.batch_size} quadrotors flown at once, segments of {config.segment_steps} steps"
        )
        return card_of(self.learner.policy, JOB, config, training, validation)

    def _curriculum(self) -> dict[str, float]:
        """Where the curriculum stands, if there is one; the log says when it moved."""
        if self.learner.curriculum is None:
            return {}
        before = self.curriculum.get("curriculum/stage")
        self.curriculum = {f"curriculum/{name}": value for name, value in self.learner.curriculum.summary().items()}
        stage = self.curriculum["curriculum/stage"]
        if before is not None and stage != before:
            stages, moves = self.config.curriculum.stages, "advances" if stage > before else "falls back"
            name = f"{stages[int(stage)].name} ({int(stage) + 1} of {len(stages)})"
            self.folder.log(f"update {self.learner.update_count}: the curriculum {moves} to {name}")
        return self.curriculum

    def _rates(self) -> dict[str, float]:
        rate = self.clock.updates_per_s
        per_update = self.config.batch_size * self.config.segment_steps
        return {
            "speed/elapsed_s": self.clock.elapsed_s,
            "speed/updates_per_s": rate,
            "speed/env_steps_per_s": rate * per_update,
        }

    def _tell(self, stage: Literal["compiling", "training", "validating"]) -> None:
        if self.progress is None:
            return
        config, done = self.config, self.learner.update_count
        rates = self._rates()
        rate = rates["speed/updates_per_s"]
        self.progress(
            Progress(
                stage=stage,
                update=done,
                num_updates=config.num_updates,
                elapsed_s=rates["speed/elapsed_s"],
                updates_per_s=rate,
                env_steps_per_s=rates["speed/env_steps_per_s"],
                remaining_s=(config.num_updates - done) / rate if rate else math.nan,
                values=self.values,
                validation=self.validation,
                best_return=self.best.get("return"),
            )
        )

    def _summarise(self) -> RunSummary:
        learner, config = self.learner, self.config
        summary = RunSummary(
            output=self.folder.path,
            finished=learner.update_count >= config.num_updates,
            num_updates=learner.update_count,
            wall_clock_s=self.clock.elapsed_s,
            updates_per_s=self.clock.updates_per_s,
            env_steps=learner.update_count * config.batch_size * config.segment_steps,
            validation=self.validation,
            best=self.best,
            diverged=learner.diverged_count,
            skipped=learner.skipped_count,
        )
        write_summary(self.folder, dataclasses.asdict(summary), config.device)
        return summary


@contextlib.contextmanager
def stoppable(stop: StopRequest) -> Iterator[None]:
    """Turn what fails after someone asked to stop into an interruption, unless another process is gone."""
    try:
        yield
    except LostProcessError:  # torchrun asks the others to stop when one has died
        raise
    except Exception as error:
        if stop.made:  # Ctrl-C reaches the compiler too, and the compiler does not survive it
            raise KeyboardInterrupt from error
        raise


def newest_checkpoint(folder: RunFolder) -> dict[str, Any] | None:
    """What a run wrote last and can be read, warnings about what cannot logged; None where it begins."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = folder.checkpoints.newest()
    for warning in caught:
        folder.log(f"warning: {warning.message}")
        warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    if found is None:
        return None
    path, document = found
    folder.log(f"going on from {path.name}")
    return document


def write_weights(
    path: Path, like: StudentPolicy, weights: Mapping[str, torch.Tensor], card: Mapping[str, Any]
) -> None:
    """Write a policy of the architecture of another one."""
    save_policy(assemble(architecture_of(like), weights, path), path, card)


def card_of(
    policy: StudentPolicy, job: str, config: Any, training: str, found: Mapping[str, float], by: str = "validation"
) -> dict[str, Any]:
    """The card of a policy that a job made.

    Args:
        policy: of the architecture that the card tells of.
        job: as it is called on the command line.
        config: its settings.
        training: what was done, in words.
        found: figures; empty where there are none.
        by: what gave them.
    """
    return {
        "what": policy.summary,
        "training": training,
        "command": f"raptor {job} with the settings below",
        "results": {f"{by} {name}": value for name, value in found.items()} or "not validated",
        "licence": "MIT",
        "raptor-python": importlib.metadata.version("raptor-python"),
        "settings": to_dict(config),
    }


def write_summary(folder: RunFolder, summary: Mapping[str, Any], device: str) -> None:
    """Write what came of a session, with where it ran, and log how it ended."""
    if not folder.writes:
        return
    document = {**summary, "output": str(folder.path), "host": host(device)}
    write_atomically(folder.summary, f"{json.dumps(document, indent=2)}\n")
    folder.log(f"{'finished' if summary['finished'] else 'stopped'} after {summary['wall_clock_s']:.1f} s")
