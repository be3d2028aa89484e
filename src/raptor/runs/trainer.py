"""The one training loop: steps, validations, records, checkpoints, in sessions that may end anywhere.

A learner knows how to take a step and how good it is; the trainer owns everything else. Learning in phases (imitation,
then fine-tuning) is several learners in a row, each of which begins with the best policy of the one before.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from raptor.core.devices import gpu_use, host
from raptor.core.distributed import ALONE, World
from raptor.core.errors import UserError
from raptor.runs.callbacks import Callbacks
from raptor.runs.learner import Best, Figures, Learner, TrainingFiles, Weights
from raptor.runs.progress import Clock, Progress
from raptor.runs.stopping import Abandoned, StopRequest, interruptible


@dataclasses.dataclass(frozen=True)
class Phase:
    """One learner's part of a training."""

    name: str  # the stage that is shown
    num_steps: int
    begin: Callable[[], Learner]  # called when its turn comes
    validation_interval: int = 1  # steps between two validations, the last one being validated too; 0: never
    checkpoint_interval: int | None = None  # steps between two checkpoints, the last one writing one too
    checkpoint_interval_s: float | None = None  # seconds between two checkpoints
    best_by: str = "validation"  # what the figures of the best policy are of
    revalidates: bool = False  # whether the figures of the phase before are of other episodes than its own
    cheap_state: bool = True  # whether the state is small enough to be copied before each step


@dataclasses.dataclass
class Trainer:
    """Takes learners to their last step; iterating yields a `Progress` after each step and around what takes long.

    A session that ends, is stopped or killed anywhere and is resumed comes to the same bits as one that was not,
    on the same machine with as many threads.
    """

    phases: Sequence[Phase]  # one after the other
    files: TrainingFiles  # where it is recorded, and its state is kept
    stop: Callable[[], bool]  # whether a stop was requested; a `StopRequest` also gives up what takes too long
    _: dataclasses.KW_ONLY
    unit: str = "update"  # what a step is
    clock: Clock = dataclasses.field(default_factory=Clock)  # that has run since the session began
    device: str = "cpu"  # for the figures of a GPU
    compiles: bool = False  # whether the first step is preceded by a compilation
    world: World = ALONE  # the processes that share the work
    callbacks: Callbacks = dataclasses.field(default_factory=Callbacks)  # called by the main process

    def __post_init__(self) -> None:
        self.num_steps = sum(phase.num_steps for phase in self.phases)
        self._begin(0)
        self.values: dict[str, float] = {}  # of the last step
        self.validation: dict[str, float] = {}
        self.validated_at = 0
        self.best: Best | None = None
        self.milestones: list[dict[str, float]] = []  # the best of each phase that is over
        self._flown_before = 0.0  # steps of simulation in the phases that are over
        self.begun_at = 0  # the step that this session goes on from
        self._is_updating = False
        self._snapshot: dict[str, Any] | None = None  # the state before a step that may be given up
        self._saved: tuple[float, int] | None = None
        self._saved_at = time.perf_counter()

    def _begin(self, place: int) -> None:
        """Begin the phase at a place."""
        self.place, self.phase = place, self.phases[place]
        self._steps_before = sum(phase.num_steps for phase in self.phases[:place])
        self.learner: Learner = self.phase.begin()

    @property
    def step(self) -> int:
        """Whole steps of all phases so far."""
        return self._steps_before + self.learner.step_count

    @property
    def done(self) -> float:
        """Steps so far, with the part of the next one that is done."""
        return self.step + getattr(self.learner, "fraction", 0.0)

    @property
    def env_steps(self) -> float:
        """Steps of simulation so far."""
        return self._flown_before + self.learner.env_steps

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        return self.step >= self.num_steps and not self._validation_is_due()

    @property
    def best_figures(self) -> dict[str, float]:
        """Step and figures of the best policy; empty where there is none."""
        return {} if self.best is None else {self.unit: float(self.best.step), **self.best.figures}

    def __iter__(self) -> Iterator[Progress]:
        """Go on until the last step or a request to stop."""
        self._restore()
        self.begun_at = self.step
        self.files.record_from(self.step, self.validated_at == self.step)
        self.files.log(", ".join(f"{name} {fact}" for name, fact in host(self.device).items()))
        if self.world.size > 1:
            self.files.log(f"shared by {self.world.size} processes")
        self.files.log(f"begins after {self.unit} {self.step} of {self.num_steps}")
        self._saved = self._mark()
        yield self._progress("compiling" if self.compiles and self.step < self.num_steps else None)
        try:
            yield from self._steps()
        except Abandoned:
            self._log("stopped in the middle of a step or a validation, whose work is discarded")
            if self._is_updating:
                if self._snapshot is None:
                    return  # what is left of the state is of no use: the last checkpoint stands
                self._load(self._snapshot)
        if self._saved != self._mark():
            self._save()

    def _steps(self) -> Iterator[Progress]:
        while True:
            if self._validation_is_due() and not self._is_to_stop():
                yield self._progress("validating")
                self._validate()
                yield self._progress()
            if self._checkpoint_is_due():
                self._save()
            if self.step >= self.num_steps or self._is_to_stop():
                return
            if self._ends_phase():
                self._begin_next_phase()
            if self._update():
                self.call("on_update")
            yield self._progress()

    def _is_to_stop(self) -> bool:
        return self.world.any_rank(self.stop() or self.callbacks.asks_to_stop)

    def call(self, event: str, **facts: Any) -> None:
        """Call the callbacks."""
        if self.world.is_main_process:
            self.callbacks.call(event, self._progress(), env_steps=self.env_steps, learner=self.learner, **facts)

    def _progress(self, stage: str | None = None) -> Progress:
        rate, end = self.clock.rate, self._steps_before + self.phase.num_steps
        return Progress(
            stage=stage or self.phase.name,
            step=self.step,
            num_steps=self.num_steps,
            unit=self.unit,
            elapsed_s=self.clock.elapsed_s,
            rate=rate,
            env_steps_per_s=self.clock.env_steps_per_s,
            remaining_s=(end - self.done) / rate if rate else math.nan,
            values={name.rsplit("/", 1)[-1]: value for name, value in self.values.items()},
            validation=self.validation,
            best_return=None if self.best is None else self.best.figures["mean_return"],
        )

    def _log(self, message: str) -> None:
        self.files.log(f"{self.unit} {self.step}: {message}")

    def _ends_phase(self) -> bool:
        return self.learner.step_count >= self.phase.num_steps

    def _is_due(self, interval: int) -> bool:
        """Whether what is done at intervals, and at the end of a phase, is to be done after this step."""
        return self.done == self.step and (self.learner.step_count % interval == 0 or self._ends_phase())

    def _validation_is_due(self) -> bool:
        interval, step = self.phase.validation_interval, self.learner.step_count
        return interval > 0 and step > 0 and self.validated_at != self.step and self._is_due(interval)

    def _checkpoint_is_due(self) -> bool:
        interval_s = self.phase.checkpoint_interval_s
        if self._saved == self._mark():
            return False
        if interval_s is not None:
            return time.perf_counter() - self._saved_at > interval_s
        return self._is_due(self.phase.checkpoint_interval or 1)

    def _mark(self) -> tuple[float, int]:
        """What a checkpoint would hold: the steps so far, and the one that was validated last."""
        return self.done, self.validated_at

    def _update(self) -> bool:
        """One update; whether it completed a step."""
        if self.phase.cheap_state and isinstance(self.stop, StopRequest):
            self._snapshot = copy.deepcopy(self._state())
        self._is_updating = True
        with interruptible(self.stop):
            values = self.learner.update()
        self._is_updating, self._snapshot = False, None
        self.clock.tick(self.done, self.learner.env_steps)
        for note in self.learner.notes:
            self._log(note)
        self.learner.notes.clear()
        if values is None:
            return False
        self.values = dict(values)
        speed = {
            "speed/elapsed_s": self.clock.elapsed_s,
            f"speed/{self.unit}s_per_s": self.clock.rate,
            "speed/env_steps_per_s": self.clock.env_steps_per_s,
        }
        self.files.record(self.step, {**self.values, **speed, **gpu_use(self.device)})
        if self.learner.rated is not None:
            self._keep_if_better(self.step - 1, *self.learner.rated, self.phase.best_by)
        return True

    def _validate(self) -> None:
        with interruptible(self.stop):
            self.validation = dict(self.learner.validate())
        self.validated_at = self.step
        self.files.record(self.step, {f"evaluation/{name}": value for name, value in self.validation.items()})
        figures = ", ".join(f"{name} {value:.5g}" for name, value in self.validation.items())
        self._log(f"evaluation {figures}")
        if self.phase.best_by == "validation" and self.learner.policy is not None:
            self._keep_if_better(self.step, self.validation, self.learner.policy.state_dict(), "validation")
        self.call("on_validation")

    def _keep_if_better(self, step: int, figures: Figures, weights: Weights, by: str) -> None:
        found = figures["mean_return"]
        if math.isfinite(found) and (self.best is None or found > self.best.figures["mean_return"]):
            copies = {name: tensor.detach().cpu().clone() for name, tensor in weights.items()}
            self.best = Best(step, dict(figures), copies, by)
            self.files.write_best(self.best, milestone=False)

    def _begin_next_phase(self) -> None:
        """Let the next learner begin with the best policy so far, rated by the validation of its phase."""
        if self.best is not None:
            self.learner.policy.load_state_dict(self.best.weights)
        self._flown_before = self.env_steps
        self._begin(self.place + 1)
        if self.best is not None:
            if self.phase.revalidates:
                self.best = dataclasses.replace(self.best, figures=dict(self.learner.validate()), by="validation")
            self.milestones.append(self.best_figures)
            self.files.write_best(self.best, milestone=True)
            self.files.write_best(self.best, milestone=False)
        self.clock.restart_rates()

    def _state(self) -> dict[str, Any]:
        return {
            self.unit: self.step,
            "phase": self.place,
            "learner": self.learner.state_dict(),
            "validation": self.validation,
            "validated_at": self.validated_at,
            "best": None if self.best is None else dataclasses.asdict(self.best),
            "best_return": -math.inf if self.best is None else self.best.figures["mean_return"],
            "milestones": self.milestones,
            "flown_before": self._flown_before,
            "elapsed_s": self.clock.elapsed_s,
        }

    def _save(self) -> None:
        name = self.files.write(math.ceil(self.done), self._state())  # one within a step is replaced at its end
        self._log(f"wrote {name.rsplit('/', 1)[-1]}")
        self._saved, self._saved_at = self._mark(), time.perf_counter()
        self.call("on_checkpoint", path=self.callbacks.folder / name)

    def _restore(self) -> None:
        """Go on from the newest checkpoint whose content fits; those that do not are passed over with a warning."""
        for name, training in self.files.newest_first():
            try:
                self._load(training)
            except (UserError, MemoryError):
                raise
            except Exception as error:  # whatever a state of another structure makes the learner raise
                self.files.pass_over(name, f"it holds no state of this job ({type(error).__name__}: {error})")
                self._begin(0)
                continue
            self.files.log(f"going on from {name.rsplit('/', 1)[-1]}")
            if self.best is not None:  # a session that was killed may have found a better one, which is yet to come
                self.files.write_best(self.best, milestone=False)
            return

    def _load(self, training: Mapping[str, Any]) -> None:
        best, place = training["best"], int(training["phase"])
        if place != self.place:
            self._begin(place)
        self.learner.load_state_dict(training["learner"])
        self.validation, self.validated_at = dict(training["validation"]), training["validated_at"]
        self.best = None if best is None else Best(**best)
        self.milestones = [dict(milestone) for milestone in training["milestones"]]
        self._flown_before = training["flown_before"]
        self.clock = Clock(training["elapsed_s"] + self.clock.elapsed_s)
