"""Where files are kept, and how they are written so that nobody ever sees half of one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any


def default_cache_dir() -> Path:
    """Returns `$AGEGENDER_CACHE`, or the user's cache folder (`$XDG_CACHE_HOME`, else `~/.cache`) + `agegender`."""
    if chosen := os.environ.get("AGEGENDER_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "agegender"


@contextmanager
def write_whole(path: Path, mode: str = "wb", **options: Any) -> Iterator[IO[Any]]:
    """Opens a temporary file beside `path` and renames it into place at the end; on an error nothing is left.

    Two processes that write the same file at once both succeed; the later one's stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
    try:
        with os.fdopen(descriptor, mode, **options) as file:
            yield file
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)  # mkstemp's 0600 would lock out the rest of a shared machine
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
