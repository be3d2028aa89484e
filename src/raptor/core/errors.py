"""Errors that a user can correct; the command line prints them as one sentence, without a traceback."""

from __future__ import annotations

import re

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """Text with control bytes, and marks that reverse the direction of writing, written as escapes."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def first_line(error: BaseException) -> str:
    """The first line of an error's message."""
    return (str(error).strip().splitlines() or ["no message"])[0]


class UserError(ValueError):
    """Something the user gave cannot be used; the message names it and says what to do."""

    def __init__(self, message: object = "") -> None:
        super().__init__(printable(str(message)))


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
