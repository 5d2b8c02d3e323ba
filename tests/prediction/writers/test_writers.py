"""Writers of predictions: equal content in every format, and files complete or not at all."""

from __future__ import annotations

import csv
import json
import string
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from helpers.drawn_predictions import PATHS, answered, tasks_of
from helpers.made_predictions import FIVE, TWO, made
from helpers.made_runs import AGE, ETHNICITY, GENDER, HEIGHT, SMILE
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from agegender.errors import AgeGenderError
from agegender.prediction.prediction import Prediction, columns_of, describe, to_row
from agegender.prediction.writers.writers import check_output, print_jsonl, write_rows
from agegender.system.csv_escape import escape_formula
from agegender.tasks.info import UNSURE, TaskInfo

BOX = (1.26, 2.0, 30.5, 44.0)
AGES: dict[str, Any] = {"age": 31.4159, "age_std": 8.7654, "age_low": 22.0, "age_high": 43.0}
ANSWER = made("a.jpg", 2, BOX, 0.93456, **AGES, p_female=0.123456, gender="male")
FORMS = ("faces.csv", "faces.json", "faces.jsonl", "faces.parquet")
UNDECIDED = made("a.jpg", 2, BOX, 0.93456, **AGES, p_female=0.54321, gender=UNSURE)
FAILURE = Prediction("b.jpg", error="no such file")
FAILED = st.builds(Prediction, PATHS, error=st.text(string.printable, min_size=1))


def read_csv(path: Path, texts: Iterable[str] = ("gender",)) -> list[dict[str, Any]]:
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows: list[dict[str, Any]] = [
            {key: value or None for key, value in row.items()} for row in csv.DictReader(file, strict=True)
        ]
    for row in rows:
        row |= {key: float(row[key]) for key in set(row) - {"path", *texts, "error"} if row[key] is not None}
    return rows


def prediction_of(path: str) -> Prediction:
    return made(path, age=1.0, age_low=0.0, age_high=4.0, p_female=0.5, gender="female")


def write(out: Path, predictions: Iterable[Prediction], tasks: Sequence[TaskInfo] = TWO) -> None:
    write_rows(out, (to_row(prediction, tasks) for prediction in predictions), tasks)


def test_writers_produce_the_documented_csv_json_and_parquet(tmp_path: Path) -> None:
    row = {"path": "a.jpg", "face": 2, "left": 1.3, "top": 2.0, "right": 30.5, "bottom": 44.0, "score": 0.935}
    row |= {"age": 31.42, "age_std": 8.77, "age_low": 22, "age_high": 43, "p_female": 0.1235, "gender": "male"}
    rows = [row | {"error": None}, dict.fromkeys(columns_of(TWO)) | {"path": "b.jpg", "error": "no such file"}]
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


@settings(max_examples=25)
@given(data=st.data(), tasks=tasks_of())
def test_writers_of_all_formats_agree_for_arbitrary_tasks_names_and_errors(
    data: st.DataObject, tasks: tuple[TaskInfo, ...]
) -> None:
    predictions = data.draw(st.lists(answered(tasks) | FAILED, max_size=5))
    names = ["path", *(info.name for info in tasks if info.classes)]
    with tempfile.TemporaryDirectory() as folder:
        table, objects, lines, columns = (Path(folder, f"faces.{end}") for end in ("csv", "JSON", "jsonl", "parquet"))
        for out in (table, objects, lines, columns):
            write(out, predictions, tasks)
        rows = json.loads(objects.read_text(encoding="utf-8"))
        assert [row["path"] for row in rows] == [prediction.path for prediction in predictions]
        escaped = [row | {name: escape_formula(row[name]) for name in names if row[name]} for row in rows]
        assert read_csv(table, names) == escaped
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
    assert describe(made(**AGES, p_female=p_female, gender=gender), TWO) == ["31 (22-43)", words]


def test_print_jsonl_writes_each_prediction_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    def answers() -> Iterator[Prediction]:
        yield ANSWER
        assert json.loads(capsys.readouterr().out)["age"] == 31.42
        yield FAILURE

    print_jsonl(answers(), TWO)
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


def test_print_jsonl_passes_errors_of_the_predictions_on() -> None:
    def answers() -> Iterator[Prediction]:
        yield ANSWER
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        print_jsonl(answers(), TWO)


# Further tasks

SECOND: dict[str, Any] = {"smile": "yes", "p_smile": 0.8765, "height": 171.26, "height_std": 7.04, "height_low": 160.5}
SECOND |= {"height_high": 181.0, "ethnicity": "Asian", "p_White": 0.1, "p_Black": 0.05, "p_Asian": 0.7}
SECOND |= {"p_Indian": 0.1, "p_Others": 0.05}
WIDE = made("a.jpg", 2, BOX, 0.93456, FIVE, **AGES, p_female=0.123456, gender="male", **SECOND)


@pytest.mark.parametrize("name", FORMS)
def test_writers_add_columns_for_every_kind_of_task(name: str, tmp_path: Path) -> None:
    out = tmp_path / name
    write(out, [WIDE, FAILURE], FIVE)
    if out.suffix == ".csv":
        rows = read_csv(out, ("gender", "smile", "ethnicity"))
    elif out.suffix == ".parquet":
        rows = parquet.read_table(out).to_pylist()
    elif out.suffix == ".json":
        rows = json.loads(out.read_text())
    else:
        rows = [json.loads(line) for line in out.read_text().splitlines()]
    added = ["p_smile", "smile", "height", "height_std", "height_low", "height_high"]
    added += ["p_White", "p_Black", "p_Asian", "p_Indian", "p_Others", "ethnicity"]
    assert list(rows[0]) == [*columns_of(TWO)[:-1], *added, "error"] == list(columns_of(FIVE))
    assert {key: rows[0][key] for key in added} == SECOND | {"height": 171.3, "height_std": 7.0}
    assert {key for key, value in rows[1].items() if value is not None} == {"path", "error"}


@pytest.mark.parametrize(
    ("tasks", "texts"),
    [
        ((AGE, GENDER), ["31 (22-43)", "male 88 %"]),
        ((AGE,), ["31 (22-43)"]),
        ((GENDER,), ["male 88 %"]),
        ((AGE, ETHNICITY), ["31 (22-43)", "Asian 70 %"]),
        ((AGE, SMILE), ["age: 31 (22-43)", "smile: yes 88 %"]),
        ((AGE, HEIGHT), ["age: 31 (22-43)", "height: 171.3 (160.5-181.0)"]),
        ((GENDER, ETHNICITY), ["gender: male 88 %", "ethnicity: Asian 70 %"]),
    ],
)
def test_describe_names_the_tasks_unless_the_texts_are_clear_alone(
    tasks: tuple[TaskInfo, ...], texts: list[str]
) -> None:
    assert describe(WIDE, tasks) == texts


def test_csv_escapes_a_class_that_is_a_formula(tmp_path: Path) -> None:
    info = TaskInfo("sum", "binary", "sum", ("p_sum",), (4,), ("=1+1", "none"))
    write(tmp_path / "faces.csv", [made(tasks=[info], sum="=1+1", p_sum=0.1)], [info])
    assert (tmp_path / "faces.csv").read_text().splitlines()[1] == "a.jpg,1,,,,,,0.1,./=1+1,"
