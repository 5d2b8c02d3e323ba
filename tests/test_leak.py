"""Test images of a leaky run with copies in its training split, by the duplicate groups of a clean run."""

from __future__ import annotations

from pathlib import Path

import pytest

from agegender.errors import AgeGenderError
from benchmarks.leak import leaked


def write_index(folder: Path, rows: dict[str, tuple[str, str]]) -> Path:
    folder.mkdir()
    lines = [f"{file},{split},{group}" for file, (split, group) in rows.items()]
    (folder / "index.csv").write_text("\n".join(["file,split,duplicate_group", *lines]) + "\n")
    return folder


def test_leaked_are_test_images_with_a_copy_in_another_split(tmp_path: Path) -> None:
    sides = {"a": "test", "b": "train", "c": "test", "d": "val", "e": "test", "f": "test", "g": "test", "h": "train"}
    groups = {"a": "a", "b": "a", "c": "c", "d": "c", "e": "e", "f": "e", "g": "g", "h": "h"}
    leaky = write_index(tmp_path / "leaky", {file: (side, file) for file, side in sides.items()})
    clean = write_index(tmp_path / "clean", {file: ("train", group) for file, group in groups.items()})
    assert leaked(leaky, clean) == {"a", "c"}


def test_leaked_counts_val_and_test_of_a_random_split_as_one(tmp_path: Path) -> None:
    leaky = write_index(tmp_path / "leaky", {"a": ("val+test", "a"), "b": ("val+test", "b"), "c": ("train", "c")})
    clean = write_index(tmp_path / "clean", {"a": ("train", "a"), "b": ("train", "a"), "c": ("test", "c")})
    assert leaked(leaky, clean) == set()


def test_leaked_refuses_runs_on_different_images(tmp_path: Path) -> None:
    leaky = write_index(tmp_path / "leaky", {"a": ("test", "a")})
    clean = write_index(tmp_path / "clean", {"b": ("test", "b")})
    with pytest.raises(AgeGenderError, match="not on the same images"):
        leaked(leaky, clean)
