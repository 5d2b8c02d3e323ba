"""The one error that a user can mend, exit codes, and the nearest name; all else is a bug and keeps its traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

EXIT_ERROR = 1
EXIT_USAGE = 2  # a command line that can't be understood
EXIT_INTERRUPTED = 130  # the shell's convention for Ctrl-C
EXIT_PIPE = 141  # and for a pipe whose other end was closed, as `| head` does


class AgeGenderError(Exception):
    """An error whose one-line message names the problem, its place and the next step.

    The entry points print the line and exit with a non-zero code; no traceback is shown.
    """


def require(fits: bool, otherwise: str) -> None:
    """Raise an `AgeGenderError` with the message `otherwise` unless `fits`."""
    if not fits:
        raise AgeGenderError(otherwise)


def did_you_mean(wrong: str, valid: Iterable[str]) -> str:
    """Return `did you mean ...?` if a valid name is close to the wrong one, else the list of valid names."""
    names = sorted(valid)
    close = difflib.get_close_matches(wrong.lower(), [name.lower() for name in names], n=1, cutoff=0.6)
    if close:
        return f"did you mean {next(name for name in names if name.lower() == close[0])}?"
    return f"choose from {', '.join(names)}" if names else "nothing can be set there"


def missing_extra(need: str, error: ImportError, extra: str, instead: str = "") -> AgeGenderError:
    """Return the error for an optional package that isn't installed.

    Args:
        need: The feature that needs the package: "the page", "backend=onnx", ...
        error: The exception of its import.
        extra: The extra of `pyproject.toml` that installs it.
        instead: An alternative without the package; empty for none.
    """
    return AgeGenderError(
        f'{need} needs a package that is missing ({error.name}): pip install "agegender[{extra}]", or in a clone '
        f'pip install -e ".[{extra}]"{instead and "; " + instead}'
    )


class InterruptedRunError(AgeGenderError):
    """Training was stopped by a signal, after `last.ckpt` was written.

    Attributes:
        code: The exit code, 128 plus the signal number by the convention of shells: 130 for Ctrl-C, 143 for SIGTERM.
    """

    def __init__(self, message: str = "", code: int = 130):
        """Store the message and the exit code."""
        super().__init__(message)
        self.code = code


class SignalExit(SystemExit):
    """A signal outside the training loop; a `SystemExit`, so that no `except Exception` handles it as a failure."""

    def __init__(self, message: str, code: int):
        """Store the line for standard error and the exit code, 128 plus the signal's number."""
        super().__init__(code)
        self.message = message

    def __str__(self) -> str:
        """Return the line."""
        return self.message


class SystemFaultError(AgeGenderError):
    """A fault of the disk or the data during a run: no setting was wrong, and finished work is kept."""


class DivergedError(AgeGenderError):
    """The loss or the weights became NaN or infinite: resuming from the same step would diverge again."""
