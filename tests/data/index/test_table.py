"""Any table of files and labels is read as strictly as UTKFace's names, and indexed in the same way."""

from __future__ import annotations

import csv
import math
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from helpers.made_tables import half_labeled, rows_of, write_table
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from agegender.data.datamodule import AgeGenderDataModule
from agegender.data.index.index import FaceIndex, build_index
from agegender.data.index.protocol import Leak
from agegender.data.index.table import MOST_GROUPS, read_table
from agegender.data.index.utkface import GENDERS, GROUPS, LabelTable
from agegender.errors import AgeGenderError


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all of this file's tests: the faces are read once."""
    return tmp_path_factory.mktemp("cache")


Classes = Mapping[str, Sequence[str] | None]  # labels of tasks; None for a number
Labels = tuple[float | None, ...]


def listed(folder: Path, text: str | bytes) -> LabelTable:
    """Reads a CSV file of this content."""
    table = folder / "labels.csv"
    table.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape"))
    return read_table(table, folder)


def one(folder: Path, labels: Classes | None = None, **cells: str) -> Labels | str:
    """Returns the labels of a single row, or why it was quarantined."""
    table = write_table(folder / "labels.csv", [{"path": "a.jpg", **cells}])
    listing = read_table(table, folder, labels=labels)
    assert [*listing.labels, *listing.quarantine] == ["a.jpg"]
    return tuple(listing.labels["a.jpg"]) if listing.labels else listing.quarantine["a.jpg"]


# What a row says


@pytest.mark.parametrize(
    ("text", "age"),
    [("30", 30), (" 30 ", 30), ("30.0", 30), ("30.99", 30), ("0", 0), ("0.4", 0), ("120", 120), ("120.9", 120)]
    + [("+7", 7), ("3e1", 30), (".5", 0), ("30.", 30)]
    + [(word, None) for word in ("", " ", "NA", "na", "N/A", "NaN", "nan", "None", "null", "NULL", "Unknown")],
)
def test_age_is_read_in_completed_years(tmp_path: Path, text: str, age: int | None) -> None:
    assert one(tmp_path, age=text, gender="1") == (age, 1, None)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("121", "age '121' outside 0..120"),
        ("-1", "age '-1' outside 0..120"),
        ("-0.5", "age '-0.5' outside 0..120"),
        ("1e400", "age '1e400' outside 0..120"),
        ("25-32", "age '25-32' is not a number of years"),
        ("30,5", "age '30,5' is not a number of years"),
        ("thirty", "age 'thirty' is not a number of years"),
        ("inf", "age 'inf' is not a number of years"),
        ("1_0", "age '1_0' is not a number of years"),
        ("٣٠", "age '٣٠' is not a number of years"),
        ("9" * 60, f"age '{'9' * 40}...' outside 0..120"),
    ],
)
def test_invalid_age_is_quarantined_with_its_reason(tmp_path: Path, text: str, reason: str) -> None:
    assert one(tmp_path, age=text, gender="1") == reason


@pytest.mark.parametrize(("age", "taken"), [("17.9", False), ("18", True), ("40.9", True), ("41", False)])
def test_both_ends_of_the_age_range_are_taken(tmp_path: Path, age: str, taken: bool) -> None:
    table = write_table(tmp_path / "labels.csv", [{"path": "a.jpg", "age": age}])
    listing = read_table(table, tmp_path, age_range=(18, 40))
    assert list(listing.labels) == ["a.jpg"] * taken
    assert list(listing.quarantine.values()) == [f"age '{age}' outside 18..40"] * (not taken)


def test_age_has_at_most_three_digits(tmp_path: Path) -> None:
    table = write_table(tmp_path / "labels.csv", [{"path": "a.jpg", "age": "1000"}, {"path": "b.jpg", "age": "999"}])
    assert list(read_table(table, tmp_path, age_range=(0, 10**9)).labels) == ["b.jpg"]


@pytest.mark.parametrize(
    ("text", "gender"),
    [("0", 0), ("male", 0), ("Male", 0), ("M", 0), ("m", 0), ("0.0", 0), ("1", 1), ("FEMALE", 1), ("f", 1), (" F ", 1)]
    + [("1.0", 1), ("1.", 1)]
    + [(word, None) for word in ("", "NA", "nan", "none", "Null", "unknown")],
)
def test_gender_is_read_from_codes_and_words(tmp_path: Path, text: str, gender: int | None) -> None:
    assert one(tmp_path, gender=text, age="30") == (30, gender, None)


@pytest.mark.parametrize("text", ["2", "-1", "0.5", "woman", "True", "mf", "01"])
def test_invalid_gender_is_quarantined(tmp_path: Path, text: str) -> None:
    assert one(tmp_path, gender=text, age="30") == f"gender '{text}' is none of 0, 1, male, female, m, f"


def test_row_needs_an_age_or_a_gender(tmp_path: Path) -> None:
    assert one(tmp_path, age="30", gender="") == (30, None, None)
    assert one(tmp_path, age="", gender="f") == (None, 1, None)
    assert one(tmp_path, age="30") == (30, None, None)
    assert one(tmp_path, gender="f") == (None, 1, None)
    assert one(tmp_path, age="NA", gender="unknown", group="x") == "neither age nor gender"


@pytest.mark.parametrize(
    ("classes", "text", "code"),
    [
        (["no", "yes"], "Yes", 1),
        (["no", "yes"], " 0.0 ", 0),
        (["no", "yes"], "N/A", None),
        (["none", "round glasses", "sunglasses"], "NONE", 0),  # the name of a class, not a missing label
        (["none", "round glasses", "sunglasses"], "Round  Glasses", 1),
        (["none", "round glasses", "sunglasses"], "", None),
        (["1", "2", "3"], "2", 1),  # the name of the second class, not the code of the third
        (["1", "2", "3"], "3.0", 2),
        (["1", "2", "3"], "0", "mood '0' is none of 1, 2, 3"),
        (["no", "yes"], "maybe", "mood 'maybe' is none of 0, 1, no, yes"),
        (["no", "yes"], "2", "mood '2' is none of 0, 1, no, yes"),
        (["no", "yes"], "m", "mood 'm' is none of 0, 1, no, yes"),
        (None, "-1.5e2", -150.0),
        (None, "unknown", None),
        (None, "3e38", 3e38),
        *((None, text, f"mood '{text}' is not a finite number") for text in ("1e39", "inf", "yes", "1,5", "-1e999")),
    ],
)
def test_further_label_is_read_as_a_class_or_a_number(
    tmp_path: Path, classes: list[str] | None, text: str, code: float | str | None
) -> None:
    expected = code if isinstance(code, str) else (30, None, None, code)
    assert one(tmp_path, {"mood": classes}, age="30", Mood=text) == expected


@given(
    names=st.lists(
        st.text(min_size=1, max_size=6), min_size=2, max_size=5, unique_by=lambda name: name.strip().casefold()
    ),
    cell=st.text(max_size=8) | st.from_regex(r"\A[+-]?[0-9]{0,3}[.]?[0-9]{0,3}(e-?[0-9]{1,3})?\Z"),
)
@settings(max_examples=50)
def test_any_cell_of_a_further_label_is_a_value_missing_or_quarantined(
    names: list[str], cell: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    table = tmp_path_factory.getbasetemp() / "cells.csv"
    rows = [["path", "age", "word", "number"], ["a", "3", cell, ""], ["b", "3", "", cell], *(["c", "3", names[0], ""],)]
    with table.open("w", newline="", encoding="utf-8", errors="surrogatepass") as file:
        csv.writer(file).writerows(rows)
    listing = read_table(table, table.parent, labels={"word": names, "number": None})
    for name, (_, _, _, code, number) in listing.labels.items():
        assert code is None or code in range(len(names)), name
        assert number is None or math.isfinite(np.float32(number)), name
    for name, reason in listing.quarantine.items():
        assert reason.startswith("word " if name in "ac" else "number "), (name, reason)


def test_table_takes_the_wanted_labels_and_ignores_other_columns(tmp_path: Path) -> None:
    rows = [{"path": "a.jpg", "smile": "yes", "mood": "?"}, {"path": "b.jpg", "smile": "", "mood": "happy"}]
    table = write_table(tmp_path / "labels.csv", rows)
    listing = read_table(table, tmp_path, labels={"smile": ["no", "yes"]})
    assert listing.labels == {"a.jpg": (None, None, None, 1)} and listing.columns == ("age", "gender", "group", "smile")
    assert listing.classes == {"gender": GENDERS, "group": GROUPS, "smile": ("no", "yes")}
    assert listing.quarantine == {"b.jpg": "neither age nor gender nor smile"}
    with pytest.raises(AgeGenderError, match=r"needs a header line .* one or more of age, gender; it has path, smile"):
        read_table(table, tmp_path)


def test_group_with_the_classes_of_a_task_quarantines_other_groups(tmp_path: Path) -> None:
    rows = [{"path": f"{row}.jpg", "group": text} for row, text in enumerate(["north", "1", "West", "NA"])]
    table = write_table(tmp_path / "labels.csv", rows)
    listing = read_table(table, tmp_path, labels={"group": ["north", "south", "east"]})
    assert listing.labels == {"0.jpg": (None, None, 0), "1.jpg": (None, None, 1)}
    assert listing.classes["group"] == ("north", "south", "east")
    assert listing.quarantine == {
        "2.jpg": "group 'West' is none of 0, 1, 2, north, south, east",
        "3.jpg": "neither age nor gender nor group",
    }


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"smile": None}, r"data\.table=.*labels\.csv has no column smile, which a task needs; it has path, age, mood"),
        ({"Split": None}, "a column Split is no label: rename it in the table and in the task"),
        ({"age": ["young", "old"]}, "the label age is a number: give the task another column"),
        ({"group": None}, "the label group is classes: give the task another column"),
    ],
)
def test_label_that_a_table_cannot_have_is_refused_in_one_line(tmp_path: Path, labels: Classes, message: str) -> None:
    table = write_table(tmp_path / "labels.csv", [{"path": "a.jpg", "age": 3, "mood": 1}])
    with pytest.raises(AgeGenderError, match=message) as caught:
        read_table(table, tmp_path, labels=labels)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("texts", "names", "codes"),
    [
        (["b", "a", "", "b"], ("a", "b"), [1, 0, None, 1]),
        (["White", "others", "NA"], GROUPS, [0, 4, None]),
        (["0", "4", "2.0"], GROUPS, [0, 4, 2]),
        (["0", "5"], ("0", "5"), [0, 1]),
        (["Latino", "White"], ("Latino", "White"), [0, 1]),
        (["Two\n words ", "Two words"], ("Two words",), [0, 0]),
        (["", ""], GROUPS, [None, None]),
    ],
)
def test_groups_keep_their_names_unless_they_are_utkface_codes(
    tmp_path: Path, texts: list[str], names: tuple[str, ...], codes: list[int | None]
) -> None:
    rows = [{"path": f"{number}.jpg", "age": 30, "group": text} for number, text in enumerate(texts)]
    listing = read_table(write_table(tmp_path / "labels.csv", rows), tmp_path)
    assert listing.classes["group"] == names
    assert [label[2] for label in listing.labels.values()] == codes


def test_name_column_is_not_read_as_a_group(tmp_path: Path) -> None:
    rows = [{"path": f"{number}.jpg", "age": 30, "group": f"person {number}"} for number in range(MOST_GROUPS + 1)]
    with pytest.raises(AgeGenderError, match=r"column group holds 101 different texts, 'person 0' the first: at most"):
        read_table(write_table(tmp_path / "labels.csv", rows), tmp_path)


# Which file it is about


def test_path_spellings_of_one_file_give_one_name(tmp_path: Path) -> None:
    outside = tmp_path.parent / "elsewhere.jpg"
    paths = ("a.jpg", "./b.jpg", "sub//c.jpg", "sub/../d.jpg", str(tmp_path / "sub" / "e.jpg"), str(outside), " f.jpg ")
    listing = read_table(write_table(tmp_path / "t.csv", [{"path": path, "age": 3} for path in paths]), tmp_path)
    assert list(listing.labels) == ["a.jpg", "b.jpg", "sub/c.jpg", "d.jpg", "sub/e.jpg", str(outside), "f.jpg"]


def test_repeated_rows_count_once_and_contradictory_ones_are_quarantined(tmp_path: Path) -> None:
    listing = listed(
        tmp_path,
        "path,age,gender\na.jpg,30,f\n./a.jpg,30.5,female\nb.jpg,30,f\nb.jpg,31,f\nc.jpg,3,f\nc.jpg,3,\nd.jpg,3,f\n"
        "d.jpg,x,f\ne.jpg,x,f\ne.jpg,3,f\n",
    )
    assert listing.labels == {"a.jpg": (30, 1, None)}
    differ, broken = "several rows name it, with different labels", "age 'x' is not a number of years"
    assert listing.quarantine == {"b.jpg": differ, "c.jpg": differ, "d.jpg": broken, "e.jpg": broken}


def test_row_without_a_path_is_quarantined_under_its_line(tmp_path: Path) -> None:
    listing = listed(tmp_path, 'path,age\na.jpg,3\n,4\n  ,5\n,,\n\n"b\n.jpg",6\n,7\n')
    assert list(listing.labels) == ["a.jpg", "b\n.jpg"]
    assert listing.quarantine == {f"(line {line})": "no path" for line in (3, 4, 9)}


def test_row_with_too_many_cells_is_quarantined(tmp_path: Path) -> None:
    listing = listed(tmp_path, "path,age\na.jpg,3,,\nb, c.jpg,4\nd.jpg\n")
    assert listing.labels == {"a.jpg": (3, None, None)}
    assert listing.quarantine == {"b": "age 'c.jpg' is not a number of years", "d.jpg": "neither age nor gender"}
    listing = listed(tmp_path, "path,age\na.jpg,3,4\n")
    assert listing.quarantine == {"a.jpg": "more cells than the header has: is a comma not quoted?"}


def test_path_may_hold_bytes_that_are_not_utf8(tmp_path: Path, faces: Path, cache_dir: Path) -> None:
    name = os.fsdecode(b"caf\xe9.jpg")
    try:
        shutil.copy(min(faces.iterdir()), tmp_path / name)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    table = write_table(tmp_path / "labels.csv", [{"path": name, "age": 3, "group": name}])
    index = build_index(tmp_path, cache_dir, table=table, split="test")
    assert index.names == [name] and index.classes["group"] == ("caf?.jpg",)
    index.write_csv(tmp_path / "index.csv")
    assert b"caf\xe9.jpg,3,," in (tmp_path / "index.csv").read_bytes()


# The file


@pytest.mark.parametrize("start", ["", "\ufeff"], ids=["plain", "byte order mark"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("path", ["path", " Path ", "file", "FILE"])
def test_columns_are_found_in_any_order_and_case_among_others(tmp_path: Path, start: str, end: str, path: str) -> None:
    lines = [f'note,GENDER,Age,{path},"group"', 'x,f, 30,"a, b.jpg","Asian"', "", "y,m,,c.jpg,"]
    assert listed(tmp_path, start + end.join(lines)) == LabelTable(
        {"a, b.jpg": (30, 1, 2), "c.jpg": (None, 0, None)}, {}
    )


def test_file_column_is_ignored_beside_a_path_column(tmp_path: Path) -> None:
    assert list(listed(tmp_path, "file,path,age\nx.jpg,a.jpg,3\n").labels) == ["a.jpg"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("path,years\na.jpg,3\n", "needs a header line with the columns path, .*; it has path, years"),
        ("name,age\na.jpg,3\n", "needs a header line with the columns path, .*; it has name, age"),
        ("a.jpg,3\n", "needs a header line .*; it has a.jpg, 3"),
        ("path;age\na.jpg;3\n", "needs a header line .*; it has path;age"),
        ("path,age,Age\na.jpg,3,4\n", "more than one column age: path, age, Age"),
        ("path,age,split\na.jpg,3,train\nb.jpg,3,dev\n", "line 3: split 'dev' is not one of train, val, test"),
        ("path,age\n" + "a" * 200_000 + ",3\n", "line 2: field larger than field limit"),
        (b"\xff\xd8\xff\xe0" + bytes(range(1, 10)), "needs a header line"),
    ],
)
def test_malformed_table_is_an_error_in_one_line(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(AgeGenderError, match=message) as caught:
        listed(tmp_path, text)
    assert str(tmp_path / "labels.csv") in str(caught.value) and "\n" not in str(caught.value)


def test_missing_or_binary_table_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(AgeGenderError, match=r"data\.table=.*nowhere\.csv: there is no such file"):
        read_table(tmp_path / "nowhere.csv", tmp_path)
    for name in ("labels.tsv", "labels", "labels.xlsx"):
        with pytest.raises(AgeGenderError, match=rf"data\.table={name} must end in \.csv or \.parquet"):
            AgeGenderDataModule(table=name)


CELLS = st.text(max_size=12) | st.sampled_from(
    ["30", "-1", "f", "male", "1.0", "nan", "", "1e999", "\0", "/", "..", "~"]
)


@given(rows=st.lists(st.lists(CELLS, min_size=0, max_size=5), max_size=5), broken=st.text(max_size=30))
@example(rows=[["a", "30", "1", "\ud800", "x"]], broken="")
@example(rows=[["a\0b", "30", "1", "", ""]], broken='"')
@settings(max_examples=80)
def test_table_of_arbitrary_text_is_read_or_quarantined(
    rows: list[list[str]], broken: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    table = tmp_path_factory.getbasetemp() / "any.csv"
    with table.open("w", newline="", encoding="utf-8", errors="surrogatepass") as file:
        csv.writer(file).writerows([["path", "age", "gender", "group"], *rows])
        file.write(broken)
    listing = read_table(table, table.parent)
    assert not set(listing.labels) & set(listing.quarantine) and all(listing.quarantine.values())
    for name, (age, gender, group) in listing.labels.items():
        assert name and "\0" not in name
        assert age is None or 0 <= age <= 120
        assert gender in (None, 0, 1) and (age, gender) != (None, None)
        assert group is None or 0 <= group < len(listing.classes["group"])


# Parquet


def test_parquet_table_equals_its_csv_table(tmp_path: Path) -> None:
    columns = {
        "File": ["a.jpg", "b.jpg", "c.jpg", None, None],
        "age": [30.5, None, float("nan"), 4.0, None],
        "gender": pyarrow.array([1.0, 0.0, 1.0, 0.0, None]),
        "group": pyarrow.array(["x", None, "y", "x", None]).dictionary_encode(),
        "split": [b"train", b"TEST", b"", None, None],
        "image": [b"\xff\xd8"] * 5,
    }
    parquet.write_table(pyarrow.table(columns), tmp_path / "labels.parquet")
    listing = read_table(tmp_path / "labels.parquet", tmp_path)
    assert listing == LabelTable(
        {"a.jpg": (30, 1, 0), "b.jpg": (None, 0, None), "c.jpg": (None, 1, 1)},
        {"(row 4)": "no path"},
        classes={"gender": GENDERS, "group": ("x", "y")},
        splits={"a.jpg": "train", "b.jpg": "test", "c.jpg": "unused"},
    )


def test_damaged_parquet_file_is_an_error_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "labels.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(AgeGenderError, match=r"labels\.parquet can't be read as Parquet \(") as caught:
        read_table(tmp_path / "labels.parquet", tmp_path)
    assert "\n" not in str(caught.value)
    parquet.write_table(pyarrow.table({"path": ["a"], "year": [3]}), tmp_path / "labels.parquet")
    with pytest.raises(AgeGenderError, match=r"needs a header line .*; it has path, year"):
        read_table(tmp_path / "labels.parquet", tmp_path)


def test_parquet_without_pyarrow_is_an_error_with_the_install_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "labels.parquet").touch()
    with pytest.raises(AgeGenderError, match=r'pip install -e "\.\[parquet\]"; or give the table as CSV'):
        read_table(tmp_path / "labels.parquet", tmp_path)


# The index


def indexed(faces: Path, where: Path, rows: list[dict[str, object]], cache_dir: Path, **options: Any) -> FaceIndex:
    return build_index(faces, cache_dir, table=write_table(where / "labels.csv", rows), **options)


def test_table_of_the_labels_in_the_names_gives_the_same_index(faces: Path, tmp_path: Path, cache_dir: Path) -> None:
    by_name = build_index(faces, cache_dir)
    by_table = indexed(faces, tmp_path, rows_of(faces), cache_dir)
    assert by_table.names == by_name.names and by_table.fingerprint == by_name.fingerprint
    assert by_table.classes == by_name.classes and by_table.split_source is None
    assert list(by_table.labels) == ["age", "gender", "group"]
    for name, column in by_name.labels.items():
        assert (by_table.labels[name] == column).all() and column.dtype == np.float32, name
    assert (by_table.split == by_name.split).all() and (by_table.duplicates == by_name.duplicates).all()


def test_index_csv_used_as_a_table_gives_the_same_index(faces: Path, tmp_path: Path, cache_dir: Path) -> None:
    index = indexed(faces, tmp_path, half_labeled(faces), cache_dir)
    missing = {name: np.isnan(column).sum() for name, column in index.labels.items()}
    assert missing == {"age": 60, "gender": 20, "group": 0}
    index.write_csv(tmp_path / "index.csv")
    again = build_index(faces, cache_dir, table=tmp_path / "index.csv")
    assert again.fingerprint == index.fingerprint and again.split_source == "table index.csv"
    assert [again.label_cells(row) for row in range(120)] == [index.label_cells(row) for row in range(120)]
    with (tmp_path / "index.csv").open(newline="") as file:
        assert sum(row["age"] == "" for row in csv.DictReader(file)) == 60


@given(paths=st.lists(st.text(min_size=1, max_size=20) | st.sampled_from(["/", "..", "a" * 300, "\udcff"]), max_size=4))
@settings(max_examples=15)
def test_index_survives_arbitrary_paths_in_a_table(
    paths: list[str], faces: Path, cache_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rows = rows_of(faces)[:3]
    rows += [{"path": path, "age": 3, "gender": "", "group": ""} for path in paths]
    index = indexed(faces, tmp_path_factory.getbasetemp(), rows, cache_dir, split="test")
    assert index.names == [row["path"] for row in rows[:3]]
    assert len(index.quarantine) <= len(paths)


def test_table_path_outside_the_folder_is_read_as_an_image_only(faces: Path, tmp_path: Path, cache_dir: Path) -> None:
    folder, outside = tmp_path / "theirs", tmp_path / "outside"
    folder.mkdir()
    outside.mkdir()
    (tmp_path / "secret.txt").write_text("password=hunter2")
    drawn = sorted(faces.iterdir())
    for name, face in zip(("above.jpg", "absolute.jpg", "linked.jpg"), drawn, strict=False):
        shutil.copyfile(face, outside / name)
    (folder / "link.jpg").symlink_to(outside / "linked.jpg")
    (folder / "secret.jpg").symlink_to(tmp_path / "secret.txt")
    (folder / "round.jpg").symlink_to(folder / "round.jpg")
    os.mkfifo(folder / "pipe.jpg")
    taken = ["../outside/above.jpg", str(outside / "absolute.jpg"), "link.jpg"]
    refused = ["../secret.txt", str(tmp_path / "secret.txt"), "secret.jpg", "round.jpg", "pipe.jpg", "/dev/zero", "/"]
    rows = [{"path": path, "age": 30, "gender": "f"} for path in [*taken, *refused]]
    index = indexed(folder, folder, rows, cache_dir, split="test")
    assert sorted(index.names) == sorted(taken)
    assert set(index.quarantine) == set(refused) and "hunter2" not in str(index.quarantine)


def test_missing_and_unreadable_files_are_quarantined(faces: Path, tmp_path: Path, cache_dir: Path) -> None:
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "sub").mkdir()
    rows = rows_of(faces)
    rows += [{"path": tmp_path / name, "age": 3, "gender": ""} for name in ("notes.txt", "gone.jpg", "sub")]
    index = indexed(faces, tmp_path, rows, cache_dir)
    assert len(index.names) == 120 and index.quarantine == {
        str(tmp_path / "notes.txt"): "not a picture that can be read",
        str(tmp_path / "gone.jpg"): "can't be read: No such file or directory",
        str(tmp_path / "sub"): "can't be read: a folder, not a picture",
    }
    with pytest.raises(AgeGenderError, match=r"data\.strict=true and 3 of the rows of .*labels\.csv can't be taken"):
        indexed(faces, tmp_path, rows, cache_dir, strict=True)


def test_table_without_a_valid_row_is_an_error_with_the_reason(faces: Path, tmp_path: Path, cache_dir: Path) -> None:
    rows: list[dict[str, object]] = [{"path": "a.jpg", "age": ""}, *({"path": f"{i}.jpg", "age": 3} for i in range(3))]
    with pytest.raises(AgeGenderError, match=r"none of its 4 files can be used, '0\.jpg' .* can't be read: .*dir"):
        indexed(faces, tmp_path, rows, cache_dir)
    (tmp_path / "labels.csv").write_text("path,age\n")
    with pytest.raises(AgeGenderError, match="has no row below its header"):
        build_index(faces, cache_dir, table=tmp_path / "labels.csv")


def test_split_column_is_used_and_its_leaks_are_reported(
    faces: Path, tmp_path: Path, cache_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(faces, tmp_path / "faces")
    rows = rows_of(faces)
    shutil.copy(faces / str(rows[0]["path"]), tmp_path / "faces" / "copy.jpg")
    rows.append({"path": "copy.jpg", "age": 3, "gender": ""})
    sides = ["Train", "valid", "", "test"]
    for number, row in enumerate(rows):
        row["split"] = sides[number % 4]
    rows[-1]["split"] = "test"
    with caplog.at_level("INFO"):
        index = indexed(tmp_path / "faces", tmp_path, rows, cache_dir)
    side = dict(zip(index.names, index.split.tolist(), strict=True))
    expected = {"Train": "train", "valid": "val", "": "unused", "test": "test"}
    assert side == {str(row["path"]): expected[str(row["split"])] for row in rows}
    assert index.split_source == "table labels.csv"
    messages = [record.getMessage() for record in caplog.records]
    assert any("gives 30 of 121 images no split: they are left out" in message for message in messages)
    assert index.leak == Leak(test=31, training=60, with_copy=1)


def test_empty_split_column_is_ignored(faces: Path, tmp_path: Path, cache_dir: Path) -> None:
    rows = [row | {"split": " "} for row in rows_of(faces)]
    index = indexed(faces, tmp_path, rows, cache_dir)
    assert index.split_source is None and index.fingerprint == build_index(faces, cache_dir).fingerprint


def test_split_column_is_ignored_by_folds(faces: Path, tmp_path: Path, cache_dir: Path) -> None:
    rows = [row | {"split": "test" if number % 2 else "train"} for number, row in enumerate(rows_of(faces))]
    index = indexed(faces, tmp_path, rows, cache_dir, split="folds", fold=0, folds=5)
    assert index.split_source is None and index.fingerprint == build_index(faces, cache_dir).fingerprint


def test_split_column_without_training_images_suggests_split_test(faces: Path, tmp_path: Path, cache_dir: Path) -> None:
    rows = [row | {"split": "test"} for row in rows_of(faces)]
    with pytest.raises(AgeGenderError, match=r"the train split .* the given split names none .*data\.split=test"):
        indexed(faces, tmp_path, rows, cache_dir)
    assert set(indexed(faces, tmp_path, rows, cache_dir, split="test").split.tolist()) == {"test"}


@pytest.mark.parametrize("limit", [None, 1, 50])
def test_split_test_puts_every_image_into_the_test_set(faces: Path, cache_dir: Path, limit: int | None) -> None:
    index = build_index(faces, cache_dir, split="test")
    assert {name: len(index.rows(name, limit)) for name in ("train", "val", "test")} == {
        "train": 0,
        "val": 0,
        "test": limit or 120,
    }


# The settings


def module_of(cache_dir: Path, **options: Any) -> AgeGenderDataModule:
    module = AgeGenderDataModule(cache_dir=str(cache_dir), image_size=16, **options)
    module.prepare_data()
    module.setup()
    return module


def test_paths_are_relative_to_the_table_or_to_data_dir(faces: Path, tmp_path: Path, cache_dir: Path) -> None:
    shutil.copytree(faces, tmp_path / "a" / "faces")
    rows = [row | {"path": f"faces/{row['path']}"} for row in rows_of(faces)]
    beside = module_of(cache_dir, table=str(write_table(tmp_path / "a" / "labels.csv", rows)))
    apart = module_of(cache_dir, table=str(write_table(tmp_path / "labels.csv", rows)), dir=str(tmp_path / "a"))
    assert beside.index.folder == apart.index.folder == tmp_path / "a"
    assert beside.index.names == apart.index.names and beside.index.names[0].startswith("faces/")
    assert beside.split_settings["table"] == "labels.csv"


def test_missing_label_is_nan_in_a_batch(faces: Path, tmp_path: Path, cache_dir: Path) -> None:
    table = write_table(tmp_path / "labels.csv", half_labeled(faces))
    module = module_of(cache_dir, table=str(table), dir=str(faces), batch_size=200)
    (batch,) = module.train_dataloader()
    rows = batch["row"].numpy()
    for name, column in module.index.labels.items():
        values = batch["labels"][name].numpy()
        assert np.array_equal(values, column[rows], equal_nan=True)
        assert (0 < np.isnan(values).mean() < 1) == (name != "group")
        assert sorted(module.split("train").known(name)) == sorted(values[~np.isnan(values)])
    assert module.split("train").known("smile").tolist() == []


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            {"table": "labels.csv", "dir": "nowhere"},
            r"data\.dir=nowhere does not exist; the paths in labels\.csv start",
        ),
        ({"table": "nowhere/labels.csv"}, r"data\.table=nowhere/labels\.csv: there is no such file"),
        ({"table": "labels.csv", "split_file": "p.csv"}, r"data\.split_file=p\.csv: a table has a column split"),
        ({"table": "labels.csv", "synthetic": {}}, r"data\.table=labels\.csv and data\.synthetic: choose"),
        ({"split": "test", "split_file": "p.csv"}, r"data\.split=test and data\.split_file=p\.csv: choose"),
        ({}, r"neither data\.dir nor data\.table is set: .*with data=table, the table"),
    ],
)
def test_settings_that_do_not_fit_a_table_are_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: dict[str, Any], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "labels.csv").write_text("path,age\na.jpg,3\n")
    with pytest.raises(AgeGenderError, match=message) as caught:
        module_of(tmp_path / "cache", **wrong)
    assert "\n" not in str(caught.value)
