"""`raptor doctor`."""

from __future__ import annotations


def doctor() -> None:
    """Show versions, devices, threads, whether the compiler works, and what each missing extra would give.

    ```
    raptor doctor > doctor.txt     # for a bug report
    ```
    """
    from rich.console import Console

    from raptor.cli import doctor as examination

    Console().print(examination.render(examination.report()))
