"""Escape file names in CSV files against CSV injection, reversibly; and names that need no escape."""

from __future__ import annotations

# First characters of a formula, from OWASP's list (CSV Injection): spreadsheets skip tabs and line ends, and Japanese
# and Chinese versions accept the full-width signs too.
_FORMULA_STARTS = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")
_PREFIX = "./"


def escape_formula(path: str) -> str:
    """Return an equivalent path that no spreadsheet evaluates as a formula.

    >>> escape_formula("=cmd.jpg")
    './=cmd.jpg'
    """
    return _PREFIX + path if path.startswith(_FORMULA_STARTS) else path


def unescape_formula(cell: str) -> str:
    """Return the original path of a cell written by `escape_formula`.

    >>> unescape_formula("./=cmd.jpg")
    '=cmd.jpg'
    """
    inside = cell.removeprefix(_PREFIX)
    return inside if inside.startswith(_FORMULA_STARTS) else cell


def is_plain(name: str) -> bool:
    """Return whether a name of a class, column or unit is the same in CSV files, on terminals and in spreadsheets."""
    return name.isprintable() and not name.startswith(_FORMULA_STARTS)
