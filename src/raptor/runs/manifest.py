"""The manifest of a run, `run.yaml`: its job, its status and its settings; and what older versions left instead."""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path
from typing import Any

from raptor.config import to_dict
from raptor.config.files import MANIFEST
from raptor.core.atomic import PathLike, write_atomically
from raptor.core.errors import UserError
from raptor.core.yaml_files import dump_yaml, read_yaml

HEADER = "# Written by raptor: what runs here, its status and its settings.\n"
VERSION = 2
"""Of the layout of a run. Before the manifest there was the first: settings under a mark in one of `OLD_SETTINGS`."""

OLD_MARK = "# raptor run: "
OLD_SETTINGS = ("config.yaml", "params/config.yaml", "params/agent.yaml")


def write_manifest(folder: Path, job: str, settings: Any, status: str) -> None:
    """Write `run.yaml`; `status` is running, stopped or finished."""
    facts = {"version": VERSION, "job": job, "raptor-python": importlib.metadata.version("raptor-python")}
    document = {**facts, "status": status, "settings": to_dict(settings)}
    write_atomically(folder / MANIFEST, f"{HEADER}{dump_yaml(document)}")


def note_status(folder: Path, status: str) -> None:
    """Change the status alone."""
    text = (folder / MANIFEST).read_text(encoding="utf-8")
    write_atomically(folder / MANIFEST, re.sub(r"^status: .*$", f"status: {status}", text, flags=re.MULTILINE))


def job_of(folder: Path) -> str | None:
    """The job that runs in a folder, also one of an older version; None where it holds no run."""
    if (folder / MANIFEST).is_file() and (folder / MANIFEST).read_text(errors="replace").startswith(HEADER):
        return str(read_manifest(folder).get("job"))
    return next(iter(old_runs(folder).values()), None)


def read_manifest(folder: PathLike) -> dict[str, Any]:
    """What `run.yaml` says.

    Raises:
        UserError: it cannot be read.
    """
    path = Path(folder) / MANIFEST
    try:
        document = read_yaml(path)
        if not isinstance(document, dict) or not isinstance(document.get("settings"), dict):
            raise UserError(f"{path} lacks the group settings")
    except UserError as error:
        raise UserError(f"{error}: start anew with --overwrite") from error
    return document


def read_settings(run: PathLike) -> dict[str, Any]:
    """The settings of a run, nested; none where the folder is that of no run."""
    if (Path(run) / MANIFEST).is_file():
        return dict(read_manifest(run)["settings"])
    return next((dict(read_yaml(old)) for old in old_runs(Path(run))), {})


def old_runs(folder: Path) -> dict[Path, str]:
    """The files of settings that an older version left in a folder, and the job of each."""
    files = [folder / name for name in OLD_SETTINGS if (folder / name).is_file()]
    first = {file: file.read_text(encoding="utf-8", errors="replace").partition("\n")[0] for file in files}
    return {file: line.removeprefix(OLD_MARK) for file, line in first.items() if line.startswith(OLD_MARK)}
