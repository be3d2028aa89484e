"""`raptor export` and `raptor card`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from raptor.cli.jobs import say
from raptor.cli.options import POLICY, argument, option
from raptor.core.errors import UserError

RL_TOOLS = "rl-tools"


def export(
    policy: Annotated[str, argument("POLICY", f"One of {POLICY} Or a teacher, as FOLDER:NUMBER.")],
    format: Annotated[str | None, option("--format -f", "FORMAT", "onnx for a policy, rl-tools for a teacher.")] = None,
    output: Annotated[
        Path | None, option("--output -o", "FILE|DIR", "File, or folder for it; by default beside the policy.")
    ] = None,
) -> None:
    """Write a policy in a format that runs without this package, and verify the file against the original.

    The ONNX model takes observation (batch, 22) and hidden (batch, 16) and gives action and next_hidden, for any batch;
    that of a memoryless policy takes observation and gives action.

    ```
    raptor export runs/mine                    # writes runs/mine/policy.onnx
    raptor export published -o exported        # writes exported/published.onnx
    raptor export runs/mine -o hover.onnx
    raptor export teachers:3                   # writes teachers/teacher_3.h5, in rl-tools' layout
    ```
    """
    from raptor.formats.expert_files import folder_of

    folder, index = folder_of(policy)
    if folder is not None and (folder / "teachers.json").is_file():
        _export_teacher(policy, folder, index or 0, format or RL_TOOLS, output)
    else:
        _export_policy(policy, format or "onnx", output)


def _export_policy(name: str, format: str, output: Path | None) -> None:
    from raptor.export import FORMATS, export_policy
    from raptor.formats import load_policy

    if format == RL_TOOLS:
        raise UserError(f"--format {RL_TOOLS} is for a teacher, as FOLDER:NUMBER, got {name!r}")
    policy, source, suffix = load_policy(name), Path(name).expanduser(), format if format in FORMATS else "out"
    if source.is_dir():
        path = _target(output, source.resolve().name, suffix) or source / f"policy.{suffix}"
    else:
        path = _target(output, source.stem, suffix) or source.with_suffix(f".{suffix}")
    error = export_policy(policy, path, format)
    say(f"wrote {path}, which differs from the policy by at most {error:.1e} over 500 steps")


def _export_teacher(name: str, folder: Path, index: int, format: str, output: Path | None) -> None:
    from raptor.formats import load_expert, load_teachers, write_rl_tools_teacher

    if format != RL_TOOLS:
        raise UserError(f"a teacher is exported with --format {RL_TOOLS}, got {format!r}")
    expert, records = load_expert(name), load_teachers(folder).records
    path = _target(output, f"teacher_{index}", "h5") or folder / f"teacher_{index}.h5"
    error = write_rl_tools_teacher(expert, path, str(records[index].get("name", index)))
    say(f"wrote {path}, which differs from the teacher by at most {error:.1e} in its actions")


def _target(output: Path | None, name: str, suffix: str) -> Path | None:
    """The file that --output asks for: itself, or one of a good name in that folder."""
    is_folder = output is not None and (output.is_dir() or not output.suffix)
    return output / f"{name}.{suffix}" if output is not None and is_folder else output


def card(policy: Annotated[str, argument("POLICY", f"One of {POLICY}")]) -> None:
    """Show what a policy is, the command that trained it, its results and its licence.

    ```
    raptor card default
    raptor card runs/mine
    ```
    """
    from raptor.formats import format_card, policy_card

    say(format_card(policy_card(policy)))
