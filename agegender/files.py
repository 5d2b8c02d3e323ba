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

from agegender.errors import AgeGenderError, FaultError

log = logging.getLogger(__name__)

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # a full disk, a spent quota, a file larger than is allowed
CANNOT_RESERVE = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)  # the kind of disk has no such call


def default_cache_dir() -> Path:
    """Returns `$AGEGENDER_CACHE`, or the user's cache folder (`$XDG_CACHE_HOME`, else `~/.cache`) + `agegender`."""
    if chosen := os.environ.get("AGEGENDER_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "agegender"


@contextmanager
def write_whole(path: Path, mode: str = "wb", durable: bool = False, **options: Any) -> Iterator[IO[Any]]:
    """Opens a temporary file beside `path` and renames it into place at the end; on an error nothing is left.

    Two processes that write the same file at once both succeed; the later one's stays.

    Args:
        path: The file to write.
        mode: As of `open`.
        durable: Wait until the disk holds the file before it gets its name, and then until it holds the name: what a
            power cut must not take. Costs as long as the disk takes.
        **options: Of `open`, too.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
    os.close(descriptor)
    try:
        with Path(name).open(mode, **options) as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)  # mkstemp's 0600 would lock out the rest of a shared machine
        os.replace(name, path)
        if durable:
            _sync_folder(path.parent)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _sync_folder(folder: Path) -> None:
    """Waits until the disk holds a folder's names; where a folder can't be opened (Windows), there is no such call."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in CANNOT_RESERVE:
            raise
    finally:
        os.close(descriptor)


def remove_partials(folder: Path, name: str = "*") -> list[Path]:
    """Removes what a process that was killed inside `write_whole` left; nobody may be writing there now.

    Args:
        folder: Where to look, not below it.
        name: Of the file that was being written, or a pattern.

    Returns:
        What was removed.
    """
    left = sorted(folder.glob(f".{name}.*.partial"))
    for path in left:
        path.unlink(missing_ok=True)
    return left


@contextmanager
def writing(what: str, path: Path) -> Iterator[None]:
    """Surrounds a writing without which the work can't go on.

    Raises:
        FaultError: Instead of an `OSError`: says what could not be written, where and why.
    """
    try:
        yield
    except OSError as error:
        raise FaultError(cannot_write(what, path, error)) from error


def cannot_write(what: str, path: Path, error: OSError) -> str:
    """Returns in one line what could not be written, where, why, and what helps."""
    if error.errno in FULL:
        return f"no room to write {what} {path} ({error.strerror}): free the disk, or the quota"
    return f"can't write {what} {path} ({error.strerror or error}): choose a folder that can be written to"


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
        remove_partials(path.parent, path.name)  # a process that still wrote would have the lock
        yield
    finally:
        lock.release()


def take_lock(path: Path, refusal: str) -> FileLock:
    """Takes a lock that another process may not hold, and returns it; it goes with this process, however that ends.

    Args:
        path: The lock's file.
        refusal: What is said if another process holds it.

    Raises:
        AgeGenderError: Another process holds it.
        OSError: The file can't be made.
    """
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise AgeGenderError(refusal) from None
    except NotImplementedError:
        log.warning("%s lies on a disk that can't lock files: see to it that nothing else works there", path.parent)
    return lock


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
def caching(what: str, path: Path, size: int, without: str = "") -> Iterator[None]:
    """Surrounds the writing of what later runs find in the cache folder.

    Args:
        what: What the file holds, in a few words.
        path: The file that is written.
        size: Its size in bytes.
        without: The setting with which the run needs no such file, and what it does then.

    Raises:
        FaultError: Instead of an `OSError`: says what could not be written, where, why, and what helps.
    """
    try:
        yield
    except OSError as error:
        full = error.errno in FULL
        kept = f"{what} {path} ({max(1, round(size / 1e6))} MB: {error.strerror or error})"
        helps = ["free the disk"] * full + ["choose another folder with data.cache_dir=..."] + [without] * bool(without)
        failed = "no room for" if full else "can't write"
        raise FaultError(f"{failed} {kept}; {', or '.join(helps)}") from error
