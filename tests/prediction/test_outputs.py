"""Answers in files and tables: the same in every form, whole or not at all."""

from __future__ import annotations

import csv
import json
import os
import string
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agegender.errors import AgeGenderError
from agegender.prediction.outputs import check_output, print_table, write_file
from agegender.prediction.predictor import Prediction

ANSWER = Prediction("a.jpg", 31.4159, 8.7654, 22.0, 43.0, 0.123456, "male")
FAILURE = Prediction("b.jpg", error="no such file")
# A name is any bytes but NUL; Python hands over those that are not UTF-8 as lone surrogates.
PATHS = (st.text(min_size=1) | st.binary(min_size=1).map(os.fsdecode)).filter(lambda path: "\0" not in path)
ANSWERED = st.builds(
    Prediction,
    PATHS,
    st.floats(0, 120),
    st.none() | st.floats(0, 50),
    st.none() | st.integers(0, 120).map(float),
    st.none() | st.integers(0, 120).map(float),
    st.floats(0, 1),
    st.sampled_from(["male", "female"]),
    st.none(),
)
FAILED = st.builds(Prediction, PATHS, error=st.text(string.printable, min_size=1))


def read_csv(path: Path) -> list[dict[str, Any]]:
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows: list[dict[str, Any]] = [
            {key: value or None for key, value in row.items()} for row in csv.DictReader(file, strict=True)
        ]
    for row in rows:
        row |= {
            key: float(row[key])
            for key in ("age", "age_std", "age_low", "age_high", "p_female")
            if row[key] is not None
        }
    return rows


def test_csv_has_a_header_and_a_row_each_and_json_a_list_of_objects(tmp_path: Path) -> None:
    ages = {"age": 31.42, "age_std": 8.77, "age_low": 22, "age_high": 43}
    for name in ("faces.csv", "faces.json"):
        assert write_file(tmp_path / name, [ANSWER, FAILURE]) == (2, 1)
    assert (tmp_path / "faces.csv").read_bytes() == (
        b"path,age,age_std,age_low,age_high,p_female,gender,error\r\n"
        b"a.jpg,31.42,8.77,22,43,0.1235,male,\r\nb.jpg,,,,,,,no such file\r\n"
    )
    assert json.loads((tmp_path / "faces.json").read_text(encoding="utf-8")) == [
        {"path": "a.jpg", **ages, "p_female": 0.1235, "gender": "male", "error": None},
        {"path": "b.jpg", **dict.fromkeys(ages), "p_female": None, "gender": None, "error": "no such file"},
    ]


@settings(max_examples=60, deadline=None)
@given(predictions=st.lists(ANSWERED | FAILED, max_size=5))
def test_csv_and_json_say_the_same_whatever_the_names_and_errors_are(predictions: list[Prediction]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        table, objects = Path(folder, "faces.csv"), Path(folder, "faces.JSON")
        assert write_file(table, predictions) == write_file(objects, iter(predictions))
        rows = json.loads(objects.read_text(encoding="utf-8"))
        assert [row["path"] for row in rows] == [prediction.path for prediction in predictions]
        assert read_csv(table) == rows


@pytest.mark.parametrize("name", ["faces.csv", "faces.json"])
def test_an_older_file_is_replaced_only_when_the_last_answer_is_there(name: str, tmp_path: Path) -> None:
    out = tmp_path / name
    out.write_text("old")

    def answers() -> Iterator[Prediction]:
        for _ in range(3):
            yield ANSWER
            assert out.read_text() == "old"  # what a kill at this moment would leave

    write_file(out, answers())
    assert out.read_text() != "old"
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("name", ["faces.csv", "faces.json"])
@pytest.mark.parametrize("end", [KeyboardInterrupt, RuntimeError])
def test_a_run_that_breaks_off_leaves_the_older_file_and_no_half_one(
    name: str, end: type[BaseException], tmp_path: Path
) -> None:
    out = tmp_path / name
    out.write_text("old")

    def answers() -> Iterator[Prediction]:
        yield ANSWER
        raise end

    with pytest.raises(end):
        write_file(out, answers())
    assert out.read_text() == "old"
    assert list(tmp_path.iterdir()) == [out]


def test_a_file_that_can_not_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "faces.csv").mkdir()
    with pytest.raises(AgeGenderError, match=r"can't write out=.*faces\.csv"):
        write_file(tmp_path / "faces.csv", [ANSWER])
    assert [path.name for path in tmp_path.iterdir()] == ["faces.csv"]


@pytest.mark.parametrize("name", ["faces.txt", "faces", "csv", "faces.csv.gz", "missing/faces.csv"])
def test_an_output_that_could_not_be_written_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(AgeGenderError, match="out="):
        check_output(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    monkeypatch.setenv("COLUMNS", "160")

    def show(*predictions: Prediction) -> str:
        print_table(predictions)
        return capsys.readouterr().out

    return show


def test_the_table_holds_each_pictures_name_and_answer_or_error(shown: Callable[..., str]) -> None:
    lines = [line.split("│")[1:5] for line in shown(ANSWER, FAILURE).splitlines() if "│" in line]
    assert [[cell.strip() for cell in line] for line in lines] == [
        ["a.jpg", "31 ± 9", "male", "0.12"],
        ["b.jpg", "no such file", "", ""],
    ]


def test_an_age_whose_spread_is_not_known_stands_alone(shown: Callable[..., str]) -> None:
    assert "│ 31 " in shown(Prediction("a.jpg", 31.4159, None, None, None, 0.123456, "male"))


@pytest.mark.parametrize("name", [":smile:.jpg", "[red]x.jpg", "[/]", "back\\", "[b]\\", "日本.jpg", "a  b.jpg"])
def test_the_table_shows_a_name_to_the_letter_and_never_as_markup(name: str, shown: Callable[..., str]) -> None:
    assert f"│ {name} " in shown(Prediction(name, 1.0, 2.0, 0.0, 4.0, 0.5, "female"))
    assert f"│ {name} " in shown(Prediction("x", error=name))


def test_the_table_survives_names_that_no_terminal_should_be_sent(shown: Callable[..., str]) -> None:
    text = shown(Prediction("\udcff \x1b[31m \n.jpg", 1.0, 2.0, 0.0, 4.0, 0.5, "female"))
    text.encode()  # lone surrogates would fail here, as they do at a terminal
    assert "\\udcff \\x1b[31m \\n.jpg" in text and "\x1b" not in text


def test_a_long_name_is_folded_and_not_cut(monkeypatch: pytest.MonkeyPatch, shown: Callable[..., str]) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    name = "".join(f"{number:03}" for number in range(100))
    cells = [
        line.split("│")[1].strip()
        for line in shown(Prediction(name, 1.0, 2.0, 0.0, 4.0, 0.5, "female")).splitlines()
        if "│" in line
    ]
    assert "".join(cells) == name
