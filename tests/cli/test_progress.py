"""What is shown of a running job."""

from __future__ import annotations

import dataclasses
import io

import pytest
from rich.console import Console

from raptor.cli.progress import counted, counting, duration, facts, job_progress, quantity
from raptor.runs import Progress

BEGINNING = Progress("compiling", 0, 40, elapsed_s=0.1, env_steps_per_s=0.0)
MIDDLE = Progress(
    "training", 20, 40, "update", 30.0, 9.123, 1.9e6, 65.4, {"loss": 0.512}, {"mean_return": 612.34}, 640.5
)


def shown(*steps: Progress, terminal: bool) -> str:
    output = io.StringIO()
    console = Console(file=output, force_terminal=terminal, width=160, color_system=None)
    with job_progress(console) as progress:
        for step in steps:
            progress(step)
    return output.getvalue()


def test_the_facts_are_rates_loss_return_and_the_time_left() -> None:
    assert facts(MIDDLE) == (
        "9.12 updates/s · 1.9 M env-steps/s · loss 0.512 · return 612.3 · best 640.5 · 1 min 05 s left"
    )
    assert facts(BEGINNING) == ""


def test_a_terminal_sees_a_bar_with_all_of_it() -> None:
    text = shown(BEGINNING, MIDDLE, terminal=True)
    assert "20/40" in text
    assert facts(MIDDLE) in text
    assert "training" in text


def test_without_a_terminal_there_is_a_line_per_validation() -> None:
    steps = [
        dataclasses.replace(
            MIDDLE,
            stage=stage,
            step=update,
            num_steps=1000,
            validation={"update": update // 100 * 100, "mean_return": 1.0},
        )
        for update in range(100, 400)
        for stage in ("training", "validating", "training")
    ]
    lines = shown(*steps, terminal=False).splitlines()
    assert [line.split("  ")[0] for line in lines] == [f"update {update} of 1000" for update in (100, 200, 300)]


def test_without_a_terminal_and_without_validations_there_are_about_ten_lines() -> None:
    steps = [dataclasses.replace(MIDDLE, step=update, num_steps=1000, validation={}) for update in range(1, 1001)]
    assert len(shown(*steps, terminal=False).splitlines()) == 11


@pytest.mark.parametrize("terminal", [True, False])
def test_an_evaluation_shows_what_it_does_and_on_a_terminal_how_far_it_is(terminal: bool) -> None:
    output = io.StringIO()
    console = Console(file=output, force_terminal=terminal, width=160, color_system=None)
    with counting(console) as progress:
        progress("mine: unseen", 25, 100)
    assert "mine: unseen" in output.getvalue()
    assert ("25/100" in output.getvalue()) == terminal


def test_without_a_terminal_an_evaluation_says_at_once_what_it_does_and_not_too_often(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output, now = io.StringIO(), [100.0]
    monkeypatch.setattr("raptor.cli.progress.time.perf_counter", lambda: now[0])
    with counting(Console(file=output, width=160)) as progress:
        for done, what in enumerate(["mine: unseen", "mine: unseen", "theirs: unseen", "mine: robustness"]):
            progress(what, 25 * done, 100)
            now[0] += 3.0
    assert output.getvalue().splitlines() == ["  0%  mine: unseen", " 50%  theirs: unseen"]


@pytest.mark.parametrize(
    ("terminal", "patience_s", "is_shown"), [(True, 0, True), (True, 1e9, False), (False, 0, False)]
)
def test_writing_shows_a_bar_on_a_terminal_and_only_once_it_takes_long(
    terminal: bool, patience_s: float, is_shown: bool
) -> None:
    output = io.StringIO()
    console = Console(file=output, force_terminal=terminal, width=80, color_system=None)
    with counting(console, "writing", patience_s) as progress:
        progress(50, 200)
    assert ("50/200" in output.getvalue()) == is_shown
    assert (output.getvalue() != "") == is_shown


def test_the_text_of_files_cannot_command_the_terminal() -> None:
    text = shown(dataclasses.replace(MIDDLE, stage="\x1b[2Jgone"), terminal=True)
    assert "\x1b[2J" not in text
    assert "gone" in text


def test_numbers_of_things_are_counted_in_words() -> None:
    assert [counted(number, "teacher") for number in (0, 1, 2)] == ["0 teachers", "1 teacher", "2 teachers"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.4, "59 s"), (59.9, "1 min 00 s"), (185, "3 min 05 s"), (3600 * 2 + 61, "2 h 01 min")],
)
def test_durations_are_for_people(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(("value", "text"), [(12.3, "12.3"), (1234, "1.23 k"), (1.9e6, "1.9 M"), (3e9, "3 G")])
def test_large_numbers_are_for_people(value: float, text: str) -> None:
    assert quantity(value) == text
