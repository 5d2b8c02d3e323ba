"""The one error that a user can mend; everything else is a bug and keeps its traceback."""


class AgeGenderError(Exception):
    """Says in one line what is wrong, where, and what to do next.

    The entry points print the line and exit with a non-zero code; no traceback is shown.
    """


def require(fits: bool, otherwise: str) -> None:
    """Raises an `AgeGenderError` with the message `otherwise` unless a setting fits."""
    if not fits:
        raise AgeGenderError(otherwise)


def missing_package(need: str, error: ImportError, extra: str, instead: str = "") -> AgeGenderError:
    """Returns the error for an optional package that isn't installed.

    Args:
        need: What needs it: "the page", "backend=onnx", ...
        error: What its import raised.
        extra: The extra of `pyproject.toml` that brings it.
        instead: What works without it.
    """
    return AgeGenderError(
        f'{need} needs a package that is missing ({error.name}): pip install "agegender[{extra}]", or in a clone '
        f'pip install -e ".[{extra}]"{instead and "; " + instead}'
    )


class InterruptedRunError(AgeGenderError):
    """Training was stopped from the keyboard, after `last.ckpt` was written."""
