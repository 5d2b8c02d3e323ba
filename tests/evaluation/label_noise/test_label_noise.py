"""Label noise of copies, by hand, and in a report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.made_runs import AGE, GENDER, Made, make_run

from agegender.errors import AgeGenderError
from agegender.evaluation.label_noise.measure import label_noise
from agegender.evaluation.label_noise.section import floors, noise_by_task, noise_section
from agegender.evaluation.report.comparison import build_report, report_json
from agegender.evaluation.report.run_reader import read_run

NAN = float("nan")
GROUPS = np.array([0, 0, 3, 0, 3, 5])  # three copies, two copies, and a file without any
# ages 10, 12, 20 and 30, 40; genders 0, 0, 1 and 1, 1
COPIES = [
    Made(f"{i}.jpg", age, age + 1, gender, photograph=str(group))
    for i, (age, gender, group) in enumerate(zip((10, 12, 30, 20, 40, 99), (0, 0, 1, 1, 1, 0), GROUPS, strict=True))
]


def test_label_noise_of_numbers_matches_hand_computation() -> None:
    found = label_noise(np.array([10.0, 12, 30, 20, 40, 99]), GROUPS, classes=False)
    assert found is not None and (found.photographs, found.images) == (2, 5)
    assert sorted(found.errors.tolist()) == [0, 2, 5, 5, 8]  # from the medians 12 and 35
    assert found.best_constant == 4
    assert found.other_copy == (6 + 5 + 9 + 10 + 10) / 5  # mean distances to the other copies


def test_label_noise_of_classes_matches_hand_computation() -> None:
    found = label_noise(np.array([0.0, 0, 1, 1, 1, 0]), GROUPS, classes=True)
    assert found is not None and found.best_constant == 0.8
    assert found.other_copy == pytest.approx(1 - (0.5 + 0.5 + 1 + 0 + 0) / 5)


def test_label_noise_of_pairs_is_half_their_difference() -> None:
    found = label_noise(np.array([20.0, 26, 40, 41]), np.array([7, 7, 2, 2]), classes=False)
    assert found is not None and (found.best_constant, found.other_copy) == (1.75, 3.5)


@pytest.mark.parametrize("labels", [[1.0, 2, 3], [1.0, NAN, 3], [NAN, NAN, NAN]])
def test_label_noise_without_two_labels_of_a_photograph_is_unknown(labels: list[float]) -> None:
    groups = [0, 1, 2] if labels[1] == 2 else [0, 0, 2]
    assert label_noise(np.array(labels), np.array(groups), classes=False) is None


def test_run_has_the_label_noise_of_all_images_of_its_index(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", COPIES)
    tested = (run / "predictions.csv").read_text().splitlines()
    (run / "predictions.csv").write_text("\n".join(tested[:2]) + "\n")  # the other copies were trained on
    noise = read_run(run).predictions.label_noise
    assert {label: found.best_constant for label, found in noise.items()} == {"age": 4, "gender": 0.8, "group": 1}
    assert floors(noise_by_task([read_run(run).predictions], [AGE, GENDER]), [AGE, GENDER]) == {
        "age_mae": 4,
        "gender_acc": 0.8,
    }


def test_report_gives_label_noise_as_a_table_and_in_its_json(tmp_path: Path) -> None:
    report = build_report([make_run(tmp_path / "run", COPIES)], {"resamples": 20, "faces": 0, "seed": 0}, "")
    (table,) = noise_section(report.label_noise, report.tasks).tables
    assert [list(row) for row in table.rows] == [
        ["age MAE, years", "4.00", "8.00", "5", "2"],
        ["gender accuracy, %", "80.00", "60.00", "5", "2"],
    ]
    assert report_json(report)["label_noise"]["age"] == {
        "photographs": 2,
        "images": 5,
        "best_constant": 4.0,
        "other_copy": 8.0,
    }


@pytest.mark.parametrize("why", ["no copies", "no index", "not searched"])
def test_report_without_copies_gives_the_reason_instead_of_label_noise(tmp_path: Path, why: str) -> None:
    made = [replace(one, photograph="") for one in COPIES] if why == "no copies" else COPIES
    metrics = {"duplicates": "none"} if why == "not searched" else {}
    run = make_run(tmp_path / "run", made, metrics, index=why != "no index")
    report = build_report([run], {"resamples": 20, "faces": 0, "seed": 0}, "")
    section = noise_section(report.label_noise, report.tasks)
    assert section.text.startswith("Label noise is not measured: no copies") and not section.tables
    assert report_json(report)["label_noise"] == {}


@pytest.mark.parametrize("cell", ["old", "inf", "99999999999"])
def test_index_with_an_invalid_label_of_a_copy_is_damaged(tmp_path: Path, cell: str) -> None:
    run = make_run(tmp_path / "run", COPIES)
    index = (run / "index.csv").read_text().replace("0.jpg,10,0", f"0.jpg,10,{cell}", 1)
    (run / "index.csv").write_text(index)
    with pytest.raises(AgeGenderError, match=r"index.csv is damaged .*measure the run again"):
        read_run(run)


def test_index_with_a_line_cut_short_is_damaged(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", COPIES)
    (run / "index.csv").write_text((run / "index.csv").read_text() + "x.jpg,1\n")
    with pytest.raises(AgeGenderError, match=r"index.csv is damaged \(a line is cut short\)"):
        read_run(run)
