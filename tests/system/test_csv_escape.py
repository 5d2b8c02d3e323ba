"""CSV cells: no path is a formula to a spreadsheet, and each still names the same file."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Outcome
from helpers.hostile import FORMULAS
from helpers.made_runs import AGE, GENDER
from helpers.made_tables import write_table
from hypothesis import example, given
from hypothesis import strategies as st

from agegender.data.index.index import build_index
from agegender.errors import AgeGenderError
from agegender.evaluation.report.predictions_file import read_predictions
from agegender.system.csv_escape import escape_formula, unescape_formula
from agegender.tasks.info import TaskInfo
from agegender.tasks.task import build_tasks

BEGINNINGS = "=+-@\t\r\n\uff1d\uff0b\uff0d\uff20"


@given(path=st.text(st.sampled_from("./ab'\"") | st.sampled_from(BEGINNINGS), max_size=6))
@example(path="=1")
@example(path="./=1")
@example(path="")
def test_escape_formula_keeps_the_file_and_is_reversible(path: str) -> None:
    cell = escape_formula(path)
    assert not cell.startswith(tuple(BEGINNINGS))
    assert os.path.normpath(cell) == os.path.normpath(path) and escape_formula(cell) == cell
    here = path.removeprefix("./")  # of a path that is written as `escape_formula` does, the plain one comes back
    assert unescape_formula(cell) == (here if here.startswith(tuple(BEGINNINGS)) else path)


def cells_of(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8", errors="surrogateescape") as opened:
        return list(csv.DictReader(opened))


def test_predictions_csv_holds_no_formulas_and_names_the_files(
    run_here: Callable[..., Outcome], faces: Path, tmp_path: Path, trained_run: Path
) -> None:
    given_ = [name for name in FORMULAS if name.strip() == name]  # as lines of a list, the others are no names
    for name, face in zip(given_, sorted(faces.iterdir()), strict=False):
        shutil.copyfile(face, tmp_path / name)
    images = [f"img={name}" for name in given_]
    for out in ("faces.csv", "faces.jsonl"):
        outcome = run_here("predict.py", *images, "detect=never", f"weights={trained_run}", f"out={out}")
        assert outcome.code == 0, outcome.err
    rows = cells_of(tmp_path / "faces.csv")
    assert [unescape_formula(row["path"]) for row in rows] == given_
    assert not any(cell.startswith(tuple(BEGINNINGS)) for row in rows for cell in row.values())
    assert all((tmp_path / row["path"]).is_file() for row in rows)
    lines = (tmp_path / "faces.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["path"] for line in lines] == given_  # no spreadsheet reads these


def test_index_csv_with_formula_names_is_read_back_unchanged(faces: Path, tmp_path: Path) -> None:
    folder, rows = tmp_path / "theirs", []
    folder.mkdir()
    names = [f"{begin}{number}.jpg" for number in range(12) for begin in "=+-@"]
    for name, face in zip(names, sorted(faces.iterdir()), strict=False):
        shutil.copyfile(face, folder / name)
        rows.append({"path": name, "age": 30, "gender": "f"})
    rows += [{"path": "=gone.jpg", "age": 3, "gender": "m"}, {"path": "@old.jpg", "age": "=1+1", "gender": "=x"}]
    index = build_index(folder, tmp_path / "cache", table=write_table(folder / "labels.csv", rows))
    index.write_csv(folder / "index.csv")
    index.write_quarantine(folder / "quarantine.csv")
    assert sorted(index.names) == sorted(names) and set(index.quarantine) == {"=gone.jpg", "@old.jpg"}
    for file in ("index.csv", "quarantine.csv"):
        cells = [cell for row in cells_of(folder / file) for cell in row.values()]
        assert cells and not any(cell.startswith(tuple(BEGINNINGS)) for cell in cells)
    again = build_index(folder, tmp_path / "cache", table=folder / "index.csv")
    assert (again.names, again.fingerprint) == (index.names, index.fingerprint)


def test_report_finds_the_copies_of_images_with_formula_names(tmp_path: Path) -> None:
    (tmp_path / "index.csv").write_text("file,duplicate_group\n./=a.jpg,./=a.jpg\n./+b.jpg,./=a.jpg\n@c.jpg,@c.jpg\n")
    labels = ",30,31.0,,,,1,0.9,0\n"
    header = "path,age,age_pred,age_std,age_low,age_high,gender,p_female,group\n"
    paths = ("./=a.jpg", "./+b.jpg", "@c.jpg")
    (tmp_path / "predictions.csv").write_text(header + "".join(path + labels for path in paths))
    answers = read_predictions(tmp_path, {"data": ".", "tasks": [AGE.to_dict(), GENDER.to_dict()]})
    assert set(answers.names) == set(answers.paths) == {"=a.jpg", "+b.jpg", "@c.jpg"}
    assert len(set(answers.clusters.tolist())) == 2


@pytest.mark.parametrize("name", ["=cmd|x", "+1", "@a", "a\x1b[2J", "\ta", "a\nb"])
def test_names_that_a_spreadsheet_or_a_terminal_would_run_are_refused_in_checkpoints_and_settings(name: str) -> None:
    saved = {
        "name": "smile",
        "kind": "binary",
        "label": "smile",
        "columns": ["p"],
        "digits": [4],
        "classes": ["no", name],
    }
    with pytest.raises(AgeGenderError, match="description of a task is invalid"):
        TaskInfo.from_dict(saved)
    for node in ({"label": name, "classes": ["a", "b"]}, {"label": "smile", "classes": ["no", name]}):
        with pytest.raises(AgeGenderError, match=r"sign of a formula"):
            build_tasks({"smile": {"_target_": "agegender.tasks.Binary", **node}})
