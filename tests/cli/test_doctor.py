"""`raptor doctor` tells the truth about versions, threads, the compiler and the extras."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable

import pytest
import torch
from rich.console import Console

from raptor.cli import doctor


def printed(part: object) -> str:
    console = Console(width=400, color_system=None)
    with console.capture() as capture:
        console.print(part)
    return capture.get()


def test_versions_are_those_that_are_installed() -> None:
    text = printed(doctor.versions_table(["torch", doctor.DISTRIBUTION]))
    assert re.search(rf"torch +{re.escape(torch.__version__)}", text)
    assert "missing" not in text


def test_every_dependency_is_listed_under_the_extra_that_needs_it() -> None:
    packages = doctor.packages()
    assert {doctor.DISTRIBUTION, "torch", "numpy", "typer"} <= set(packages[""])
    assert "stable-baselines3" in packages["sb3"]
    assert set(packages) == {"", *doctor.EXTRAS}


def test_a_missing_package_has_no_version_and_is_printed_as_missing() -> None:
    assert doctor.version("no-such-distribution") is None
    assert re.search(r"no-such-distribution +missing", printed(doctor.versions_table(["no-such-distribution"])))


def test_a_missing_extra_says_what_it_would_give_and_how_to_get_it() -> None:
    text = printed(doctor.extras_table({"ray": ["torch", "no-such-distribution"]}))
    assert f"missing no-such-distribution; gives {doctor.EXTRAS['ray']}: pip install 'raptor-python[ray]'" in text


def test_an_installed_extra_shows_its_versions_only() -> None:
    text = printed(doctor.extras_table({"tensors": ["torch"]}))
    assert f"torch {torch.__version__}" in text
    assert "pip install" not in text


def test_the_threads_the_processor_and_every_gpu_are_listed() -> None:
    text = printed(doctor.machine_table())
    assert f"{torch.get_num_threads()} inside an operation" in text
    for name in ("cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))):
        assert re.search(rf"^{name} ", text, re.MULTILINE)


def test_a_compiler_that_is_not_there_is_reported_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "/no/such/compiler")
    check = doctor.check_compilation("cpu")
    assert "/no/such/compiler" in check.reason
    assert f"torch.compile on cpu does not work: {check.reason}" in printed(doctor.verdict(check))


def test_a_compiler_that_hangs_counts_as_broken() -> None:
    assert doctor.check_compilation("cpu", timeout_s=0.01).reason == "the compiler took longer than 0.01 s"


@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ on this machine")
def test_a_working_compiler_is_recognised() -> None:
    check = doctor.check_compilation("cpu")
    assert not check.reason
    assert "torch.compile on cpu works" in printed(doctor.verdict(check))


def test_what_is_installed_is_shown_before_the_compiler_is_waited_for(
    raptor: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "check_compilation", lambda device: doctor.Compilation(device, "a broken one", 1.0))
    lines = raptor("doctor").splitlines()
    heads = [
        lines.index(next(line for line in lines if line.startswith(head))) for head in ("Versions", "Extras", "Mach")
    ]
    assert heads == sorted(heads)
    assert "a broken one" in lines[-1] or "a broken one" in lines[-2]
