"""Notes at the end of a page on the data that it is about."""

from __future__ import annotations

_DRAWN = "The faces are synthetic: nothing here applies to real people."
_UTKFACE = (
    "UTKFace, and any metrics and weights derived from it, are for non-commercial research.",
    "Classes are the data set's labels, assigned by others from appearance; ages are largely estimates.",
    "This page contains images of the data set: do not publish it.",
)
_TABLE = (
    "Labels are those of {table}, and no better than these.",
    "This page contains images of the data set: publish it only if the people in them and the license agree.",
)


def data_notes(drawn: bool, table: str | None) -> list[str]:
    """Return the notes.

    Args:
        drawn: Whether the faces are synthetic.
        table: Name of the table of labels; None for labels from file names in UTKFace's form.
    """
    if drawn:
        return [_DRAWN]
    return [note.format(table=table) for note in _TABLE] if table else list(_UTKFACE)
