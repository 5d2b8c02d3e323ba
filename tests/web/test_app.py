"""The HTTP API: the predictions of the predictor, and a reason for each refused upload."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from conftest import ROOT, STORED, Outcome
from helpers.hostile import BOMBS, png
from helpers.made_networks import save_network
from helpers.made_predictions import FIVE, TWO
from helpers.made_runs import AGE, ETHNICITY, GENDER, SMILE
from helpers.nodes import FURTHER, task_nodes
from helpers.served import LIMITS, ask, connect, form, served
from omegaconf import OmegaConf
from PIL import Image

from agegender.cli.main import call_with_config
from agegender.errors import EXIT_ERROR, EXIT_USAGE, AgeGenderError
from agegender.prediction.prediction import to_row
from agegender.prediction.predictor import Predictor
from agegender.web.model_info import disclaimer, read_test_metrics
from agegender.web.samples import NAMES, draw_sample
from agegender.web.server import allowed_names, open_port, serve
from agegender.web.uploads import Limits

Run = Callable[..., Outcome]
PAGE = ROOT / "agegender" / "web" / "page"
WEB = "agegender/web/__main__.py"


def weights_of(run: Path) -> Path:
    return run / "checkpoints" / "best.ckpt"


@pytest.fixture(scope="module")
def address(trained_run: Path) -> Iterator[str]:
    with served(weights_of(trained_run)) as address:
        yield address


@pytest.fixture(scope="module")
def pictures(faces: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(faces.glob("*.jpg"))[:6]]


def encoded(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def expected_rows(predictor: Predictor, picture: bytes) -> list[dict[str, Any]]:
    rows = [to_row(prediction, predictor.tasks) for prediction in predictor(picture)]
    return [{name: value for name, value in row.items() if name not in ("path", "error")} for row in rows]


# Predictions


def test_api_returns_the_predictions_for_raw_and_form_uploads(
    address: str, trained_run: Path, pictures: list[bytes]
) -> None:
    predictor = Predictor(weights_of(trained_run), "cpu", detect="never")
    for picture in pictures:
        expected = {"width": 64, "height": 64, "faces": expected_rows(predictor, picture), "error": None}
        body, kind = form(picture, before=b'--edge\r\nContent-Disposition: form-data; name="x"\r\n\r\n1\r\n')
        raw = ask(address, "/api/predict?detect=never", picture)
        curls = ask(address, "/api/predict?detect=never", picture, Content_Type="application/x-www-form-urlencoded")
        image = ask(address, "/api/predict?detect=never", picture, Content_Type="image/jpeg")
        in_form = ask(address, "/api/predict?detect=never", body, Content_Type=kind)
        for reply in (raw, curls, image, in_form):
            assert (reply.status, reply.json) == (200, expected)
            assert reply.headers["Cache-Control"] == "no-store"


def test_api_returns_the_boxes_of_the_predictor(address: str, trained_run: Path) -> None:
    data = pytest.importorskip("skimage.data", reason="the photograph is scikit-image's")
    picture = encoded(Image.fromarray(data.astronaut()))
    reply = ask(address, body=picture)
    assert reply.status == 200 and (reply.json["width"], reply.json["height"]) == (512, 512)
    assert reply.json["faces"] == expected_rows(Predictor(weights_of(trained_run), "cpu"), picture)
    (face,) = reply.json["faces"]
    assert 150 < face["left"] < 224 < face["right"] < 300 and 40 < face["top"] < 110 < face["bottom"] < 200


def test_api_returns_unsure_with_p_female_below_min_confidence(
    address: str, trained_run: Path, pictures: list[bytes]
) -> None:
    with served(weights_of(trained_run), "never", min_confidence=1.0) as never_sure:
        info = ask(never_sure, "/api/info", method="GET").json
        replies = [ask(never_sure, body=picture).json["faces"][0] for picture in pictures]
    assert [task["min_confidence"] for task in info["tasks"]] == [0.5, 1]
    assert (
        info["meaning"][-1]
        == "If the probability of the likelier gender is below 100 %, the gender is given as unsure; that limit is the "
        "setting min_confidence."
    )
    assert {reply["gender"] for reply in replies} == {"unsure"}
    others = [ask(address, "/api/predict?detect=never", picture).json["faces"][0] for picture in pictures]
    assert [reply["p_female"] for reply in replies] == [other["p_female"] for other in others]


def test_disclaimer_mentions_unsure_genders_only_above_one_half() -> None:
    assert not [line for line in disclaimer(True, TWO) if "unsure" in line]
    assert "is below 83.4 %" in disclaimer(False, (AGE, replace(GENDER, min_confidence=0.8341)))[-1]


def test_disclaimer_has_a_paragraph_for_each_task() -> None:
    age, gender, smile, height, ethnicity, research = disclaimer(False, FIVE)
    assert age.startswith(
        "The age is an estimate of how old a face looks. Its interval is fitted to contain the true age"
    )
    assert "The gender is the binary label of the training data (UTKFace), which was assigned by appearance; " in gender
    assert "The smile is the binary label of the training data; the probability is that of this label." in smile
    assert height.startswith("The height is an estimate from the look of a face. Its interval")
    assert "The ethnicity is one of 5 labels of the training data (UTKFace), which was assigned by app" in ethnicity
    assert "non-commercial research only" in research
    unsure = disclaimer(False, [replace(ETHNICITY, min_confidence=0.35)])[-1]
    start = "If the probability of the likeliest ethnicity is below 35 %, the ethnicity is given as unsure; that limit"
    assert unsure == f"{start} is the setting min_confidence."


def test_api_returns_the_values_of_further_tasks(pictures: list[bytes], tmp_path: Path) -> None:
    weights = save_network(tmp_path / "wide.ckpt", tasks=task_nodes("dldl") | FURTHER)
    predictor = Predictor(weights, "cpu", detect="never")
    with served(weights, "never") as address:
        info = ask(address, "/api/info", method="GET").json
        reply = ask(address, body=pictures[0])
    assert info["tasks"] == [task.to_dict() for task in predictor.tasks] and info["names"]
    assert reply.json["faces"] == expected_rows(predictor, pictures[0])
    assert {"p_mood_happy", "mood", "p_glasses", "glasses", "height", "height_low"} <= reply.json["faces"][0].keys()


def test_api_returns_an_empty_list_for_an_image_without_a_face(address: str) -> None:
    reply = ask(address, body=encoded(Image.new("RGB", (80, 60), "teal")))
    assert reply.status == 200
    assert reply.json == {"width": 80, "height": 60, "faces": [], "error": "no face found"}


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_api_returns_sizes_of_the_upright_image(address: str, orientation: int) -> None:
    picture, exif = Image.new("RGB", (80, 60), "teal"), Image.Exif()
    exif[0x0112] = orientation
    turn = STORED[orientation]
    stored = encoded(picture if turn is None else picture.transpose(turn), "JPEG", exif=exif.tobytes())
    reply = ask(address, "/api/predict?detect=never", stored)
    assert (reply.json["width"], reply.json["height"]) == (80, 60)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "BMP", "TIFF", "PPM"])
def test_api_accepts_many_image_formats(address: str, pictures: list[bytes], kind: str) -> None:
    picture = encoded(Image.open(io.BytesIO(pictures[0])), kind)
    reply = ask(address, "/api/predict?detect=never", picture)
    assert reply.status == 200 and len(reply.json["faces"]) == 1


# Refused uploads


def bad_files(good: bytes) -> dict[str, bytes]:
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
    return {"empty": b"", "text": b"<script>alert(1)</script>", "cut off": good[:-300], "a program": eps}


@pytest.mark.parametrize("what", ["empty", "text", "cut off", "a program"])
def test_api_refuses_a_broken_image_with_a_reason(address: str, pictures: list[bytes], what: str) -> None:
    content = bad_files(pictures[0])[what]
    body, kind = form(content)
    for reply in (ask(address, body=content), ask(address, body=body, Content_Type=kind)):
        assert reply.status == 422
        assert list(reply.json) == ["error"] and reply.json["error"]
    assert ask(address, "/api/predict?detect=never", pictures[0]).status == 200


@pytest.mark.parametrize("way", ["stated", "chunked", "form"])
def test_api_refuses_an_upload_beyond_the_size_limit(address: str, way: str) -> None:
    content = b"\0" * (LIMITS.size + 1)
    if way == "form":
        body, kind = form(content)
        reply = ask(address, body=body, Content_Type=kind)
    elif way == "chunked":
        reply = ask(address, body=iter([content[i : i + 65_536] for i in range(0, len(content), 65_536)]))
    else:
        reply = ask(address, body=content)
    assert (reply.status, reply.json) == (413, {"error": "too large: the limit is 3 MB"})


def test_api_refuses_an_upload_by_its_content_length(address: str) -> None:
    with connect(address) as client:
        client.sendall(b"POST /api/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999999999\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("side", [1500, 20_000])
def test_api_refuses_too_many_pixels_before_decoding(address: str, side: int) -> None:
    reply = ask(address, body=png(side, side))  # no pixels; the second is beyond Pillow's own limit
    assert reply.status == 413 and "the limit is 2 megapixels" in reply.json["error"]


@pytest.mark.parametrize("kind", BOMBS)
def test_api_refuses_decompression_bombs(address: str, kind: str) -> None:
    reply = ask(address, body=BOMBS[kind])
    assert reply.status in (413, 422) and list(reply.json) == ["error"]


# Starlette leaves the file of a truncated form to the garbage collector
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("body", "kind", "reason"),
    [
        (form(b"x", "picture")[0], "multipart/form-data; boundary=edge", 'no file in the field "file"'),
        (form(b"x")[0][:-10], "multipart/form-data; boundary=edge", 'no file in the field "file"'),
        (form(b"x")[0].replace(b'; filename="a.jpg"', b""), "multipart/form-data; boundary=edge", "no file"),
        (b"not a form", "multipart/form-data; boundary=edge", "invalid"),
        (form(b"x")[0], "multipart/form-data", "Missing boundary"),
        (form(b"x")[0], f"multipart/form-data; boundary={'x' * 5000}", "invalid"),
        (b"--edge\r\nA: b\r\n\r\n\r\n" + form(b"x")[0], "multipart/form-data; boundary=edge", "must be provided"),
        ((form(b"x")[0][:-10] + b"\r\n") * 17, "multipart/form-data; boundary=edge", "Too many files"),
        (form(b"x", "photo")[0][:-10] + b"\r\n" + form(b"x")[0], "multipart/form-data; boundary=edge", "other fields"),
    ],
)
def test_api_refuses_a_form_that_is_broken_or_has_no_file(address: str, body: bytes, kind: str, reason: str) -> None:
    reply = ask(address, body=body, Content_Type=kind)
    assert reply.status == 400 and reason in reply.json["error"]


def test_api_refuses_other_methods_paths_and_settings_in_json(address: str) -> None:
    assert ask(address, method="GET").status == 405
    assert ask(address, method="PUT", body=b"x").status == 405
    assert ask(address, "/", b"x").status == 405
    for path in ("/nothing", "/samples/none.jpg", "/../web.yaml", "/page/index.html", "/samples/..%2f..%2fx"):
        reply = ask(address, path, method="GET")
        assert (reply.status, reply.json) == (404, {"error": "Not Found"})
    reply = ask(address, "/api/predict?detect=alway", b"x")
    assert (reply.status, reply.json) == (400, {"error": "detect=alway is not known; did you mean always?"})


def test_api_ends_a_slow_upload_and_closes_its_connection(trained_run: Path, pictures: list[bytes]) -> None:
    with served(weights_of(trained_run), "never", Limits(3_000_000, 1_000_000, 0.4, 100_000_000)) as address:
        with connect(address) as client:
            client.sendall(b"POST /api/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nabc")
            reply = b""
            while chunk := client.recv(4096):  # until the server closes
                reply += chunk
        assert reply.startswith(b"HTTP/1.1 408 ") and b"longer than 0.4 seconds" in reply
        assert ask(address, body=pictures[0]).status == 200


def test_api_refuses_uploads_beyond_the_queue_with_retry_after(trained_run: Path, pictures: list[bytes]) -> None:
    with served(weights_of(trained_run), "never", max_concurrency=1, queue_size=1) as address:
        begun = [connect(address) for _ in range(2)]
        for client in begun:
            client.sendall(b"POST /api/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nabc")
        until = time.monotonic() + 20
        while (reply := ask(address, body=pictures[0])).status == 200 and time.monotonic() < until:
            time.sleep(0.05)  # the server may not have accepted both yet
        assert (reply.status, reply.headers["Retry-After"]) == (503, "2")
        assert reply.json == {"error": "the server is busy: try again in a moment"}
        for client in begun:
            client.close()
        while (reply := ask(address, body=pictures[0])).status == 503 and time.monotonic() < until:
            time.sleep(0.05)
        assert reply.status == 200


def test_api_refuses_uploads_beyond_the_memory_for_them(trained_run: Path, pictures: list[bytes]) -> None:
    with served(weights_of(trained_run), "never", Limits(1_000_000, 1_000_000, 20, 1_000_000)) as address:
        with connect(address) as client:
            client.sendall(b"POST /api/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999\r\n\r\nabc")
            until = time.monotonic() + 20
            while (reply := ask(address, body=pictures[0])).status == 200 and time.monotonic() < until:
                time.sleep(0.05)  # the server may not have accepted it yet
            assert (reply.status, reply.headers["Retry-After"]) == (503, "2")
        while (reply := ask(address, body=pictures[0])).status == 503 and time.monotonic() < until:
            time.sleep(0.05)
        assert reply.status == 200


# Origins, hosts and files


def test_security_middleware_refuses_other_origins_and_hosts(address: str, pictures: list[bytes]) -> None:
    host = urlsplit(address).netloc
    port = host.split(":")[1]
    others = ("http://evil.example", "null", f"http://evil.example:{port}", f"http://{host}.evil.example")
    for origin in (*others, "http://[", "http://[::1", "//", "%", f"{address}/", "http://"):
        reply = ask(address, body=pictures[0], Origin=origin)
        assert (reply.status, reply.json) == (403, {"error": "requests from pages of other sites are not allowed"})
    for site in ("cross-site", "same-site", "["):
        assert ask(address, body=pictures[0], Sec_Fetch_Site=site).status == 403
    assert ask(address, "/api/predict?detect=never", pictures[0], Origin=address).status == 200
    for name in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", "", "[", "[::1", "a b", "@", "::"):
        for path, method in (("/", "GET"), ("/api/info", "GET"), ("/api/predict", "POST"), ("/health", "GET")):
            assert ask(address, path, method=method, Host=name).status == 400
    for name in (f"localhost:{port}", "LOCALHOST", "127.0.0.1", f"[::1]:{port}"):
        assert ask(address, "/", method="GET", Host=name).status == 200


def test_allowed_names_are_those_of_the_host_unless_given() -> None:
    local = {"127.0.0.1", "localhost", "[::1]"}
    for host in ("127.0.0.1", "localhost", "::1", "127.0.0.2", "192.168.1.5", "my.host"):
        assert set(allowed_names(host, None)) == local | {f"[{host}]" if ":" in host else host}
    for host in ("0.0.0.0", "::"):
        with pytest.raises(AgeGenderError, match="needs allowed_hosts=: name what stands in browsers' address bars"):
            allowed_names(host, None)
        assert set(allowed_names(host, ["*.my.host", "192.168.1.5"])) == local | {"*.my.host", "192.168.1.5"}


_writes: list[str] | None = None


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if _writes is None:
        return
    if event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        _writes.append(str(arguments[0]))
    elif event.startswith("tempfile."):
        _writes.append(event)


def test_api_writes_nothing_to_disk(address: str, pictures: list[bytes]) -> None:
    """Starlette's form parser spools files larger than a megabyte to disk."""
    global _writes
    big = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 256, (800, 1000, 3), dtype=np.uint8)))
    assert len(big) > 2_000_000
    sys.addaudithook(_watch)  # hooks can't be removed; this one is inactive while `_writes` is None
    _writes = []
    try:
        for content in (big, pictures[0], b"no picture"):
            body, kind = form(content)
            ask(address, "/api/predict?detect=never", content)
            ask(address, "/api/predict?detect=never", body, Content_Type=kind)
        assert _writes == []
    finally:
        _writes = None


# Files of the page, samples, and facts about the weights


def test_page_has_strict_headers_and_loads_nothing_external(address: str) -> None:
    for path, kind in (("/", "text/html"), ("/page.css", "text/css"), ("/page.js", "text/javascript")):
        reply = ask(address, path, method="GET")
        assert reply.status == 200 and reply.headers["Content-Type"].startswith(kind)
        assert reply.headers["X-Content-Type-Options"] == "nosniff"
        policy = reply.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
    for file in PAGE.iterdir():
        assert ask(address, f"/{file.name}", method="GET").body == file.read_bytes()
        outside = re.findall(r"(?:https?:)?//[\w.]+", re.sub(r"(?m)^\s*//.*$", "", file.read_text()))
        assert set(outside) <= {"http://www.w3.org"}  # SVG's namespace
    page = (PAGE / "index.html").read_text()
    assert not re.search(r"<style|style=|<script>|\son\w+=", page)  # the policy would block these


def test_samples_are_deterministic(address: str) -> None:
    samples = ask(address, "/api/info", method="GET").json["samples"]
    assert [sample["address"] for sample in samples] == [f"samples/{name}" for name in NAMES]
    for sample, name in zip(samples, NAMES, strict=True):
        picture = ask(address, f"/{sample['address']}", method="GET").body
        assert picture == draw_sample.__wrapped__(name)
        reply = ask(address, f"/api/predict?detect={sample['detect']}", picture)
        assert len(reply.json["faces"]) == (3 if name == "group.jpg" else 1)


def test_samples_without_detection_have_one_face_each(trained_run: Path) -> None:
    with served(weights_of(trained_run), "never") as address:
        info = ask(address, "/api/info", method="GET").json
        assert [sample["address"] for sample in info["samples"]] == [f"samples/{n}.jpg" for n in range(1, 6)]
        assert info["detect"] == "never"


def test_info_holds_limits_and_metrics_but_no_folder(address: str, trained_run: Path) -> None:
    info = ask(address, "/api/info", method="GET").json
    figures = json.loads((trained_run / "metrics.json").read_text())
    assert (info["max_upload_mb"], info["max_megapixels"], info["weights"]) == (3, 2, "best.ckpt")
    assert info["trained_on_synthetic"] and "say nothing about real people" in info["meaning"][0]
    assert info["figures"]["age_mae"] == figures["test/age_mae"] and info["figures"]["bands"] is None
    assert info["figures"]["images"] == figures["images/test"]
    assert str(trained_run) not in json.dumps(info)


def test_read_test_metrics_finds_those_of_bundled_weights_and_of_runs(tmp_path: Path) -> None:
    bands = [{"ages": "0-2", "images": 3, "age_mae": 1.5, "gender_acc": 0.5, "coverage": None}]
    packed = tmp_path / "small.ckpt"
    assert read_test_metrics(packed, TWO) is None
    metrics = {"test/age_mae": 5.0, "test/gender_acc": 0.9, "images/test": 100, "bands": bands}
    packed.with_suffix(".json").write_text(json.dumps(metrics))
    expected = {"age_mae": 5.0, "gender_acc": 0.9, "images": 100, "bands": bands}
    assert read_test_metrics(packed, TWO) == expected
    assert read_test_metrics(packed, [SMILE]) == {"smile_acc": None, "images": 100, "bands": bands}

    run = tmp_path / "run"
    (run / "report").mkdir(parents=True)
    (run / "metrics.json").write_text(json.dumps({**metrics, "bands": None}))
    best = run / "checkpoints" / "best.ckpt"
    assert read_test_metrics(best, TWO) == {**expected, "bands": None}
    report = {"runs": [{"slices": {"age": [{"name": "0-2", "images": 3, "metrics": {"age_mae": {"value": 1.5}}}]}}]}
    (run / "report" / "report.json").write_text(json.dumps(report))
    assert read_test_metrics(best, TWO) == {
        **expected,
        "bands": [{key: bands[0][key] for key in bands[0] if key != "gender_acc"}],
    }
    assert read_test_metrics(best.with_name("last.ckpt"), TWO) is None  # the metrics are those of best.ckpt
    (run / "report" / "report.json").write_text("{")
    assert read_test_metrics(best, TWO) == {**expected, "bands": None}
    (run / "metrics.json").write_text('{"test/age_mae": NaN}')
    assert read_test_metrics(best, TWO) is None


# The command


@pytest.mark.parametrize(
    ("argument", "reason"),
    [
        ("prot=80", "prot is not known; did you mean port?"),
        ("port=eighty", "port='eighty' has the wrong type"),
        ("host=0.0.0.0", "host=0.0.0.0 needs allowed_hosts="),
    ],
)
def test_serve_command_refuses_invalid_settings_in_one_line(argument: str, reason: str, run_here: Run) -> None:
    outcome = run_here(WEB, "port=0", argument)
    outcome.assert_one_line_error(reason, code=EXIT_USAGE if "is not known" in reason else EXIT_ERROR)
    assert outcome.out == ""


@pytest.mark.parametrize(
    ("argument", "reason"),
    [
        ("port=66000", "port=66000 must be from 0"),
        ("max_upload_mb=0", "max_upload_mb=0 must be above 0"),
        ("max_megapixels=500", "max_megapixels=500 must be above 0, and at most 178"),
        ("upload_seconds=-1", "upload_seconds=-1 must be above 0"),
        ("max_concurrency=0", "max_concurrency=0 must be at least 1"),
        ("request_seconds=0", "request_seconds=0 must be above 0"),
        ("host=0.0.0.0", "host=0.0.0.0 needs allowed_hosts="),
        ("allowed_hosts=[http://my.host]", "allowed_hosts: 'http://my.host' must be a name such as my.host"),
        ("allowed_hosts=[my.*.host]", "allowed_hosts: 'my.*.host' must be a name"),
        ("root_path=faces/", "root_path=faces/ must begin with /"),
        ("cors_origins=[my.site]", "cors_origins: 'my.site' must be an origin such as https://my.site"),
        ("queue_size=0", "queue_size=0 must be at least 1"),
        ("queue_mb=15", "queue_mb=15 must be at least max_upload_mb=16"),
        ("min_confidence=0.4", "min_confidence=0.4 must lie between 0.5 (never unsure) and 1, or be null"),
        ("min_confidence=high", "min_confidence='high' has the wrong type"),
        ("detect=sometimes", "detect='sometimes' has the wrong type"),
        ("weights=no, such [file].ckpt", "no, such [file].ckpt"),
        ("host=8.8.8.8", "host=8.8.8.8 port=0 can't be opened"),
        ("host=no such host", "host=no such host is not an address"),
    ],
)
def test_serve_refuses_invalid_settings(argument: str, reason: str) -> None:
    with pytest.raises(AgeGenderError) as refused:
        call_with_config(serve, OmegaConf.from_dotlist(["port=0", argument]))
    assert reason in str(refused.value) and "\n" not in str(refused.value)


def test_serve_names_a_port_in_use(trained_run: Path) -> None:
    with open_port("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(AgeGenderError, match=f"port={port} is in use; choose another"):
            serve(port=port, weights=str(trained_run))


@pytest.mark.parametrize("package", ["starlette", "uvicorn", "python_multipart"])
def test_serve_names_the_extra_of_a_missing_package(
    package: str, run_here: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == package or name.startswith("agegender.web.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    outcome = run_here(WEB)
    outcome.assert_one_line_error(package, 'pip install "agegender[web]"')


def test_serve_accepts_weights_without_metrics(trained_run: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone.ckpt"
    shutil.copy(weights_of(trained_run), alone)
    with served(alone, "never") as address:
        info = ask(address, "/api/info", method="GET").json
        assert (info["weights"], info["figures"]) == ("alone.ckpt", None)
