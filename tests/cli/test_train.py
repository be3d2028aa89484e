"""`raptor train-direct`: the contract, and every mistake that one can make with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_run import TINY

from raptor.config import load_config
from raptor.formats import load_policy
from raptor.nn import RaptorPolicy
from raptor.training import TrainDirectConfig

Run = Callable[..., str]


def tree(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


def test_a_run_ends_with_a_policy_and_says_what_to_do_next(raptor: Run, tmp_path: Path) -> None:
    run = tmp_path / "run"
    text = raptor("train-direct", "--output", run, "--seed", 4, "--device", "cpu", *TINY)
    assert "trained 2 updates in" in text
    assert "best by validation: return" in text
    assert f"next: raptor evaluate {run}" in text
    assert isinstance(load_policy(run), RaptorPolicy)
    config = load_config(TrainDirectConfig, run)
    assert (config.seed, config.device, config.num_updates, config.learning_rate) == (
        4,
        "cpu",
        2,
        TrainDirectConfig().learning_rate,
    )


def test_settings_come_from_a_file_under_those_of_the_command_line(raptor: Run, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("base: large\nlearning_rate: 1e-3\nnum_updates: 9\n")
    raptor("train-direct", "-o", tmp_path / "run", "--config", file, *TINY)
    config = load_config(TrainDirectConfig, tmp_path / "run")
    assert (config.hidden_dim, config.learning_rate, config.num_updates) == (64, 1e-3, 2)


def test_a_run_can_be_resumed_without_repeating_its_settings_and_with(raptor: Run, tmp_path: Path) -> None:
    raptor("train-direct", "-o", tmp_path, *TINY)
    kept = {path: path.read_bytes() for path in (tmp_path / "checkpoints").iterdir()}
    for settings in ([], TINY):
        raptor("train-direct", "-o", tmp_path, "--resume", *settings)
        assert {path: path.read_bytes() for path in (tmp_path / "checkpoints").iterdir()} == kept
        assert load_config(TrainDirectConfig, tmp_path).num_updates == 2


def test_a_run_can_be_overwritten(raptor: Run, tmp_path: Path) -> None:
    raptor("train-direct", "-o", tmp_path, *TINY)
    raptor("train-direct", "-o", tmp_path, "--overwrite", *TINY, "seed=9")
    assert load_config(TrainDirectConfig, tmp_path).seed == 9


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "already holds a run: go on with --resume, replace it with --overwrite"),
        (["--resume", "--overwrite"], "--resume and --overwrite exclude each other"),
        (["--resume", "batch_size=5"], "was begun with other settings: batch_size (4, now 5)"),
        (["--resume", "--seed", "5"], "was begun with other settings: seed (0, now 5)"),
        (["--overwrite", "learning_rat=1"], "learning_rat is unknown (command line): did you mean learning_rate?"),
        (["--overwrite", "learning_rate=fast"], 'learning_rate must be a number, got "fast" (command line)'),
        (["--overwrite", "learning_rate=-1"], "learning_rate must be positive, got -1 (command line)"),
        (["--overwrite", "task.references.langevin_share=2"], "task.references.langevin_share must be between 0 and 1"),
        (["--overwrite", "num_updates"], "a setting is given as key=value"),
        (["--overwrite", "--device", "cuda:99"], "device 'cuda:99' is not there"),
        (["--overwrite", "--device", "gpu"], "device must be cpu"),
        (["--overwrite", "--seed", "x"], "Invalid value for '--seed'"),
        (["--overwrite", "--config", "no.yaml"], "there is no configuration file no.yaml"),
        (["--overwrite", "batch_size=1e14"], "batch_size 100000000000000 does not fit into memory"),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_an_older_run_untouched(
    raptor: Run, refused: Run, tmp_path: Path, arguments: list[str], sentence: str
) -> None:
    raptor("train-direct", "-o", tmp_path, *TINY)
    before = tree(tmp_path)
    assert sentence in refused("train-direct", "-o", tmp_path, *arguments)
    assert tree(tmp_path) == before


def test_cuda_without_a_gpu_is_refused_before_the_folder_is_made(refused: Run, tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    message = refused("train-direct", "-o", tmp_path / "run", "--device", "cuda")
    assert message == "device 'cuda' is not there (no GPU is usable): use cpu"
    assert not (tmp_path / "run").exists()


def test_ctrl_c_writes_a_checkpoint_and_says_how_to_go_on(raptor: Run, tmp_path: Path) -> None:
    run = tmp_path / "run"
    settings = [*TINY[1:], "num_updates=100000", "validation_interval=0"]
    process = subprocess.Popen(
        [sys.executable, "-m", "raptor", "train-direct", "-o", str(run), *settings],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    deadline = time.monotonic() + 300
    while not list(run.glob("checkpoints/update_*.pt")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert f"go on with: raptor train-direct --output {run} --resume" in errors
    update = max(int(path.stem.split("_")[1]) for path in run.glob("checkpoints/update_*.pt"))
    assert f"stopped after update {update} of 100000, with a checkpoint" in errors
