"""Errors that a user can mend; the command line prints them as one sentence, without a traceback."""

from __future__ import annotations


class UserError(ValueError):
    """Something the user gave cannot be used; the message names it and says what to do."""


class LostProcessError(UserError):
    """Another process of the job is not there any more."""

    def __init__(self) -> None:
        super().__init__(
            "another process of this job ended or does not answer: what was computed since the last checkpoint is "
            "lost, go on with --resume"
        )


class MissingExtraError(UserError, ImportError):
    """An optional dependency is not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs {package}, which is not installed: pip install 'raptor-python[{extra}]'")
