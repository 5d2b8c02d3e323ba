"""The HTTP API behind a proxy and for programs: hosts, origins, JSON, several files, time limits, its description."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from helpers.served import LIMITS, ask, connect, form, served
from PIL import Image

from agegender.prediction.predictor import Predictor
from agegender.web import early_response
from agegender.web import server as server_module
from agegender.web.uploads import MAX_FILES, Limits

NEVER = "/api/predict?detect=never"
JSON = "application/json"


@pytest.fixture(scope="module")
def weights(trained_run: Path) -> Path:
    return trained_run / "checkpoints" / "best.ckpt"


@pytest.fixture(scope="module")
def address(weights: Path) -> Iterator[str]:
    with served(weights) as address:
        yield address


@pytest.fixture(scope="module")
def photos(faces: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(faces.glob("*.jpg"))[:3]]


def several(contents: list[bytes]) -> tuple[bytes, str]:
    """Returns a form with several files in the field `file`."""
    end = b"\r\n--edge--\r\n"
    parts = [form(content)[0].removesuffix(end) for content in contents]
    return b"\r\n".join(parts) + end, form(b"")[1]


def in_base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


# Several files, and JSON


def test_api_answers_several_files_with_a_list(address: str, photos: list[bytes]) -> None:
    singles = [ask(address, NEVER, photo).json for photo in photos]
    body, kind = several([*photos, b"no image", b""])
    reply = ask(address, NEVER, body, Content_Type=kind)
    assert reply.status == 200 and reply.json[:3] == singles
    for answer, reason in zip(reply.json[3:], ("not a picture that can be read", "the file is empty"), strict=True):
        assert answer == {"width": None, "height": None, "faces": [], "error": reason}


def test_api_reads_images_of_json_in_base64(address: str, photos: list[bytes]) -> None:
    singles = [ask(address, NEVER, photo).json for photo in photos]
    encoded = [in_base64(photos[0]), "data:image/jpeg;base64," + in_base64(photos[1])]
    encoded.append(base64.encodebytes(photos[2]).decode())  # in lines
    for text, single in zip(encoded, singles, strict=True):
        reply = ask(address, NEVER, json.dumps({"image": text}), Content_Type=f"{JSON}; charset=utf-8")
        assert (reply.status, reply.json) == (200, single)
    for count in (1, 3):
        reply = ask(address, NEVER, json.dumps({"images": encoded[:count]}), Content_Type=JSON)
        assert (reply.status, reply.json) == (200, singles[:count])


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        ("", 400, "the JSON is invalid"),
        ("{", 400, "the JSON is invalid"),
        (b"\xff\xfe\x00", 400, "the JSON is invalid"),
        ("[" * 100_000, 400, "the JSON is invalid"),
        ("null", 400, "the JSON must be"),
        ("{}", 400, "the JSON must be"),
        ('{"image": 1}', 400, "the JSON must be"),
        ('{"image": "", "detect": "never"}', 400, "the JSON must be"),
        ('{"images": []}', 400, "the JSON must be"),
        ('{"images": "YQ=="}', 400, "the JSON must be"),
        (json.dumps({"images": ["YQ=="] * (MAX_FILES + 1)}), 400, "the JSON must be"),
        ('{"images": ["YQ==", null]}', 400, "not in base64"),
        ('{"image": "a"}', 400, "not in base64"),
        ('{"image": "x,YQ=="}', 400, "not in base64"),
        ('{"image": "\\ud800\u00e9"}', 400, "not in base64"),
        ('{"image": ""}', 422, "the file is empty"),
        ('{"image": "YQ=="}', 422, "not a picture that can be read"),
        (json.dumps({"image": in_base64(b"\0" * (LIMITS.size + 1))}), 413, "too large: the limit is 3 MB"),
        (json.dumps({"images": [in_base64(b"\0" * (LIMITS.size // 2 + 9))] * 2}), 413, "too large: the limit is 3 MB"),
    ],
)
def test_api_refuses_json_without_images(address: str, body: Any, status: int, reason: str) -> None:
    reply = ask(address, body=body.encode() if isinstance(body, str) else body, Content_Type=JSON)
    assert reply.status == status and list(reply.json) == ["error"] and reason in reply.json["error"]


# Behind a proxy


def test_server_behind_a_proxy_accepts_its_hosts_and_origins(weights: Path, photos: list[bytes]) -> None:
    with served(weights, "never", hosts=["faces.example", "*.my.host"], root_path="/faces") as address:
        for name in ("faces.example", "Faces.Example:443", "a.my.host", "127.0.0.1"):
            assert ask(address, body=photos[0], Host=name, Origin=f"https://{name}").status == 200
        assert ask(address, body=photos[0], Host="evil.example", Origin="https://evil.example").status == 400
        assert ask(address, body=photos[0], Host="faces.example", Origin="https://evil.example").status == 403
        # nginx's default: the Host is the server's address, and only the browser knows that the page is the server's
        assert ask(address, body=photos[0], Origin="https://faces.example", Sec_Fetch_Site="same-origin").status == 200
        assert ask(address, "/", method="GET").status == ask(address, "/page.js", method="GET").status == 200
        forwarded = {"X_Forwarded_Proto": "https", "X_Forwarded_For": "10.0.0.1", "Host": "faces.example"}
        described = ask(address, "/openapi.json", method="GET", **forwarded).json
        assert described["servers"] == [{"url": "https://faces.example/faces"}]


def head(path: str, size: int, *headers: str) -> bytes:
    lines = (f"POST {path} HTTP/1.1", "Connection: close", f"Content-Length: {size}", *headers)
    return "\r\n".join((*lines, "", "")).encode()


def read_all(client: socket.socket) -> bytes:
    with client.makefile("rb") as reader:
        return reader.read()


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        (NEVER, ("Host: localhost", "Origin: https://evil.example"), 403),
        (NEVER, ("Host: evil.example",), 400),
        ("/api/predict?detect=no", ("Host: localhost",), 400),
        (NEVER, ("Host: localhost",), 413),
        ("/no", ("Host: localhost",), 404),
        ("/health", ("Host: localhost",), 405),
    ],
)
def test_refusal_reaches_a_client_that_sends_its_whole_body_first(
    address: str, path: str, headers: tuple[str, ...], status: int
) -> None:
    size = 8 * LIMITS.size  # more than the buffers of a connection
    with connect(address) as client:
        client.sendall(head(path, size, *headers) + b"a" * size)
        assert read_all(client).startswith(f"HTTP/1.1 {status} ".encode())


def test_refusal_precedes_a_body_that_waits_to_be_asked_for(address: str) -> None:
    with connect(address) as client:
        client.sendall(head(NEVER, 10 * LIMITS.size, "Host: localhost", "Expect: 100-continue"))
        begin = time.monotonic()
        assert read_all(client).startswith(b"HTTP/1.1 413 ") and time.monotonic() - begin < 4


@pytest.mark.parametrize("setting", ["_SECONDS", "_PAUSE_SECONDS"])
def test_refusal_does_not_wait_for_a_body_that_never_ends(
    address: str, setting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(early_response, setting, 0.2)
    with connect(address) as client:
        begin = time.monotonic()
        client.sendall(head(NEVER, 10 * LIMITS.size, "Host: localhost") + b"a")
        if setting == "_SECONDS":
            with suppress(ConnectionError):
                while time.monotonic() < begin + 5:
                    client.sendall(b"a")
                    time.sleep(0.01)
        else:
            assert read_all(client).startswith(b"HTTP/1.1 413 ")
        assert time.monotonic() < begin + 4


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("nginx"), reason="needs nginx")
def test_documented_nginx_example_serves_the_page_and_every_answer(
    weights: Path, photos: list[bytes], tmp_path: Path
) -> None:
    (location,) = re.findall(r"```nginx\n(.*?)```", (ROOT / "docs" / "web.md").read_text(), re.S)
    with socket.socket() as free, served(weights, "never", hosts=["faces.example"], root_path="/faces") as address:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        temporary = "".join(
            f"{kind}_temp_path {tmp_path};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        server = f"listen 127.0.0.1:{port}; {location.replace('http://127.0.0.1:7860', address)}"
        (tmp_path / "nginx.conf").write_text(
            f"daemon off; master_process off; pid {tmp_path}/pid; error_log stderr; events {{}}\n"
            f"http {{ access_log off; {temporary} server {{ {server} }} }}\n"
        )
        proxy = f"http://127.0.0.1:{port}"
        name = f"faces.example:{port}"
        with subprocess.Popen(["nginx", "-c", str(tmp_path / "nginx.conf")]) as process:
            try:
                wait_for_port(port)
                assert ask(proxy, "/faces/", method="GET", Host=name).status == 200
                described = ask(proxy, "/faces/openapi.json", method="GET", Host=name).json
                assert described["servers"] == [{"url": f"http://{name}/faces"}]
                for origin, status in ((f"http://{name}", 200), ("https://evil.example", 403)):
                    reply = ask(proxy, "/faces/api/predict", photos[0], Host=name, Origin=origin)
                    assert reply.status == status
                large = b"a" * (2 * LIMITS.size)
                assert ask(proxy, "/faces/api/predict", large, Host=name).status == 413
                assert ask(proxy, "/faces/api/predict", large, Host=name, Origin="https://evil.example").status == 403
            finally:
                process.terminate()


def wait_for_port(port: int) -> None:
    for _ in range(200):
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise TimeoutError(port)


def test_pages_of_other_sites_are_answered_if_allowed(address: str, weights: Path, photos: list[bytes]) -> None:
    site = "https://my.site"
    preflight = {"Access_Control_Request_Method": "POST", "Access_Control_Request_Headers": "content-type"}
    with served(weights, "never", origins=[site]) as shared:
        reply = ask(shared, body=photos[0], Origin=site, Sec_Fetch_Site="cross-site")
        assert reply.status == 200 and reply.headers["Access-Control-Allow-Origin"] == site
        reply = ask(shared, method="OPTIONS", Origin=site, **preflight)
        assert reply.status == 200 and reply.headers["Access-Control-Allow-Headers"].lower() == "content-type"
        assert ask(shared, body=photos[0], Origin="https://evil.example").status == 403
        assert ask(shared, method="OPTIONS", Origin="https://evil.example", **preflight).status == 400
    with served(weights, "never", origins=["*"]) as shared:
        reply = ask(shared, body=photos[0], Origin="https://any.example", Sec_Fetch_Site="cross-site")
        assert reply.status == 200 and reply.headers["Access-Control-Allow-Origin"] == "*"
    reply = ask(address, "/api/info", method="GET", Origin=site)
    assert reply.status == 200 and "Access-Control-Allow-Origin" not in reply.headers
    assert ask(address, method="OPTIONS", Origin=site, **preflight).status == 405


def test_health_answers_while_the_server_runs(address: str) -> None:
    reply = ask(address, "/health", method="GET")
    assert (reply.status, reply.json) == (200, {"status": "ok"})


# Time limits


def test_api_answers_504_after_the_time_limit(
    weights: Path, photos: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    may = threading.Event()
    predict = Predictor.predict_images

    def slow(*given: Any, **named: Any) -> Any:
        assert may.wait(20)
        return predict(*given, **named)

    monkeypatch.setattr(Predictor, "predict_images", slow)
    with served(weights, "never", Limits(3_000_000, 1_000_000, 20, 100_000_000, 0.3)) as address:
        for body, kind in (form(photos[0]), several(photos)):
            reply = ask(address, body=body, Content_Type=kind)
            assert (reply.status, reply.json) == (504, {"error": "no answer within 0.3 seconds"})
        assert ask(address, "/health", method="GET").status == 200
        may.set()
        until = time.monotonic() + 20
        while (reply := ask(address, body=photos[0])).status == 504 and time.monotonic() < until:
            pass
        assert reply.status == 200


def test_connections_without_a_request_are_closed(
    weights: Path, photos: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "_IDLE_SECONDS", 0.5)
    with served(weights, "never") as address:
        begun = [b"", b"POST", b"POST /api/predict HTTP/1.1\r\nHost: localhost\r\nX: "]
        begun.append(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\nGET /h")  # the second request is never completed
        clients = [connect(address) for _ in begun]
        upload = connect(address)  # in progress: limited by `upload_seconds` only
        upload.sendall(b"POST /api/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nabc")
        for client, sent in zip(clients, begun, strict=True):
            client.sendall(sent)
        for client in clients:
            client.settimeout(5)
            while client.recv(4096):  # until the server closes
                pass
            client.close()
        time.sleep(0.7)
        upload.sendall(b"defghi")
        assert upload.recv(100).startswith(b"HTTP/1.1 422 ")
        upload.close()
        assert ask(address, body=photos[0]).status == 200


def test_700_idle_connections_do_not_shut_others_out(address: str, photos: list[bytes]) -> None:
    resource = pytest.importorskip("resource", reason="the limit of open files is that of Unix")
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < 3000:
        pytest.skip("this process may not open 1,400 sockets beside the server's limit")
    idle: list[socket.socket] = []
    try:
        for _ in range(700):
            idle.append(connect(address))
        assert ask(address, NEVER, photos[0]).status == 200
    finally:
        for client in idle:
            client.close()


@pytest.mark.slow
def test_an_image_of_few_bytes_and_many_pixels_is_answered_in_time(weights: Path) -> None:
    file = io.BytesIO()
    Image.new("RGB", (8000, 5000), "teal").save(file, "JPEG")
    with served(weights, "auto", Limits(3_000_000, 40_000_000, 20, 100_000_000)) as address:
        begun = time.process_time()
        reply = ask(address, body=file.getvalue())
        used = time.process_time() - begun
    assert (reply.status, reply.json["error"]) == (200, "no face found")
    faceless = Predictor(weights, "cpu")
    begun = time.process_time()
    assert faceless(Image.new("RGB", (2048, 1280), "teal"))[0].error == "no face found"
    assert used < 4 * (time.process_time() - begun), "resizing must not take longer than detection"


# The description


def test_openapi_describes_every_answer(address: str, photos: list[bytes]) -> None:
    described = ask(address, "/openapi.json", method="GET").json
    assert described["openapi"] == "3.1.0" and described["servers"] == [{"url": address}]
    schemas = described["components"]["schemas"]
    predict = described["paths"]["/api/predict"]["post"]
    assert predict["parameters"][0]["schema"] == {
        "type": "string", "enum": ["auto", "always", "never"], "default": "auto"
    }  # fmt: skip
    answer = ask(address, NEVER, photos[0]).json
    assert list(schemas["Answer"]["properties"]) == schemas["Answer"]["required"] == list(answer)
    face = answer["faces"][0]
    assert list(schemas["Face"]["properties"]) == schemas["Face"]["required"] == list(face)
    for name, value in face.items():
        schema = schemas["Face"]["properties"][name]
        assert value in schema["enum"] if "enum" in schema else value is None or isinstance(value, int | float)
    big = in_base64(b"\0" * (LIMITS.size + 1))
    refused: dict[str, Callable[[], Any]] = {
        "400": lambda: ask(address, "/api/predict?detect=x", b"x"),
        "403": lambda: ask(address, body=b"x", Origin="http://["),
        "413": lambda: ask(address, body=big),
        "422": lambda: ask(address, body=b"x"),
    }  # 408, 503 and 504: see the time limits, and test_app
    for status, answered in refused.items():
        reply = answered()
        assert str(reply.status) == status and list(reply.json) == schemas["Error"]["required"]
        assert reply.headers["Content-Type"] in predict["responses"][status]["content"]
    for path, methods in described["paths"].items():
        if "get" in methods:
            reply = ask(address, path, method="GET")
            assert (
                reply.status == 200 and reply.headers["Content-Type"] in methods["get"]["responses"]["200"]["content"]
            )


@pytest.mark.slow
def test_schemathesis_finds_no_fault(weights: Path) -> None:
    pytest.importorskip("schemathesis", reason="pip install schemathesis, as .ci/slow does")
    with served(weights, "never", root_path="/faces") as address:
        command = [sys.executable, "-m", "schemathesis.cli", "run", f"{address}/openapi.json", f"--url={address}"]
        outcome = subprocess.run(
            [*command, "--max-examples=100", "--no-color"],
            cwd=ROOT / "tests",
            env={**os.environ, "SCHEMATHESIS_HOOKS": "helpers.openapi_images"},
            capture_output=True,
            text=True,
            timeout=300,
        )
    assert outcome.returncode == 0 and "No issues found" in outcome.stdout, outcome.stdout + outcome.stderr


def test_documented_proxy_examples_name_settings_that_exist() -> None:
    page = (ROOT / "docs" / "web.md").read_text()
    conf = (ROOT / "conf" / "serve.yaml").read_text()
    named = [word for word in page.split() if word.split("=")[0] in ("allowed_hosts", "root_path", "cors_origins")]
    assert named and all(f"\n{word.split('=')[0]}:" in conf for word in named)
    assert "X-Forwarded-Proto" in page and "proxy_set_header Host $http_host" in page and "reverse_proxy" in page
