"""The benchmarks that evaluate weights on other images than UTKFace's, against hand-computed values."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.made_networks import save_network
from helpers.made_predictions import made
from PIL import Image

from agegender.errors import AgeGenderError
from agegender.prediction.backends.torch_backend import TorchBackend
from agegender.prediction.export.onnx_graph import build_graph, save_graph
from agegender.prediction.prediction import NO_FACE, Prediction
from benchmarks import astronaut, latency, portraits
from benchmarks.portraits import Portraits, measure, person_of, read_portraits

HEADER = "path,age,gender,subset\n"


def make_predictions(*answers: tuple[float, float, str]) -> list[Prediction]:
    """Returns predictions of (age, p_female, gender) with intervals of two years to both sides."""
    return [
        made(age=age, age_low=age - 2, age_high=age + 2, p_female=share, gender=gender)
        for age, share, gender in answers
    ]


def make_portraits(names: list[str], ages: list[float], genders: list[int], subsets: list[str]) -> Portraits:
    return Portraits(names, np.array(ages), np.array(genders, np.int64), np.array(subsets, np.str_), {})


FOUR = make_portraits(
    ["a_001_01.jpg", "a_001_02.jpg", "b_x.jpg", "b_y.jpg"], [20, 20, 30, 40], [1, 1, 0, 1], ["a", "a", "b", "b"]
)
ANSWERS = make_predictions((21, 0.9, "female"), (19, 0.6, "unsure"), (34, 0.2, "male"), (30, 0.4, "unsure"))


@pytest.mark.parametrize(
    ("path", "person"),
    [
        ("images/london_001_03.jpg", "images/london_001"),
        ("images/london_001_08.jpg", "images/london_001"),
        ("images/canada_003f.jpg", "images/canada_003f"),
        ("images/3dsk_ivan2.jpg", "images/3dsk_ivan2"),
        ("images/3dsk_ivan.jpg", "images/3dsk_ivan"),
        ("12_3.jpg", "12_3"),
    ],
)
def test_portraits_identify_persons_by_file_name(path: str, person: str) -> None:
    assert person_of(path) == person


def test_portraits_metrics_equal_hand_computed_values() -> None:
    figures = measure(FOUR, ANSWERS, constant=25, resamples=50)
    assert list(figures) == ["all", "a", "b", "men", "women"]
    values = {name: [one.value for one in row] for name, row in figures.items()}
    # MAE, bias, MAE of the constant, coverage of 80 %, gender accuracy, fraction answered, accuracy of these
    assert values["all"] == pytest.approx([4, -1.5, 7.5, 0.5, 0.75, 0.5, 1])
    assert values["a"] == pytest.approx([1, 0, 5, 1, 1, 0.5, 1])
    assert values["men"] == pytest.approx([4, 4, 5, 0, 1, 1, 1])
    assert values["women"] == pytest.approx([4, -10 / 3, 25 / 3, 2 / 3, 2 / 3, 1 / 3, 1])


def test_portraits_are_resampled_by_person() -> None:
    """Two images of one person give an interval of zero width; as two persons, they give a wider one."""
    ages, genders, subsets = [20.0, 20.0], [1, 1], ["", ""]
    answers = make_predictions((21, 0.9, "female"), (25, 0.9, "female"))
    one = measure(make_portraits(["a_1_1.jpg", "a_1_2.jpg"], ages, genders, subsets), answers, 20, 200)["all"][0]
    two = measure(make_portraits(["a_1.jpg", "a_2.jpg"], ages, genders, subsets), answers, 20, 200)["all"][0]
    assert (one.value, one.low, one.high) == (3, 3, 3)
    assert (two.value, two.low, two.high) == (3, 1, 5)


def test_portraits_without_intervals_have_no_coverage() -> None:
    answers = [made(age=20, p_female=0.9, gender="female") for _ in range(4)]
    figures = measure(FOUR, answers, 25, 50)
    assert np.isnan(figures["all"][3].value) and figures["all"][0].value == 7.5
    assert "-" in portraits.show(figures, FOUR).splitlines()[1].split()


def test_portraits_without_both_labels_are_excluded_with_the_reason(tmp_path: Path) -> None:
    table = HEADER + "b.jpg,30,f,x\na.jpg,20.9,male,\nc.jpg,,m,x\nd.jpg,40,,x\ne.jpg,old,m,x\n"
    (tmp_path / "labels.csv").write_text(table)
    read = read_portraits(tmp_path)
    assert read.paths == ["a.jpg", "b.jpg"] and read.subset.tolist() == ["", "x"]
    assert (read.age.tolist(), read.gender.tolist()) == ([20, 30], [0, 1])
    assert (
        read.left_out["c.jpg"] == "no age"
        and read.left_out["d.jpg"] == "no gender"
        and "'old'" in read.left_out["e.jpg"]
    )


def test_portraits_without_a_table_or_labels_are_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(AgeGenderError, match=r"holds no labels\.csv"):
        read_portraits(tmp_path)
    (tmp_path / "labels.csv").write_text(HEADER + "a.jpg,20,,x\n")
    with pytest.raises(AgeGenderError, match="has no image with both age and gender"):
        read_portraits(tmp_path)


def test_portraits_count_found_and_missed_faces(
    faces: Path, trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = []
    for place, face in enumerate(sorted(faces.glob("*.jpg"))[:12]):
        shutil.copy(face, tmp_path / f"p_{place // 2}_{place % 2}.jpg")
        age, gender = face.name.split("_")[:2]
        lines.append(f"p_{place // 2}_{place % 2}.jpg,{age},{gender},{'even' if place % 4 < 2 else 'odd'}")
    Image.new("RGB", (200, 200), "navy").save(tmp_path / "sea.png")
    lines += ["sea.png,30,f,odd", "gone.jpg,30,m,odd", "ageless.jpg,,m,odd"]
    (tmp_path / "labels.csv").write_text(HEADER + "\n".join(lines) + "\n")
    monkeypatch.setattr(sys, "argv", ["portraits", "--data", str(tmp_path), "--weights", str(trained_run)])
    portraits.main()
    out = capsys.readouterr().out
    assert f"$ python -m benchmarks.portraits --data {tmp_path}" in out and "machine: " in out
    assert "weights: best.ckpt (SHA-256 " in out
    assert "a face found in 12 of 14 portraits" in out
    assert f"not counted, without a face: 1 (sea.png: {NO_FACE})" in out
    assert "not counted, unreadable: 1 (gone.jpg: " in out
    assert "not counted, without both labels: 1 (ageless.jpg: no age)" in out
    rows = {line.split()[0]: line.split()[1:3] for line in out.splitlines() if line.strip()}
    assert rows["all"] == ["12", "6"] and rows["even"] == rows["odd"] == ["6", "3"]
    assert int(rows["men"][0]) + int(rows["women"][0]) == 12


def test_astronaut_has_seventeen_edits_that_each_change_the_image() -> None:
    edited = astronaut.pictures(astronaut.photograph())
    assert len(edited) == 18 and next(iter(edited)) == astronaut.UNEDITED
    assert len({(picture.size, picture.tobytes()) for picture in edited.values()}) == 18
    assert {"squeeze_4_3", "rotate_90", "rotate_180", "rotate_270"} <= edited.keys()
    assert edited["squeeze_4_3"].size == (384, 512)
    assert edited["rotate_90"].transpose(Image.Transpose.ROTATE_270) == edited[astronaut.UNEDITED]
    plain = np.asarray(edited[astronaut.UNEDITED], np.float64)
    noise = (np.asarray(edited["noise_10"]) - plain)[(plain > 50) & (plain < 205)]  # elsewhere, the noise is clipped
    assert noise.std() == pytest.approx(10, abs=0.1)


@pytest.mark.parametrize(
    ("age", "p_female", "age_met", "p_female_met"),
    [(28, 0.85, True, True), (27.9, 0.9, False, True), (50.1, 0.9, False, True), (40, 0.849, True, False)],
)
def test_astronaut_goals_hold_for_the_worst_image(
    age: float, p_female: float, age_met: bool, p_female_met: bool
) -> None:
    good, worst = make_predictions((40, 0.99, "female"), (age, p_female, "female"))
    results = astronaut.summary({"a": good, "b": worst, "c": good})
    assert (results["age_met"], results["p_female_met"]) == (age_met, p_female_met)
    assert results["p_female_min"] == p_female and {age, 40} == {results["age_min"], results["age_max"]}
    lines = astronaut.verdict(results).splitlines()
    assert [line.endswith(": met") for line in lines[1:]] == [p_female_met, age_met]
    assert ("b " in "".join(line[:2] for line in astronaut.show({"a": good, "b": worst}).splitlines()[2:])) is True


def test_astronaut_not_found_misses_both_goals() -> None:
    (good,) = make_predictions((40, 0.99, "female"))
    results = astronaut.summary({"a": good, "b": Prediction("x", error=NO_FACE)})
    assert not results["age_met"] and not results["p_female_met"] and results["found"] == 1
    assert NO_FACE in astronaut.show({"b": Prediction("x", error=NO_FACE)})
    assert "missed" in astronaut.verdict(astronaut.summary({"b": Prediction("x", error=NO_FACE)}))


def test_astronaut_json_holds_the_printed_results(
    trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    where = tmp_path / "figures.json"
    monkeypatch.setattr(sys, "argv", ["astronaut", "--weights", str(trained_run), "--json", str(where)])
    astronaut.main()
    out, results = capsys.readouterr().out, json.loads(where.read_text())
    assert "face found in 18 of 18 images" in out and results["found"] == 18
    rows = {line.split()[0]: line.split() for line in out.splitlines() if line.split()[0] in results["edits"]}
    assert rows.keys() == results["edits"].keys() == {astronaut.UNEDITED, *astronaut.EDITS}
    for name, row in results["edits"].items():
        assert row["error"] is None and float(rows[name][1]) == pytest.approx(row["age"], abs=0.06)
    assert results["p_female_min"] == pytest.approx(min(row["p_female"] for row in results["edits"].values()), abs=1e-4)


def test_latency_is_measured_after_a_warm_up() -> None:
    ticks = iter(range(10_000))
    calls: list[None] = []
    times = latency.milliseconds(lambda: calls.append(None), 5, lambda: float(next(ticks)))
    assert times.tolist() == [1000] * 5 and len(calls) == 5 + latency.WARM_UP
    assert latency.in_words(np.array([1.0, 2.0, 9.0])).startswith("2.00 ms (90 % within 1.10 to 8.30; all within 1.00 ")


@pytest.mark.parametrize("with_export", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_latency_is_printed_for_weights_and_their_export(
    with_export: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint, exported = save_network(tmp_path / "tiny.ckpt", in_channels=1), tmp_path / "tiny.onnx"
    command = ["latency", "--weights", str(checkpoint), "--calls", "3"]
    if with_export:
        save_graph(build_graph(TorchBackend(checkpoint, "cpu")), exported)
        command += ["--onnx", str(exported)]
    monkeypatch.setattr(sys, "argv", command)
    latency.main()
    lines = capsys.readouterr().out.splitlines()
    backends = ("torch:", "onnx:") if with_export else ("torch:",)
    assert [line.split()[0] for line in lines[2:]] == [
        word for backend in backends for word in (backend, "network", "Predictor")
    ]
    medians = [float(line.split()[1]) for line in lines if " ms (" in line]
    assert len(medians) == 2 * len(backends) and min(medians) > 0
