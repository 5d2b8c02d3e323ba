"""Signals that end a command: one line on standard error, and 128 plus the signal's number as the exit code."""

from __future__ import annotations

import atexit
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from agegender.errors import SignalExit

WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
if hasattr(signal, "SIGHUP"):  # the terminal was closed; Windows has no such signal
    WORDS[signal.SIGHUP] = "hung up"

Handler = Callable[[int, FrameType | None], Any]


def exit_at_once(number: int, frame: FrameType | None) -> None:
    """End the process, before it has anything to lose: an exception would be lost in some imports."""
    os.write(2, f"{WORDS[signal.Signals(number)]}\n".encode())
    os._exit(128 + number)


def raise_exit(number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt for Ctrl-C, and `SignalExit` for other signals."""
    if number == signal.SIGINT:
        signal.default_int_handler(number, frame)
    raise SignalExit(WORDS[signal.Signals(number)], 128 + number)


def install(handler: Handler) -> dict[int, Any]:
    """Handle the signals of `WORDS` from now on, and return the previous handlers; the main thread only can do so.

    A signal that is ignored stays so: `nohup` ignores SIGHUP, and a shell without job control SIGINT for `command &`. A
    process that is forked later ignores all of them.
    """
    if threading.current_thread() is not threading.main_thread():
        return {}
    process = os.getpid()

    def handle(number: int, frame: FrameType | None) -> None:
        if os.getpid() == process:
            handler(number, frame)

    before = {number: signal.getsignal(number) for number in WORDS}
    return {
        number: signal.signal(number, handle) for number, previous in before.items() if previous is not signal.SIG_IGN
    }


def ignore() -> None:
    """Ignore the signals of `WORDS` from now on, in a process that is about to end.

    The interpreter restores the default actions in its last moments, except for ignored signals.
    """
    if threading.current_thread() is threading.main_thread():
        for number in WORDS:
            signal.signal(number, signal.SIG_IGN)


@contextmanager
def handling(handler: Handler) -> Iterator[None]:
    """Handle the signals of `WORDS` within a context; see `install`."""
    previous = install(handler)
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)


def _kill_daemons() -> None:
    """Kill the daemon processes that are left: multiprocessing ends them by SIGTERM, which is blocked, and waits."""
    import multiprocessing  # loaded by then; not needed to start a command

    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # PyTorch's handler raises an error for a killed worker
    for process in multiprocessing.active_children():
        if process.daemon:
            process.kill()


@contextmanager
def blocked() -> Iterator[None]:
    """Block the signals of `WORDS`: processes started within inherit that, and leave their end to the main process."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    atexit.unregister(_kill_daemons)
    atexit.register(_kill_daemons)  # before the handler of multiprocessing, which was registered earlier
    before = signal.pthread_sigmask(signal.SIG_BLOCK, WORDS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
