"""Cache directory, atomic writes, lock files, and one-line errors for a full or read-only disk."""

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

from agegender.errors import AgeGenderError, SystemFaultError
from agegender.system.checksums import append_checksum

log = logging.getLogger(__name__)

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # a full disk, an exceeded quota, a file above the size limit
FALLOCATE_UNSUPPORTED = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)  # not supported by the filesystem


def default_cache_dir() -> Path:
    """Return `$AGEGENDER_CACHE`, or the user's cache folder (`$XDG_CACHE_HOME`, else `~/.cache`) + `agegender`."""
    if chosen := os.environ.get("AGEGENDER_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "agegender"


@contextmanager
def atomic_write(
    path: Path, mode: str = "wb", durable: bool = False, checksum: bool = False, **options: Any
) -> Iterator[IO[Any]]:
    """Open a temporary file beside `path` and rename it to `path` on exit; an error leaves no file.

    Two processes that write the same file at once both succeed; the last rename wins.

    Args:
        path: The file to write.
        mode: Mode of `open`.
        durable: Sync the file before the rename and its folder after it, so that the file survives a power cut. Takes
            as long as the disk needs.
        checksum: Append a checksum, which `checksums.is_intact` verifies.
        **options: Further arguments of `open`.
    """
    with atomic_path(path) as temporary, temporary.open(mode, **options) as file:
        yield file
        if checksum:
            append_checksum(temporary, file)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    if durable:
        _sync_folder(path.parent)


@contextmanager
def atomic_path(path: Path, suffix: str = ".partial") -> Iterator[Path]:
    """Yield the path of a temporary file beside `path`, and rename it to `path` on exit; an error leaves no file.

    Args:
        path: The file to write.
        suffix: End of the temporary file's name, for libraries that read the format from it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=suffix, dir=path.parent)
    os.close(descriptor)
    try:
        yield Path(name)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)  # mkstemp's 0600 would lock out the rest of a shared machine
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _sync_folder(folder: Path) -> None:
    """Sync a folder's entries to disk; does nothing where a folder can't be opened (Windows)."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in FALLOCATE_UNSUPPORTED:
            raise
    finally:
        os.close(descriptor)


def remove_temp_files(folder: Path, name: str = "*") -> list[Path]:
    """Remove the temporary files of processes killed inside `atomic_write`; no other process may be writing there.

    Args:
        folder: Searched without its sub-folders.
        name: Name of the file that was being written, or a glob pattern.

    Returns:
        The files that were removed.
    """
    left = sorted(folder.glob(f".{name}.*.partial"))
    for path in left:
        path.unlink(missing_ok=True)
    return left


@contextmanager
def raise_write_errors(what: str, path: Path) -> Iterator[None]:
    """Re-raise `OSError` as a one-line `SystemFaultError`.

    Args:
        what: Description of the file, for the message.
        path: The file that is written.

    Raises:
        SystemFaultError: An `OSError` was raised inside; the message names the file, the reason and the remedy.
    """
    try:
        yield
    except OSError as error:
        raise SystemFaultError(cannot_write(what, path, error)) from error


def cannot_write(what: str, path: Path, error: OSError) -> str:
    """Return a one-line message for a failed write: the file, the reason and the remedy."""
    if error.errno in DISK_FULL:
        return f"no room to write {what} {path} ({error.strerror}): free the disk, or the quota"
    return f"can't write {what} {path} ({error.strerror or error}): choose a folder that can be written to"


@contextmanager
def exclusive_lock(path: Path, waiting: str) -> Iterator[None]:
    """Hold an exclusive lock while `path` is created, and remove the temporary files of killed processes.

    The lock is an empty file beside `path`. It is never removed: removal could let two processes lock different files.

    Args:
        path: The file or folder created inside. Check again inside whether it exists: another process may have created
            it while this one waited.
        waiting: Message logged if another process holds the lock.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.info(waiting)
        lock.acquire()
    try:
        remove_temp_files(path.parent, path.name)  # a process that is still writing would hold the lock
        yield
    finally:
        lock.release()


def acquire_lock(path: Path, refusal: str) -> FileLock:
    """Acquire a file lock without waiting and return it; the kernel releases it when this process ends.

    Args:
        path: The lock file.
        refusal: Message of the error if another process holds the lock.

    Raises:
        AgeGenderError: Another process holds the lock.
        OSError: The lock file can't be created.
    """
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise AgeGenderError(refusal) from None
    except NotImplementedError:
        log.warning("%s is on a filesystem without file locks: let no other process write there", path.parent)
    return lock


def preallocate(file: IO[bytes], size: int) -> None:
    """Allocate `size` bytes of disk space, so that a full disk is noticed before the work is done.

    Raises:
        OSError: There is not enough space.
    """
    if not hasattr(os, "posix_fallocate"):
        return
    try:
        os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        if error.errno not in FALLOCATE_UNSUPPORTED:
            raise


@contextmanager
def raise_cache_errors(what: str, path: Path, size: int, without: str = "") -> Iterator[None]:
    """Re-raise `OSError` as a one-line `SystemFaultError` while a cache file is written.

    Args:
        what: Description of the file, for the message.
        path: The file that is written.
        size: Size of the file in bytes.
        without: Advice for a run without the file: a setting and its effect; empty for none.

    Raises:
        SystemFaultError: An `OSError` was raised inside; the message names the file, its size, the reason and remedies.
    """
    try:
        yield
    except OSError as error:
        full = error.errno in DISK_FULL
        details = f"{what} {path} ({max(1, round(size / 1e6))} MB: {error.strerror or error})"
        remedies = (
            ["free the disk"] * full + ["choose another folder with data.cache_dir=..."] + [without] * bool(without)
        )
        failed = "no room for" if full else "can't write"
        raise SystemFaultError(f"{failed} {details}; {', or '.join(remedies)}") from error


def display_path(path: Path) -> str:
    """Return the path relative to the current folder if it lies below it, else unchanged."""
    whole = path.resolve()
    return str(whole.relative_to(Path.cwd())) if whole.is_relative_to(Path.cwd()) else str(path)
