"""An image gives the same prediction from any source; invalid or unreachable ones give a row with a reason."""

from __future__ import annotations

import io
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Outcome
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from PIL import Image

from agegender.prediction.images import sources
from agegender.prediction.prediction import Prediction
from agegender.prediction.predictor import Predictor


@pytest.fixture(scope="module")
def predictor(trained_run: Path) -> Predictor:
    return Predictor(trained_run, device="cpu", detect="never")


@pytest.fixture(scope="module")
def finder(predictor: Predictor) -> Predictor:
    return predictor.with_detection("auto")


@pytest.fixture(scope="module")
def png(faces: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lossless face image, wider than high."""
    path = tmp_path_factory.mktemp("sources") / "face.png"
    with Image.open(min(faces.glob("*.jpg"))) as picture:
        picture.convert("RGB").crop((0, 4, 64, 52)).save(path)
    return path


@pytest.fixture(scope="module")
def gray_png(png: Path) -> Path:
    with Image.open(png) as picture:
        picture.convert("L").save(png.with_name("gray.png"))
    return png.with_name("gray.png")


def predict_one(predictor: Predictor, source: Any) -> tuple[float, float]:
    (found,) = predictor(source)
    assert found.error is None and found.age is not None and found.p_female is not None, found.error
    return found.age, found.p_female


def reason(predictor: Predictor, source: Any) -> str:
    found: Prediction = predictor(source)[0]
    assert found == Prediction(found.path, error=found.error)
    assert found.error and found.error.isprintable() and len(found.error) < 250
    return found.error


def pixels_of(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as picture:
        return np.asarray(picture)


Reading = Callable[[Path], Any]
AS_FILES: dict[str, Reading] = {
    "Path": lambda path: path,
    "str": str,
    "bytes": Path.read_bytes,
    "BytesIO": lambda path: io.BytesIO(path.read_bytes()),
    "Pillow": lambda path: Image.fromarray(pixels_of(path)),
    "array": pixels_of,
    "array, not contiguous": lambda path: np.asfortranarray(pixels_of(path)),
    "read-only array": lambda path: np.frombuffer(pixels_of(path).tobytes(), np.uint8).reshape(pixels_of(path).shape),
    "array [height, width, 1 or 3]": lambda path: np.atleast_3d(pixels_of(path)),
    "tensor [height, width] or [3, height, width]": lambda path: channels_first(path).squeeze(0),
    "uint8 tensor": lambda path: channels_first(path),
    "float tensor": lambda path: channels_first(path) / 255,
    "double tensor that learns": lambda path: (channels_first(path).double() / 255).requires_grad_(),
    "tensor a little beyond 0 and 1": lambda path: channels_first(path) / 255 * 1.0001 - 0.00001,
}


def channels_first(path: Path) -> torch.Tensor:
    return torch.from_numpy(np.atleast_3d(pixels_of(path)).copy()).permute(2, 0, 1)


@pytest.mark.parametrize("kind", AS_FILES)
@pytest.mark.parametrize("name", ["png", "gray_png"])
def test_predictor_accepts_every_type_of_image_alike(
    name: str, kind: str, predictor: Predictor, request: pytest.FixtureRequest
) -> None:
    path: Path = request.getfixturevalue(name)
    assert predict_one(predictor, AS_FILES[kind](path)) == pytest.approx(predict_one(predictor, path), abs=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_predictor_accepts_half_precision_tensors(dtype: torch.dtype, predictor: Predictor, png: Path) -> None:
    found = predict_one(predictor, (channels_first(png) / 255).to(dtype))
    assert found == pytest.approx(predict_one(predictor, png), abs=0.5)


def test_predictor_reads_an_open_file_from_its_start(predictor: Predictor, png: Path) -> None:
    with png.open("rb") as file:
        assert file.read(9)
        assert predict_one(predictor, file) == predict_one(predictor, png) == predict_one(predictor, file)


def test_predictor_leaves_its_inputs_unchanged(predictor: Predictor, png: Path) -> None:
    array, picture = pixels_of(png).copy(), Image.open(png)
    tensor = torch.from_numpy(array.copy()).permute(2, 0, 1) / 255
    before = array.copy(), tensor.clone()
    predictor([array, tensor, picture])
    assert (array == before[0]).all() and (tensor == before[1]).all()
    assert picture.getpixel((0, 0)) == tuple(array[0, 0])


def test_predictor_returns_a_list_per_image(predictor: Predictor, png: Path) -> None:
    (one,) = predictor(png)
    assert predictor([png]) == [[one]] and predictor([]) == []
    several = predictor((png, "missing.jpg", pixels_of(png)))
    assert [len(faces) for faces in several] == [1, 1, 1]
    assert several[0] == [one] and several[1][0].error == "no such file" and several[2][0].age == one.age
    assert [faces[0].path for faces in several] == [str(png), "missing.jpg", "<ndarray>"]


@pytest.mark.parametrize("nothing", [None, 3, 2.5, object(), {"a": 1}, bytearray(b"x"), np.uint8(3), print])
def test_predictor_raises_type_error_for_other_types(nothing: Any, predictor: Predictor) -> None:
    with pytest.raises(TypeError, match="is not an image: give a path"):
        predictor(nothing)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (np.zeros((4, 4, 3)), "array of float64"),
        (np.zeros((4, 4, 4), np.uint8), r"\[4, 4, 4\] is not an image"),
        (np.zeros((2, 4, 4, 3), np.uint8), "not an image"),
        (np.zeros((0, 4), np.uint8), "not an image"),
        (np.array("text"), "not an image"),
        (torch.zeros(3, 4, 4, dtype=torch.int64), "array of int64"),
        (torch.zeros(2, 3, 4, 4), r"\[2, 3, 4, 4\]"),
        (torch.full((3, 4, 4), 255.0), "between 0 and 1"),
        (torch.full((3, 4, 4), torch.nan), "between 0 and 1"),
        (torch.full((3, 4, 4), torch.inf), "between 0 and 1"),
        (torch.full((3, 4, 4), -2.0), "between 0 and 1"),
        (torch.zeros(3, 4, 4).to_sparse(), "can't be converted to an array"),
        (torch.zeros(3, 4, 4, device="meta"), "can't be converted to an array"),
        (torch.zeros(3, 4, 4, dtype=torch.complex64), "array of complex64"),
        (io.StringIO("text"), "."),
        (b"", "not a picture"),
        ("", "."),
        ("nul\0.jpg", "."),
        ("x" * 5000, "File name too long"),
    ],
)
def test_predictor_gives_a_reason_for_invalid_content(source: Any, message: str, predictor: Predictor) -> None:
    with pytest.raises(pytest.fail.Exception, match=message):
        pytest.fail(reason(predictor, source))


def test_predictor_gives_a_reason_for_a_closed_file_or_image(predictor: Predictor, png: Path) -> None:
    with png.open("rb") as file, Image.open(png) as picture:
        pass
    assert "closed" in reason(predictor, file)
    assert reason(predictor, picture)


DTYPES = arrays.scalar_dtypes() | arrays.array_dtypes(max_size=2) | st.just(np.dtype(object))
SHAPES = arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=9)
LIKELY = st.tuples(st.integers(1, 40), st.integers(1, 40)) | st.tuples(
    st.integers(1, 40), st.integers(1, 40), st.sampled_from((1, 3))
)


@settings(max_examples=30)
@given(data=st.data())
def test_predictor_survives_arbitrary_arrays(data: st.DataObject, predictor: Predictor, finder: Predictor) -> None:
    dtype = data.draw(st.just(np.dtype(np.uint8)) | DTYPES)
    shape = data.draw(LIKELY | SHAPES)
    array = np.zeros(shape, dtype)
    if dtype == np.uint8:
        array = np.random.default_rng(data.draw(st.integers(0, 9))).integers(0, 256, shape, np.uint8)
    fits = dtype == np.uint8 and array.size and (array.ndim == 2 or (array.ndim == 3 and shape[2] in (1, 3)))
    (found,) = predictor(array)
    assert (found.error is None) == bool(fits)
    assert len(finder(array)) >= 1


@settings(max_examples=40)
@given(data=st.data())
def test_predictor_survives_arbitrary_tensors(data: st.DataObject, predictor: Predictor) -> None:
    dtypes = [torch.uint8, torch.int16, torch.bool, torch.float16, torch.float32, torch.bfloat16, torch.complex64]
    tensor = torch.full(data.draw(SHAPES | st.tuples(st.sampled_from((1, 3)), st.just(5), st.just(7))), 1)
    tensor = tensor.to(data.draw(st.sampled_from(dtypes)))
    if tensor.is_floating_point():
        tensor = tensor * data.draw(st.floats(width=16))
    (found,) = predictor(tensor)
    assert (found.error is None) == (found.age is not None)


# URLs


class Handler(BaseHTTPRequestHandler):
    """Responds by path in every way that a server can, valid or not."""

    picture = b""
    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        name = self.path.split("?")[0].strip("/")
        if name in ("to", "circle"):
            self.send_response(302)
            self.send_header("Location", self.path.split("?", 1)[1] if name == "to" else "/circle")
            self.end_headers()
        elif name == "hang":
            threading.Event().wait(3)
        elif name.startswith("drip"):
            if name == "drip/body":
                self.wfile.write(b"HTTP/1.0 200 OK\r\nContent-Length: 99999\r\n\r\n")
            with suppress(OSError):  # until the client disconnects
                for _ in range(200):
                    self.wfile.write(b"H")
                    threading.Event().wait(0.05)
        elif name == "nonsense":
            self.wfile.write(b"\x00\xff what?\r\n\r\n")
        elif name == "long":
            self.wfile.write(b"HTTP/1.0 500 " + b"\x1b[31m no " * 2000 + b"\r\n\r\n")
        elif name == "short":
            self.wfile.write(b"HTTP/1.0 200 OK\r\nContent-Length: 99999\r\n\r\n" + self.picture[:200])
        elif name == "chunks":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nno")
        elif name == "missing.png":
            self.send_error(404, "Gone fishing")
        else:
            content = b"<html>hello</html>" if name == "text" else self.picture
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


class Quiet(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, *_: Any) -> None:
        pass  # the client disconnected


@contextmanager
def serving(handler: type[Handler]) -> Iterator[str]:
    with Quiet(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def site(png: Path) -> Iterator[str]:
    Handler.picture, Handler.asked = png.read_bytes(), []
    with pytest.MonkeyPatch.context() as patch, serving(Handler) as address:
        patch.setenv("no_proxy", "127.0.0.1")
        yield address


def test_predictor_gives_a_url_the_prediction_of_its_file(
    predictor: Predictor, site: str, png: Path, trained_run: Path, run_here: Callable[..., Outcome]
) -> None:
    assert predict_one(predictor, f"{site}/face.png") == predict_one(predictor, png)
    assert predictor(f"{site}/face.png?size=3")[0].path == f"{site}/face.png?size=3"
    for argument in (f"{site}/a.png?b=1,2", f"img={site}/a.png?b=1,2"):
        outcome = run_here("predict.py", argument, f"weights={trained_run}", "detect=never", "out=-")
        assert outcome.code == 0 and f'"path": "{site}/a.png?b=1,2"' in outcome.out


def test_predictor_accepts_a_url_with_unescaped_characters(predictor: Predictor, site: str) -> None:
    predict_one(predictor, f"{site}/Bücher und 日本.png?q=a b%20c&d=é#f")
    assert Handler.asked[-1] == "/B%C3%BCcher%20und%20%E6%97%A5%E6%9C%AC.png?q=a%20b%20c&d=%C3%A9"


def test_download_follows_redirects_to_http_only(predictor: Predictor, site: str, png: Path) -> None:
    assert predict_one(predictor, f"{site}/to?{site}/face.png") == predict_one(predictor, png)
    assert predict_one(predictor, f"{site}/to?/face.png") == predict_one(predictor, png)
    for address in (png.as_uri(), "file:///etc/passwd", "ftp://127.0.0.1/face.png", "data:image/png;base64,AAAA"):
        assert reason(predictor, f"{site}/to?{address}")
    assert "ftp://127.0.0.1/face.png" in reason(predictor, f"{site}/to?ftp://127.0.0.1/face.png")  # the target is named
    assert "Exceeded 30 redirects" in reason(predictor, f"{site}/circle")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("missing.png", "the server answers 404 Gone fishing"),
        ("text", "not a picture that can be read"),
        ("nonsense", "can't be fetched"),
        ("chunks", "can't be fetched"),
        ("short", "can't be fetched"),
        ("hang", "can't be fetched (timed out)"),
    ],
)
def test_download_gives_a_reason_for_a_failing_server(
    path: str, message: str, predictor: Predictor, site: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "_PATIENCE", 0.5)
    assert reason(predictor, f"{site}/{path}").startswith(message)
    before, failed, after = predictor([f"{site}/a.png", f"{site}/{path}", f"{site}/b.png"])
    assert before[0].age == after[0].age is not None and failed[0].error


@pytest.mark.parametrize("path", ["drip/body", "to?/drip/body"])
def test_download_times_out_on_a_slow_server(
    path: str, predictor: Predictor, site: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "_LONGEST_DOWNLOAD", 1)
    assert reason(predictor, f"{site}/{path}") == "can't be fetched (timed out)"


def test_download_shortens_the_reason_of_a_server(predictor: Predictor, site: str) -> None:
    (found,) = predictor(f"{site}/long")
    assert found.error and found.error.startswith("the server answers 500") and len(found.error) < 160


def test_download_refuses_content_beyond_the_limit(
    predictor: Predictor, site: str, png: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = png.stat().st_size
    monkeypatch.setattr(sources, "_LARGEST_DOWNLOAD", size)
    predict_one(predictor, f"{site}/face.png")
    monkeypatch.setattr(sources, "_LARGEST_DOWNLOAD", size - 1)
    assert reason(predictor, f"{site}/face.png").startswith("larger than ")


def test_download_gives_a_reason_for_a_refused_connection(predictor: Predictor) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}/face.png"
    assert "refused" in reason(predictor, address)


@pytest.mark.parametrize(
    "address", ["http://", "http://[", "http://:80", "http:///a.jpg", "https://a b/", "http://x:y/"]
)
def test_download_gives_a_reason_for_an_invalid_url(address: str, predictor: Predictor) -> None:
    assert reason(predictor, address).startswith("can't be fetched")


@settings(max_examples=30)
@given(rest=st.text(max_size=12))
def test_predictor_survives_arbitrary_urls(rest: str, predictor: Predictor, site: str) -> None:
    (found,) = predictor(f"{site}/{rest}")
    assert found.error is None or "\n" not in found.error
