"""The server in a subprocess, under load and with bad uploads."""

from __future__ import annotations

import io
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT
from helpers.served import Reply, ask, connect, form
from PIL import Image

from agegender.prediction.prediction import to_row
from agegender.prediction.predictor import Predictor

UPLOADS, CLIENTS = 200, 20
GROWTH = 400  # MB beyond the first uploads: two large images in work, and those that wait


@dataclass(frozen=True)
class Started:
    """A running server."""

    process: subprocess.Popen[str]
    address: str

    def memory(self) -> float:
        """Returns the peak memory of the process, in MB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1000


@pytest.fixture(scope="module")
def server(trained_run: Path) -> Iterator[Started]:
    command = [sys.executable, "-m", "agegender.web", "port=0", f"weights={trained_run}", "detect=never"]
    limits = ["max_upload_mb=8", "max_megapixels=12", "upload_seconds=3", "device=cpu"]
    process = subprocess.Popen([*command, *limits], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("ready: http://127.0.0.1:"), process.communicate()
        yield Started(process, line.split()[1])
    finally:
        process.kill()
        process.communicate()


def good_pictures(faces: Path) -> list[bytes]:
    """Returns six small images and one of ten megapixels."""
    small = [path.read_bytes() for path in sorted(faces.glob("*.jpg"))[:6]]
    large = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((3900, 2700)).save(large, "JPEG", quality=90)
    return [*small, large.getvalue()]


def expected_rows(predictor: Predictor, picture: bytes) -> list[dict[str, Any]]:
    found = [to_row(prediction, predictor.tasks) for prediction in predictor(picture)]
    return [{name: value for name, value in row.items() if name not in ("path", "error")} for row in found]


def upload(server: Started, content: bytes, in_form: bool) -> Reply:
    """Uploads a valid image, and repeats while the server is busy."""
    body, kind = form(content) if in_form else (content, "image/jpeg")
    while True:
        reply = ask(server.address, body=body, Content_Type=kind)
        if reply.status != 503:
            return reply
        time.sleep(0.1)


def send_raw(server: Started, sent: bytes, pause: float = 0.0, pieces: int = 1, hang: bool = False) -> bytes:
    """Sends raw bytes in pieces and reads until the server closes; with `hang`, disconnects after sending."""
    with connect(server.address) as client:
        with suppress(ConnectionError):  # refused before it is sent whole; the response is there nevertheless
            for start in range(0, len(sent), max(1, len(sent) // pieces)):
                client.sendall(sent[start : start + max(1, len(sent) // pieces)])
                time.sleep(pause)
        reply = b""
        with suppress(ConnectionError):
            while not hang and (chunk := client.recv(4096)):
                reply += chunk
        return reply


def request_head(length: int, extra: str = "") -> bytes:
    return f"POST /api/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n{extra}\r\n".encode()


@pytest.mark.slow
def test_server_answers_good_uploads_while_it_refuses_bad_ones(server: Started, trained_run: Path, faces: Path) -> None:
    pictures = good_pictures(faces)
    predictor = Predictor(trained_run, "cpu", detect="never")
    expected = [expected_rows(predictor, picture) for picture in pictures]
    assert len({str(answer) for answer in expected}) == len(pictures)
    for picture in pictures:  # the first predictions allocate memory once
        assert upload(server, picture, False).status == 200
    before = server.memory()

    bomb = io.BytesIO()
    Image.new("1", (12_000, 12_000)).save(bomb, "PNG")
    end = "Connection: close\r\n"
    bad: list[tuple[str, Callable[[], bytes]]] = [
        ("408", lambda: send_raw(server, request_head(5000) + b"x" * 10)),  # never finished
        ("408", lambda: send_raw(server, request_head(5000) + b"x" * 40, pause=0.12, pieces=40)),  # slow
        ("408", lambda: send_raw(server, request_head(7_000_000) + b"x" * 6_900_000)),  # nearly all of a large one
        ("", lambda: send_raw(server, request_head(7_000_000) + b"x" * 3_000_000, hang=True)),  # gone in the middle
        (
            "",
            lambda: send_raw(server, request_head(len(pictures[-1])) + pictures[-1], hang=True),
        ),  # gone before the response
        ("422", lambda: send_raw(server, request_head(300, end) + b"x" * 300)),  # no picture
        ("422", lambda: send_raw(server, request_head(9000, end) + pictures[-1][:9000])),  # broken
        ("413", lambda: send_raw(server, request_head(9_000_000, end) + b"x" * 9_000_000)),  # oversized
        ("413", lambda: send_raw(server, request_head(len(bomb.getvalue()), end) + bomb.getvalue())),  # too many pixels
        ("400", lambda: send_raw(server, b"\x16\x03\x01 what is this\r\n\r\n")),  # no HTTP
    ]
    order = [i % len(pictures) for i in range(UPLOADS)]
    random.Random(0).shuffle(order)
    started = time.perf_counter()
    with ThreadPoolExecutor(CLIENTS) as clients, ThreadPoolExecutor(2 * len(bad)) as others:
        misuse = [(status, others.submit(attempt)) for status, attempt in bad * 2]
        replies = list(clients.map(lambda job: upload(server, pictures[job[1]], job[0] % 3 == 0), enumerate(order)))
        refused = [(status, future.result()) for status, future in misuse]
    took = time.perf_counter() - started

    for which, reply in zip(order, replies, strict=True):
        assert reply.status == 200, reply.body
        assert reply.json["faces"] == expected[which]
    for status, answer in refused:
        assert answer == b"" if not status else answer.startswith(f"HTTP/1.1 {status} ".encode()), (status, answer)
    print(f"{took:.1f} s, {before:.0f} MB, then {server.memory():.0f} MB")
    assert server.memory() - before < GROWTH, f"{before:.0f} MB before, {server.memory():.0f} MB after"
    assert upload(server, pictures[0], True).json["faces"] == expected[0]
    assert took < 120


def test_server_answers_despite_idle_clients(server: Started, faces: Path) -> None:
    picture = next(iter(sorted(faces.glob("*.jpg")))).read_bytes()
    idle = [connect(server.address) for _ in range(100)]
    try:
        for i, client in enumerate(idle):
            client.sendall(request_head(5000)[: 10 * (i % 12)])
        started = time.perf_counter()
        assert upload(server, picture, False).status == 200
        assert time.perf_counter() - started < 10
    finally:
        for client in idle:
            client.close()


def test_server_ends_on_ctrl_c_without_an_error(server: Started) -> None:
    """Must be the last test, as it ends the shared server."""
    assert ask(server.address, "/api/info", method="GET").status == 200
    server.process.send_signal(signal.SIGINT)
    out, err = server.process.communicate(timeout=30)
    assert (server.process.returncode, out.strip(), err) == (0, "", "")
