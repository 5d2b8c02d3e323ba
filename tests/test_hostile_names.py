"""A folder of hostile file names is evaluated, reported and explored: every output escapes them."""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from conftest import TINY, Outcome, metrics_of
from helpers.hostile import NAMES
from helpers.made_tables import write_table

from agegender.system.csv_escape import unescape_formula

SMALL = tuple(setting for setting in TINY if not setting.startswith(("data=", "data.synthetic", "report")))
Run = Callable[..., Outcome]


@pytest.fixture
def table(faces: Path, tmp_path: Path) -> Path:
    """A table of images with hostile names in the working folder, and of missing files."""
    rows = []
    for number, (name, face) in enumerate(zip(NAMES, sorted(faces.iterdir()), strict=False)):
        path = "./" + name if name != name.strip() else name  # cells are stripped when read
        shutil.copyfile(face, tmp_path / name)
        rows.append({"path": path, "age": 5 + 3 * number, "gender": "mf"[number % 2], "group": f"=<i>{number % 2}"})
    for name in ("x" * 5000 + ".jpg", "../" * 400 + "gone.jpg", "<b>gone</b>.jpg", "=gone.jpg"):
        rows.append({"path": name, "age": 3, "gender": "m", "group": ""})
    return write_table(tmp_path / "labels.csv", rows)


class _Tags(HTMLParser):
    """Tags, attributes and image sources of a page."""

    def __init__(self, page: str):
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.images: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes.update(name for name, _ in attrs)
        self.images += [value or "" for name, value in attrs if name == "src"]


def check_page(page: str) -> None:
    found = _Tags(page)
    assert not found.tags & {"script", "b", "i"} and not any(name.startswith("on") for name in found.attributes)
    assert found.images and all(image.startswith("data:image/") for image in found.images)
    assert "{{7*7}}" in page


@pytest.mark.slow
def test_run_files_escape_hostile_names(run_here: Run, table: Path, tmp_path: Path, trained_run: Path) -> None:
    judged = ("fit=false", f"weights={trained_run}", "data.split=test", "data=table", f"data.table={table.name}")
    outcome = run_here("train.py", *SMALL, *judged, "data.dir=.", "data.duplicates=none", "hydra.run.dir=run")
    assert outcome.code == 0, outcome.err
    assert "no report was written" not in outcome.out and "\x1b[31m" not in outcome.out
    assert metrics_of(tmp_path / "run")["images/test"] == len(NAMES)
    for file, column, count in (
        ("predictions", "path", len(NAMES)),
        ("index", "file", len(NAMES)),
        ("quarantine", "file", 4),
    ):
        with (tmp_path / "run" / f"{file}.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as opened:
            rows = list(csv.DictReader(opened))
        assert len(rows) == count
        assert not any(cell.startswith(tuple("=+-@\t\r\n\uff1d")) for row in rows for cell in row.values()), file
        if file != "quarantine":
            assert {unescape_formula(row[column]) for row in rows} == set(NAMES)
            assert all(os.path.isfile(tmp_path / row[column]) for row in rows)
    page = (tmp_path / "run" / "report" / "report.html").read_text(encoding="utf-8")
    check_page(page)
    assert "&lt;img src=x onerror" in page


@pytest.mark.slow
def test_explore_page_escapes_hostile_names(run_here: Run, table: Path, tmp_path: Path) -> None:
    outcome = run_here(
        "agegender/evaluation/explore/__main__.py",
        "data=table",
        f"data.table={table.name}",
        "data.dir=.",
        "out=page",
        "data.split=test",
    )
    assert outcome.code == 0, outcome.err
    page = (tmp_path / "page" / "explore.html").read_text(encoding="utf-8")
    check_page(page)
    assert "&lt;b&gt;gone&lt;/b&gt;.jpg" in page
