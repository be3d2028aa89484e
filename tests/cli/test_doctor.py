"""`raptor doctor` tells the truth about versions, threads, the compiler and the extras."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
from dataclasses import replace

import pytest
import torch
from rich.console import Console

from raptor.cli import doctor


@pytest.fixture
def report() -> doctor.Report:
    """A report of this machine without the slow compilation."""
    return doctor.report(compilers=False)


def printed(report: doctor.Report) -> str:
    console = Console(width=400, color_system=None)
    with console.capture() as capture:
        console.print(doctor.render(report))
    return capture.get()


def test_versions_are_those_that_are_installed(report: doctor.Report) -> None:
    assert report.versions["torch"] == torch.__version__
    assert report.versions[doctor.DISTRIBUTION] is not None
    assert None not in report.versions.values()


def test_every_core_dependency_that_a_bug_report_needs_is_listed() -> None:
    requirements = importlib.metadata.requires(doctor.DISTRIBUTION) or []
    core = {re.split(r"[^\w-]", line)[0] for line in requirements if "extra ==" not in line}
    assert set(doctor.PACKAGES) - {doctor.DISTRIBUTION} <= core


def test_a_missing_package_has_no_version_and_is_printed_as_missing(report: doctor.Report) -> None:
    assert doctor.version("no-such-distribution") is None
    text = printed(replace(report, versions={"no-such-distribution": None}))
    assert re.search(r"no-such-distribution +missing", text)


def test_the_extras_and_their_packages_are_those_of_the_distribution() -> None:
    declared: dict[str, set[str]] = {}
    for line in importlib.metadata.requires(doctor.DISTRIBUTION) or []:
        if match := re.search(r"extra == ['\"](\w+)['\"]", line):
            declared.setdefault(match[1], set()).add(re.split(r"[^\w-]", line)[0])
    assert {extra.name: set(extra.packages) for extra in doctor.EXTRAS} == declared


def test_a_missing_extra_says_what_it_would_give_and_how_to_get_it(report: doctor.Report) -> None:
    extra = doctor.Extra("wings", ("torch", "no-such-distribution"), "flapping flight")
    assert not extra.installed
    text = printed(replace(report, extras=(extra,)))
    assert "missing no-such-distribution; gives flapping flight: pip install 'raptor-python[wings]'" in text


def test_an_installed_extra_shows_its_versions_only(report: doctor.Report) -> None:
    extra = doctor.Extra("tensors", ("torch",), "tensors")
    assert extra.installed
    text = printed(replace(report, extras=(extra,)))
    assert f"torch {torch.__version__}" in text
    assert "pip install" not in text


def test_threads_are_those_that_torch_uses_now(report: doctor.Report) -> None:
    assert report.threads.intra_op == torch.get_num_threads()
    assert f"{torch.get_num_threads()} inside an operation" in printed(report)


def test_the_processor_and_every_gpu_are_listed(report: doctor.Report) -> None:
    expected = ["cpu"] + [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    assert [device.name for device in report.devices] == expected


def test_a_compiler_that_is_not_there_is_reported_with_the_reason(
    report: doctor.Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "/no/such/compiler")
    check = doctor.check_compilation("cpu")
    assert not check.works
    assert "/no/such/compiler" in check.reason
    text = printed(replace(report, compilations=(check,)))
    assert f"torch.compile on cpu  does not work: {check.reason}" in text


def test_a_compiler_that_hangs_counts_as_broken() -> None:
    check = doctor.check_compilation("cpu", timeout_s=0.01)
    assert not check.works
    assert check.reason == "the compiler took longer than 0.01 s"


@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ on this machine")
def test_a_working_compiler_is_recognised(report: doctor.Report) -> None:
    check = doctor.check_compilation("cpu")
    assert check.works, check.reason
    assert "torch.compile on cpu  works" in printed(replace(report, compilations=(check,)))
