"""What each job does in a pipeline: its stage's keys handed to the function that its command calls, too."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from raptor.evaluation import Evaluation, evaluate
from raptor.evaluation.report import write_report
from raptor.export import export_policy
from raptor.formats import load_policy
from raptor.quadrotor import sample_quadrotors
from raptor.quadrotor.population import write_population
from raptor.runs import read_curve
from raptor.runs.folder import read_settings
from raptor.training import train_direct
from raptor.training.distillation.job import post_train
from raptor.training.teachers.job import pre_train

EVALUATION_FILE, REPORT_FILE = "evaluation.json", "report.html"


@dataclasses.dataclass(frozen=True)
class Work:
    """What a job needs to know of its stage."""

    folder: Path  # of the stage
    keys: Any  # of the stage, see `raptor.lab.pipeline.stages`
    sources: Mapping[str, tuple[str | Path, ...]]  # by key: what it names, where it is
    policies: Mapping[str, str | Path]  # by short name, those that the key of that name names
    overwrite: bool  # replace what an earlier run left; else go on with it
    progress: Callable[..., None]  # called as the job calls its own
    announce: Callable[[str], None]

    def source(self, key: str) -> str | Path | None:
        """Where the only thing is that a key names."""
        return next(iter(self.sources.get(key, ())), None)

    @property
    def training(self) -> dict[str, Any]:
        """What every training is told."""
        return {"resume": not self.overwrite, "overwrite": self.overwrite, "progress": self.progress}

    def loaded(self, device: str) -> dict[str, Any]:
        """The policies by short name."""
        return {name: load_policy(source, device) for name, source in self.policies.items()}


class Outcome(NamedTuple):
    """What came of a stage."""

    finished: bool  # False where it was asked to stop
    sentence: str


def run_sample(work: Work) -> Outcome:
    """Draw quadrotors."""
    keys = work.keys
    quadrotors = sample_quadrotors(keys.num, keys.seed, distribution=keys.settings)
    write_population(quadrotors, work.folder, True, keys.seed, keys.settings, work.progress)
    return Outcome(True, f"{keys.num} quadrotors")


def run_pre_train(work: Work) -> Outcome:
    """Train teachers."""
    keys = work.keys
    found = pre_train(
        work.folder,
        work.source("quadrotors"),
        keys.settings,
        keys.generate,
        keys.num_teachers,
        announce=work.announce,
        **work.training,
    )
    sentence = f"{found.num_solved} of {found.num_teachers} teachers solved, mean return {found.mean_return:.1f}"
    return Outcome(found.finished, sentence)


def run_post_train(work: Work) -> Outcome:
    """Distil a student."""
    teachers, settings = work.sources["teachers"], work.keys.settings
    found = post_train(work.folder, teachers, settings, announce=work.announce, **work.training)
    best = f", best validation return {found.best['mean_return']:.1f}" if found.best else ""
    return Outcome(found.finished, f"{found.num_steps} epochs of {found.num_teachers} teachers{best}")


def run_train_direct(work: Work) -> Outcome:
    """Train through the simulator alone."""
    config, source = work.keys.settings, work.source("initial_policy")
    if source is not None:
        place = str(source.resolve() if isinstance(source, Path) else source)
        config = dataclasses.replace(config, initial_policy=place)
    found = train_direct(work.folder, config, **work.training)
    best = f", best validation return {found.best['mean_return']:.1f}" if found.best else ""
    return Outcome(found.finished, f"{found.num_steps} updates{best}")


def run_evaluate(work: Work) -> Outcome:
    """Measure policies."""
    keys = work.keys
    evaluation = evaluate(
        work.loaded(keys.device),
        keys.suites,
        keys.num_quadrotors,
        keys.episodes,
        keys.seed,
        keys.device,
        work.progress,
        keys.compile,
    )
    evaluation.save(work.folder / EVALUATION_FILE)
    suite = keys.suites[0]
    returns = {name: suites[suite].get("return") for name, suites in evaluation.policies.items()}
    told = [f"{name} {estimate.value:.1f}" for name, estimate in returns.items() if estimate is not None]
    return Outcome(True, f"return in {suite}: {', '.join(told)}" if told else f"{len(returns)} policies")


def run_export(work: Work) -> Outcome:
    """Write a policy in another format, verified."""
    source, file = work.sources["policy"][0], exported_file(work.keys)
    error = export_policy(load_policy(source), work.folder / file, work.keys.format)
    return Outcome(True, f"{file} differs from the policy by at most {error:.1e}")


def run_report(work: Work) -> Outcome:
    """Write a page about an evaluation."""
    keys, trained = work.keys, work.source("training")
    source = work.source("evaluation")
    assert source is not None
    evaluation = Evaluation.load(source)
    write_report(
        work.folder / REPORT_FILE,
        title=keys.title or f"A policy for any quadrotor: {work.folder.resolve().parent.name}",
        settings={} if trained is None else read_settings(trained),
        curve={} if trained is None else read_curve(trained),
        evaluation=evaluation,
        policies=work.loaded(evaluation.settings.get("device", "cpu")),
        seed=keys.seed,
        progress=work.progress,
        compile=keys.compile,
    )
    return Outcome(True, str(work.folder / REPORT_FILE))


def exported_file(keys: Any) -> str:
    """What an export is called."""
    return f"policy.{keys.format}"
