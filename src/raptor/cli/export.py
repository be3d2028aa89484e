"""`raptor export` and `raptor card`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from raptor.cli.common import POLICY, argument, option, say
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
    from raptor.export import FORMATS, export_policy
    from raptor.formats import load_expert, load_policy, load_teachers, write_rl_tools_teacher
    from raptor.formats.expert_files import folder_of

    folder, index = folder_of(policy)
    if folder is not None and (folder / "teachers.json").is_file():
        if format not in (None, RL_TOOLS):
            raise UserError(f"a teacher is exported with --format {RL_TOOLS}, got {format!r}")
        expert, number = load_expert(policy), index or 0
        name = load_teachers(folder).records[number].get("name", number)
        path = _target(output, f"teacher_{number}", "h5") or folder / f"teacher_{number}.h5"
        error = write_rl_tools_teacher(expert, path, str(name))
        say(f"wrote {path}, which differs from the teacher by at most {error:.1e} in its actions")
        return
    if format == RL_TOOLS:
        raise UserError(f"--format {RL_TOOLS} is for a teacher, as FOLDER:NUMBER, got {policy!r}")
    format = format or "onnx"
    loaded, source, suffix = load_policy(policy), Path(policy).expanduser(), format if format in FORMATS else "out"
    if source.is_dir():
        path = _target(output, source.resolve().name, suffix) or source / f"policy.{suffix}"
    else:
        path = _target(output, source.stem, suffix) or source.with_suffix(f".{suffix}")
    error = export_policy(loaded, path, format)
    say(f"wrote {path}, which differs from the policy by at most {error:.1e} over 500 steps")


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
