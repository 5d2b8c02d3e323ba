"""Run reader: finding runs and reading their files; a damaged file is one line that names it."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pytest
from conftest import metrics_of
from helpers.made_runs import ETHNICITY, HEIGHT, SMILE, Made, make_run

from agegender.errors import AgeGenderError
from agegender.evaluation.report.predictions_file import RunPredictions
from agegender.evaluation.report.run_reader import find_runs, read_run

TWO = (Made("b.jpg", age=40, age_pred=41.5, gender=1, p_female=0.75, group=3, age_std="6.25"), Made("a.jpg", age=7))
HEADER = "path,age,age_pred,age_std,age_low,age_high,gender,p_female,group\n"


def predictions(folder: Path, text: str) -> Path:
    """A run with these predictions."""
    (make_run(folder / "run", TWO) / "predictions.csv").write_text(text, encoding="utf-8")
    return folder / "run"


def answers_of(run: Path) -> RunPredictions:
    return read_run(run).predictions


def test_predictions_are_read_with_every_column_in_file_name_order(tmp_path: Path) -> None:
    found = answers_of(make_run(tmp_path / "run", TWO, pictures="some/where"))
    assert found.names == ["a.jpg", "b.jpg"] and found.paths[1] == "some/where/b.jpg"
    assert {label: values.tolist() for label, values in found.labels.items()} == {
        "age": [7, 40],
        "gender": [0, 1],
        "group": [0, 3],
    }
    assert list(found.columns) == ["age", "age_std", "age_low", "age_high", "p_female"]
    assert (found.columns["age"].tolist(), found.columns["p_female"].tolist()) == ([30, 41.5], [0.1, 0.75])
    assert np.isnan(found.columns["age_std"][0]) and found.columns["age_std"][1] == 6.25
    assert np.isnan(found.columns["age_low"]).all() and found.tolerances == {"age": 5}


def test_predictions_of_any_tasks_are_read_by_their_description(tmp_path: Path) -> None:
    further: dict[str, float | str] = {"p_White": 0.5, "p_Black": 0.2, "p_Asian": 0.1, "p_Indian": 0.1, "p_Others": 0.1}
    made = [
        Made("a.jpg", group=2, more={"height": 170.5, "height_pred": 171, "smile": "", "p_smile": 0.25, **further}),
        Made("b.jpg", group="", more={"height": "", "height_pred": -3, "smile": 1, "p_smile": 1, **further}),
    ]
    run = make_run(tmp_path / "run", made, {"test/height_cs2.5": 0.5}, tasks=(HEIGHT, SMILE, ETHNICITY), labels=())
    found = answers_of(run)
    assert found.tasks == (HEIGHT, SMILE, ETHNICITY) and list(found.labels) == ["height", "smile", "group"]
    assert found.known(SMILE).tolist() == [False, True] and found.known(ETHNICITY).tolist() == [True, False]
    assert found.columns["height"].tolist() == [171, -3] and found.columns["p_White"].tolist() == [0.5, 0.5]
    assert found.classes == {"group": ETHNICITY.classes, "smile": ("no", "yes")}
    assert found.tolerances == {"height": 2.5}


def test_copies_of_a_photograph_share_a_cluster(tmp_path: Path) -> None:
    made = [Made("a.jpg", photograph="a.jpg"), Made("b.jpg"), Made("c.jpg", photograph="a.jpg")]
    answers = answers_of(make_run(tmp_path / "run", made))
    assert answers.clusters.tolist() == [0, 1, 0] and answers.duplicates_known


@pytest.mark.parametrize("index", [None, "", "file,split,duplicate_of\na.jpg,test,b.jpg\n"])
def test_files_without_duplicate_groups_are_their_own_clusters(tmp_path: Path, index: str | None) -> None:
    run = make_run(tmp_path / "run", TWO, index=False)
    if index is not None:
        (run / "index.csv").write_text(index, encoding="utf-8")
    answers = answers_of(run)
    assert answers.clusters.tolist() == [0, 1] and not answers.duplicates_known


def test_file_missing_from_the_index_is_its_own_cluster(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [Made("a.jpg"), Made("b.jpg"), Made("c.jpg")])
    (run / "index.csv").write_text("file,duplicate_group\na.jpg,a.jpg\nb.jpg,a.jpg\n", encoding="utf-8")
    assert answers_of(run).clusters.tolist() == [0, 0, 1]


def test_file_name_that_is_not_utf8_is_read_unchanged(tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff\xfe.jpg")
    assert answers_of(make_run(tmp_path / "run", [Made(name), Made("日本, a.jpg")])).names == ["日本, a.jpg", name]


def test_empty_cell_is_a_missing_label(tmp_path: Path) -> None:
    made = [Made("a.jpg", age="", gender=1), Made("b.jpg", gender=""), Made("c.jpg", group="")]
    found = answers_of(make_run(tmp_path / "run", made))
    missing = {label: np.isnan(values).tolist() for label, values in found.labels.items()}
    assert missing == {"age": [True, False, False], "gender": [False, True, False], "group": [False, False, True]}


def test_files_of_one_name_in_two_folders_stay_distinct(tmp_path: Path) -> None:
    copies = [Made("x/1.jpg", photograph="x/1.jpg"), Made("y/1.jpg", photograph="x/1.jpg")]
    made = [*copies, Made("1.jpg"), Made("/z/1.jpg")]
    run = make_run(tmp_path / "run", made, {"data": "some/where"}, pictures="some/where")
    text = (run / "predictions.csv").read_text(encoding="utf-8")
    (run / "predictions.csv").write_text(text.replace("some/where//z", "/z"), encoding="utf-8")  # an absolute path
    answers = answers_of(run)
    assert answers.names == ["/z/1.jpg", "1.jpg", "x/1.jpg", "y/1.jpg"]
    assert answers.clusters.tolist() == [0, 1, 2, 2]


def test_class_names_of_a_label_are_those_of_the_run(tmp_path: Path) -> None:
    other = {"classes": {"gender": ["male", "female"], "group": ["north", "south"]}}
    found = answers_of(make_run(tmp_path / "b", [Made("a.jpg", group=1)], other))
    assert found.classes["group"] == ("north", "south")
    with pytest.raises(AgeGenderError, match="group can't be 4"):
        read_run(make_run(tmp_path / "c", [Made("a.jpg", group=4)], other))


def test_real_run_is_read_completely(trained_run: Path) -> None:
    run = read_run(trained_run)
    found = run.predictions
    assert len(found.names) == metrics_of(trained_run)["images/test"] and found.duplicates_known
    assert [task.name for task in found.tasks] == ["age", "gender"] and found.tolerances == {"age": 5}
    with (trained_run / "predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: Path(row["path"]).name)
    assert found.columns["age"].tolist() == [float(row["age_pred"]) for row in rows]
    assert run.results == metrics_of(trained_run) and run.curves


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "holds no predictions"),
        (HEADER, "holds no predictions"),
        ("path,age\na.jpg,3\n", "line 2: no column 'gender'"),
        ("age,age_pred,gender,p_female,group\n3,4,1,0.5,0\n", "line 2: no column 'path'"),
        ("path,age,gender,p_female\na.jpg,3,1,0.5\n", "line 2: no column 'age_pred'"),
        (HEADER + "a.jpg,3,4,,,,1,0.5,0\nb.jpg,3,4\n", "line 3: fewer columns than the header"),
        (HEADER + "a.jpg,three,4,,,,1,0.5,0\n", "line 2: could not convert string to float: 'three'"),
        (HEADER + "a.jpg,inf,4,,,,1,0.5,0\n", "line 2: age can't be inf"),
        (HEADER + "a.jpg,3,nan,,,,1,0.5,0\n", "line 2: age_pred can't be nan"),
        (HEADER + "a.jpg,3,,,,,1,0.5,0\n", "line 2: age_pred can't be nan"),
        (HEADER + "a.jpg,3,4,,9,8,1,0.5,0\n", "line 2: an interval can't be from 9 to 8"),
        (HEADER + "a.jpg,3,4,,9,,1,0.5,0\n", "line 2: an interval can't be from 9 to nan"),
        (HEADER + "a.jpg,3,4,,,,2,0.5,0\n", "line 2: gender can't be 2"),
        (HEADER + "a.jpg,3,4,,,,1,1.5,0\n", "line 2: p_female can't be 1.5"),
        (HEADER + "a.jpg,3,4,,,,1,nan,0\n", "line 2: p_female can't be nan"),
        (HEADER + "a.jpg,3,4,,,,1,0.5,9\n", "line 2: group can't be 9"),
        (HEADER + "a.jpg,3,4,-1,,,1,0.5,0\n", "line 2: age_std can't be -1"),
        (HEADER + "a.jpg,3,4,inf,,,1,0.5,0\n", "line 2: age_std can't be inf"),
        (HEADER + "a" * 200_000 + ",3,4,,,,1,0.5,0\n", "field larger than field limit"),
    ],
)
def test_damaged_file_is_an_error_with_its_line_and_a_remedy(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(AgeGenderError) as error:
        read_run(predictions(tmp_path, text))
    line = str(error.value)
    assert reason in line and line.startswith(str(tmp_path / "run" / "predictions.csv")) and "fit=false" in line


def test_untested_run_is_an_error_with_the_test_command(tmp_path: Path) -> None:
    with pytest.raises(AgeGenderError, match=r"has no predictions\.csv: run its test first, python train.py fit=false"):
        read_run(tmp_path)


@pytest.mark.parametrize("text", ["{", "[1]", "\x80"])
def test_damaged_metrics_file_is_an_error_that_names_it(tmp_path: Path, text: str) -> None:
    run = make_run(tmp_path / "run", TWO)
    (run / "metrics.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(AgeGenderError, match=r"metrics\.json is damaged"):
        read_run(run)


@pytest.mark.parametrize("tasks", [None, [], [{"name": "age"}], 3])
def test_metrics_file_without_tasks_is_an_error_that_names_it(tmp_path: Path, tasks: object) -> None:
    run = make_run(tmp_path / "run", TWO, {"tasks": tasks})
    with pytest.raises(
        AgeGenderError, match=r"metrics\.json is damaged, or of another version \(it describes no tasks\)"
    ):
        read_run(run)


def test_stopped_run_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", TWO)
    (run / "metrics.json").unlink()
    with pytest.raises(AgeGenderError, match=r"metrics\.json is missing: the run stopped .*fit=false"):
        read_run(run)


# Which runs


def finished(folder: Path, age: float) -> Path:
    """A run that was tested so many seconds ago."""
    run = make_run(folder, TWO)
    made = (run / "metrics.json").stat().st_mtime
    os.utime(run / "predictions.csv", (made - age, made - age))
    return run


def test_find_run_accepts_a_run_or_the_newest_of_a_folder(tmp_path: Path) -> None:
    old, new = finished(tmp_path / "logs/default/b", 60), finished(tmp_path / "logs/sweep/3/a", 30)
    assert find_runs(str(old)) == [old]
    assert find_runs(str(tmp_path / "logs")) == find_runs(None, tmp_path / "logs") == [new]
    assert find_runs([str(new), str(tmp_path / "logs/default")]) == [new, old]


def test_newest_run_is_the_one_tested_last(tmp_path: Path) -> None:
    run = finished(tmp_path / "logs/a", 30)
    (tmp_path / "logs/b/checkpoints").mkdir(parents=True)  # no test yet
    assert find_runs(None, tmp_path / "logs") == [run]


def test_newest_run_is_a_training_even_if_an_evaluation_is_newer(tmp_path: Path) -> None:
    trained, evaluated = finished(tmp_path / "logs/a", 60), finished(tmp_path / "logs/b", 30)
    assert find_runs(None, tmp_path / "logs") == [evaluated]
    (trained / "checkpoints").mkdir()
    assert find_runs(None, tmp_path / "logs") == find_runs(str(tmp_path / "logs")) == [trained]
    assert find_runs(str(evaluated)) == [evaluated]


def test_folder_without_a_tested_run_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    untested, empty, file = tmp_path / "untested", tmp_path / "empty", tmp_path / "file"
    (untested / "checkpoints").mkdir(parents=True)
    empty.mkdir()
    file.touch()
    for given, lines in {
        str(untested): ("has no predictions.csv", f"python train.py fit=false weights={untested}"),
        str(empty): ("holds no predictions.csv", "give a run's folder"),
        str(file): ("is a file", "give the folder of the run"),
        str(tmp_path / "nowhere"): ("does not exist", "give a run's folder"),
    }.items():
        with pytest.raises(AgeGenderError) as error:
            find_runs(given)
        assert given in str(error.value) and all(line in str(error.value) for line in lines)
    with pytest.raises(AgeGenderError, match=r"no tested run below .*empty; train one"):
        find_runs(None, empty)
