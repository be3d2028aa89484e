"""Stopping a job: a signal becomes a request, which the job meets where it is safe, or gives up what it is doing."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from raptor.core.errors import LostProcessError
from raptor.core.torchrun import started_together

PATIENCE_S = 2.0
"""Time that a step or a validation has to end by itself after a request, before it is given up."""


class Abandoned(BaseException):
    """A step or a validation was given up because of a request to stop; what it had computed is lost."""


class StopRequest:
    """A request to stop; calling it says whether one was `made`."""

    def __init__(self) -> None:
        self.made = self.can_interrupt = False  # the second: whether a block is running that can be given up

    def __call__(self) -> bool:
        """Whether to stop."""
        return self.made

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.made and number == signal.SIGINT and not started_together():
            raise KeyboardInterrupt
        self.made = True
        if self.can_interrupt and not started_together() and _can_alarm():
            signal.setitimer(signal.ITIMER_REAL, PATIENCE_S)

    def _give_up(self, number: int, frame: FrameType | None) -> None:
        if self.can_interrupt:
            raise Abandoned


@contextlib.contextmanager
def interruptible(stop: Callable[[], bool]) -> Iterator[None]:
    """Run a block that is given up, by `Abandoned`, where it goes on for `PATIENCE_S` after a `StopRequest`.

    What fails after a request is given up too: Ctrl-C reaches the compiler as well, which does not survive it. A
    process that is lost stays an error: torchrun asks the others to stop when one has died.
    """
    request = stop if isinstance(stop, StopRequest) else StopRequest()
    request.can_interrupt = True
    try:
        yield
    except Exception as error:
        if stop() and not isinstance(error, LostProcessError):
            raise Abandoned from error
        raise
    finally:
        request.can_interrupt = False
        if request is stop and _can_alarm():
            signal.setitimer(signal.ITIMER_REAL, 0)


@contextlib.contextmanager
def stop_on_signal() -> Iterator[StopRequest]:
    """Turn the first Ctrl-C, a termination signal or the closing of the terminal into a request to stop.

    A second Ctrl-C interrupts at once, unless several processes share the job: those stop together. Only the main
    thread can listen; elsewhere no request is ever made.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    handlers = {signal.SIGINT: request._ask, signal.SIGTERM: request._ask}
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup has it
        handlers[signal.SIGHUP] = request._ask
    if _can_alarm():
        handlers[signal.SIGALRM] = request._give_up
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _can_alarm() -> bool:
    """Whether the system has timers that raise signals, and this thread may set one."""
    return hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()
