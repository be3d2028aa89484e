"""`raptor export` and `raptor card`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from raptor.cli import options
from raptor.core.errors import UserError


def export(
    policy: options.Policy,
    format: Annotated[str, typer.Option("--format", "-f", metavar="FORMAT", help="What to write: onnx.")] = "onnx",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="File to write; by default beside the policy."),
    ] = None,
    teacher: Annotated[
        int | None,
        typer.Option(
            "--teacher", min=0, metavar="NUMBER", help="POLICY is a folder of teachers: write this one for rl-tools."
        ),
    ] = None,
) -> None:
    """Write a policy in a format that runs without this package, and verify the file against the original.

    The ONNX model takes observation (batch, 22) and hidden (batch, 16) and gives action and next_hidden, for any batch;
    that of a memoryless policy takes observation and gives action.

    ```
    raptor export runs/mine                    # writes runs/mine/policy.onnx
    raptor export published -o published.onnx
    raptor export teachers --teacher 3         # writes teachers/teacher_3.h5, in rl-tools' layout
    ```
    """
    if teacher is not None:
        _export_teacher(policy, teacher, output)
        return
    from raptor.export import FORMATS, export_policy
    from raptor.formats import load_policy

    loaded = load_policy(policy)
    path = output or default_output(policy, format if format in FORMATS else "out")
    error = export_policy(loaded, path, format)
    typer.echo(f"wrote {path}, which differs from the policy by at most {error:.1e} over 500 steps")


def _export_teacher(folder: str, index: int, output: Path | None) -> None:
    from raptor.formats import load_teachers, write_rl_tools_teacher

    teachers = load_teachers(folder)
    if index >= len(teachers):
        raise UserError(f"{folder} holds {len(teachers)} teachers, from number 0 on, got --teacher {index}")
    path = output or Path(folder) / f"teacher_{index}.h5"
    name = str(teachers.records[index].get("name", index))
    error = write_rl_tools_teacher(teachers.expert(index), path, name)
    typer.echo(f"wrote {path}, which differs from the teacher by at most {error:.1e} in its actions")


def card(policy: options.Policy) -> None:
    """Show what a policy is, the command that trained it, its results and its licence.

    ```
    raptor card default
    raptor card runs/mine
    ```
    """
    from raptor.formats import format_card, policy_card

    typer.echo(format_card(policy_card(policy)))


def default_output(policy: str, suffix: str) -> Path:
    """Where an export goes: into the folder of a run, beside a file, or here for a policy with a name."""
    source = Path(policy)
    if source.is_dir():
        return source / f"policy.{suffix}"
    return source.with_suffix(f".{suffix}")
