"""The one error that a user can mend; everything else is a bug and keeps its traceback."""


class AgeGenderError(Exception):
    """Says in one line what is wrong, where, and what to do next.

    The entry points print the line and exit with a non-zero code; no traceback is shown.
    """


def require(fits: bool, otherwise: str) -> None:
    """Raises an `AgeGenderError` with the message `otherwise` unless a setting fits."""
    if not fits:
        raise AgeGenderError(otherwise)


class InterruptedRunError(AgeGenderError):
    """Training was stopped from the keyboard, after `last.ckpt` was written."""
