"""Frames of a video at an interval in seconds, named by timestamp; an unreadable video is one row with a reason."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Outcome, run_script
from helpers.made_videos import RATE, write_varying, write_video
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from agegender.data.decode import UnreadableImageError
from agegender.errors import AgeGenderError
from agegender.prediction.images.listing import open_images
from agegender.prediction.images.video import frames
from agegender.prediction.predict import predict

cv2 = pytest.importorskip("cv2")

Run = Callable[..., Outcome]
COUNT = 21
BAD_NAME = os.fsdecode(b"not utf-8 \xff.avi")


@pytest.fixture(scope="module")
def drawn(faces: Path) -> list[NDArray[np.uint8]]:
    return [np.asarray(Image.open(path).convert("RGB")) for path in sorted(faces.glob("*.jpg"))[:COUNT]]


@pytest.fixture(scope="module")
def clip(drawn: list[NDArray[np.uint8]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip of 2.1 seconds at 10 frames a second, each of another face."""
    path = tmp_path_factory.mktemp("video") / "clip.avi"
    write_video(path, "MJPG", drawn)
    return path


CODECS = {"webm": "VP80", "ogv": "VP80", "ivf": "VP80", "flv": "FLV1", "mxf": "MPG2", "m2v": "MPG2", "m1v": "mpg1"} | {
    "mjpeg": "MJPG",
    "y4m": "I420",
}
CONTAINERS = (
    "mp4 m4v mov 3gp 3g2 mkv webm avi wmv asf wtv flv mpg mpeg vob ts mts m2ts m1v m2v ogv mxf nut ivf mjpeg y4m"
)


@pytest.mark.parametrize("suffix", CONTAINERS.split())
def test_open_images_reads_every_container_that_opencv_writes(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"clip.{suffix.upper()}"
    codec = cv2.VideoWriter_fourcc(*CODECS.get(suffix, "mp4v"))
    writer = cv2.VideoWriter(str(tmp_path / f"clip.{suffix}"), cv2.CAP_FFMPEG, codec, 25, (352, 288))
    if not writer.isOpened():
        pytest.skip(f"OpenCV writes no .{suffix} here")
    for number in range(10):
        writer.write(np.full((288, 352, 3), 20 * number, np.uint8))
    writer.release()
    (tmp_path / f"clip.{suffix}").rename(path)
    (picture,) = open_images([str(path)], 100)
    assert picture.path.startswith(f"{path}#t=0.0")
    frame = picture.read()
    assert isinstance(frame, Image.Image) and frame.size == (352, 288)


def test_open_images_marks_frames_as_decoded(clip: Path) -> None:
    decoded = [picture.decoded for picture in open_images(["a.jpg", str(clip), "b.jpg"], 1)]
    assert decoded == [False, True, True, True, False]


def reason(name: str, frame_interval: float = 1.0) -> str:
    (picture,) = frames(name, frame_interval)
    assert picture.path == name
    with pytest.raises(UnreadableImageError) as caught:
        picture.read()
    return str(caught.value)


@pytest.mark.parametrize(
    ("frame_interval", "times"),
    [
        (0.5, ["0.00", "0.50", "1.00", "1.50", "2.00"]),
        (1, ["0.00", "1.00", "2.00"]),
        (
            0.25,
            ["0.00", "0.30", "0.50", "0.80", "1.00", "1.30", "1.50", "1.80", "2.00"],
        ),  # the first frame at or after each time
        (2.0, ["0.00", "2.00"]),
        (2.05, ["0.00"]),
        (100, ["0.00"]),
        (0.1, [f"{number / RATE:.2f}" for number in range(COUNT)]),
        (1e-9, [f"{number / RATE:.2f}" for number in range(COUNT)]),
    ],
)
def test_frames_come_at_the_interval_and_start_at_the_first(
    frame_interval: float, times: list[str], clip: Path, drawn: list[NDArray[np.uint8]]
) -> None:
    pictures = list(frames(str(clip), frame_interval))
    assert [picture.path for picture in pictures] == [f"{clip}#t={time}" for time in times]
    for picture, time in zip(pictures, times, strict=True):
        seen = picture.read()
        assert isinstance(seen, Image.Image) and seen.mode == "RGB"
        apart = [np.abs(np.asarray(seen).astype(int) - each).mean() for each in drawn]
        assert np.argmin(apart) == round(float(time) * RATE)  # the frame at that time, in RGB order


@pytest.mark.parametrize(
    ("frame_interval", "shown"),
    [
        (0.5, [0, 5, 7, 8, 9, 10, 11]),
        (1, [0, 7, 8, 9, 10, 11]),
        (5, [0, 8, 9, 11]),
        (0.05, list(range(12))),
    ],
)
def test_frames_of_a_varying_rate_are_named_by_their_timestamps(
    frame_interval: float, shown: list[int], tmp_path: Path
) -> None:
    path = tmp_path / "phone.mkv"
    milliseconds = [0, 100, 200, 300, 400, 500, 600, 2600, 9600, 10_100, 11_500, 16_000]
    write_varying(path, milliseconds)
    pictures = list(frames(str(path), frame_interval))
    assert [picture.path for picture in pictures] == [f"{path}#t={milliseconds[n] / 1000:.2f}" for n in shown]
    assert [round(np.asarray(picture.read()).mean() / 20) for picture in pictures] == shown


@pytest.mark.parametrize("timestamps", [[0.0] * COUNT, [float("nan")] * COUNT, [0, 100, 200, *[-5.0] * (COUNT - 3)]])
def test_frames_without_timestamps_are_timed_by_the_frame_rate(
    timestamps: list[float], clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = cv2.VideoCapture(str(clip))

    class Silent:
        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

        def get(self, what: int) -> float:
            return timestamps.pop(0) if what == cv2.CAP_PROP_POS_MSEC else float(real.get(what))

    monkeypatch.setattr(cv2, "VideoCapture", lambda _: Silent())
    timestamps = list(timestamps)
    assert [picture.path[-4:] for picture in frames(str(clip), 0.5)] == ["0.00", "0.50", "1.00", "1.50", "2.00"]


@settings(max_examples=20)
@given(frame_interval=st.floats(0.001, 5))
def test_frames_are_unique_and_never_early(frame_interval: float, clip: Path) -> None:
    times = [float(picture.path.rsplit("=")[-1]) for picture in frames(str(clip), frame_interval)]
    assert times == sorted(set(times)) and times[0] == 0
    due = [number * frame_interval for number in range(len(times))]
    assert all(time + 0.006 >= when for time, when in zip(times, due, strict=True))
    assert len(times) == min(COUNT, 1 + int(((COUNT - 1) / RATE + 1e-9) // frame_interval))


def test_predict_accepts_videos_among_images(
    clip: Path, trained_run: Path, faces: Path, run_here: Run, tmp_path: Path
) -> None:
    shutil.copy(clip, tmp_path / "my clip.avi")
    shutil.copy(max(faces.glob("*.jpg")), tmp_path / "face.jpg")
    images = ("face.jpg", "my clip.avi", "img=no.mp4")
    outcome = run_here(
        "predict.py",
        *images,
        f"weights={trained_run}",
        "detect=never",
        "frame_interval=1",
        "out=rows.json",
        "annotate=album",
    )
    assert outcome.code == 1 and "1 of 5 images could not be answered" in outcome.err
    rows = json.loads((tmp_path / "rows.json").read_text(encoding="utf-8"))
    assert [row["path"] for row in rows] == [
        "face.jpg",
        *(f"my clip.avi#t={second}.00" for second in range(3)),
        "no.mp4",
    ]
    assert [row["error"] for row in rows] == [None] * 4 + ["no such file"]
    assert len({row["age"] for row in rows}) == 5
    drawings = {path.name for path in (tmp_path / "album").iterdir()}
    assert drawings == {"face.jpg", *(f"my clip.avi_t_{second}.00.jpg" for second in range(3))}


@pytest.mark.parametrize("frame_interval", ["0", "-1", "nan"])
def test_predict_refuses_a_non_positive_frame_interval(frame_interval: str, run_here: Run) -> None:
    outcome = run_here("predict.py", "img=clip.avi", f"frame_interval={frame_interval}")
    outcome.assert_one_line_error(f"error: frame_interval={frame_interval}")


def test_frames_give_one_reason_for_an_unreadable_video(clip: Path, tmp_path: Path) -> None:
    for content in (b"", b"no video" * 99, clip.read_bytes()[:100]):
        for suffix in ("avi", "mp4", "MKV"):
            path = tmp_path / f"broken.{suffix}"
            path.write_bytes(content)
            assert reason(str(path)) == "not a video that can be read"
    (tmp_path / "folder.mp4").mkdir()
    for name in ("folder.mp4", "missing.mov"):
        assert reason(str(tmp_path / name)) == "no such file"
    assert reason("x" * 5000 + ".avi") == "no such file"
    assert "download it first" in reason("http://127.0.0.1:9/film.mp4")


def test_frames_give_one_reason_for_a_name_that_is_not_utf8(clip: Path, tmp_path: Path) -> None:
    shutil.copy(clip, tmp_path / BAD_NAME)
    assert "UTF-8" in reason(str(tmp_path / BAD_NAME))
    for name in ("日本 é.avi", "100%d.avi", "clip%03d.avi", "a?b*.avi"):
        shutil.copy(clip, tmp_path / name)
        assert len(list(frames(str(tmp_path / name), 1))) == 3


@settings(max_examples=20)
@given(damage=st.lists(st.tuples(st.integers(0, 20_000), st.binary(min_size=1, max_size=300)), max_size=5))
def test_frames_survive_a_damaged_video(
    damage: list[tuple[int, bytes]], clip: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = bytearray(clip.read_bytes())
    for place, instead in damage:
        content[place : place + len(instead)] = instead
    path = tmp_path_factory.getbasetemp() / "damaged.avi"
    path.write_bytes(content)
    for picture in frames(str(path), 1):
        if "#t=" in picture.path:
            assert isinstance(picture.read(), Image.Image)
        else:
            assert reason(str(path))


def test_frames_of_a_truncated_video_are_those_before_the_cut(clip: Path, tmp_path: Path) -> None:
    (tmp_path / "half.avi").write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    assert [picture.path[-4:] for picture in frames(str(tmp_path / "half.avi"), 0.5)] in (
        ["0.00", "0.50", "1.00"],
        ["0.00", "0.50"],
    )


def test_predict_silences_opencv_and_ffmpeg(clip: Path, trained_run: Path, tmp_path: Path) -> None:
    content = clip.read_bytes()
    (tmp_path / "text.mp4").write_bytes(b"no video" * 99)
    (tmp_path / "half.avi").write_bytes(content[: len(content) // 2])
    (tmp_path / "damaged.avi").write_bytes(content[:9000] + bytes(range(256)) * 20 + content[9000 + 5120 :])
    images = ("text.mp4", "half.avi", "damaged.avi", "img=missing.mp4")
    outcome = run_script("predict.py", *images, f"weights={trained_run}", "detect=never", "out=a.csv", cwd=tmp_path)
    assert outcome.code == 1 and outcome.out == ""
    weights, warning, count, failed = outcome.err.splitlines()
    assert weights.startswith("weights: ") and warning.startswith("warning: trained on drawn")
    assert count.endswith("images in a.csv") and failed.startswith("2 of ")


# The camera


@pytest.mark.slow
@pytest.mark.skipif(Path("/dev/video0").exists(), reason="there is a camera here")
def test_predict_reports_a_missing_camera_in_one_line(trained_run: Path, tmp_path: Path) -> None:
    outcome = run_script(
        "predict.py", "img=webcam", f"weights={trained_run}", "detect=never", "out=a.csv", cwd=tmp_path
    )
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err.splitlines()[2:] == ["error: img=webcam: no camera can be opened here"]
    assert list(tmp_path.iterdir()) == []


class Camera:
    """A camera that yields some frames and then raises KeyboardInterrupt or fails."""

    def __init__(self, pictures: list[NDArray[np.uint8]], ctrl_c: bool):
        self.left, self.ctrl_c, self.released = list(pictures), ctrl_c, False

    def isOpened(self) -> bool:  # noqa: N802 (OpenCV's name)
        return True

    def grab(self) -> bool:
        return True

    def get(self, _: int) -> float:
        return 30.0

    def read(self) -> tuple[bool, Any]:
        if self.left:
            return True, self.left.pop(0)
        if self.ctrl_c:
            raise KeyboardInterrupt
        return False, None

    def release(self) -> None:
        self.released = True


@pytest.mark.parametrize("ctrl_c", [True, False])
def test_predict_writes_the_frames_of_a_camera_until_ctrl_c(
    ctrl_c: bool,
    drawn: list[NDArray[np.uint8]],
    trained_run: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    camera = Camera(drawn[:3], ctrl_c)
    monkeypatch.setattr(cv2, "VideoCapture", lambda _: camera)
    out = tmp_path / "seen.json"
    assert predict("webcam", str(trained_run), "never", str(out), frame_interval=0.02)
    rows = json.loads(out.read_text(encoding="utf-8"))
    assert camera.released and list(tmp_path.iterdir()) == [out]
    assert len(rows) == 3 and all(row["path"].startswith("webcam#t=0.") and row["age"] for row in rows)


def test_predict_writes_each_camera_frame_before_it_waits(
    drawn: list[NDArray[np.uint8]],
    trained_run: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    camera = Camera(drawn[:9], ctrl_c=False)
    monkeypatch.setattr(cv2, "VideoCapture", lambda _: camera)
    read, shown = camera.read, []

    def reading() -> tuple[bool, Any]:
        shown.append(capsys.readouterr().out.count("\n"))
        return read()

    monkeypatch.setattr(camera, "read", reading)
    assert predict("webcam", str(trained_run), "never", "-", frame_interval=0.001)
    assert shown == [0] + [1] * 9


# OpenCV missing


def test_predict_names_the_missing_opencv_in_one_line(
    clip: Path, trained_run: Path, monkeypatch: pytest.MonkeyPatch, run_here: Run
) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    for image in (str(clip), "webcam"):
        outcome = run_here("predict.py", f"img={image}", f"weights={trained_run}", "detect=never")
        assert outcome.code == 1 and "Traceback" not in outcome.err
        assert outcome.err.splitlines()[-1].startswith(f"error: img={image} needs a package that is missing (cv2): ")


def test_open_images_needs_no_opencv_for_images(faces: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    path = str(min(faces.glob("*.jpg")))
    assert [picture.path for picture in open_images([path], 1)] == [path]
    with pytest.raises(AgeGenderError, match="cv2"):
        list(open_images(["a.mp4"], 1))
