"""Writers of predictions: equal content in every format, and files complete or not at all."""

from __future__ import annotations

import csv
import io
import json
import os
import string
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from agegender.errors import AgeGenderError
from agegender.prediction.prediction import COLUMNS, UNSURE, Prediction, describe, to_row
from agegender.prediction.writers.writers import check_output, print_jsonl, print_table, write_rows
from agegender.system.csv_escape import escape_formula

BOX = (1.26, 2.0, 30.5, 44.0)
ANSWER = Prediction("a.jpg", 2, *BOX, 0.93456, 31.4159, 8.7654, 22.0, 43.0, 0.123456, "male")
FORMS = ("faces.csv", "faces.json", "faces.jsonl", "faces.parquet")
UNDECIDED = replace(ANSWER, p_female=0.54321, gender=UNSURE)
FAILURE = Prediction("b.jpg", error="no such file")
# A name is any bytes but NUL; Python hands over those that are not UTF-8 as lone surrogates.
PATHS = (st.text(min_size=1) | st.binary(min_size=1).map(os.fsdecode)).filter(lambda path: "\0" not in path)
ANSWERED = st.builds(
    Prediction,
    PATHS,
    st.integers(1, 9),
    *(st.none() | st.floats(0, 5000) for _ in range(4)),
    st.none() | st.floats(0, 1),
    st.floats(0, 120),
    st.none() | st.floats(0, 50),
    st.none() | st.integers(0, 120).map(float),
    st.none() | st.integers(0, 120).map(float),
    st.floats(0, 1),
    st.sampled_from(["male", "female", UNSURE]),
    st.none(),
)
FAILED = st.builds(Prediction, PATHS, error=st.text(string.printable, min_size=1))


def read_csv(path: Path) -> list[dict[str, Any]]:
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows: list[dict[str, Any]] = [
            {key: value or None for key, value in row.items()} for row in csv.DictReader(file, strict=True)
        ]
    for row in rows:
        row |= {key: float(row[key]) for key in set(row) - {"path", "gender", "error"} if row[key] is not None}
    return rows


def prediction_of(path: str) -> Prediction:
    return Prediction(path, 1, age=1.0, age_low=0.0, age_high=4.0, p_female=0.5, gender="female")


def write(out: Path, predictions: Iterable[Prediction]) -> None:
    write_rows(out, map(to_row, predictions))


def test_writers_produce_the_documented_csv_json_and_parquet(tmp_path: Path) -> None:
    row = {"path": "a.jpg", "face": 2, "left": 1.3, "top": 2.0, "right": 30.5, "bottom": 44.0, "score": 0.935}
    row |= {"age": 31.42, "age_std": 8.77, "age_low": 22, "age_high": 43, "p_female": 0.1235, "gender": "male"}
    rows = [row | {"error": None}, dict.fromkeys(COLUMNS) | {"path": "b.jpg", "error": "no such file"}]
    for name in FORMS:
        write(tmp_path / name, [ANSWER, FAILURE])
    assert (tmp_path / "faces.csv").read_bytes() == (
        b"path,face,left,top,right,bottom,score,age,age_std,age_low,age_high,p_female,gender,error\r\n"
        b"a.jpg,2,1.3,2.0,30.5,44.0,0.935,31.42,8.77,22,43,0.1235,male,\r\nb.jpg,,,,,,,,,,,,,no such file\r\n"
    )
    assert json.loads((tmp_path / "faces.json").read_text(encoding="utf-8")) == rows
    lines = (tmp_path / "faces.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == rows
    assert parquet.read_table(tmp_path / "faces.parquet").to_pylist() == rows


@settings(max_examples=60)
@given(predictions=st.lists(ANSWERED | FAILED, max_size=5))
def test_writers_of_all_formats_agree_for_arbitrary_names_and_errors(predictions: list[Prediction]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        table, objects, lines, columns = (Path(folder, f"faces.{end}") for end in ("csv", "JSON", "jsonl", "parquet"))
        for out in (table, objects, lines, columns):
            write(out, predictions)
        rows = json.loads(objects.read_text(encoding="utf-8"))
        assert [row["path"] for row in rows] == [prediction.path for prediction in predictions]
        assert read_csv(table) == [row | {"path": escape_formula(row["path"])} for row in rows]
        assert [json.loads(line) for line in lines.read_text(encoding="utf-8").split("\n")[:-1]] == rows
        as_text = [row | {"path": row["path"].encode("utf-8", "replace").decode()} for row in rows]
        assert parquet.read_table(columns).to_pylist() == as_text  # Parquet's texts are UTF-8


@pytest.mark.parametrize("name", FORMS)
def test_writers_keep_an_unsure_gender_beside_its_probability(name: str, tmp_path: Path) -> None:
    out = tmp_path / name
    write(out, [UNDECIDED])
    if out.suffix == ".csv":
        (row,) = read_csv(out)
    elif out.suffix == ".parquet":
        (row,) = parquet.read_table(out).to_pylist()
    else:
        row = json.loads(out.read_text().strip(" \n[]"))
    assert (row["gender"], row["p_female"]) == ("unsure", 0.5432)


@pytest.mark.parametrize(
    ("p_female", "gender", "words"),
    [(0.97, "female", "female 97 %"), (0.123456, "male", "male 88 %"), (0.54, UNSURE, "unsure")],
)
def test_describe_names_the_likelier_gender_with_its_probability_or_unsure(
    p_female: float, gender: str, words: str
) -> None:
    assert describe(replace(ANSWER, p_female=p_female, gender=gender)) == ("31 (22-43)", words)


def test_print_jsonl_writes_each_prediction_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    def answers() -> Iterator[Prediction]:
        yield ANSWER
        assert json.loads(capsys.readouterr().out)["age"] == 31.42
        yield FAILURE

    print_jsonl(answers())
    assert json.loads(capsys.readouterr().out)["error"] == "no such file"


@pytest.mark.parametrize("name", FORMS)
def test_write_rows_replaces_an_older_file_at_the_end_only(name: str, tmp_path: Path) -> None:
    out = tmp_path / name
    out.write_text("old")

    def answers() -> Iterator[Prediction]:
        for _ in range(3):
            yield ANSWER
            assert out.read_text() == "old"  # the state that a kill would leave

    write(out, answers())
    assert out.read_bytes() != b"old"
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("end", [KeyboardInterrupt, RuntimeError])
def test_write_rows_keeps_an_older_file_when_interrupted(name: str, end: type[BaseException], tmp_path: Path) -> None:
    out = tmp_path / name
    out.write_text("old")

    def answers() -> Iterator[Prediction]:
        yield ANSWER
        raise end

    with pytest.raises(end):
        write(out, answers())
    assert out.read_text() == "old"
    assert list(tmp_path.iterdir()) == [out]


def test_write_rows_refuses_an_unwritable_file(tmp_path: Path) -> None:
    (tmp_path / "faces.csv").mkdir()
    with pytest.raises(AgeGenderError, match=r"can't write out=.*faces\.csv"):
        write(tmp_path / "faces.csv", [ANSWER])
    assert [path.name for path in tmp_path.iterdir()] == ["faces.csv"]


@pytest.mark.parametrize("name", ["faces.txt", "faces", "csv", "faces.csv.gz", "missing/faces.csv"])
def test_check_output_refuses_unwritable_paths(name: str, tmp_path: Path) -> None:
    with pytest.raises(AgeGenderError, match="out="):
        check_output(str(tmp_path / name))
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    monkeypatch.setenv("COLUMNS", "160")

    def show(*predictions: Prediction) -> str:
        print_table(predictions)
        return capsys.readouterr().out

    return show


def test_table_holds_the_prediction_or_error_of_each_image(shown: Callable[..., str]) -> None:
    lines = [line.split("│")[1:7] for line in shown(ANSWER, FAILURE).splitlines() if "│" in line]
    assert [[cell.strip() for cell in line] for line in lines] == [
        ["a.jpg", "2", "31", "22 - 43", "male", "0.12"],
        ["b.jpg", "", "no such file", "", "", ""],
    ]


def test_table_dims_an_unsure_gender_only(shown: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    line = shown(UNDECIDED).splitlines()[3]
    assert [cell.strip() for cell in line.split("│")[5:7]] == ["unsure", "0.54"]
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    undecided, answered = shown(UNDECIDED), shown(ANSWER)
    assert "\x1b[2munsure\x1b[0m" in undecided and "male" in answered and "\x1b[2mmale" not in answered


def test_table_shows_an_age_without_interval_alone(shown: Callable[..., str]) -> None:
    line = shown(Prediction("a.jpg", 1, age=31.4159, p_female=0.123456, gender="male")).splitlines()[3]
    assert [cell.strip() for cell in line.split("│")[3:5]] == ["31", ""]


@pytest.mark.parametrize("name", [":smile:.jpg", "[red]x.jpg", "[/]", "back\\", "[b]\\", "日本.jpg", "a  b.jpg"])
def test_table_shows_names_literally(name: str, shown: Callable[..., str]) -> None:
    assert f"│ {name} " in shown(prediction_of(name))
    assert f"│ {name} " in shown(Prediction("x", error=name))


def test_table_escapes_control_characters(shown: Callable[..., str]) -> None:
    text = shown(prediction_of("\udcff \x1b[31m \n.jpg"))
    text.encode()  # lone surrogates fail to encode, as at a terminal
    assert "\\udcff \\x1b[31m \\n.jpg" in text and "\x1b" not in text


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
@pytest.mark.parametrize("columns", ["10", "20", "40", "60", "160"])
def test_table_escapes_what_the_encoding_of_the_terminal_lacks(
    encoding: str, columns: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding))
    monkeypatch.setenv("COLUMNS", columns)
    print_table([prediction_of("日é.jpg"), Prediction("b.jpg", error="ж \x1b[31m")])
    text = written.getvalue().decode(encoding)
    if columns == "160":
        seen = [letters.encode(encoding, "backslashreplace").decode(encoding) for letters in ("日é.jpg", "ж")]
        assert all(letters in text for letters in (*seen, "\\x1b[31m")) and "\x1b" not in text


def test_print_jsonl_passes_errors_of_the_predictions_on() -> None:
    def answers() -> Iterator[Prediction]:
        yield ANSWER
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        print_jsonl(answers())


def test_table_folds_a_long_name(monkeypatch: pytest.MonkeyPatch, shown: Callable[..., str]) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    name = "".join(f"{number:03}" for number in range(100))
    cells = [line.split("│")[1].strip() for line in shown(prediction_of(name)).splitlines() if "│" in line]
    assert "".join(cells) == name
