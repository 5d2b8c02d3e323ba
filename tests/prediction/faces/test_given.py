"""Faces of a person's own detector: boxes and landmarks from Python, and the table of `boxes=`."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Outcome
from helpers.made_videos import crossing, write_video
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from agegender.errors import AgeGenderError
from agegender.prediction.faces.alignment import TEMPLATE
from agegender.prediction.faces.boxes import BoxTable
from agegender.prediction.faces.detector import MIN_SCORE, FaceDetector
from agegender.prediction.faces.given import parse_face, parse_faces
from agegender.prediction.images.sources import as_named_image
from agegender.prediction.predict import predict
from agegender.prediction.prediction import NO_FACE
from agegender.prediction.predictor import Predictor

Run = Callable[..., Outcome]
HEAD = "path,left,top,right,bottom"
POINTS = ",".join(f"{axis}{number}" for number in range(1, 6) for axis in "xy")


@pytest.fixture(scope="module")
def picture(faces: Path) -> NDArray[np.uint8]:
    """Two drawn people, at the left and the right, on 320 x 240 pixels."""
    return crossing(faces)[0]


@pytest.fixture(scope="module")
def predictor(trained_run: Path) -> Predictor:
    return Predictor(trained_run, "cpu")


# From Python


def test_predictor_with_its_own_boxes_predicts_as_with_detection_in_the_given_order(
    predictor: Predictor, picture: NDArray[np.uint8]
) -> None:
    found = predictor(picture)
    boxes = [(face.left, face.top, face.right, face.bottom) for face in found][::-1]
    again = predictor(picture, boxes=boxes)
    assert len(again) == 2 and [face.face for face in again] == [1, 2]
    for ours, theirs in zip(again, found[::-1], strict=True):
        assert (ours.left, ours.top, ours.right, ours.bottom) == (theirs.left, theirs.top, theirs.right, theirs.bottom)
        assert ours.age == pytest.approx(theirs.age, abs=0.01) and ours.score == pytest.approx(theirs.score)


def test_predictor_with_landmarks_needs_no_detector(
    predictor: Predictor, trained_run: Path, picture: NDArray[np.uint8]
) -> None:
    found = FaceDetector().detect(Image.fromarray(picture))
    landmarks = [face.landmarks for face in found]
    expected = [face.age for face in predictor(picture)]
    for detector in (predictor, Predictor(trained_run, "cpu", detect="never")):
        faces = detector(picture, landmarks=landmarks)
        assert [face.age for face in faces] == pytest.approx(expected, abs=1e-4)
        assert [face.score for face in faces] == [None, None]
        edges = np.array([(face.left, face.top, face.right, face.bottom) for face in faces], np.float64)
        assert np.abs(edges - [face.box for face in found]).max() < 15  # a box is derived from the landmarks


def test_predictor_without_a_detector_places_the_crop_by_the_box(
    trained_run: Path, predictor: Predictor, picture: NDArray[np.uint8]
) -> None:
    found = predictor(picture)
    boxes = [(face.left, face.top, face.right, face.bottom) for face in found]
    faces = Predictor(trained_run, "cpu", detect="never")(picture, boxes=boxes)
    for ours, theirs in zip(faces, found, strict=True):
        assert ours.score is None and ours.age is not None
        assert ours.age == pytest.approx(theirs.age, abs=15)


def test_predictor_predicts_for_a_box_without_a_face_by_the_box_alone(
    predictor: Predictor, picture: NDArray[np.uint8]
) -> None:
    (face,) = predictor(picture, boxes=[(150, 180, 180, 210)])
    assert face.error is None and face.score is None and face.age is not None


def test_predictor_takes_boxes_for_each_image_of_a_list(predictor: Predictor, picture: NDArray[np.uint8]) -> None:
    (left, right), none, beyond = predictor(
        [picture] * 3, boxes=[[(30, 38, 87, 111), (230, 140, 290, 215)], [], [(30, 38, 87, 111), (400, 0, 500, 90)]]
    )
    assert left.age is not None and right.age is not None
    assert [face.error for face in none] == [NO_FACE]
    (failed,) = beyond
    assert failed.error == "box 2, (400, 0, 500, 90), lies outside the image of 320 x 240 pixels"


def test_predictor_clips_boxes_to_the_image(predictor: Predictor, picture: NDArray[np.uint8]) -> None:
    (face,) = predictor(picture, boxes=np.array([[-20.0, 30, 100, 130]]))
    assert (face.left, face.top, face.right, face.bottom) == (0, 30, 100, 130) and face.age is not None


@pytest.mark.parametrize(
    ("boxes", "landmarks", "reason"),
    [
        ([(1, 2, 3)], None, r"a box must be left, top, right, bottom, not an array of \[3\]"),
        ((1, 2, 3, 4), None, r"a box must be left, top, right, bottom, not an array of \[\]"),
        ([(1, 2, math.nan, 4)], None, r"a box must be finite numbers, not \(1, 2, nan, 4\)"),
        ([(5, 2, 3, 4)], None, r"the box \(5, 2, 3, 4\) has no area: left < right and top < bottom"),
        ([("a", 2, 3, 4)], None, "a box must be numbers: left, top, right, bottom"),
        (None, [TEMPLATE[:4]], r"landmarks must be five points x, y, not an array of \[4, 2\]"),
        (None, [TEMPLATE[[1, 0, 2, 4, 3]]], "are no face, or not in this order: the eye on the image's left"),
        (None, [np.ones((5, 2))], "are no face, or not in this order"),
        ([(1, 2, 3, 4)], [TEMPLATE, TEMPLATE], "boxes and landmarks must be as many, not 1 and 2"),
    ],
)
def test_predictor_refuses_invalid_boxes_and_landmarks_in_one_line(
    boxes: Any, landmarks: Any, reason: str, predictor: Predictor, picture: NDArray[np.uint8]
) -> None:
    with pytest.raises(AgeGenderError, match=reason) as caught:
        predictor(picture, boxes=boxes, landmarks=landmarks)
    assert "\n" not in str(caught.value)


def test_predictor_refuses_boxes_for_another_number_of_images(predictor: Predictor, picture: NDArray[np.uint8]) -> None:
    with pytest.raises(AgeGenderError, match="an entry for each of the 2 images"):
        predictor([picture, picture], boxes=[[(1, 2, 3, 4)]])


@given(st.floats(0, 2 * math.pi), st.floats(0.5, 500), st.floats(-100, 1000), st.floats(-100, 1000))
def test_parse_face_accepts_the_template_at_any_rotation_size_and_place(
    angle: float, size: float, x: float, y: float
) -> None:
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    face = parse_face(None, size * TEMPLATE @ turn.T + (x, y))
    left, top, right, bottom = face.box
    assert left < right and top < bottom and face.landmarks is not None
    assert np.all(face.landmarks.mean(0) > (left, top)) and np.all(face.landmarks.mean(0) < (right, bottom))


def test_parse_faces_of_no_box_is_no_face() -> None:
    assert parse_faces([]) == parse_faces(None, []) == []


# min_score


def test_min_score_decides_which_detections_are_faces(picture: NDArray[np.uint8], trained_run: Path) -> None:
    scores = [face.score for face in FaceDetector().detect(Image.fromarray(picture))]
    assert len(scores) == 2 and all(score is not None and MIN_SCORE <= score < 0.99 for score in scores)
    assert Predictor(trained_run, "cpu", min_score=0.99)(picture)[0].error == NO_FACE
    assert len(Predictor(trained_run, "cpu", min_score=0.3)(picture)) >= 2
    blurred = Image.fromarray(picture).resize((24, 18), Image.Resampling.BOX).resize((320, 240))
    assert len(FaceDetector(min_score=0.2).detect(blurred)) > len(FaceDetector().detect(blurred))


@pytest.mark.parametrize("min_score", [0, -1, 1.1, math.nan])
def test_min_score_out_of_range_is_refused(min_score: float, trained_run: Path) -> None:
    line = f"^min_score={min_score} must be above 0, and at most 1$"
    with pytest.raises(AgeGenderError, match=line):
        predict("a.jpg", str(trained_run), min_score=min_score)
    with pytest.raises(AgeGenderError, match=line):
        Predictor(trained_run, "cpu", min_score=min_score)


def test_predict_refuses_a_min_score_out_of_range_in_one_line(run_here: Run) -> None:
    outcome = run_here("predict.py", "img=a.jpg", "weights=missing.ckpt", "min_score=nan")
    outcome.assert_one_line_error("error: min_score=nan must be above 0, and at most 1")


def test_with_detection_keeps_min_score(trained_run: Path, picture: NDArray[np.uint8]) -> None:
    strict = Predictor(trained_run, "cpu", detect="never", min_score=0.99)
    assert strict.with_detection("always")(picture)[0].error == NO_FACE


# The table


def table(tmp_path: Path, *lines: str, head: str = HEAD) -> Path:
    path = tmp_path / "boxes.csv"
    path.write_text("\n".join((head, *lines)) + "\n", encoding="utf-8")
    return path


def test_box_table_reads_boxes_landmarks_and_images_without_a_face(tmp_path: Path) -> None:
    points = ",".join(str(10 * value) for value in TEMPLATE.ravel())
    lines = ("a.jpg,1,2,30,40," + "," * 9, f"./b.jpg,1,2,30,40,{points}", f"b.jpg,,,,,{points}", "c.jpg,,,,," + "," * 9)
    boxes = BoxTable(table(tmp_path, *lines, head=f"{HEAD},{POINTS}"))
    a, b, c, d = boxes.attach(map(as_named_image, ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]))
    assert a.faces is not None and [(face.box, face.landmarks) for face in a.faces] == [((1, 2, 30, 40), None)]
    assert b.faces is not None and len(b.faces) == 2
    assert all(face.landmarks is not None and np.allclose(face.landmarks, 10 * TEMPLATE) for face in b.faces)
    assert c.faces == [] and d.faces == ()


@pytest.mark.parametrize(
    ("head", "line", "reason"),
    [
        ("path,left,top", "a.jpg,1,2", "lacks the column right, bottom; it has path, left, top"),
        (f"{HEAD},x1,y1", "a.jpg,1,2,3,4,5,6", "lacks the landmarks' column x2, y2, x3, y3, x4, y4, x5, y5: give all"),
        (HEAD, "a.jpg,1,2,3", "line 2 of boxes=boxes.csv has too few cells, or no path"),
        (HEAD, ",1,2,3,4", "line 2 of boxes=boxes.csv has too few cells, or no path"),
        (HEAD, "a.jpg,1,2,three,4", "line 2 of boxes=boxes.csv: right=three is not a number"),
        (HEAD, "a.jpg,1,2,,4", "line 2 of boxes=boxes.csv: right=(empty) is not a number"),
        (HEAD, "a.jpg,1,2,nan,4", "line 2 of boxes=boxes.csv: a box must be finite numbers, not (1, 2, nan, 4)"),
        (HEAD, "a.jpg,5,2,3,4", "line 2 of boxes=boxes.csv: the box (5, 2, 3, 4) has no area"),
        (HEAD, "b.jpg,1,2,3,4", "line 2 of boxes=boxes.csv: b.jpg is not among the images of img=: write the paths"),
        (HEAD, "b.jpg,1,2,3,4\nc.jpg,1,2,3,4", "b.jpg is not among the images of img= (nor are 1 others)"),
        (HEAD, "b.mp4#t=0.50,1,2,3,4", "b.mp4#t=0.50 is not among the images"),
        (HEAD, '"a.jpg,1,2,3,4', "boxes=boxes.csv is not a CSV file"),
    ],
)
def test_invalid_table_of_boxes_is_refused_in_one_line(
    head: str, line: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    table(tmp_path, line, head=head)
    with pytest.raises(AgeGenderError) as caught:
        predict("a.jpg", "missing.ckpt", boxes="boxes.csv")
    assert reason in str(caught.value) and "\n" not in str(caught.value)


def test_predict_refuses_a_missing_table_of_boxes_in_one_line(run_here: Run) -> None:
    outcome = run_here("predict.py", "img=a.jpg", "boxes=none.csv", "weights=missing.ckpt")
    outcome.assert_one_line_error("error: boxes=none.csv can't be read (No such file or directory)")


def test_predict_with_the_boxes_that_it_wrote_itself_predicts_the_same(
    picture: NDArray[np.uint8], faces: Path, trained_run: Path, run_here: Run, tmp_path: Path
) -> None:
    Image.fromarray(picture).save(tmp_path / "=two.png")  # escaped in a CSV file
    Image.new("RGB", (200, 100), "navy").save(tmp_path / "none.png")
    write_video(tmp_path / "clip.avi", "MJPG", crossing(faces, 3))
    crop = str(min(faces.glob("28_*")))
    images = ("img=./=two.png", "none.png", crop, "clip.avi", f"weights={trained_run}", "frame_interval=0.1")
    run_here("predict.py", *images, "out=first.csv")
    outcome = run_here("predict.py", *images, "boxes=first.csv", "out=again.csv")
    assert outcome.code == 0 and "1 of 6 images have no face" in outcome.err
    contents = ((tmp_path / name).read_text(encoding="utf-8") for name in ("first.csv", "again.csv"))
    first, again = (list(csv.DictReader(content.splitlines())) for content in contents)
    assert len(first) == len(again) == 2 + 1 + 1 + 6
    for ours, theirs in zip(again, first, strict=True):
        assert ours["path"] == theirs["path"] and ours["error"] == theirs["error"]
        if not ours["error"]:
            assert float(ours["age"]) == pytest.approx(float(theirs["age"]), abs=1)
            assert float(ours["score"]) == pytest.approx(float(theirs["score"]), abs=0.002)
            assert ours["left"] == theirs["left"] and ours["top"] == theirs["top"]


def test_predict_follows_faces_of_a_table_without_a_detector(
    faces: Path, trained_run: Path, run_here: Run, tmp_path: Path
) -> None:
    write_video(tmp_path / "clip.avi", "MJPG", crossing(faces, 11))
    rows = [f"clip.avi#t={0.1 * frame:.2f},{10 + 21 * frame},20,{100 + 21 * frame},110" for frame in range(11)]
    table(tmp_path, *rows)
    arguments = ("clip.avi", "boxes=boxes.csv", "detect=never", "frame_interval=0.1", f"weights={trained_run}")
    assert run_here("predict.py", *arguments, "tracks=people.json", "out=faces.json").code == 0
    people = json.loads((tmp_path / "people.json").read_text())
    assert [(person["track"], person["frames"]) for person in people] == [(1, 11)]


def test_predict_follows_given_faces_of_any_score(
    picture: NDArray[np.uint8], trained_run: Path, run_here: Run, tmp_path: Path
) -> None:
    random = np.random.default_rng(0)
    noisy = [np.clip(picture + random.normal(0, 30, picture.shape), 0, 255).astype(np.uint8) for _ in range(5)]
    write_video(tmp_path / "clip.avi", "MJPG", noisy)
    table(tmp_path, *(f"clip.avi#t={0.1 * frame:.2f},30,38,88,110" for frame in range(5)))
    arguments = ("clip.avi", "boxes=boxes.csv", "frame_interval=0.1", f"weights={trained_run}", "track=true")
    assert run_here("predict.py", *arguments, "out=faces.json").code == 0
    rows = json.loads((tmp_path / "faces.json").read_text())
    assert [row["track"] for row in rows] == [1] * 5
    assert min(row["score"] or 1 for row in rows) < MIN_SCORE


@pytest.mark.parametrize("other", ["detect=never", "boxes=boxes.csv"])
def test_min_score_without_an_effect_is_refused(other: str, run_here: Run) -> None:
    outcome = run_here("predict.py", "img=a.jpg", "weights=missing.ckpt", "min_score=0.5", other)
    outcome.assert_one_line_error(f"error: min_score=0.5 has no effect with {other.removesuffix('=boxes.csv')}")


def test_resume_refuses_other_boxes(faces: Path, trained_run: Path, run_here: Run, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(min(faces.glob("28_*")).read_bytes())
    arguments = ("a.jpg", "boxes=boxes.csv", f"weights={trained_run}", "out=a.csv")
    table(tmp_path, "a.jpg,10,10,50,50")
    digest = BoxTable(tmp_path / "boxes.csv").digest
    (tmp_path / "a.csv.partial").write_text('{"agegender": {"boxes": "another"}}\n{"stamp": null, "rows": []}\n')
    outcome = run_here("predict.py", *arguments, "resume=true")
    assert outcome.code == 1 and "boxes=another" in outcome.err and f"boxes={digest}" in outcome.err
