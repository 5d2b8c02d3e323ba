"""Output to the terminal: literal text in tables, and standard output that is closed or whose reader is gone."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


def console(stderr: bool = False, **options: Any) -> Console:
    """Return a console that prints text literally: names of files and settings are not Rich's markup."""
    from rich.console import Console  # not needed by `--help`

    return Console(stderr=stderr, markup=False, emoji=False, highlight=False, **options)


def printable(text: str) -> str:
    """Return text for standard output, with control characters and what its encoding lacks as escapes."""
    letters = (letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return "".join(letters).encode(encoding, "backslashreplace").decode(encoding)


def is_quiet() -> bool:
    """Return whether the package's logger is limited to warnings, as in the jobs of a sweep."""
    return logging.getLogger("agegender").level >= logging.WARNING


class _WithoutReader:
    """Standard output that becomes the null device when its reader is gone, as after `| head`."""

    def __init__(self, stream: Any):
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return int(self._stream.write(text))
        except BrokenPipeError:
            self._lose_reader()
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._lose_reader()

    def _lose_reader(self) -> None:
        _to_null_device(self._stream)
        print("standard output is closed: the command goes on without it", file=sys.stderr)


def _to_null_device(stream: Any) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # Python flushes the stream again at exit


def print_page(text: str) -> None:
    """Print a text as `printable`; no error and no message if its reader has read enough, as `| head` has."""
    stream = sys.stdout._stream if isinstance(sys.stdout, _WithoutReader) else sys.stdout
    try:
        stream.write("".join(f"{printable(line)}\n" for line in text.splitlines()))
        stream.flush()
    except BrokenPipeError:
        _to_null_device(stream)


def prepare_output(keep_going: bool) -> bool:
    """Make standard output and error usable, and return whether standard output was open.

    A service, `pythonw` or a shell's `>&-` starts Python without them. The next opened file would get their
    descriptors, and everything printed.

    Args:
        keep_going: Whether the command goes on when the reader of its standard output is gone.
    """
    is_open = sys.stdout is not None
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    if sys.stdout is None:
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - for the whole process
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    if keep_going and not isinstance(sys.stdout, _WithoutReader):
        sys.stdout = _WithoutReader(sys.stdout)
    return is_open
