"""The environment variables of torchrun; without torch, so that the command line begins at once."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


def started_together() -> bool:
    """Whether torchrun started this process beside others."""
    return all(name in os.environ for name in VARIABLES) and int(os.environ["WORLD_SIZE"]) > 1


def silent() -> bool:
    """Whether another process, the main one, prints for this one."""
    return started_together() and os.environ["RANK"] != "0"


def end_at_once(status: int) -> NoReturn:
    """End this process, which has nothing to write any more, without taking Python apart.

    A thread of gloo that lets go of a Python object while Python ends takes the process with it, by SIGABRT.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
