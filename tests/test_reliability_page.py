"""docs/reliability.md: each row names tests that exist, and says which of them are slow."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from conftest import ROOT

PAGE = ROOT / "docs" / "reliability.md"


class Named(NamedTuple):
    """Tests that a row names: files or folders, the words of `-k`, and whether they are marked as slow."""

    places: tuple[str, ...]
    words: tuple[str, ...]
    slow: bool


def named_tests() -> Iterator[Named]:
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        places: tuple[str, ...] = ()
        for slow, argument in re.findall(r"(\*slow\* )?`((?:tests/|-k )[^`]*)`", line if line.startswith("|") else ""):
            paths, _, words = argument.partition("-k ")
            places = tuple(paths.split()) or places  # a second -k is of the same file
            yield Named(places, tuple(words.strip('" ').split(" or ")) if words else (), bool(slow))


def searched_in(place: str) -> Iterator[tuple[str, bool]]:
    """Yields what -k searches of each test, its name and the cases written at it, and whether all cases are slow."""
    path = ROOT / place
    assert path.exists(), f"{place} is missing"
    for file in sorted(path.rglob("test_*.py")) if path.is_dir() else [path]:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        whole = any("mark.slow" in ast.unparse(node) for node in tree.body if isinstance(node, ast.Assign))
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                marks = [ast.unparse(each) for each in node.decorator_list]
                yield f"{file.stem} {node.name} {' '.join(marks)}", whole or "pytest.mark.slow" in marks


@pytest.mark.parametrize("named", list(named_tests()), ids=lambda named: f"{named.places[0]} {' '.join(named.words)}")
def test_row_names_tests_that_exist_and_says_whether_they_are_slow(named: Named) -> None:
    tests = [test for place in named.places for test in searched_in(place)]
    for word in named.words or ("test_",):
        found = [slow for text, slow in tests if word in text]
        assert found, f"no test in {' '.join(named.places)} matches -k {word}"
    matching = [slow for text, slow in tests if not named.words or any(word in text for word in named.words)]
    assert any(matching) if named.slow else not all(matching), f"*slow* should {'not ' * named.slow}stand here"


def test_rows_are_found() -> None:
    assert len(list(named_tests())) > 90
