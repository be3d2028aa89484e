"""Post-training as a whole: what it leaves, what it refuses, and that no interruption changes the result."""

from __future__ import annotations

import dataclasses
import errno
import json
import math
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import short_distillation
import torch
from short_distillation import few_teachers, tiny
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils import _pytree as pytree

from raptor.config import load_config
from raptor.core.errors import UserError
from raptor.formats import load_policy, read_checkpoint, save_teachers
from raptor.nn import MLPPolicy, RaptorPolicy
from raptor.nn.teachers import TeacherPopulation
from raptor.rl.imitation import Imitation
from raptor.runs.folder import RunFolder, read_manifest
from raptor.runs.job import PolicyFiles
from raptor.runs.progress import Progress, read_curve
from raptor.training.direct.config import GradientConfig, TrainDirectConfig
from raptor.training.direct.job import LAYOUT as DIRECT
from raptor.training.direct.job import first_policy, make_learner
from raptor.training.direct.learner import GradientLearner
from raptor.training.distillation import job as post_training
from raptor.training.distillation import teachers as selection
from raptor.training.distillation.job import PostTrainConfig, load_post_train_config, make_plan, post_train
from raptor.training.validation import Validation

EVALUATION = {f"evaluation/{name}" for name in ("mean_return", "std_return", "mean_length", "termination_rate")}
OFF_POLICY = ("on_policy=false", "num_active_teachers=2", "student.kind=mlp", "best_by=data_collection")
IMITATION = "fine_tune.num_updates=0"
GRADIENT = "num_epochs=0"


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "TEST_TASK", short_distillation.TEST_TASK)


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three."""
    folder = tmp_path_factory.mktemp("teachers")
    save_teachers(few_teachers(), folder)
    return folder


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory, teachers: Path) -> Callable[..., Path]:
    """The folder of a run that nothing interrupted, by its settings."""
    made: dict[tuple[str, ...], Path] = {}

    def folder(*overrides: str) -> Path:
        if overrides not in made:
            made[overrides] = tmp_path_factory.mktemp("straight") / "run"
            with pytest.MonkeyPatch.context() as patched:
                patched.setattr(selection, "TEST_TASK", short_distillation.TEST_TASK)
                post_train(made[overrides], teachers, tiny(*overrides))
        return made[overrides]

    return folder


def outcome(run: Path) -> dict[str, Any]:
    """All that must not depend on interruptions: every policy, the state of training and every recorded figure."""
    state = read_checkpoint(max(run.glob("checkpoint_epoch_*.pt")))
    del state["training"]["elapsed_s"]
    curve = {name: points for name, points in read_curve(run).items() if not name.startswith("speed/")}
    policies = [read_checkpoint(path) for path in sorted(run.glob("*_student.pt"))]
    for document in (state, *policies):
        del document["card"]["settings"]  # which tell how often a checkpoint was written
    return {"last": state, "policies": policies, "curve": curve}


def assert_same(a: Path, b: Path) -> None:
    left, structure = pytree.tree_flatten(outcome(a))
    right, other = pytree.tree_flatten(outcome(b))
    assert structure == other
    for x, y in zip(left, right, strict=True):
        assert torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y


def tree(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


def refusal(output: Path, *arguments: Any, **settings: Any) -> str:
    with pytest.raises(UserError) as error:
        post_train(output, *arguments, **settings)
    return str(error.value)


def asking_at(stage: str, call: int) -> Callable[[Progress], None]:
    """Ask to stop as Ctrl-C does, at the n-th word of a stage."""
    reported = []

    def watch(progress: Progress) -> None:
        reported.append(progress.stage)
        if progress.stage == stage and reported.count(stage) == call:
            signal.raise_signal(signal.SIGINT)

    return watch


def test_a_run_leaves_policies_checkpoints_settings_and_metrics(straight: Callable[..., Path]) -> None:
    run = straight()
    names = {name for name in tree(run) if not name.startswith("tensorboard/events.out.tfevents.")}
    checkpoints = {f"checkpoint_epoch_{epoch:06d}.pt" for epoch in range(1, 8)}
    assert names == checkpoints | {
        "best_student.pt",
        "final_student.pt",
        "imitated_student.pt",
        "run.yaml",
        "params/teachers.json",
        "train.log",
        "metrics.jsonl",
        "summary.json",
    }
    assert load_post_train_config(run) == load_config(PostTrainConfig, run) == tiny()
    assert read_manifest(run)["status"] == "finished"
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["finished"], summary["num_teachers"], summary["num_steps"]) == (True, 3, 7)
    flown = sum(value for _, value in read_curve(run)["data_collection/num_steps"])
    assert summary["env_steps"] == flown + 5 * 6 * 2  # two places for each of the three teachers
    assert summary["host"]["torch"] == torch.__version__
    log = (run / "train.log").read_text()
    assert "epoch 2: evaluation mean_return" in log
    assert "finished after" in log


def test_metrics_have_the_promised_names_also_in_tensorboard(straight: Callable[..., Path]) -> None:
    curve = read_curve(straight())
    imitation = {"data_collection/mean_return", "data_collection/std_return", "training/loss"}
    assert imitation | EVALUATION <= set(curve)
    for name in imitation:
        assert [epoch for epoch, _ in curve[name]] == [1, 2, 3, 4]
    for name in EVALUATION:
        assert [epoch for epoch, _ in curve[name]] == [2, 4, 5, 6, 7]
    assert [(epoch, round(value, 3)) for epoch, value in curve["fine_tuning/imitation"]] == [(5, 0.667), (6, 0), (7, 0)]
    assert all(math.isfinite(value) for points in curve.values() for _, value in points)
    events = EventAccumulator(str(straight() / "tensorboard")).Reload()
    for name in (*imitation, *EVALUATION):
        stored = [(event.step, event.value) for event in events.Scalars(name)]
        assert stored == [(epoch, pytest.approx(value)) for epoch, value in curve[name]]


def test_a_checkpoint_holds_epoch_model_state_of_the_optimiser_and_best_return(straight: Callable[..., Path]) -> None:
    curve = dict(read_curve(straight())["evaluation/mean_return"])
    for epoch in (3, 6):
        document = read_checkpoint(straight() / f"checkpoint_epoch_{epoch:06d}.pt")
        training = document["training"]
        assert training["epoch"] == epoch
        assert training["best_return"] == max(value for at, value in curve.items() if at <= epoch)
        weights = document["weights"]
        if epoch == 3:
            imitation = training["learner"]["imitation"]
            assert all(any(torch.equal(mine, its) for its in weights.values()) for mine in imitation["weights"])
            assert len(imitation["adam"]) > len(imitation["weights"]) > 0
        else:
            assert all(torch.equal(tensor, training["learner"]["policy"][name]) for name, tensor in weights.items())
            assert len(training["learner"]["optimizer"]["state"]) > 0


@pytest.mark.parametrize("kind", ["gru", "mlp"])
def test_the_folder_is_a_policy_with_a_card_and_gives_the_best_by_validation(
    straight: Callable[..., Path], kind: str
) -> None:
    run = straight() if kind == "gru" else straight(*OFF_POLICY)
    policy = load_policy(run)
    assert isinstance(policy, RaptorPolicy if kind == "gru" else MLPPolicy)
    assert policy.hidden_dim == 5
    summary, returns = json.loads((run / "summary.json").read_text()), read_curve(run)["evaluation/mean_return"]
    best, imitated = summary["best"], summary["imitated"]
    assert best["mean_return"] == max(imitated["mean_return"], *(value for epoch, value in returns if epoch > 4))
    if kind == "gru":
        assert imitated["mean_return"] == max(value for epoch, value in returns if epoch <= 4)
    assert policy.card["results"]["validation mean_return"] == best["mean_return"]
    assert policy.card["training"].startswith(f"distilled from 3 teachers, epoch {best['epoch']:.0f} of 7")
    weights = read_checkpoint(run / f"checkpoint_epoch_{best['epoch']:06.0f}.pt")["weights"]
    assert all(torch.equal(tensor, weights[name]) for name, tensor in policy.state_dict().items())
    final = read_checkpoint(run / "final_student.pt")["weights"]
    last = read_checkpoint(run / "checkpoint_epoch_000007.pt")["weights"]
    assert all(torch.equal(tensor, final[name]) for name, tensor in last.items())


def test_the_best_by_its_flights_is_the_student_that_flew_them(tmp_path: Path, teachers: Path) -> None:
    """That is the one before the epoch's training, which no flights of teachers count for."""
    settings = tiny("best_by=data_collection", IMITATION, "num_epochs=5")
    summary = post_train(tmp_path, teachers, settings)
    returns = dict(read_curve(tmp_path)["data_collection/mean_return"])
    of_student = {epoch: value for epoch, value in returns.items() if epoch > 2}
    flown_in = max(of_student, key=of_student.__getitem__)
    assert summary.best["mean_return"] == of_student[flown_in]
    assert summary.best["epoch"] == flown_in - 1
    assert summary.best_by == "data collection"
    reported = load_policy(tmp_path).card["results"]
    assert reported["data collection mean_return"] == summary.best["mean_return"]
    assert not [name for name in reported if name.startswith("validation")]
    weights = read_checkpoint(tmp_path / f"checkpoint_epoch_{flown_in - 1:06.0f}.pt")["weights"]
    assert all(torch.equal(tensor, weights[name]) for name, tensor in load_policy(tmp_path).state_dict().items())


def test_fine_tuning_begins_with_the_best_imitation_and_is_compared_by_its_validation(
    tmp_path: Path, teachers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = []

    class Watched(GradientLearner):
        def __init__(self, config: Any, policy: Any, *others: Any, **named: Any) -> None:
            begun.append({name: tensor.clone() for name, tensor in policy.state_dict().items()})
            super().__init__(config, policy, *others, **named)

    monkeypatch.setattr(post_training, "GradientLearner", Watched)
    settings = tiny("best_by=data_collection", "fine_tune.num_updates=1", "fine_tune.learning_rate=5", "num_epochs=5")
    summary = post_train(tmp_path, teachers, settings)
    chosen = int(summary.imitated["epoch"])
    weights = read_checkpoint(tmp_path / f"checkpoint_epoch_{chosen:06d}.pt")["weights"]
    assert all(torch.equal(tensor, weights[name]) for name, tensor in begun[0].items())
    assert summary.imitated["mean_return"] != max(v for _, v in read_curve(tmp_path)["data_collection/mean_return"])
    assert summary.best["mean_return"] == max(summary.imitated["mean_return"], summary.validation["mean_return"])
    assert summary.best_by == "validation"
    for name, found in (("best_student.pt", summary.best), ("imitated_student.pt", summary.imitated)):
        reported = load_policy(tmp_path / name).card["results"]
        assert reported == {f"validation {figure}": value for figure, value in found.items() if figure != "epoch"}


def test_fine_tuning_is_validated_with_the_sensors_that_it_trains_with(tmp_path: Path, teachers: Path) -> None:
    """And so is the best imitated student, before it is compared with it."""
    settings = ("fine_tune.task.sensing.position_noise=0.3", "fine_tune.num_updates=1", "num_epochs=2")
    config = tiny(*settings, "fine_tune.task.clean_share=0", "task.clip_previous_action=false")
    of_imitation, of_tuning = (
        Validation(task, config.num_validation, compile=False, episode_steps=config.validation_steps)
        for task in (config.flown_task, config.tuning.task)
    )
    assert [validation.task.sensing.position_noise for validation in (of_imitation, of_tuning)] == [0.0, 0.3]
    assert not of_tuning.task.clip_previous_action
    summary = post_train(tmp_path, teachers, config)
    imitated, final = (load_policy(tmp_path / f"{name}_student.pt") for name in ("imitated", "final"))
    assert of_tuning(imitated).items() <= summary.imitated.items()
    assert of_tuning(final) == summary.validation
    at = summary.imitated["epoch"]
    clean = dict(read_curve(tmp_path)["evaluation/mean_return"])[at]
    assert of_imitation(imitated)["mean_return"] == clean != summary.imitated["mean_return"]


def test_imitation_only_and_gradient_only_are_one_setting_away(
    tmp_path: Path, teachers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    summary = post_train(tmp_path / "imitation", teachers, tiny(IMITATION))
    assert (summary.finished, summary.num_steps) == (True, 4)
    assert summary.imitated == summary.best
    assert not [name for name in read_curve(tmp_path / "imitation") if name.startswith("fine_tuning/")]
    monkeypatch.setattr(post_training, "Distiller", None)  # is not asked for
    summary = post_train(tmp_path / "gradient", teachers, tiny(GRADIENT, "epoch_teacher_forcing=4"))
    assert (summary.finished, summary.num_steps, summary.imitated) == (True, 3, {})
    curve = read_curve(tmp_path / "gradient")
    assert len(curve["fine_tuning/loss"]) == 3
    assert "fine_tuning/imitation" not in curve
    assert not [name for name in curve if name.startswith("data_collection/")]
    final = read_checkpoint(tmp_path / "gradient" / "final_student.pt")["weights"]
    tuning = tiny().fine_tune
    alone = {field.name: getattr(tuning, field.name) for field in dataclasses.fields(GradientConfig)}
    direct = TrainDirectConfig(**alone, hidden_dim=5, compile=False)
    learner = make_learner(direct, first_policy(direct))
    for _ in range(5):
        learner.update()
    assert all(torch.equal(tensor, final[name]) for name, tensor in learner.policy.state_dict().items())


def test_the_target_is_hidden_in_fine_tuning_and_in_validation_too(
    tmp_path: Path, teachers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flown = []
    for name in ("Distiller", "GradientLearner", "Validation"):
        original = getattr(post_training, name)

        def watch(config: Any, *others: Any, original: Any = original, **named: Any) -> Any:
            flown.append(getattr(config, "flown_task", getattr(config, "task", config)))
            return original(config, *others, **named)

        monkeypatch.setattr(post_training, name, watch)
    post_train(tmp_path, teachers, tiny("target_visible=false", "fine_tune.num_updates=1", "num_epochs=2"))
    assert len(flown) == 4
    assert not any(task.target_visible for task in flown)


@pytest.mark.parametrize(
    ("settings", "stage", "call"),
    [
        ((), "imitating", 2),
        ((), "validating", 2),
        ((), "fine-tuning", 2),
        ((), "fine-tuning", 5),
        (OFF_POLICY, "imitating", 4),
        (OFF_POLICY, "fine-tuning", 4),
    ],
)
def test_a_run_that_was_stopped_resumes_to_the_same_bits(
    straight: Callable[..., Path], tmp_path: Path, teachers: Path, stage: str, call: int, settings: tuple[str, ...]
) -> None:
    stopped = post_train(tmp_path, teachers, tiny(*settings), progress=asking_at(stage, call))
    assert not stopped.finished
    assert not (tmp_path / "final_student.pt").exists()
    assert post_train(tmp_path, resume=True).finished
    assert_same(tmp_path, straight(*settings))
    for path in straight(*settings).glob("checkpoint_epoch_*.pt"):
        weights, same = (read_checkpoint(file)["weights"] for file in (path, tmp_path / path.name))
        assert all(torch.equal(tensor, same[name]) for name, tensor in weights.items())


class Killed(BaseException):
    """What nobody catches."""


@pytest.mark.parametrize(("settings", "epoch"), [((), 1), ((), 4), (OFF_POLICY, 3), (OFF_POLICY, 6)])
def test_a_run_that_died_within_an_epoch_resumes_to_the_same_bits(
    straight: Callable[..., Path],
    tmp_path: Path,
    teachers: Path,
    epoch: int,
    settings: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After an update of the epoch that follows this one, when the last checkpoint is several epochs old."""
    infrequent = tiny(*settings, "checkpoint_interval=3")
    learner, step = (Imitation, "_optimizer_step") if epoch < 4 else (GradientLearner, "update")
    original, made = getattr(learner, step), []

    def fatal(self: Any, *arguments: Any) -> Any:
        made.append(original(self, *arguments))
        if (self.epoch_count if epoch < 4 else 4 + (self.update_count - 1) // 2) == epoch:
            raise Killed
        return made[-1]

    with monkeypatch.context() as patched:
        patched.setattr(learner, step, fatal)
        with pytest.raises(Killed):
            post_train(tmp_path, teachers, infrequent)
    assert post_train(tmp_path, resume=True).finished
    assert_same(tmp_path, straight(*settings))


def test_a_run_that_died_just_before_its_final_policy_was_written_writes_it(
    straight: Callable[..., Path], tmp_path: Path, teachers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fatal(self: Any, *arguments: Any) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(PolicyFiles, "write_final", fatal)
        with pytest.raises(Killed):
            post_train(tmp_path, teachers, tiny())
    assert post_train(tmp_path, resume=True).finished
    assert_same(tmp_path, straight())


def test_a_finished_run_resumes_to_nothing(straight: Callable[..., Path], teachers: Path) -> None:
    run = straight(*OFF_POLICY)
    kept = {name: content for name, content in tree(run).items() if name.endswith((".pt", ".jsonl"))}
    seen: list[Progress] = []
    assert post_train(run, teachers, resume=True, progress=seen.append).finished
    assert {progress.step for progress in seen} == {7}
    assert kept == {name: content for name, content in tree(run).items() if name.endswith((".pt", ".jsonl"))}


def test_a_second_request_interrupts_at_once(tmp_path: Path, teachers: Path) -> None:
    def insist(progress: Progress) -> None:
        if progress.stage == "imitating" and progress.step == 1:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        post_train(tmp_path, teachers, tiny(), progress=insist)
    assert signal.getsignal(signal.SIGINT) is before


def test_progress_goes_through_all_stages_and_never_back(tmp_path: Path, teachers: Path) -> None:
    seen: list[Progress] = []
    post_train(tmp_path, teachers, tiny(), progress=seen.append)
    testing, training = [p for p in seen if p.unit == "teacher"], [p for p in seen if p.unit == "epoch"]
    assert [(p.stage, p.step, p.num_steps) for p in testing] == [("testing teachers", 3, 3)]
    assert [p.step for p in training] == sorted(p.step for p in training)
    assert {p.num_steps for p in training} == {7}
    stages = [(p.stage, p.step) for p in training if p.stage != "validating"]
    assert {stage for stage, step in stages if step < 4} == {"imitating"}
    assert {stage for stage, step in stages if step > 4} == {"fine-tuning"}
    assert "loss" in training[-1].values
    assert training[-1].best_return >= training[-1].validation["mean_return"]
    assert training[-1].remaining_s == 0


def test_videos_of_validation_vehicles_are_made_when_asked_for(
    straight: Callable[..., Path], tmp_path: Path, teachers: Path
) -> None:
    post_train(tmp_path, teachers, tiny("video_interval=3", IMITATION))
    videos = {path.name: path.read_bytes() for path in (tmp_path / "videos").iterdir()}
    assert sorted(videos) == [f"epoch_{epoch:06d}.gif" for epoch in (3, 4)]
    assert all(content.startswith(b"GIF89a") for content in videos.values())
    same, last = (read_checkpoint(run / "checkpoint_epoch_000004.pt")["weights"] for run in (straight(), tmp_path))
    assert all(torch.equal(tensor, same[name]) for name, tensor in last.items())  # watching changes nothing


def test_only_the_newest_checkpoints_are_kept(tmp_path: Path, teachers: Path) -> None:
    post_train(tmp_path, teachers, tiny(IMITATION, "checkpoint_interval=2", "keep_checkpoints=1"))
    assert [path.name for path in tmp_path.glob("checkpoint_epoch_*.pt")] == ["checkpoint_epoch_000004.pt"]


def test_weak_teachers_are_dropped_by_name_also_on_resuming(tmp_path: Path, teachers: Path) -> None:
    tested = selection.examine(few_teachers(), tiny()).records
    limit = sorted(record["return"] for record in tested)[1]
    weak = next(record["name"] for record in tested if record["return"] < limit)
    reported: list[str] = []
    settings = tiny(f"solved_return={limit}", IMITATION)
    summary = post_train(tmp_path, teachers, settings, announce=reported.append, progress=asking_at("imitating", 2))
    assert (summary.num_teachers, summary.dropped) == (2, (weak,))
    assert reported[0].startswith("Teacher architecture: obs=26, actions=4, hidden=[8] · ")
    assert reported[1].startswith("3 teachers, 6 episodes an epoch: ")
    assert reported[2].startswith("1 teacher does not reach ")
    assert reported[2].endswith(f", left out: {weak}")
    summary = post_train(tmp_path, resume=True)
    assert (summary.finished, summary.num_teachers, summary.dropped) == (True, 2, (weak,))
    assert read_curve(tmp_path)["data_collection/num_steps"][-1][1] <= 2 * 2 * 8


def alone(teachers: TeacherPopulation) -> TeacherPopulation:
    return dataclasses.replace(teachers, quadrotors=None)


@pytest.mark.parametrize(
    ("settings", "given", "sentence"),
    [
        ((), None, "there are no teachers to learn from: give the output folder of raptor pre-train"),
        ((), "no/such/folder", "no/such/folder holds no teachers"),
        ((), alone(few_teachers()), "the teachers come without their quadrotors"),
        (("solved_return=1e6",), few_teachers(), "none of the 3 teachers reaches solved_return 1e+06, the best has "),
        (
            ("solved_return=1e6", "weak_teachers=refuse", "num_teacher_episodes=3"),
            few_teachers(),
            "none of the 3 teachers reaches solved_return 1e+06",
        ),
        (
            ("memory_gib=0.5",),
            few_teachers(),
            "6 episodes of 8 steps and batches of 2 sequences take 0.6 GiB, which does not fit into 0.5 GiB: lower "
            "num_episodes, num_active_teachers or batch_size, or raise memory_gib",
        ),
        (("memory_gib=0.5", "on_policy=false"), few_teachers(), "num_active_teachers, num_data_epochs or batch_size"),
        (
            ("num_episodes=1000000000",),
            few_teachers(),
            "3000000000 episodes of 8 steps and batches of 2 sequences take",
        ),
        (
            ("fine_tune.batch_size=1000000000",),
            few_teachers(),
            "fine-tuning with 1000000000 quadrotors at once through 2 steps takes",
        ),
        (
            (),
            dataclasses.replace(few_teachers(), records=({"name": object()},) * 3),
            "must be text, a number, or lists and groups of these, got object",
        ),
        (("device=tpu",), few_teachers(), "device must be cpu"),
    ],
)
def test_a_mistake_is_told_before_anything_is_written_or_overwritten(
    straight: Callable[..., Path], tmp_path: Path, settings: tuple[str, ...], given: Any, sentence: str
) -> None:
    assert sentence in refusal(tmp_path / "run", given, tiny(*settings))
    assert not (tmp_path / "run").exists()
    before = tree(straight())
    assert sentence in refusal(straight(), given, tiny(*settings), overwrite=True)
    assert tree(straight()) == before


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("sequence_length=9", "sequence_length must be at most task.episode_steps, which is 8, got 9"),
        ("epoch_teacher_forcing=5", "epoch_teacher_forcing must be at most num_epochs, which is 4, got 5"),
        ("num_episodes=0", "num_episodes must be at least 1, got 0"),
        ("fine_tune.num_updates=-1", "fine_tune.num_updates must be at least 0, got -1"),
        ("student.kind=lstm", "student.kind must be one of gru, mlp"),
        ("weak_teachers=keep", "weak_teachers must be one of drop, refuse"),
        ("fine_tune.curriculum.enabled=true", "curriculum.window must be at most 35, got 2048"),
    ],
)
def test_impossible_settings_are_refused_by_name(setting: str, sentence: str) -> None:
    with pytest.raises(UserError) as error:
        tiny(setting)
    assert sentence in str(error.value)
    with pytest.raises(UserError, match="must not both be 0: there is nothing to train"):
        tiny(IMITATION, GRADIENT)


def test_what_will_never_be_done_is_neither_planned_nor_checked() -> None:
    assert not tiny(IMITATION, "fine_tune.curriculum.enabled=true").fine_tune.num_updates
    huge = make_plan(tiny(GRADIENT, "num_episodes=1000000000"), few_teachers())
    assert huge.startswith("3 teachers, no imitation, 0.6 GiB in all of ")
    small = make_plan(tiny(IMITATION, "fine_tune.batch_size=1000000000"), few_teachers())
    assert small.startswith("3 teachers, 6 episodes an epoch: ")


def test_the_names_of_the_settings_are_those_that_were_promised() -> None:
    text = (
        "num_epochs num_episodes batch_size sequence_length learning_rate epoch_teacher_forcing shuffle on_policy "
        "teacher_deterministic num_active_teachers solved_return steady_state_position_correction target_visible"
    )
    assert set(text.split()) <= {field.name for field in dataclasses.fields(PostTrainConfig)}
    config = tiny("student.kind=mlp", "student.hidden_dim=32")
    assert (config.student.kind, config.student.hidden_dim) == ("mlp", 32)


def test_the_preset_of_the_paper_is_the_original() -> None:
    paper = load_config(PostTrainConfig, "paper")
    assert (paper.num_epochs, paper.num_episodes, paper.epoch_teacher_forcing) == (1000, 10, 10)
    assert (paper.sequence_length, paper.batch_size, paper.task.episode_steps) == (500, 64, 500)
    assert (paper.student.kind, paper.student.hidden_dim, paper.fine_tune.num_updates) == ("gru", 16, 0)
    assert (paper.on_policy, paper.shuffle, paper.teacher_deterministic) == (True, True, True)
    assert (paper.num_active_teachers, paper.num_teacher_episodes, paper.solved_return) == (None, 100, 300)
    assert (paper.target_visible, paper.steady_state_position_correction, paper.method) == (False, True, "rk4")
    assert (paper.epsilon, paper.variance_floor, paper.gradient_norm) == (1e-7, 1e-7, None)
    first = Imitation(dataclasses.replace(paper, compile=False), RaptorPolicy())
    assert [first.learning_rate(share) for share in (0.0, 0.5)] == [1e-4, 1e-4]
    first.epoch_count, first.batch_count = 999, 10**6
    assert first.learning_rate(1.0) == 1e-4


@pytest.mark.parametrize("flags", [{}, {"resume": True}, {"overwrite": True}])
def test_the_run_of_another_job_is_left_alone(tmp_path: Path, teachers: Path, flags: dict[str, bool]) -> None:
    other = RunFolder(tmp_path, DIRECT)
    other.open(TrainDirectConfig())
    other.close()
    before = tree(tmp_path)
    sentence = f"{tmp_path} holds a run of train-direct, not of post-train: choose another output folder"
    assert refusal(tmp_path, teachers, tiny(), **flags) == sentence
    assert tree(tmp_path) == before


def test_no_other_job_takes_the_folder_of_a_post_training(straight: Callable[..., Path]) -> None:
    for flags in ({}, {"resume": True}, {"overwrite": True}):
        with pytest.raises(UserError, match="holds a run of post-train, not of train-direct"):
            RunFolder(straight(), DIRECT).check(flags.get("resume", False), flags.get("overwrite", False))


@pytest.mark.parametrize("flags", [{}, {"resume": True}, {"overwrite": True}])
@pytest.mark.parametrize(
    "name", ["best_student.pt", "final_student.pt", "checkpoint_epoch_000010.pt", "videos/epoch_000001.gif"]
)
def test_the_users_own_files_are_left_alone_where_no_run_has_been(
    tmp_path: Path, teachers: Path, name: str, flags: dict[str, bool]
) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"mine")
    sentence = refusal(tmp_path, teachers, tiny(), **flags)
    assert sentence == f"{tmp_path} holds {name} that no run wrote: choose another output folder"
    assert tree(tmp_path) == {name: b"mine"}


def test_overwriting_deletes_what_a_run_wrote_and_nothing_else(
    straight: Callable[..., Path], tmp_path: Path, teachers: Path
) -> None:
    mine = ("notes.txt", "report.html", "videos/mine.gif", "params/mine.yaml", "mine.pt", "tensorboard/mine")
    for name in mine[:2]:
        (tmp_path / name).write_text("keep")
    post_train(tmp_path, teachers, tiny("num_epochs=8", "video_interval=4", IMITATION), overwrite=True)
    assert (tmp_path / "report.html").read_text() == "keep"  # nobody had trained here
    assert (tmp_path / "videos" / "epoch_000004.gif").exists()
    for name in mine:
        (tmp_path / name).write_text("keep")
    sentence = refusal(tmp_path, teachers, tiny())
    assert "already holds a run: go on with --resume, replace it with --overwrite" in sentence
    post_train(tmp_path, teachers, tiny(), overwrite=True)
    assert_same(tmp_path, straight())
    extra = {name for name in tree(tmp_path) if "tfevents" not in name}
    extra -= {name for name in tree(straight()) if "tfevents" not in name}
    assert extra == set(mine) - {"report.html"}  # which is made from the policy of a run


def test_a_full_disk_is_told_and_the_run_goes_on_where_it_was(
    straight: Callable[..., Path], tmp_path: Path, teachers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_for(name: str) -> Callable[[Path, Path], Path]:
        replace = Path.replace

        def place(source: Path, target: Path) -> Path:
            if target.name == name:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return replace(source, target)

        return place

    for name in ("teachers.json", "best_student.pt", "checkpoint_epoch_000003.pt", "final_student.pt"):
        before = {path.name: path.read_bytes() for path in tmp_path.glob("checkpoint_*.pt")}
        with monkeypatch.context() as patched:
            patched.setattr(Path, "replace", full_for(name))
            sentence = refusal(tmp_path, teachers, tiny(), resume=True)
        assert sentence.startswith("cannot write ")
        assert f"{name}: No space left on device" in sentence
        assert ("earlier checkpoints are intact" in sentence) == name.startswith("checkpoint")
        assert before.items() <= {path.name: path.read_bytes() for path in tmp_path.glob("checkpoint_*.pt")}.items()
        assert not list(tmp_path.rglob("*.tmp"))
    assert post_train(tmp_path, resume=True).finished
    assert_same(tmp_path, straight())


def test_a_run_is_resumed_only_with_its_own_teachers(
    straight: Callable[..., Path], tmp_path: Path, teachers: Path
) -> None:
    run = straight()
    assert post_train(run, teachers, resume=True).finished
    assert post_train(run, [teachers], resume=True).finished
    sentence = f"the run in {run} learns from other teachers: resume it without giving any"
    assert refusal(run, few_teachers(seed=1), resume=True) == sentence
    save_teachers(few_teachers(2), tmp_path / "two")
    assert refusal(run, tmp_path / "two", resume=True) == sentence
    assert refusal(run, [teachers, tmp_path / "two"], resume=True) == sentence


def test_a_run_of_teachers_that_are_no_files_is_resumed_with_the_same_ones(tmp_path: Path) -> None:
    stopped = post_train(tmp_path, few_teachers(), tiny(IMITATION), progress=asking_at("imitating", 2))
    assert not stopped.finished
    assert "began with teachers of no folder: give the same ones" in refusal(tmp_path, resume=True)
    assert post_train(tmp_path, few_teachers(), resume=True).finished


def test_what_a_run_noted_of_its_teachers_may_be_damaged_or_not_yet_there(
    straight: Callable[..., Path], tmp_path: Path, teachers: Path
) -> None:
    post_train(tmp_path, teachers, tiny(), progress=asking_at("imitating", 2))
    noted = tmp_path / "params" / "teachers.json"
    noted.write_text("{")
    assert refusal(tmp_path, resume=True) == f"{noted} cannot be read: start anew with --overwrite"
    noted.unlink()
    assert "there are no teachers to learn from" in refusal(tmp_path, resume=True)
    assert post_train(tmp_path, teachers, resume=True).finished
    assert_same(tmp_path, straight())


def test_a_run_is_resumed_only_with_settings_that_give_the_same_result(straight: Callable[..., Path]) -> None:
    run = straight()
    sentence = refusal(run, config=tiny("seed=1", "fine_tune.imitation=2"), resume=True)
    assert "was begun with other settings: seed (0, now 1), fine_tune.imitation (1.0, now 2.0)" in sentence
    harmless = ("memory_gib=3", "checkpoint_interval=9", "keep_checkpoints=30", "video_interval=1")
    assert post_train(run, config=tiny(*harmless), resume=True).finished
    assert load_post_train_config(run, None, ["video_interval=1"]) == tiny("video_interval=1")
    assert load_post_train_config(run, None, ["seed=1"], resume=False) == PostTrainConfig(seed=1)


def test_fine_tuning_may_be_planned_anew_as_long_as_it_has_not_begun(
    straight: Callable[..., Path], tmp_path: Path, teachers: Path
) -> None:
    assert post_train(tmp_path, teachers, tiny(IMITATION)).finished
    assert post_train(tmp_path, config=tiny(), resume=True).finished
    assert load_post_train_config(tmp_path) == tiny()
    assert_same(tmp_path, straight())
    sentence = refusal(tmp_path, config=tiny("fine_tune.batch_size=9"), resume=True)
    assert "was begun with other settings: fine_tune.batch_size (7, now 9)" in sentence


def test_what_is_known_of_teachers_may_be_tensors(tmp_path: Path) -> None:
    records = tuple({"steps": torch.tensor(i), "position_offset": torch.zeros(3)} for i in range(3))
    settings = tiny(IMITATION, "num_epochs=1", "epoch_teacher_forcing=1")
    assert post_train(tmp_path, dataclasses.replace(few_teachers(), records=records), settings).finished
    noted = json.loads((tmp_path / "params" / "teachers.json").read_text())["records"]
    assert [record["steps"] for record in noted] == [0, 1, 2]


def test_the_time_of_a_run_includes_the_test_of_its_teachers(
    tmp_path: Path, teachers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    late, now, test = [0.0], time.perf_counter, selection.examine

    def long_test(*arguments: Any) -> TeacherPopulation:
        late[0] = 1e6
        return test(*arguments)

    monkeypatch.setattr(time, "perf_counter", lambda: now() + late[0])
    monkeypatch.setattr(post_training, "examine", long_test)
    settings = tiny(IMITATION, "num_epochs=1", "epoch_teacher_forcing=1")
    assert post_train(tmp_path, teachers, settings).wall_clock_s > 1e6


def test_another_seed_gives_another_student(straight: Callable[..., Path], tmp_path: Path, teachers: Path) -> None:
    post_train(tmp_path, teachers, tiny("seed=1", IMITATION))
    one, other = load_policy(straight()), load_policy(tmp_path)
    assert not torch.equal(one.output_layer.weight, other.output_layer.weight)
