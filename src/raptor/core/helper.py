"""A process that computes pieces of work for the one that started it, and what the two say to each other.

It knows nothing but what it is sent, yields to whatever else wants its core, and ends when the other one does.
"""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from raptor.core.errors import first_line

Work = Callable[..., Any]
"""Pure, hashable and picklable; with tensors in any nesting as arguments and as result."""

NICENESS = 19


class Helper:
    """The other end of a pipe to such a process; `OSError` where it cannot be started."""

    def __init__(self) -> None:
        import torch

        ours, theirs = _pipe()
        # It does not run the script of this process, as `multiprocessing` would, and begins with Ctrl-C blocked.
        call = f"from raptor.core.helper import serve; serve({theirs.fileno()}, {NICENESS})"
        begin = f"import sys; sys.path[:] = {[*map(str, sys.path)]!r}; {call}"
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            with theirs:
                self.process = subprocess.Popen(
                    [sys.executable, "-c", begin],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self.connection = ours
        self.seconds: dict[int, float | None] = {}  # of its last piece, by the number of the work; None after the first
        self.connection.send((torch.get_num_threads(), torch.get_default_dtype()))

    def receive(self) -> tuple[str, Any]:
        """What it sends."""
        answer: tuple[str, Any] = loads(self.connection.recv_bytes())
        return answer

    def compute(self, number: int, work: bytes, piece: tuple[Any, ...]) -> tuple[str, Any]:
        """Have it compute a piece of a work that has this number: "done" and the result, or "failed" and why."""
        if is_new := number not in self.seconds:
            self.connection.send_bytes(dumps((number, work)))
        begun = time.perf_counter()
        self.connection.send_bytes(dumps((number, piece)))
        answer = self.receive()
        self.seconds[number] = None if is_new else time.perf_counter() - begun  # the first one loads, too
        return answer

    def how_it_ended(self) -> str:
        """In words."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = self.process.wait(timeout=5)
            return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
        return "does not answer"

    def end(self) -> None:
        """End it."""
        self.process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=5)


def _pipe() -> tuple[Connection, Connection]:
    import multiprocessing

    if os.name != "posix" or getattr(sys, "frozen", False) or not sys.executable:
        raise OSError("there is no Python to hand a pipe to")
    return multiprocessing.Pipe()


def serve(descriptor: int, niceness: int) -> None:
    """Compute piece after piece; the main function of another process, which ends when the pipe does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # this process's owner gets it, too, and says what follows
    os.nice(niceness)
    connection, tasks = Connection(descriptor), queue.SimpleQueue[bytes]()
    threading.Thread(target=_listen, args=(connection, tasks), daemon=True).start()
    import torch

    threads, dtype = pickle.loads(tasks.get())
    torch.set_num_threads(threads)
    torch.set_default_dtype(dtype)
    works: dict[int, Work] = {}
    # Its result would have other bits than that of compiled code.
    warnings.filterwarnings("error", message="torch's compiler does not work here")
    connection.send_bytes(dumps(("ready", None)))
    while True:
        try:
            number, given = loads(tasks.get())
            if isinstance(given, bytes):
                works[number] = loads(given)
                continue
            answer = "done", works[number](*given)
        except Exception as error:  # whatever a work raises, or the loading of it
            works, answer = {}, ("failed", cause(error))
        connection.send_bytes(dumps(answer))


def _listen(connection: Connection, tasks: queue.SimpleQueue[bytes]) -> None:
    """Receive what is to do, also while something is done, to end at once when the other end of the pipe is gone."""
    with contextlib.suppress(EOFError, OSError):
        while True:
            tasks.put(connection.recv_bytes())
    os._exit(0)


def cause(error: Exception) -> str:
    """An error in words, with its type."""
    return f"{type(error).__name__}: {first_line(error)}"


class _Pickler(pickle.Pickler):
    """Pickles tensors by their content, in the memory order that they have."""

    def reducer_override(self, obj: Any) -> Any:
        torch = sys.modules["torch"]
        if not isinstance(obj, torch.Tensor):
            return NotImplemented
        tensor = obj.detach()
        extent = 1 + sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride(), strict=True))
        if tensor.numel() not in (0, extent):  # it is expanded, or a part of another one
            tensor = tensor.contiguous()
        flat = tensor.as_strided((tensor.numel(),), (1,))  # as it lies in memory
        return _tensor, (flat.view(torch.uint8).numpy().tobytes(), tensor.dtype, tuple(tensor.shape), tensor.stride())


def _tensor(content: bytes, dtype: Any, shape: tuple[int, ...], stride: tuple[int, ...]) -> Any:
    torch = sys.modules["torch"]
    if not content:
        return torch.empty_strided(shape, stride, dtype=dtype)
    flat = torch.frombuffer(bytearray(content), dtype=dtype)
    return flat.clone().as_strided(shape, stride)  # memory that torch allocated, as this process's own pieces are in


def dumps(thing: Any) -> bytes:
    """Pickle anything, with tensors in it."""
    buffer = io.BytesIO()
    _Pickler(buffer, protocol=pickle.HIGHEST_PROTOCOL).dump(thing)
    return buffer.getvalue()


def loads(content: bytes) -> Any:
    """What was pickled."""
    return pickle.loads(content)
