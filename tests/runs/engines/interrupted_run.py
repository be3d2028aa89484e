"""A run that does not end by itself: `python interrupted_run.py FOLDER` prints a line of JSON for each report."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import toy_work

from raptor.runs.engines import EngineConfig, make_engine


def main() -> None:
    asked: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, frame: asked.append(number))
    make_engine(EngineConfig(name="processes", num_workers=2)).run(
        toy_work.count,
        {name: {"until": 5, "step": 1, "wait_at": 3} for name in "ab"},
        Path(sys.argv[1]),
        lambda name, values: print(json.dumps(values), flush=True),
        lambda: bool(asked),
    )


if __name__ == "__main__":
    main()
