"""One session of a post-training: imitation, then training through the simulator's gradient, epoch by epoch."""

from __future__ import annotations

import copy
import dataclasses
import importlib.metadata
import json
import math
import warnings
from pathlib import Path
from typing import Any

import torch

from raptor.atomic import write_atomically
from raptor.config import to_dict
from raptor.nn.checkpoint import StudentPolicy, save_policy
from raptor.nn.teachers import TeacherPopulation
from raptor.quadrotor.sampling import sample_quadrotors
from raptor.rl.student_flights import StudentParameters, StudentTest
from raptor.training.direct import TRAINING_SEEDS, VALIDATION_SEED, calm, validation_task
from raptor.training.distillation import Distiller, first_student, weights_of
from raptor.training.fine_tuning import FineTuner
from raptor.training.host import host
from raptor.training.post_training_config import PostTrainConfig
from raptor.training.progress import Clock, Progress, ProgressFunction, Stage, StopRequest
from raptor.training.run import RunFolder

JOB = PostTrainConfig.JOB
BEST, FINAL, IMITATED = "best_student.pt", "final_student.pt", "imitated_student.pt"
VIDEOS, TEACHERS = "videos", "params/teachers.json"
OWN = (FINAL, IMITATED, f"{VIDEOS}/epoch_*.gif", TEACHERS)
"""What a post-training writes besides what every run does."""

NUM_FILMED = 4


@dataclasses.dataclass(frozen=True)
class PostTrainSummary:
    """What came of a post-training."""

    output: Path
    finished: bool  # False where it was asked to stop
    num_teachers: int
    dropped: tuple[str, ...]  # weak teachers that took no part
    teacher_return: float  # mean of the teachers, in their test
    num_epochs: int  # of imitation and of fine-tuning
    wall_clock_s: float  # of all sessions, compilation included
    num_steps: float  # of flight, in imitation
    evaluation: dict[str, float]  # of the last student
    best: dict[str, float]  # epoch and evaluation of the best student
    imitated: dict[str, float]  # the same of the best student before fine-tuning; empty before imitation ended


class PostTrainRun:
    """One session of a post-training.

    Args:
        folder: of the run, open.
        config: the settings.
        teachers: those that take part, tested.
        dropped: names of those that do not.
        progress: called after each epoch, and around what takes long.
    """

    def __init__(
        self,
        folder: RunFolder,
        config: PostTrainConfig,
        teachers: TeacherPopulation,
        dropped: tuple[str, ...],
        progress: ProgressFunction | None,
    ) -> None:
        self.folder, self.config, self.teachers, self.dropped = folder, config, teachers, dropped
        self.progress = progress
        self.clock = Clock()
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
        vehicles = sample_quadrotors(config.num_validation, seed=VALIDATION_SEED, device=config.device)
        task = dataclasses.replace(validation_task(config.flown_task), episode_steps=config.validation_steps)
        self._test = StudentTest(task, vehicles, VALIDATION_SEED, config.compile)
        self._film = StudentTest(task, vehicles[:NUM_FILMED], VALIDATION_SEED, config.compile, NUM_FILMED)

    @property
    def num_epochs(self) -> int:
        """Of imitation and of fine-tuning together."""
        tuning = self.config.fine_tune
        return self.config.num_epochs + math.ceil(tuning.num_updates / tuning.updates_per_epoch)

    def run(self, stop: StopRequest) -> PostTrainSummary:
        """Go on until the last epoch, or until someone asks to stop."""
        config, folder = self.config, self.folder
        self._restore()
        folder.record_from(self.epoch)
        folder.log(", ".join(f"{name} {fact}" for name, fact in host(config.device).items()))
        folder.log(f"begins after epoch {self.epoch} of {self.num_epochs}")
        self._tell("compiling" if config.compile and self.epoch < self.num_epochs else self._stage)
        saved = self.epoch
        while self.epoch < self.num_epochs and not stop.made:
            if not self._advance(stop):
                saved = -1
                break
            self.clock.tick()
            last = self.epoch in (config.num_epochs, self.num_epochs)
            if last or self.epoch % config.validation_interval == 0 or self.epoch > config.num_epochs:
                self._evaluate()
            self.folder.record(self.epoch, {**self.values, **self._rates()})
            self._tell(self._stage)
            if config.video_interval and (last or self.epoch % config.video_interval == 0):
                self._make_video()
            if last or self.epoch % config.checkpoint_interval == 0:
                self._save()
                saved = self.epoch
        if saved != self.epoch:
            self._save()
        if self.epoch == self.num_epochs:
            self._write_final()
        return self._summarise()

    def _advance(self, stop: StopRequest) -> bool:
        """One epoch; False where it was not finished because someone asked to stop."""
        try:
            if self.epoch < self.config.num_epochs:
                self.values = self._imitate()
            else:
                values = self._fine_tune(stop)
                if values is None:
                    return False
                self.values = values
        except Exception as error:
            if stop.made:  # Ctrl-C reaches the compiler too, and the compiler does not survive it
                raise KeyboardInterrupt from error
            raise
        self.epoch += 1
        self.settled.load_state_dict(self.policy.state_dict())
        return True

    def _imitate(self) -> dict[str, float]:
        if self.distiller is None:
            self.distiller = Distiller(self.config, self.policy, self.teachers)
        values = self.distiller.epoch()
        self.num_steps += values["data_collection/num_steps"]
        flew = self.epoch >= self.config.epoch_teacher_forcing
        if self.config.best_by == "data_collection" and flew:
            names = (("mean_return", "mean_return"), ("std_return", "std_return"), ("mean_length", "mean_length"))
            found = {mine: values[f"data_collection/{its}"] for mine, its in names}
            found["share_terminated"] = values["data_collection/share_terminated"]
            self._keep_if_better(self.epoch, found, self.distiller.flown)
        return values

    def _fine_tune(self, stop: StopRequest) -> dict[str, float] | None:
        tuning = self.config.fine_tune
        if self.tuner is None:
            self._begin_fine_tuning()
        assert self.tuner is not None
        end = min((self.epoch - self.config.num_epochs + 1) * tuning.updates_per_epoch, tuning.num_updates)
        values: dict[str, float] = {}
        while self.tuner.update_count < end:
            if stop.made:
                return None
            values = self.tuner.update()
            self._tell("fine-tuning", 1 - (end - self.tuner.update_count) / tuning.updates_per_epoch)
        return {f"fine_tuning/{name}": value for name, value in values.items()}

    def _begin_fine_tuning(self) -> None:
        """From the best student of imitation, or where there was none as training through the gradient begins."""
        if not self.config.num_epochs:
            calm(self.policy)
        if self.best_weights:
            self.policy.load_state_dict(self.best_weights)
        if self.best and self.config.best_by == "data_collection":  # which compares with no evaluation
            self.imitated = self.best = {**self.best, **self._fly(weights_of(self.policy))}
        if self.imitated:
            card = self._card(int(self.imitated["epoch"]), self.imitated)
            save_policy(self.policy, self.folder.path / IMITATED, card)
        self.distiller = None
        self.tuner = self._tuner()
        self.clock = Clock(self.clock.elapsed_s)

    def _tuner(self) -> FineTuner:
        config = self.config
        task = dataclasses.replace(config.fine_tune.task, target_visible=config.target_visible)
        tuning = dataclasses.replace(config.fine_tune, task=task)
        take_part = self.teachers if config.num_epochs else None
        return FineTuner(tuning, self.policy, take_part, config.seed, config.device, config.compile)

    def _evaluate(self) -> None:
        """Fly the validation vehicles, which no teacher was trained on."""
        self.evaluation = self._fly(weights_of(self.policy))
        self.values = {**self.values, **{f"evaluation/{name}": value for name, value in self.evaluation.items()}}
        told = ", ".join(f"{name} {value:.5g}" for name, value in self.evaluation.items())
        self.folder.log(f"epoch {self.epoch}: evaluation {told}")
        if self.config.best_by == "validation" or self.epoch > self.config.num_epochs:
            self._keep_if_better(self.epoch, self.evaluation, weights_of(self.policy))
        if self.epoch == self.config.num_epochs:
            self.imitated = self.best

    def _fly(self, weights: StudentParameters) -> dict[str, float]:
        self._tell("validating")
        flights = self._test(weights)
        return {
            "mean_return": flights.returns.mean().item(),
            "std_return": flights.returns.std(correction=0).item(),
            "mean_length": flights.lengths.mean().item(),
            "share_terminated": flights.terminated.float().mean().item(),
        }

    def _keep_if_better(self, epoch: int, found: dict[str, float], weights: StudentParameters) -> None:
        if not (math.isfinite(found["mean_return"]) and found["mean_return"] > self.best.get("mean_return", -math.inf)):
            return
        self.best = {"epoch": float(epoch), **found}
        best = first_student(self.config.student, 0)
        with torch.no_grad():
            for mine, given in zip(best.tensors(), weights, strict=True):
                mine.copy_(given)
        self.best_weights = {name: tensor.clone() for name, tensor in best.state_dict().items()}
        self._write_best()

    def _write_best(self) -> None:
        best = first_student(self.config.student, 0)
        best.load_state_dict(self.best_weights)
        save_policy(best, self.folder.checkpoints.best, self._card(int(self.best["epoch"]), self.best))

    def _make_video(self) -> None:
        from raptor.filming import film

        track = self._film(weights_of(self.policy)).track
        assert track is not None
        path = self.folder.path / VIDEOS / f"epoch_{self.epoch:06d}.gif"
        film(path, track.position, track.orientation, track.target, self.config.task.dt, flying=track.flying)

    def _restore(self) -> None:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = self.folder.checkpoints.newest()
        for warning in caught:
            self.folder.log(f"warning: {warning.message}")
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
        if found is None:
            return
        path, document = found
        training = document["training"]
        self.epoch = training["epoch"]
        for policy in (self.policy, self.settled):
            policy.load_state_dict(document["weights"])
        self.evaluation, self.best = dict(training["evaluation"]), dict(training["best"])
        self.imitated, self.best_weights = dict(training["imitated"]), dict(training["best_weights"])
        self.num_steps, self.clock = training["num_steps"], Clock(training["elapsed_s"])
        if "distiller" in training and self.epoch < self.config.num_epochs:
            self.distiller = Distiller(self.config, self.policy, self.teachers)
            self.distiller.load_state_dict(training["distiller"])
        if "tuner" in training:
            self.tuner = self._tuner()
            self.tuner.load_state_dict(training["tuner"])
        if self.best and not self.folder.checkpoints.best.exists():
            self._write_best()
        self.folder.log(f"going on from {path.name}")

    def _save(self) -> None:
        """Write the student of the last whole epoch, and how far training has come since."""
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
        if not final.exists():
            save_policy(self.policy, final, self._card(self.epoch, self.evaluation))

    def _card(self, epoch: int, evaluation: dict[str, float]) -> dict[str, Any]:
        config = self.config
        tuning = f", then through the simulator's gradient, {config.fine_tune.num_updates} updates"
        return {
            "what": self.policy.summary,
            "training": f"distilled from {len(self.teachers)} teachers, epoch {epoch} of {self.num_epochs}: "
            f"imitation in {config.num_epochs}{tuning if config.fine_tune.num_updates else ''}",
            "command": f"raptor {JOB} with the settings below",
            "results": {f"validation {name}": value for name, value in evaluation.items()} or "not validated",
            "licence": "MIT",
            "raptor-python": importlib.metadata.version("raptor-python"),
            "settings": to_dict(config),
        }

    def _rates(self) -> dict[str, float]:
        return {"speed/elapsed_s": self.clock.elapsed_s, "speed/epochs_per_s": self.clock.updates_per_s}

    @property
    def _stage(self) -> Stage:
        return "imitating" if self.epoch < self.config.num_epochs else "fine-tuning"

    def _tell(self, stage: Stage, share: float = 0.0) -> None:
        if self.progress is None:
            return
        rate, done = self.clock.updates_per_s, self.epoch + share
        end = self.config.num_epochs if self.epoch < self.config.num_epochs else self.num_epochs
        loss = self.values.get("training/loss", self.values.get("fine_tuning/loss"))
        self.progress(
            Progress(
                stage=stage,
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
            best=self.best,
            imitated=self.imitated,
        )
        document = {**dataclasses.asdict(summary), "output": str(summary.output), "host": host(self.config.device)}
        write_atomically(self.folder.summary, f"{json.dumps(document, indent=2)}\n")
        self.folder.log(f"{'finished' if summary.finished else 'stopped'} after {summary.wall_clock_s:.1f} s")
        return summary
