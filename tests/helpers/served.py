"""The web server in a thread, and an HTTP client for the tests."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from agegender.prediction.predictor import Detect, Predictor
from agegender.web.app import create_app
from agegender.web.server import Server, allowed_names, open_port
from agegender.web.uploads import Limits

LIMITS = Limits(size=3_000_000, pixels=2_000_000, seconds=20.0, total=100_000_000)


class Reply(NamedTuple):
    """An HTTP response; `json` is None if the content is not JSON."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes
    json: Any


@contextmanager
def served(
    weights: Path,
    detect: Detect = "auto",
    limits: Limits = LIMITS,
    min_confidence: float | None = None,
    hosts: Sequence[str] | None = None,
    origins: Sequence[str] = (),
    root_path: str = "",
    **room: int,
) -> Iterator[str]:
    """Runs the server in a thread and yields its address."""
    listener = open_port("127.0.0.1", 0)
    predictor = Predictor(weights, "cpu", detect=detect, min_confidence=min_confidence)
    app = create_app(predictor, limits, **room, hosts=allowed_names("127.0.0.1", hosts), origins=origins)
    server = Server(app, listener, announce=False, root_path=root_path)
    thread = threading.Thread(target=server.serve_until_signal, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    try:
        yield server.address
    finally:
        server.should_exit = True
        thread.join(30)
        listener.close()
        assert not thread.is_alive()


def ask(address: str, path: str = "/api/predict", body: Any = None, method: str = "POST", **headers: str) -> Reply:
    """Sends one request; `_` in a header's name stands for `-`."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=60)
    try:
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        content = response.read()
        parsed = json.loads(content) if "json" in response.headers.get("Content-Type", "") else None
        return Reply(response.status, response.headers, content, parsed)
    finally:
        connection.close()


def connect(address: str) -> socket.socket:
    """Opens a connection, for requests that no HTTP library would send."""
    host, port = urlsplit(address).netloc.split(":")
    return socket.create_connection((host, int(port)), timeout=60)


def form(content: bytes, field: str = "file", before: bytes = b"") -> tuple[bytes, str]:
    """Returns the body of a form with a file in it, as browsers and curl send it, and its content type."""
    part = f'--edge\r\nContent-Disposition: form-data; name="{field}"; filename="a.jpg"\r\n\r\n'.encode()
    return before + part + content + b"\r\n--edge--\r\n", "multipart/form-data; boundary=edge"
