"""One-line messages for hardware and system faults: memory, disk or processes, and how to continue the run."""

from __future__ import annotations

import errno
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException

from agegender.data.loading.loader import worker_died_message
from agegender.distributed.launcher import script
from agegender.errors import AgeGenderError, DivergedError, SystemFaultError
from agegender.runs.checkpoint import best_of
from agegender.system.files import DISK_FULL, cannot_write
from agegender.system.progress import available_cores

# PyTorch's messages when an allocation on the CPU fails; it has no exception type for that.
_NO_MEMORY = re.compile(r"can't allocate memory|not enough memory|Cannot allocate memory")
_CLOSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EIO, errno.ESTALE)  # can't be opened or written
_DEAD_LOADER = re.compile(r"DataLoader worker \(pid")


@contextmanager
def explain_system_errors(run: Path, settings: Mapping[str, Any]) -> Iterator[None]:
    """Re-raise system faults in a run as one line with the last checkpoint and the command to continue.

    Args:
        run: The run's folder.
        settings: All settings of the run.

    Raises:
        FaultError: In place of a system fault. Other exceptions pass unchanged.
    """
    try:
        with _silent_writer():
            yield
    except DivergedError as error:
        raise DivergedError(str(error) + _kept(run, _BEFORE_IT_DIVERGED)) from error
    except SystemFaultError as error:
        raise SystemFaultError(str(error) + _kept(run, _CONTINUE)) from error
    except AgeGenderError:
        raise  # a wrong setting, or a signal, whose message includes how to continue
    except MisconfigurationException as error:
        raise AgeGenderError(f"Lightning refuses these settings: {' '.join(str(error).split())}") from error
    except (OSError, RuntimeError, MemoryError) as error:  # torch.OutOfMemoryError is a RuntimeError
        line = _explanation(error, run, settings)
        if line is None:
            raise
        raise SystemFaultError(line + _kept(run, _CONTINUE)) from error


@contextmanager
def _silent_writer() -> Iterator[None]:
    """Suppress the traceback of TensorBoard's writer thread: the next point raises the same error."""
    before = threading.excepthook

    def hook(args: threading.ExceptHookArgs) -> None:
        if not (isinstance(args.exc_value, OSError) and type(args.thread).__name__ == "_AsyncWriterThread"):
            before(args)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = before


_CONTINUE = "continue with: {train} resume={run}"
_BEFORE_IT_DIVERGED = "start from it with a lower rate (weights={run} optim.lr=...), or set trainer.gradient_clip_val=1"


def _kept(run: Path, way_on: str) -> str:
    """Return the end of the message: the last checkpoint, and how to continue from it."""
    for path in (run / "checkpoints" / "last.ckpt", best_of(run)):
        if path is not None and path.is_file():
            return f". {path} is kept; {way_on.format(run=run, train=script('train'))}"
    return ". There is no checkpoint yet: start again"


def is_out_of_memory(error: Exception) -> bool:
    """Return whether an error means that the memory of the GPU or the CPU is exhausted."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or bool(_NO_MEMORY.search(str(error)))


def _explanation(error: Exception, run: Path, settings: Mapping[str, Any]) -> str | None:
    """Return the message of a system fault; None for other errors, which keep their traceback."""
    if is_out_of_memory(error):
        return _no_memory(settings, "the GPU" if isinstance(error, torch.OutOfMemoryError) else "the CPU")
    if isinstance(error, OSError):
        if error.errno not in (*DISK_FULL, *_CLOSED):
            return None
        named = isinstance(error.filename, str) and error.filename
        what, where = ("a file of the run", Path(error.filename)) if named else ("a file in the run's folder", run)
        return cannot_write(what, where, error)
    if _DEAD_LOADER.search(str(error)):
        return worker_died_message(settings["data"].get("num_workers") or available_cores())
    return None


def _no_memory(settings: Mapping[str, Any], device: str) -> str:
    batch, image = settings["data"]["batch_size"], settings["data"]["image_size"]
    precision, whole = settings["trainer"].get("precision"), settings["data"].get("on_device") is not False
    smaller = f"data.batch_size={max(1, batch // 2)} trainer.accumulate_grad_batches=2 trains the same"
    options = [smaller, f"data.image_size below {image}", "a smaller model="]
    if precision in ("32-true", "32", None):
        options.insert(1, "trainer=mixed")
    if device == "the GPU" and whole:
        options.append("data.on_device=false")
    return f"{device} ran out of memory with data.batch_size={batch}. Try {', or '.join(options)}"
