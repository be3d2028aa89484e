"""Tasks in this process, one after another."""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from raptor.runs.engines.engine import OnReport, Work
from raptor.runs.engines.folders import FolderWorkplace
from raptor.runs.engines.ledger import Ledger


class LocalEngine:
    """Carries out tasks in this process, one after another.

    Args:
        device: where to compute.
        threads: number of threads of an operation; None leaves it as it is.

    Raises:
        UserError: there is no such device.
    """

    def __init__(self, device: str = "cpu", threads: int | None = None) -> None:
        from raptor.core.devices import find_device

        find_device(device)
        self.device, self.threads = device, threads

    @property
    def num_at_once(self) -> int:
        """One."""
        return 1

    def run(
        self,
        work: Work,
        tasks: Mapping[str, dict[str, Any]],
        folder: Path,
        on_report: OnReport,
        stop: Callable[[], bool],
    ) -> dict[str, dict[str, Any]]:
        """Carry out all tasks that are not finished yet; see `Engine`."""
        import torch

        ledger, before = Ledger(tasks, folder), torch.get_num_threads()
        try:
            if self.threads is not None:
                torch.set_num_threads(self.threads)
            while ledger.waiting and not stop():
                name = ledger.waiting.popleft()
                workplace = FolderWorkplace(ledger.folders[name], self.device, functools.partial(on_report, name), stop)
                result = work(copy.deepcopy(tasks[name]), workplace)
                if result is not None:
                    ledger.finish(name, json.dumps(result))
        finally:
            torch.set_num_threads(before)
        return ledger.results()
