"""Training around given vehicles: what is drawn, what the run keeps of them, and what a resume goes on with."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from raptor.config import load_config
from raptor.core.errors import UserError
from raptor.formats import load_policy
from raptor.quadrotor import Quadrotors, load_quadrotors
from raptor.quadrotor.around import Around
from raptor.runs import Progress
from raptor.runs.checkpoints import RunWarning
from raptor.training import TrainDirectConfig, load_run_config, train_direct
from raptor.training.direct.job import first_policy, make_learner

Tiny = Callable[..., TrainDirectConfig]
DESCRIPTION = "mass: 0.65\narm_length: 0.11\nthrust_to_weight: 4\n"


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A description."""
    path = tmp_path / "my5.yaml"
    path.write_text(DESCRIPTION)
    return path


def weights(run: Path) -> dict[str, torch.Tensor]:
    return dict(load_policy(max((run / "checkpoints").glob("update_*.pt"))).state_dict())


def assert_same(a: Path, b: Path) -> None:
    left, right = weights(a), weights(b)
    assert all(torch.equal(left[name], right[name]) for name in left)


def stopped(run: Path, config: TrainDirectConfig) -> Path:
    """A run that was asked to stop after its third update."""

    def stop(progress: Progress) -> None:
        if progress.step == 3 and progress.stage == "training":
            os.kill(os.getpid(), signal.SIGINT)

    assert not train_direct(run, config, progress=stop).finished
    return run


def test_all_vehicles_are_around_the_given_ones_and_none_is_validated_on_that_is_trained_on(
    tiny: Tiny, own: Path
) -> None:
    config = tiny("batch_size=16", "num_validation=16", "spread=10%")
    around = Around(load_quadrotors(own), config.spread)
    learner = make_learner(config, first_policy(config), around=around)
    trained = [learner.quadrotors.mass]
    for _ in range(6):
        learner.update()
        trained.append(learner.quadrotors.mass)
    assert learner.validation is not None
    validated = learner.validation.vehicles.mass
    for masses in (*trained, validated):
        assert ((masses / 0.65 - 1).abs() <= 0.1 + 1e-6).all()
    assert len({*torch.cat(trained).tolist()}) > 16  # new ones came
    assert not {*torch.cat(trained).tolist()} & {*validated.tolist()}


def test_a_run_keeps_its_vehicles_and_goes_on_without_their_file(tmp_path: Path, tiny: Tiny, own: Path) -> None:
    config = tiny(f"quadrotors=[{own}]")
    train_direct(tmp_path / "straight", config)
    settings = load_policy(tmp_path / "straight").card["settings"]
    assert settings["quadrotors"] == [str(own)]
    assert {"spread"} == {"spread", "distribution", "curriculum"} & settings.keys()
    run = stopped(tmp_path / "run", config)
    assert Quadrotors.from_json(run / "quadrotors").mass.item() == pytest.approx(0.65)
    own.unlink()
    assert train_direct(run, resume=True).finished
    assert_same(run, tmp_path / "straight")


def test_a_file_that_changed_is_not_used_without_a_word(tmp_path: Path, tiny: Tiny, own: Path) -> None:
    config = tiny(f"quadrotors=[{own}]")
    train_direct(tmp_path / "straight", config)
    run = stopped(tmp_path / "run", config)
    own.write_text(DESCRIPTION.replace("0.65", "0.7"))
    with pytest.warns(RunWarning, match=r"my5\.yaml changed since the run began, which goes on with its copy"):
        train_direct(run, resume=True)
    assert "my5.yaml changed since the run began" in (run / "train.log").read_text()
    assert_same(run, tmp_path / "straight")


def test_another_run_needs_the_file(tmp_path: Path, tiny: Tiny, own: Path) -> None:
    train_direct(tmp_path / "run", tiny(f"quadrotors=[{own}]", "num_updates=1"))
    own.unlink()
    with pytest.raises(UserError, match=r"there is no quadrotor '.*my5\.yaml': give one of"):
        train_direct(tmp_path / "again", load_config(TrainDirectConfig, tmp_path / "run"))
    assert not (tmp_path / "again").exists()


def test_a_copy_that_was_not_completed_is_made_again(tmp_path: Path, tiny: Tiny, own: Path) -> None:
    config = tiny(f"quadrotors=[{own}]", "num_updates=1")
    train_direct(tmp_path / "run", config)
    (tmp_path / "run" / "quadrotors").rename(tmp_path / "run" / "quadrotors.new")
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    assert train_direct(tmp_path / "run", resume=True).finished
    assert {path.name for path in (tmp_path / "run").glob("quadrotors*")} == {"quadrotors"}


def test_overwriting_takes_the_vehicles_along(tmp_path: Path, tiny: Tiny, own: Path) -> None:
    train_direct(tmp_path / "run", tiny(f"quadrotors=[{own}, race]", "num_updates=1"))
    assert len(Quadrotors.from_json(tmp_path / "run" / "quadrotors")) == 2
    train_direct(tmp_path / "run", tiny("num_updates=1"), overwrite=True)
    assert not (tmp_path / "run" / "quadrotors").exists()


def test_the_preset_for_vehicles_is_meant_unless_settings_are_named(tmp_path: Path, tiny: Tiny, own: Path) -> None:
    preset = load_config(TrainDirectConfig, "vehicle")
    assert preset.initial_policy is not None
    config = load_run_config(tmp_path / "run", quadrotors=[str(own)], overrides=["num_updates=7"])
    assert (config.initial_policy, config.num_updates) == (preset.initial_policy, 7)
    assert config.quadrotors == (str(own),)
    assert (
        load_run_config(tmp_path / "run", quadrotors=[str(own)], overrides=["initial_policy=null"]).initial_policy
        is None
    )
    assert load_run_config(tmp_path / "run", "large", quadrotors=["race"]).initial_policy is None


def test_a_run_is_resumed_with_its_own_settings_where_its_vehicles_are_named_again(
    tmp_path: Path, tiny: Tiny, own: Path
) -> None:
    config = tiny(f"quadrotors=[{own}]", "num_updates=1")
    train_direct(tmp_path / "run", config)
    assert load_run_config(tmp_path / "run", quadrotors=[str(own)]) == config
    with pytest.raises(UserError, match="was begun with other settings: quadrotors"):
        train_direct(tmp_path / "run", load_run_config(tmp_path / "run", quadrotors=["race"]), resume=True)


def test_the_preset_begins_with_a_policy_of_its_width() -> None:
    config = load_config(TrainDirectConfig, "vehicle")
    assert first_policy(config).hidden_dim == config.hidden_dim
