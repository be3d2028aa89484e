"""`raptor quickstart`."""

from __future__ import annotations

import typer

from raptor.cli import options


def quickstart(
    output: options.Output,
    settings: options.Settings = None,
    config: options.Config = None,
    seed: options.Seed = None,
    device: options.Device = None,
    resume: options.Resume = False,
    overwrite: options.Overwrite = False,
) -> None:
    """Train a policy, hold it against the published one, export it, and write report.html: about five minutes.

    ```
    raptor quickstart --output runs/demo
    A quick look only:  raptor quickstart --output runs/look num_updates=200
    ```
    """
