"""Cameras and streams: their names, real streams of Motion JPEG and RTSP, and a missing camera in one line."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, Outcome
from helpers.rtsp_camera import rtsp_camera
from PIL import Image

from agegender.errors import AgeGenderError
from agegender.prediction.images.listing import are_endless, expand_stdin, list_images, open_images
from agegender.prediction.images.live import LiveStream, live_frames
from agegender.prediction.images.sources import FLUSH
from agegender.prediction.images.video import import_opencv
from agegender.prediction.predict import predict
from agegender.prediction.writers import window

cv2 = pytest.importorskip("cv2")

Run = Callable[..., Outcome]
COUNT, SECONDS = 20, 0.04


class Camera(BaseHTTPRequestHandler):
    """A camera in the network: 20 frames of a drawn face, 25 a second, as multipart/x-mixed-replace."""

    picture = Image.new("RGB", (64, 64))

    def do_GET(self) -> None:
        content = io.BytesIO()
        self.picture.save(content, "JPEG")
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=edge")
        self.end_headers()
        for _ in range(COUNT):
            head = f"--edge\r\nContent-Type: image/jpeg\r\nContent-Length: {len(content.getvalue())}\r\n\r\n"
            try:
                self.wfile.write(head.encode() + content.getvalue() + b"\r\n")
            except OSError:
                return
            time.sleep(SECONDS)

    def log_message(self, *_: object) -> None:
        """Logs nothing."""


@pytest.fixture(scope="module")
def address(faces: Path) -> Iterator[str]:
    Camera.picture = Image.open(min(faces.glob("*.jpg"))).convert("RGB")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Camera)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/video.mjpg"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("name", "is_live"),
    [
        ("webcam", True),
        ("0", True),
        ("12", True),
        ("rtsp://10.0.0.2:554/stream1?a=1,2", True),
        ("rtsps://10.0.0.2/x", True),
        ("http://10.0.0.2/video.mjpg?size=3", True),
        ("https://a.example/live.m3u8", True),
        ("http://10.0.0.2/photo.jpg", False),
        ("http://10.0.0.2/film.mp4", False),
        ("1234", False),
        ("0.jpg", False),
        ("-1", False),
    ],
)
def test_live_stream_parse_recognizes_cameras_and_streams(name: str, is_live: bool) -> None:
    assert (LiveStream.parse(name) is not None) == is_live
    (listed,) = list_images([name])
    assert listed == name and are_endless([listed]) == is_live


def test_list_images_prefers_a_file_to_the_camera_of_its_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("1").touch()
    assert [isinstance(name, LiveStream) for name in list_images(["0", "1"])] == [True, False]


def test_public_name_hides_the_password() -> None:
    assert LiveStream("rtsp://me:secret@10.0.0.2/a@b").public_name == "rtsp://10.0.0.2/a@b"
    assert LiveStream("rtsp://10.0.0.2/a").public_name == "rtsp://10.0.0.2/a"
    with pytest.raises(AgeGenderError) as caught:
        expand_stdin([LiveStream("rtsp://me:secret@10.0.0.2/a")])
    assert str(caught.value) == "shard= needs a finite list: leave out img=rtsp://10.0.0.2/a or shard="


def test_live_frames_of_a_stream_come_until_it_ends(address: str) -> None:
    found = list(live_frames(LiveStream(address), 0.2))
    times = [float(frame.path.removeprefix(f"{address}#t=")) for frame in found]
    assert 3 <= len(found) <= 1 + COUNT * SECONDS / 0.2 + 2 and times == sorted(times)
    picture = found[-1].read()
    assert isinstance(picture, Image.Image) and np.abs(np.asarray(picture).astype(int) - Camera.picture).mean() < 5
    assert times[-1] - times[0] > 0.15 * (len(times) - 1)  # a late frame doesn't delay the next one


def test_live_frames_drop_what_came_while_the_last_one_was_predicted(address: str) -> None:
    count = 0
    for _ in live_frames(LiveStream(address), 0.001):
        count += 1
        time.sleep(10 * SECONDS)
    assert count < COUNT / 2


def test_predict_answers_for_a_stream_in_the_network(address: str, trained_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "seen.json"
    assert predict(address, str(trained_run), "never", str(out), frame_interval=0.3)
    rows = json.loads(out.read_text(encoding="utf-8"))
    assert rows and all(row["path"].startswith(f"{address}#t=") and row["age"] for row in rows)


def test_live_frames_of_an_rtsp_camera_come_until_it_ends() -> None:
    with rtsp_camera(Camera.picture) as address:
        found = list(live_frames(LiveStream(address), 0.05))
    assert 2 <= len(found) <= COUNT and found[0].path == f"{address}#t=0.00"
    picture = found[-1].read()
    assert isinstance(picture, Image.Image) and np.abs(np.asarray(picture).astype(int) - Camera.picture).mean() < 8


@pytest.mark.slow
def test_ctrl_c_ends_a_stream_with_its_rows_and_tracks(faces: Path, trained_run: Path, tmp_path: Path) -> None:
    picture, partial = Image.open(next(faces.glob("28_*"))).convert("RGB"), tmp_path / "faces.csv.partial"
    until = time.monotonic() + 120
    with rtsp_camera(picture, count=5000) as address:
        command = [sys.executable, str(ROOT / "predict.py"), address, f"weights={trained_run}", "out=faces.csv"]
        with subprocess.Popen(
            [*command, "tracks=people.csv", "track_gap=30"], cwd=tmp_path, stderr=subprocess.PIPE, text=True
        ) as run:
            while not (partial.exists() and partial.read_bytes().count(b"\n") > 5):
                assert run.poll() is None and time.monotonic() < until
                time.sleep(0.02)
            run.send_signal(signal.SIGINT)
            _, messages = run.communicate(timeout=60)
    assert run.returncode == 0 and "Traceback" not in messages, messages
    rows, people = ((tmp_path / name).read_text().splitlines() for name in ("faces.csv", "people.csv"))
    assert len(rows) > 5 and len(people) == 2 and not partial.exists()
    assert people[1].startswith(f"{address},1,0.0,") and f",{len(rows) - 1}," in people[1]


def test_open_images_flushes_after_each_live_frame(address: str) -> None:
    found = list(open_images(list_images([address]), 0.3))
    assert [picture is FLUSH for picture in found] == [False, True] * (len(found) // 2)


@pytest.mark.skipif(Path("/dev/video7").exists(), reason="there is a camera of this number here")
def test_predict_reports_a_missing_camera_or_stream_in_one_line(trained_run: Path, run_here: Run) -> None:
    for image, line in (
        ("7", "error: img=7: no camera can be opened here"),
        ("rtsp://me:secret@127.0.0.1:9/a", "error: img=rtsp://127.0.0.1:9/a: no stream can be opened there"),
    ):
        outcome = run_here("predict.py", f"img={image}", f"weights={trained_run}", "detect=never")
        assert outcome.code == 1 and outcome.err.splitlines()[-1] == line and "Traceback" not in outcome.err


# The window


def has_windows() -> bool:
    build: str = import_opencv("a test").getBuildInformation()
    return "GUI:                           NONE" not in build


@pytest.mark.skipif(has_windows(), reason="this OpenCV has windows")
def test_predict_show_names_the_package_that_has_windows(run_here: Run) -> None:
    outcome = run_here("predict.py", "img=webcam", "show=true", "weights=missing.ckpt")
    outcome.assert_one_line_error("error: show=true needs an OpenCV with windows: ", "pip install opencv-python")


def test_predict_show_needs_a_display(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "getBuildInformation", lambda: "  GUI:                           QT5\n")
    monkeypatch.setattr("sys.platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(AgeGenderError, match="show=true needs a display"):
        window.LiveWindow()


@pytest.mark.parametrize("end", ["q", "closed", "all"])
def test_predict_show_ends_with_a_key_or_the_window(
    end: str, address: str, trained_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[tuple[int, ...]] = []
    monkeypatch.setattr(cv2, "getBuildInformation", lambda: "  GUI:                           QT5\n")
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(cv2, "imshow", lambda _, pixels: shown.append(pixels.shape))
    monkeypatch.setattr(cv2, "waitKey", lambda _: ord("q") if end == "q" and len(shown) == 2 else -1)
    visible = 0.0 if end == "closed" else 1.0
    monkeypatch.setattr(cv2, "getWindowProperty", lambda *_: visible)
    monkeypatch.setattr(cv2, "destroyAllWindows", lambda: shown.append(()))
    out = tmp_path / "seen.jsonl"
    assert predict(address, str(trained_run), "never", str(out), frame_interval=0.2, show=True)
    rows = out.read_text().splitlines()
    assert shown[-1] == () and all(shape == (360, 360, 3) for shape in shown[:-1])
    assert (len(shown) - 1, len(rows)) == {"q": (2, 2), "closed": (1, 2), "all": (len(rows), len(rows))}[end]
