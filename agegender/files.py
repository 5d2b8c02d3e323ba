"""Where files are kept, and how they are written so that nobody ever sees half of one."""

from __future__ import annotations

import errno
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from filelock import FileLock, Timeout

from agegender.errors import AgeGenderError

log = logging.getLogger(__name__)

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # a full disk, a spent quota, a file larger than is allowed
CANNOT_RESERVE = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)  # the kind of disk has no such call


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
    os.close(descriptor)
    try:
        with Path(name).open(mode, **options) as file:
            yield file
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)  # mkstemp's 0600 would lock out the rest of a shared machine
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@contextmanager
def one_at_a_time(path: Path, waiting: str) -> Iterator[None]:
    """Lets one process at a time make `path`, and clears away what one that was killed had written of it.

    The lock is a file beside `path`. It stays there, empty: to remove it could give two processes a lock each.

    Args:
        path: What is made inside; look again whether it is there, since another process may just have made it.
        waiting: Logged if another process holds the lock.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.info(waiting)
        lock.acquire()
    try:
        for left in path.parent.glob(f".{path.name}.*.partial"):  # of write_whole; if it still wrote, it had the lock
            left.unlink(missing_ok=True)
        yield
    finally:
        lock.release()


def reserve(file: IO[bytes], size: int) -> None:
    """Takes room for `size` bytes from the disk, so that a full one is noticed before the work is done.

    Raises:
        OSError: There is not enough room.
    """
    if not hasattr(os, "posix_fallocate"):
        return
    try:
        os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        if error.errno not in CANNOT_RESERVE:
            raise


@contextmanager
def or_do_without(path: Path, what: str, size: int, instead: str) -> Iterator[None]:
    """Surrounds the writing of what can be made again: on a full disk the run goes on without it, and says so.

    Args:
        path: The file that is written.
        what: What it holds, in a few words.
        size: Its size in bytes.
        instead: What happens without it.

    Raises:
        AgeGenderError: It can't be written for another reason, which doesn't go away by itself.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise AgeGenderError(
                f"can't write {what} {path} ({error.strerror}); choose another folder with data.cache_dir=..."
            ) from None
        log.warning(
            "no room for %s %s (%d MB: %s), so %s; free the disk, or choose another with data.cache_dir=...",
            what,
            path,
            max(1, round(size / 1e6)),
            error.strerror,
            instead,
        )
