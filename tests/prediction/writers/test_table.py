"""The table of predictions: in words, with whole file names at 80 columns and errors in a column of their own."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from helpers.drawn_predictions import answered, tasks_of
from helpers.made_predictions import FIVE, TWO, made
from hypothesis import given, settings
from hypothesis import strategies as st

from agegender.prediction.prediction import NO_FACE, Prediction
from agegender.prediction.writers.table import print_people, print_table
from agegender.tasks.info import UNSURE, TaskInfo

AGES: dict[str, Any] = {"age": 31.4159, "age_std": 8.7654, "age_low": 22.0, "age_high": 43.0}
FAILURE = Prediction("b.jpg", error="no such file")
FACELESS = Prediction("sea.png", error=NO_FACE)


def face(path: str = "a.jpg", number: int = 1, p_female: float = 0.123456, gender: str = "male") -> Prediction:
    return made(path, number, **AGES, p_female=p_female, gender=gender)


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def show(*predictions: Prediction, tasks: Sequence[TaskInfo] = TWO, columns: int = 160) -> str:
        monkeypatch.setenv("COLUMNS", str(columns))
        print_table(predictions, tasks)
        return capsys.readouterr().out

    return show


def cells(text: str) -> list[list[str]]:
    """Returns the cells of a table's lines, without its heads."""
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if "│" in line]


def heads(text: str) -> list[str]:
    """Returns the heads of a table, whose lines are joined by spaces."""
    lines = [[cell.strip() for cell in line.split("┃")[1:-1]] for line in text.splitlines() if "┃" in line]
    return [" ".join(filter(None, column)) for column in zip(*lines, strict=True)]


def test_table_holds_the_prediction_or_error_of_each_image(shown: Callable[..., str]) -> None:
    text = shown(face(), FAILURE, FACELESS)
    assert heads(text) == ["image", "age (80 % range)", "gender", "error"]
    assert cells(text) == [
        ["a.jpg", "31 (22 to 43)", "male 88 %", ""],
        ["b.jpg", "", "", "no such file"],
        ["sea.png", "no face", "", ""],
    ]


def test_table_has_no_column_of_errors_without_one(shown: Callable[..., str]) -> None:
    text = shown(face(), FACELESS)
    assert heads(text) == ["image", "age (80 % range)", "gender"]
    assert cells(text) == [["a.jpg", "31 (22 to 43)", "male 88 %"], ["sea.png", "no face", ""]]


def test_table_names_an_image_of_several_faces_once_and_numbers_them(shown: Callable[..., str]) -> None:
    text = shown(face("a.jpg"), face("a.jpg", 2, 0.97, "female"), face("b.jpg"), face("b.jpg"), FACELESS)
    assert heads(text)[:2] == ["image", "face"]
    numbers = [("a.jpg", "1"), ("", "2"), ("b.jpg", "1"), ("b.jpg", "1"), ("sea.png", "")]
    assert [(row[0], row[1]) for row in cells(text)] == numbers
    assert cells(text)[1][3] == "female 97 %" and cells(text)[4][2] == "no face"


@pytest.mark.parametrize(
    "path",
    [
        "39_1_20170116174525125.jpg.chip.jpg",
        "/home/somebody/pictures/2024/summer holiday/39_1_20170116174525125.jpg.chip.jpg",
        "f/" * 60 + "IMG_20240712_183045.jpg",
        "https://example.org/a/very/long/address/of/pictures/group photo (1).jpg",
    ],
)
@pytest.mark.parametrize("failed", [False, True])
def test_table_keeps_names_and_answers_whole_at_80_columns(path: str, failed: bool, shown: Callable[..., str]) -> None:
    reason = "a reason of many words, for which there is room"
    text = shown(face(path), *[Prediction("gone.jpg", error=reason)] * failed, columns=80)
    assert max(map(len, text.splitlines())) <= 80
    rows = cells(text)
    name = path.rpartition("/")[2]
    assert any(row[0].endswith(name) for row in rows)
    found = [row[0] for row in rows[: next(i for i, row in enumerate(rows) if row[0].endswith(name)) + 1]]
    assert "".join(found).replace(" ", "") == path.replace(" ", "")
    assert rows[0][1:3] == ["31 (22 to 43)", "male 88 %"]
    if failed:
        assert " ".join(filter(None, (row[3] for row in rows))) == reason


def test_table_dims_an_unsure_gender_only(shown: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    undecided = face(p_female=0.54321, gender=UNSURE)
    assert cells(shown(undecided)) == [["a.jpg", "31 (22 to 43)", "unsure"]]
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert "\x1b[2munsure\x1b[0m" in shown(undecided)
    assert "male 88 %" in shown(face()) and "\x1b[2mmale" not in shown(face())


def test_table_shows_an_age_without_interval_alone(shown: Callable[..., str]) -> None:
    assert cells(shown(made(age=31.4159, p_female=0.123456, gender="male"))) == [["a.jpg", "31", "male 88 %"]]


@pytest.mark.parametrize("name", [":smile:.jpg", "[red]x.jpg", "[x]", "back\\", "[b]\\", "日本.jpg", "a  b.jpg"])
def test_table_shows_names_literally(name: str, shown: Callable[..., str]) -> None:
    assert f"│ {name} " in shown(face(name))
    assert f"│ {name} " in shown(Prediction("x", error=name))


def test_table_escapes_control_characters(shown: Callable[..., str]) -> None:
    text = shown(face("\udcff \x1b[31m \n.jpg"))
    text.encode()  # lone surrogates fail to encode, as at a terminal
    assert "\\udcff \\x1b[31m \\n.jpg" in text and "\x1b" not in text


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
@pytest.mark.parametrize("columns", ["1", "10", "20", "40", "60", "160"])
def test_table_escapes_what_the_encoding_of_the_terminal_lacks(
    encoding: str, columns: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding))
    monkeypatch.setenv("COLUMNS", columns)
    print_table([face("日é.jpg"), Prediction("b.jpg", error="ж \x1b[31m")], TWO)
    text = written.getvalue().decode(encoding)
    if columns == "160":
        seen = [letters.encode(encoding, "backslashreplace").decode(encoding) for letters in ("日é.jpg", "ж")]
        assert all(letters in text for letters in (*seen, "\\x1b[31m")) and "\x1b" not in text


def test_table_folds_a_name_that_is_wider_than_the_terminal(shown: Callable[..., str]) -> None:
    name = "".join(f"{number:03}" for number in range(100))
    assert "".join(row[0] for row in cells(shown(face(name), columns=60))) == name


def test_table_has_a_column_for_each_task(shown: Callable[..., str]) -> None:
    further: dict[str, Any] = {"smile": "yes", "p_smile": 0.8765, "height": 171.26, "height_std": 7.04}
    further |= {"height_low": 160.5, "height_high": 181.0, "ethnicity": "Asian", "p_White": 0.1, "p_Black": 0.05}
    further |= {"p_Asian": 0.7, "p_Indian": 0.1, "p_Others": 0.05}
    text = shown(made(tasks=FIVE, **AGES, p_female=0.123456, gender="male", **further), tasks=FIVE)
    assert heads(text) == ["image", "age (80 % range)", "gender", "smile", "height (80 % range)", "ethnicity"]
    assert cells(text) == [["a.jpg", "31 (22 to 43)", "male 88 %", "yes 88 %", "171.3 (160.5 to 181.0)", "Asian 70 %"]]


@settings(max_examples=30)
@given(tasks=tasks_of(), data=st.data())
def test_table_shows_any_names_of_tasks_and_classes(tasks: tuple[TaskInfo, ...], data: st.DataObject) -> None:
    with pytest.MonkeyPatch.context() as patch, io.StringIO() as written:
        patch.setattr(sys, "stdout", written)
        print_table([data.draw(answered(tasks))], tasks)
        assert "\x1b" not in written.getvalue()


def test_table_of_people_has_a_row_for_each_track(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    values = {**AGES, "p_female": 0.97, "gender": "female"}
    print_people([{"path": "clip.mp4", "track": 1, "start": 0.0, "end": 2.5, "frames": 26, **values}], TWO)
    text = capsys.readouterr().out
    assert heads(text)[:5] == ["video", "track", "start", "end", "frames"]
    assert cells(text) == [["clip.mp4", "1", "0.00", "2.50", "26", "31 (22 to 43)", "female 97 %"]]
