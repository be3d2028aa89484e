"""One session of a distillation in an environment from elsewhere."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import torch

from raptor.core.errors import UserError
from raptor.core.host import host
from raptor.environments.vec_env import CheckedVecEnv
from raptor.runs.folder import RunFolder
from raptor.runs.progress import Clock, Progress, ProgressFunction, Stage, StopRequest
from raptor.training.direct.session import card_of, newest_checkpoint, stoppable, write_summary, write_weights
from raptor.training.distillation.env_config import EnvDistillConfig
from raptor.training.distillation.env_learner import EnvDistiller, first_student
from raptor.training.distillation.env_teacher import EnvTeacher

JOB = EnvDistillConfig.JOB
BEST, FINAL, VIDEOS, ENVIRONMENT = "best_student.pt", "final_student.pt", "videos", "params/env.yaml"
OWN = (FINAL, f"{VIDEOS}/step_*", ENVIRONMENT)
"""What a distillation writes besides what every run does."""


@dataclasses.dataclass(frozen=True)
class EnvDistillSummary:
    """What came of a distillation."""

    output: Path
    finished: bool  # False where it was asked to stop
    num_epochs: int
    wall_clock_s: float  # of all sessions
    num_steps: float  # of flights that were trained on
    repeatable: bool  # whether the environment can be set back to a seed, so that a resumed run is as one in one go
    teacher: dict[str, float]  # figures of the teacher, in the episodes of the evaluations
    evaluation: dict[str, float]  # of the last student
    best: dict[str, float]  # epoch and figures of the best student


class EnvDistillRun:
    """One session of a distillation.

    Args:
        folder: of the run, open.
        config: the settings.
        env: where teacher and student fly.
        teacher: that fits it.
        progress: called after each epoch, and around what takes long.
    """

    def __init__(
        self,
        folder: RunFolder,
        config: EnvDistillConfig,
        env: CheckedVecEnv,
        teacher: EnvTeacher,
        progress: ProgressFunction | None,
    ) -> None:
        self.folder, self.config, self.env, self.teacher, self.progress = folder, config, env, teacher, progress
        self.clock = Clock()
        student = first_student(config, env.widths[config.student_group], env.num_actions)
        self.distiller = EnvDistiller(config, student, env, teacher)
        self.policy = self.distiller.policy
        self.values: dict[str, float] = {}
        self.teacher_figures: dict[str, float] = {}
        self.evaluation: dict[str, float] = {}
        self.best: dict[str, float] = {}
        self.best_weights: dict[str, torch.Tensor] = {}
        self.num_steps = 0.0

    @property
    def epoch(self) -> int:
        """Epochs so far."""
        return self.distiller.epoch_count

    def run(self, stop: StopRequest) -> EnvDistillSummary:
        """Go on until the last epoch, or until someone asks to stop."""
        config, folder = self.config, self.folder
        self._restore()
        folder.record_from(self.epoch)
        folder.log(", ".join(f"{name} {fact}" for name, fact in host(config.device).items()))
        folder.log(f"begins after epoch {self.epoch} of {config.n_epochs}")
        if not self.teacher_figures:
            self._tell("testing teachers")
            self.teacher_figures = self.distiller.evaluate(teacher=True)
            self._log("teacher", self.teacher_figures)
        self._tell()
        saved = self.epoch
        while self.epoch < config.n_epochs and not stop.made and self._advance(stop):
            self.clock.tick()
            last = self.epoch == config.n_epochs
            if last or self.epoch % config.validation_interval == 0:
                self._evaluate()
            speed = {"speed/elapsed_s": self.clock.elapsed_s, "speed/epochs_per_s": self.clock.updates_per_s}
            folder.record(self.epoch, {**self.values, **speed})
            self._tell()
            if last or self.epoch % config.checkpoint_interval == 0:
                self._save()
                saved = self.epoch
        if saved != self.epoch:
            self._save()
        if self.epoch == config.n_epochs and not (folder.path / FINAL).exists():
            card = self._card(self.epoch, self.evaluation)
            write_weights(folder.path / FINAL, self.policy, self.policy.state_dict(), card)
        return self._summarise()

    def _advance(self, stop: StopRequest) -> bool:
        """One epoch; False where it was given up because someone asked to stop."""
        with stoppable(stop):
            values = self.distiller.epoch(lambda: stop.made)
        if values is None:
            return False
        self.values = values
        self.num_steps += values["data_collection/num_steps"]
        return True

    def _evaluate(self) -> None:
        self._tell("validating")
        self.evaluation = self.distiller.evaluate()
        self.values = {**self.values, **{f"evaluation/{name}": value for name, value in self.evaluation.items()}}
        self._log(f"epoch {self.epoch}: evaluation", self.evaluation)
        found = self.evaluation["mean_return"]
        if math.isfinite(found) and found > self.best.get("mean_return", -math.inf):
            self.best = {"epoch": float(self.epoch), **self.evaluation}
            self.best_weights = {name: tensor.cpu().clone() for name, tensor in self.policy.state_dict().items()}
            self._write_best()

    def _write_best(self) -> None:
        found = {name: value for name, value in self.best.items() if name != "epoch"}
        card = self._card(int(self.best["epoch"]), found)
        write_weights(self.folder.checkpoints.best, self.policy, self.best_weights, card)

    def _restore(self) -> None:
        document = newest_checkpoint(self.folder)
        if document is None:
            return
        training = document["training"]
        if not torch.allclose(training["probe"], self.teacher.probe(), atol=1e-4, rtol=1e-4):
            raise UserError(
                f"the run in {self.folder.path} learns from another teacher: give the one that it began with"
            )
        if not self.env.seedable:
            self.folder.log("the environment cannot be set back to a seed: what it showed before is flown anew")
        self._tell("training")
        self.distiller.load_state_dict(training["distiller"])
        self.teacher_figures, self.evaluation = dict(training["teacher"]), dict(training["evaluation"])
        self.best, self.best_weights = dict(training["best"]), dict(training["best_weights"])
        self.num_steps, self.clock = training["num_steps"], Clock(training["elapsed_s"])
        if self.best:  # a session that was killed may have found a better one, of an epoch that is now to come
            self._write_best()

    def _save(self) -> None:
        training = {
            "distiller": self.distiller.state_dict(),
            "probe": self.teacher.probe(),
            "teacher": self.teacher_figures,
            "evaluation": self.evaluation,
            "best": self.best,
            "best_weights": self.best_weights,
            "num_steps": self.num_steps,
            "elapsed_s": self.clock.elapsed_s,
        }
        card = self._card(self.epoch, self.evaluation)
        path = self.folder.checkpoints.write(self.epoch, self.policy, card, training)
        self.folder.log(f"epoch {self.epoch}: wrote {path.name}")

    def _card(self, epoch: int, found: dict[str, float]) -> dict[str, Any]:
        config = self.config
        where = config.task or "an environment from elsewhere"
        training = (
            f"distilled from one teacher in {where}, epoch {epoch} of {config.n_epochs}; the teacher returns "
            f"{self.teacher_figures.get('mean_return', math.nan):.5g}"
        )
        return card_of(self.policy, JOB, config, training, found, "evaluation")

    def _log(self, what: str, found: dict[str, float]) -> None:
        self.folder.log(f"{what} {', '.join(f'{name} {value:.5g}' for name, value in found.items())}")

    def _tell(self, stage: Stage = "imitating") -> None:
        if self.progress is None:
            return
        rate = self.clock.updates_per_s
        loss = self.values.get("training/loss")
        self.progress(
            Progress(
                stage=stage,
                update=self.epoch,
                num_updates=self.config.n_epochs,
                elapsed_s=self.clock.elapsed_s,
                updates_per_s=rate,
                env_steps_per_s=rate * self.values.get("data_collection/num_steps", math.nan),
                remaining_s=(self.config.n_epochs - self.epoch) / rate if rate else math.nan,
                values={} if loss is None else {"loss": loss},
                validation={"return": self.evaluation["mean_return"]} if self.evaluation else {},
                best_return=self.best.get("mean_return"),
                unit="epoch",
            )
        )

    def _summarise(self) -> EnvDistillSummary:
        summary = EnvDistillSummary(
            output=self.folder.path,
            finished=self.epoch >= self.config.n_epochs,
            num_epochs=self.epoch,
            wall_clock_s=self.clock.elapsed_s,
            num_steps=self.num_steps,
            repeatable=self.env.seedable,
            teacher=self.teacher_figures,
            evaluation=self.evaluation,
            best=self.best,
        )
        write_summary(self.folder, dataclasses.asdict(summary), self.config.device)
        return summary
