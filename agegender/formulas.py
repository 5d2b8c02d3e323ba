"""File names in CSV files, which a spreadsheet must not take for formulas and a program must find again."""

from __future__ import annotations

# How a formula begins, by OWASP's list (CSV Injection): spreadsheets skip tabs and ends of lines, and Japanese and
# Chinese ones take the wide signs for the narrow ones.
_BEGINNINGS = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")
_HERE = "./"


def no_formula(path: str) -> str:
    """Returns a path that leads to the same file and is no formula.

    >>> no_formula("=cmd.jpg")
    './=cmd.jpg'
    """
    return _HERE + path if path.startswith(_BEGINNINGS) else path


def plain_path(cell: str) -> str:
    """Returns the path that `no_formula` was given.

    >>> plain_path("./=cmd.jpg")
    '=cmd.jpg'
    """
    inside = cell.removeprefix(_HERE)
    return inside if inside.startswith(_BEGINNINGS) else cell
