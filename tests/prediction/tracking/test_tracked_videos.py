"""predict.py with track=, tracks= and annotate=out.mp4 on a video of two drawn people who cross."""

from __future__ import annotations

import contextlib
import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Outcome, room_for
from helpers.made_predictions import TWO, made
from helpers.made_videos import crossing, cv2, frames_of, write_varying, write_video
from PIL import Image

from agegender.errors import AgeGenderError
from agegender.prediction import predict as module
from agegender.prediction.predict import predict
from agegender.prediction.prediction import columns_of
from agegender.prediction.tracking.people import Person
from agegender.prediction.writers import annotate, annotated_video, writers
from agegender.prediction.writers.annotated_video import write_annotated_video

Run = Callable[..., Outcome]
INTERVAL = 0.2


@pytest.fixture(scope="module")
def clip(faces: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two people who cross, in 2.1 seconds at 10 frames a second."""
    path = tmp_path_factory.mktemp("crossing") / "clip.avi"
    write_video(path, "MJPG", crossing(faces))
    return path


@pytest.fixture(scope="module")
def whole(clip: Path, trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run: faces.csv, people.csv, out.mp4, and the progress file of before it ended."""
    folder = tmp_path_factory.mktemp("whole")
    names: dict[str, Any] = {
        "out": str(folder / "faces.csv"),
        "tracks": str(folder / "people.csv"),
        "annotate": str(folder / "out.mp4"),
    }
    with pytest.MonkeyPatch.context() as patch:
        write = writers.write_rows

        def keep(out: Path, *rest: Any) -> None:
            if out.name == "faces.csv":
                (folder / "partial").write_bytes((folder / "faces.csv.partial").read_bytes())
            write(out, *rest)

        patch.setattr(module, "write_rows", keep)
        assert predict(str(clip), str(trained_run), frame_interval=INTERVAL, **names)
    return folder


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_two_people_who_cross_keep_their_tracks(whole: Path) -> None:
    rows = rows_of(whole / "faces.csv")
    assert list(rows[0]) == list(columns_of(TWO, tracked=True))
    of_upper = {row["track"] for row in rows if float(row["top"]) < 90}
    of_lower = {row["track"] for row in rows if float(row["top"]) > 110}
    assert len(rows) == 2 * 11 and len(of_upper) == len(of_lower) == 1 and of_upper | of_lower == {"1", "2"}
    assert all(sorted(row["face"] for row in rows if row["path"] == path) == ["1", "2"] for path in {rows[0]["path"]})


def test_tracks_file_has_a_row_for_each_person_with_the_weighted_mean_of_the_frames(whole: Path, clip: Path) -> None:
    people, rows = rows_of(whole / "people.csv"), rows_of(whole / "faces.csv")
    assert list(people[0]) == ["path", "track", "start", "end", "frames", *columns_of(TWO)[7:-1]]
    assert [person["track"] for person in people] == ["1", "2"]
    for person in people:
        frames = [row for row in rows if row["track"] == person["track"]]
        numbers = {name: np.array([float(row[name]) for row in frames]) for name in ("age", "age_std", "p_female")}
        age = np.average(numbers["age"], weights=numbers["age_std"] ** -2)
        assert float(person["age"]) == pytest.approx(age, abs=0.006)
        assert float(person["p_female"]) == pytest.approx(numbers["p_female"].mean(), abs=0.0001)
        assert numbers["age_std"].min() <= float(person["age_std"]) <= numbers["age_std"].max()  # not narrower
        assert float(person["age_low"]) <= float(person["age"]) <= float(person["age_high"])
        assert (person["path"], person["start"], person["end"]) == (str(clip), "0.0", "2.0")
        assert person["frames"] == str(len(frames)) == "11"


def test_age_of_a_track_is_less_noisy_than_those_of_its_frames(whole: Path) -> None:
    rows = rows_of(whole / "faces.csv")
    for track in ("1", "2"):
        ages = np.array([float(row["age"]) for row in rows if row["track"] == track])
        assert ages.std() > 0
        assert abs(ages[::2].mean() - ages[1::2].mean()) < np.abs(np.diff(ages)).max()


@pytest.mark.parametrize("lines", [4, 12])
def test_resumed_run_has_the_tracks_of_an_uninterrupted_one(
    lines: int, whole: Path, clip: Path, trained_run: Path, tmp_path: Path
) -> None:
    kept = (whole / "partial").read_bytes().splitlines(keepends=True)[:lines]
    (tmp_path / "faces.csv.partial").write_bytes(b"".join(kept))
    names: dict[str, Any] = {"out": str(tmp_path / "faces.csv"), "tracks": str(tmp_path / "people.csv")}
    assert predict(str(clip), str(trained_run), frame_interval=INTERVAL, batch_size=3, resume=True, **names)
    assert rows_of(tmp_path / "people.csv")[0]["frames"] == "11"
    for name in ("faces.csv", "people.csv"):
        ours, theirs = (rows_of(folder / name) for folder in (tmp_path, whole))
        for one, other in zip(ours, theirs, strict=True):
            numbers = {key: float(one.pop(key)) for key in ("age", "age_std", "age_low", "age_high", "p_female")}
            assert numbers == pytest.approx({key: float(other[key]) for key in numbers}, abs=1.01)  # other batches
            assert one == {key: value for key, value in other.items() if key not in numbers}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["faces.csv", "people.csv"]


def test_resume_refuses_another_track_gap(whole: Path, clip: Path, trained_run: Path, tmp_path: Path) -> None:
    (tmp_path / "faces.csv.partial").write_bytes((whole / "partial").read_bytes())
    out = str(tmp_path / "faces.csv")
    with pytest.raises(AgeGenderError, match=r"was started with track_gap=1\.0, this run has track_gap=0\.5"):
        predict(str(clip), str(trained_run), out=out, track=True, track_gap=0.5, frame_interval=INTERVAL, resume=True)


def test_track_column_is_empty_for_photos_and_absent_without_tracks(
    clip: Path, faces: Path, trained_run: Path, run_here: Run, tmp_path: Path
) -> None:
    photo = str(min(faces.glob("28_*")))
    arguments = (str(clip), photo, f"weights={trained_run}", "frame_interval=1")
    assert run_here("predict.py", *arguments, "out=plain.json").code == 0
    plain = json.loads((tmp_path / "plain.json").read_text())
    assert all(list(row) == list(columns_of(TWO)) for row in plain) and len(plain) == 3 * 2 + 1
    lines = run_here("predict.py", *arguments, "track=true", "out=-").out.splitlines()
    tracked = [json.loads(line) for line in lines]
    assert [row["track"] for row in tracked] == [*[row["track"] for row in tracked[:6]], None]
    assert {row["track"] for row in tracked[:6]} <= {*range(1, 7)}


def test_predict_prints_a_table_of_people(clip: Path, trained_run: Path, run_here: Run) -> None:
    outcome = run_here("predict.py", str(clip), f"weights={trained_run}", "track=true", f"frame_interval={INTERVAL}")
    frames, people = outcome.out.split(" frames ")
    assert outcome.code == 0 and " track " in frames and " start " in frames
    assert people.count(" 2.00 ") == people.count(" 11 ") == 2


# The annotated video


def test_annotated_video_has_all_frames_with_boxes_that_follow_the_faces(whole: Path, clip: Path) -> None:
    before, after = frames_of(clip), frames_of(whole / "out.mp4")
    assert len(after) == len(before) == 21
    assert cv2.VideoCapture(str(whole / "out.mp4")).get(cv2.CAP_PROP_FPS) == 10
    rows = [row for row in rows_of(whole / "faces.csv") if float(row["top"]) < 90]
    lefts = [float(row["left"]) for row in rows]
    height, width = after[0].shape[:2]  # small frames are enlarged for legible labels
    for number, frame in enumerate(after):
        left = round(width / 320 * float(np.interp(number / 10, INTERVAL * np.arange(11), lefts)))
        plain = np.asarray(Image.fromarray(np.ascontiguousarray(before[number])).resize((width, height)))
        change = np.abs(frame[90:130].astype(float) - plain[90:130]).mean((0, 2))[left - 8 : left + 9]
        assert abs(int(change.argmax()) - 8) <= 2 and change.max() > 30, number  # the edge of the box
    assert {path.name for path in whole.iterdir()} == {"faces.csv", "people.csv", "out.mp4", "partial"}


def test_stopped_run_leaves_no_annotated_video_and_resume_writes_it(
    clip: Path, trained_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw, drawn = annotate.draw, []

    def stop(*arguments: Any) -> Any:
        drawn.append(1)
        if len(drawn) == 5:
            raise KeyboardInterrupt
        return draw(*arguments)

    settings: dict[str, Any] = {"frame_interval": 1.0, "annotate": str(tmp_path / "out.mp4")}
    out = tmp_path / "faces.csv"
    monkeypatch.setattr(annotated_video, "draw", stop)
    with pytest.raises(KeyboardInterrupt):
        predict(str(clip), str(trained_run), out=str(out), **settings)
    monkeypatch.setattr(annotated_video, "draw", draw)
    assert {path.name for path in tmp_path.iterdir()} == {"faces.csv", "faces.csv.partial"}
    assert predict(str(clip), str(trained_run), out=str(out), resume=True, **settings)
    assert {path.name for path in tmp_path.iterdir()} == {"faces.csv", "out.mp4"}
    assert len(frames_of(tmp_path / "out.mp4")) == 21


def test_write_annotated_video_reports_a_full_disk_and_leaves_no_file(clip: Path, tmp_path: Path) -> None:
    (tmp_path / "out.mp4").write_text("old")
    with pytest.raises(AgeGenderError, match=r"can't write annotate=.*out\.mp4: is the disk full\?"), room_for(5000):
        write_annotated_video(str(clip), tmp_path / "out.mp4", {}, TWO, 1.0)
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"] and (tmp_path / "out.mp4").read_text() == "old"


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "avi"])
def test_write_annotated_video_keeps_the_time_of_a_varying_frame_rate(suffix: str, tmp_path: Path) -> None:
    write_varying(tmp_path / "phone.mkv", [0, 100, 200, 300, 1300, 1330, 1400])
    write_annotated_video(str(tmp_path / "phone.mkv"), tmp_path / f"out.{suffix}", {}, TWO, 1.0)
    brightness = [round(frame[:300, :300].mean() / 20) for frame in frames_of(tmp_path / f"out.{suffix}")]
    assert brightness == [0, 1, 2, 3, *[4] * 10, 6]


def test_write_annotated_video_shows_a_person_from_before_the_first_to_after_the_last_frame(tmp_path: Path) -> None:
    write_video(tmp_path / "gray.avi", "MJPG", [np.full((400, 400, 3), 128, np.uint8)] * 20)
    person = Person(TWO, keep_boxes=True)
    for time in (0.5, 1.0):
        values = made(age=30.0, age_std=5.0, age_low=22, age_high=41, p_female=0.9).values
        person.add(time, np.array([50.0, 50, 150, 150]), values)
    write_annotated_video(str(tmp_path / "gray.avi"), tmp_path / "out.mp4", {3: person}, TWO, 0.5)
    marked = [frame[100, 50:52].mean() < 115 for frame in frames_of(tmp_path / "out.mp4")]
    assert marked == [0.25 <= number / 10 <= 1.25 for number in range(20)]


def test_write_annotated_video_writes_nothing_for_a_damaged_video(tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"no video" * 99)
    write_annotated_video(str(tmp_path / "bad.mp4"), tmp_path / "out.mp4", {}, TWO, 1.0)
    assert [path.name for path in tmp_path.iterdir()] == ["bad.mp4"]


# Settings


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("track=true", "detect=never"), "track=true needs boxes: leave out detect=never"),
        (("track=true", "frame_interval=2"), "frame_interval=2 is above track_gap=1.0"),
        (("tracks=people.txt",), "tracks=people.txt must end in .csv"),
        (("tracks=-",), "tracks=- must be a file, and another one than out"),
        (("tracks=a.csv", "out=./a.csv"), "tracks=a.csv must be a file, and another one than out"),
        (("tracks=no/people.csv",), "tracks=no/people.csv: the folder no does not exist"),
        (("annotate=out.webm",), "annotate=out.webm must end in .mp4, .mov, .mkv, .avi"),
        (("annotate=no/out.mp4",), "annotate=no/out.mp4: the folder no does not exist"),
        (("annotate=out.mp4", "img=webcam"), "annotate=out.mp4 needs one video file as img="),
        (("annotate=clip.avi",), "annotate=clip.avi is the video itself"),
    ],
)
def test_predict_refuses_invalid_video_settings_in_one_line(
    arguments: tuple[str, ...], line: str, clip: Path, run_here: Run, tmp_path: Path
) -> None:
    (tmp_path / "clip.avi").write_bytes(clip.read_bytes())
    outcome = run_here("predict.py", "clip.avi", "weights=missing.ckpt", *arguments)
    outcome.assert_one_line_error(f"error: {line}")
    assert [path.name for path in tmp_path.iterdir()] == ["clip.avi"]


def test_until_ctrl_c_ends_a_stream_without_an_error() -> None:
    def answers() -> Any:
        yield 1
        raise KeyboardInterrupt

    found: list[Any] = list(module._until_ctrl_c(answers()))
    assert found == [1]


def test_annotate_still_takes_a_folder_with_the_name_of_a_video(clip: Path, trained_run: Path, tmp_path: Path) -> None:
    (tmp_path / "album.mp4").mkdir()
    with contextlib.chdir(tmp_path):
        assert predict(str(clip), str(trained_run), annotate="album.mp4", out="a.csv")
    assert len(list((tmp_path / "album.mp4").iterdir())) == 3
