"""One session of a post-training: imitation, then training through the simulator's gradient, epoch by epoch."""

from __future__ import annotations

import copy
import dataclasses
import math
from pathlib import Path
from typing import Any

import torch

from raptor.core.distributed import ALONE, World
from raptor.core.host import gpu_use, host
from raptor.formats.checkpoint import StudentPolicy
from raptor.nn.teachers import TeacherPopulation
from raptor.runs.folder import RunFolder
from raptor.runs.progress import Clock, Progress, ProgressFunction, Stage, StopRequest
from raptor.training.direct.config import TRAINING_SEEDS
from raptor.training.direct.learner import shrink_output_layer
from raptor.training.direct.session import card_of, newest_checkpoint, stoppable, write_summary, write_weights
from raptor.training.distillation.config import PostTrainConfig
from raptor.training.distillation.fine_tuning import FineTuner
from raptor.training.distillation.learner import Distiller, first_student
from raptor.training.validation import FIGURES, Validation, figures

JOB = PostTrainConfig.JOB
BEST, FINAL, IMITATED = "best_student.pt", "final_student.pt", "imitated_student.pt"
VIDEOS, TEACHERS = "videos", "params/teachers.json"
OWN = (FINAL, IMITATED, f"{VIDEOS}/epoch_*.gif", TEACHERS)
"""What a post-training writes besides what every run does."""


@dataclasses.dataclass(frozen=True)
class PostTrainSummary:
    """What came of a post-training."""

    output: Path
    finished: bool  # False where it was asked to stop
    num_teachers: int
    dropped: tuple[str, ...]  # weak teachers that took no part
    teacher_return: float  # mean of the teachers, in their test
    num_epochs: int  # of imitation and of fine-tuning
    wall_clock_s: float  # of all sessions, compilation and the test of the teachers included
    num_steps: float  # of flight, in imitation
    evaluation: dict[str, float]  # of the last student
    best_by: str  # what the figures of the following two are of: validation, or data collection
    best: dict[str, float]  # epoch and figures of the best student
    imitated: dict[str, float]  # the same of the best student before fine-tuning; empty before imitation ended


class PostTrainRun:
    """One session of a post-training.

    Args:
        folder: of the run, open.
        config: the settings.
        teachers: those that take part, tested.
        dropped: names of those that do not.
        clock: that has run since the session began.
        progress: called after each epoch, and around what takes long.
        world: the processes that share the work; the first one writes.
    """

    def __init__(
        self,
        folder: RunFolder,
        config: PostTrainConfig,
        teachers: TeacherPopulation,
        dropped: tuple[str, ...],
        clock: Clock,
        progress: ProgressFunction | None,
        world: World = ALONE,
    ) -> None:
        self.world = world
        self.folder, self.config, self.teachers, self.dropped = folder, config, teachers, dropped
        self.clock, self.progress = clock, progress
        self.num_epochs = config.num_epochs_in_all
        self.epoch = 0
        self.policy: StudentPolicy = first_student(config.student, TRAINING_SEEDS + config.seed).to(config.device)
        self.settled = copy.deepcopy(self.policy)  # as it was after the last whole epoch
        self.distiller: Distiller | None = None
        self.tuner: FineTuner | None = None
        self.values: dict[str, float] = {}
        self.evaluation: dict[str, float] = {}
        self.best: dict[str, float] = {}
        self.best_weights: dict[str, torch.Tensor] = {}
        self.imitated: dict[str, float] = {}
        self.num_steps = 0.0
        self.validation = Validation(config.num_validation, config.device, config.compile, world=world)

    def run(self, stop: StopRequest) -> PostTrainSummary:
        """Go on until the last epoch, or until someone asks to stop."""
        config, folder = self.config, self.folder
        self._restore()
        folder.record_from(self.epoch)
        folder.log(", ".join(f"{name} {fact}" for name, fact in host(config.device).items()))
        if self.world.size > 1:
            folder.log(f"shared by {self.world.size} processes")
        folder.log(f"begins after epoch {self.epoch} of {self.num_epochs}")
        self._tell("compiling" if config.compile and self.epoch < self.num_epochs else None)
        saved = self._done
        while self.epoch < self.num_epochs and not self.world.any_rank(stop.made) and self._advance(stop):
            self.clock.tick()
            last = self.epoch in (config.num_epochs, self.num_epochs)
            if last or self.epoch % config.validation_interval == 0 or self.epoch > config.num_epochs:
                self._evaluate()
            speed = {"speed/elapsed_s": self.clock.elapsed_s, "speed/epochs_per_s": self.clock.updates_per_s}
            folder.record(self.epoch, {**self.values, **speed, **gpu_use(config.device)})
            self._tell()
            video_due = config.video_interval and (last or self.epoch % config.video_interval == 0)
            if video_due and folder.writes:
                video = folder.path / VIDEOS / f"epoch_{self.epoch:06d}.gif"
                self.validation.record(self.policy, config.validation_task(self.tuner is not None), video)
            if last or self.epoch % config.checkpoint_interval == 0:
                self._save()
                saved = self._done
        if saved != self._done:
            self._save()
        if self.epoch == self.num_epochs:
            self._write_final()
        return self._summarise()

    def _advance(self, stop: StopRequest) -> bool:
        """One epoch; False where it was not finished because someone asked to stop."""
        with stoppable(stop):
            values = self._imitate() if self.epoch < self.config.num_epochs else self._fine_tune(stop)
        if values is None:
            return False
        self.values = values
        self.epoch += 1
        self.settled.load_state_dict(self.policy.state_dict())
        return True

    def _imitate(self) -> dict[str, float]:
        if self.distiller is None:
            self.distiller = Distiller(self.config, self.policy, self.teachers, self.world)
        values = self.distiller.epoch()
        self.num_steps += values["data_collection/num_steps"]
        if self.config.best_by == "data_collection" and self.epoch >= self.config.epoch_teacher_forcing:
            found = {name: values[f"data_collection/{name}"] for name in FIGURES}
            self._keep_if_better(self.epoch, found, self.settled)  # which flew, before it was trained on that
        return values

    def _fine_tune(self, stop: StopRequest) -> dict[str, float] | None:
        tuning = self.config.fine_tune
        if self.tuner is None:
            self.tuner = self._begin_fine_tuning()
        end = min((self.epoch - self.config.num_epochs + 1) * tuning.updates_per_epoch, tuning.num_updates)
        values: dict[str, float] = {}
        while self.tuner.update_count < end:
            if self.world.any_rank(stop.made):
                return None
            values = self.tuner.update()
            self._tell(share=1 - (end - self.tuner.update_count) / tuning.updates_per_epoch)
        return {f"fine_tuning/{name}": value for name, value in values.items()}

    def _begin_fine_tuning(self) -> FineTuner:
        """From the best imitated student, whose figures are from now on those of the validation of fine-tuning."""
        config = self.config
        if not config.num_epochs:
            shrink_output_layer(self.policy)
        if self.best:
            self.policy.load_state_dict(self.best_weights)
            if config.best_by == "data_collection" or config.validation_task(False) != config.validation_task(True):
                self.best = {"epoch": self.best["epoch"], **self._validate(tuning=True)}
            self.imitated = self.best
            for path in (self.folder.path / IMITATED, self.folder.checkpoints.best):
                self._write_best(path, "validation")
        self.distiller = None
        self.clock = Clock(self.clock.elapsed_s)
        return self._tuner()

    def _tuner(self) -> FineTuner:
        config = self.config
        take_part = self.teachers if config.num_epochs else None
        settings = config.seed, config.device, config.compile
        return FineTuner(config.tuning, self.policy, take_part, *settings, self.world)

    @property
    def _done(self) -> tuple[int, int]:
        """Whole epochs, and updates of fine-tuning."""
        return self.epoch, self.tuner.update_count if self.tuner else 0

    def _evaluate(self) -> None:
        self.evaluation = self._validate(self.tuner is not None)
        self.values = {**self.values, **{f"evaluation/{name}": value for name, value in self.evaluation.items()}}
        told = ", ".join(f"{name} {value:.5g}" for name, value in self.evaluation.items())
        self.folder.log(f"epoch {self.epoch}: evaluation {told}")
        if self._best_by == "validation":
            self._keep_if_better(self.epoch, self.evaluation, self.policy)
        if self.epoch == self.config.num_epochs:
            self.imitated = self.best

    def _validate(self, tuning: bool) -> dict[str, float]:
        self._tell("validating")
        return figures(self.validation(self.policy, self.config.validation_task(tuning)))

    @property
    def _best_by(self) -> str:
        """What the figures of the best student are of."""
        return self.config.best_by.replace("_", " ") if self.tuner is None else "validation"

    def _keep_if_better(self, epoch: int, found: dict[str, float], policy: StudentPolicy) -> None:
        if not math.isfinite(found["mean_return"]) or self.best.get("mean_return", -math.inf) >= found["mean_return"]:
            return
        self.best = {"epoch": float(epoch), **found}
        self.best_weights = {name: tensor.clone() for name, tensor in policy.state_dict().items()}
        self._write_best(self.folder.checkpoints.best, self._best_by)

    def _write_best(self, path: Path, by: str) -> None:
        if not self.folder.writes:
            return
        epoch, found = int(self.best["epoch"]), {name: value for name, value in self.best.items() if name != "epoch"}
        write_weights(path, self.policy, self.best_weights, self._card(epoch, found, by))

    def _restore(self) -> None:
        document = newest_checkpoint(self.folder)
        if document is None:
            return
        training = document["training"]
        self.epoch = training["epoch"]
        for policy in (self.policy, self.settled):
            policy.load_state_dict(document["weights"])
        self.evaluation, self.best = dict(training["evaluation"]), dict(training["best"])
        self.imitated, self.best_weights = dict(training["imitated"]), dict(training["best_weights"])
        self.num_steps, self.clock = training["num_steps"], Clock(training["elapsed_s"] + self.clock.elapsed_s)
        if "distiller" in training and self.epoch < self.config.num_epochs:
            self.distiller = Distiller(self.config, self.policy, self.teachers, self.world)
            self.distiller.load_state_dict(training["distiller"])
        if "tuner" in training:
            self.tuner = self._tuner()
            self.tuner.load_state_dict(training["tuner"])
        if self.best:  # a session that was killed may have found a better one, of an epoch that is now to come
            self._write_best(self.folder.checkpoints.best, self._best_by)

    def _save(self) -> None:
        """Write the student of the last whole epoch, and how far training has come since."""
        if not self.folder.writes:
            return
        training: dict[str, Any] = {
            "epoch": self.epoch,
            "best_return": self.best.get("mean_return", -math.inf),
            "evaluation": self.evaluation,
            "best": self.best,
            "best_weights": self.best_weights,
            "imitated": self.imitated,
            "num_steps": self.num_steps,
            "elapsed_s": self.clock.elapsed_s,
        }
        if self.distiller is not None:
            training["distiller"] = self.distiller.state_dict()
        if self.tuner is not None:
            training["tuner"] = self.tuner.state_dict()
        card = self._card(self.epoch, self.evaluation)
        path = self.folder.checkpoints.write(self.epoch, self.settled, card, training)
        self.folder.log(f"epoch {self.epoch}: wrote {path.name}")

    def _write_final(self) -> None:
        final = self.folder.path / FINAL
        if self.folder.writes and not final.exists():
            write_weights(final, self.policy, self.policy.state_dict(), self._card(self.epoch, self.evaluation))

    def _card(self, epoch: int, found: dict[str, float], by: str = "validation") -> dict[str, Any]:
        config = self.config
        tuning = f", then through the simulator's gradient, {config.fine_tune.num_updates} updates"
        training = (
            f"distilled from {len(self.teachers)} teachers, epoch {epoch} of {self.num_epochs}: "
            f"imitation in {config.num_epochs}{tuning if config.fine_tune.num_updates else ''}"
        )
        return card_of(self.policy, JOB, config, training, found, by)

    def _tell(self, stage: Stage | None = None, share: float = 0.0) -> None:
        if self.progress is None:
            return
        rate, done = self.clock.updates_per_s, self.epoch + share
        imitating = self.epoch < self.config.num_epochs
        end = self.config.num_epochs if imitating else self.num_epochs
        loss = self.values.get("training/loss", self.values.get("fine_tuning/loss"))
        self.progress(
            Progress(
                stage=stage or ("imitating" if imitating else "fine-tuning"),
                update=self.epoch,
                num_updates=self.num_epochs,
                elapsed_s=self.clock.elapsed_s,
                updates_per_s=rate,
                env_steps_per_s=rate * self.values.get("data_collection/num_steps", math.nan),
                remaining_s=(end - done) / rate if rate else math.nan,
                values={} if loss is None else {"loss": loss},
                validation={"return": self.evaluation["mean_return"]} if self.evaluation else {},
                best_return=self.best.get("mean_return"),
                unit="epoch",
            )
        )

    def _summarise(self) -> PostTrainSummary:
        summary = PostTrainSummary(
            output=self.folder.path,
            finished=self.epoch >= self.num_epochs,
            num_teachers=len(self.teachers),
            dropped=self.dropped,
            teacher_return=sum(record["return"] for record in self.teachers.records) / len(self.teachers),
            num_epochs=self.epoch,
            wall_clock_s=self.clock.elapsed_s,
            num_steps=self.num_steps,
            evaluation=self.evaluation,
            best_by=self._best_by,
            best=self.best,
            imitated=self.imitated,
        )
        write_summary(self.folder, dataclasses.asdict(summary), self.config.device)
        return summary
