"""One of several processes of a job, as torchrun starts it: a command, and what befalls this process in it.

    python several_processes.py SIGNAL UPDATE ARGUMENT...

The process with rank 1 gets SIGNAL, if it is not empty, before update UPDATE of training through the gradient.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import short_distillation

from raptor.cli import app
from raptor.training.direct.learner import GradientLearner
from raptor.training.distillation import teachers as selection


def strike(name: str, at: int) -> None:
    """Have this process get a signal."""
    update = GradientLearner.update

    def struck(self: GradientLearner) -> dict[str, float]:
        if self.update_count == at - 1:
            os.kill(os.getpid(), signal.Signals[name])
        return update(self)

    GradientLearner.update = struck  # type: ignore[method-assign]


if __name__ == "__main__":
    selection.TEST_TASK = short_distillation.TEST_TASK
    name, at, *arguments = sys.argv[1:]
    if name and os.environ["RANK"] == "1":
        strike(name, int(at))
    app(arguments)
