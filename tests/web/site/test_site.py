"""The exported site predicts in Chromium as predict.py does, without a network, and sends nothing anywhere."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from helpers import chromium
from helpers.chromium import CHROMIUM, file_server, launched
from PIL import Image

from agegender.data.sources.synthetic import draw_face
from agegender.errors import AgeGenderError
from agegender.prediction.prediction import to_row
from agegender.prediction.predictor import Predictor
from agegender.web.samples import draw_sample
from agegender.web.site.export import export_site
from agegender.web.site.runtime import NAMES, runtime_files

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page
else:
    pytest.importorskip("playwright", reason="the browser is driven by the package playwright")

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")]
UTKFACE = os.environ.get("UTKFACE_DIR")
PREDICT = """async ([content, detect]) => {
    const { predict } = await import("./backend.js");
    const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
    return predict(new Blob([bytes]), detect, new AbortController().signal);
}"""


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ONNX Runtime's files: the folder `dist` named by the variable ONNXRUNTIME_WEB, or a download."""
    if given := os.environ.get("ONNXRUNTIME_WEB"):
        return Path(given)
    folder = tmp_path_factory.mktemp("dist")
    try:
        files, _ = runtime_files(None)
    except AgeGenderError as error:
        if "can't be downloaded" in str(error):
            pytest.skip(f"{error}; for this test, set ONNXRUNTIME_WEB=<its folder dist>")
        raise
    for name in NAMES:
        (folder / name).write_bytes(files[name])
    return folder


@pytest.fixture(scope="module")
def site(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site") / "site"
    export_site(str(folder), runtime=str(dist))
    return folder


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    with file_server(site) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as browser:
        yield browser


@pytest.fixture(scope="module")
def open_page(browser: Browser, address: str) -> Iterator[Page]:
    """One page for the tests that only predict."""
    with chromium.open_page(browser, address, seconds=60) as page:
        yield page


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor("default", "cpu")


@pytest.fixture(scope="module")
def photograph() -> Image.Image:
    data = pytest.importorskip("skimage.data", reason="the photograph is scikit-image's")
    return Image.fromarray(data.astronaut())


def png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=1)
    return file.getvalue()


def pasted(face: Image.Image, number: int) -> Image.Image:
    """Returns a picture with a face at a size, a place and a rotation that depend on `number`."""
    generator = np.random.default_rng(number)
    side = int(generator.integers(90, 420))
    angle = (0, 8, -8, 0, 35, 90)[number % 6]
    turned = face.resize((side, side), Image.Resampling.BICUBIC).convert("RGBA")
    turned = turned.rotate(angle, Image.Resampling.BICUBIC, expand=True)
    size = ((900, 700), (1600, 1100), (2600, 1700))[number % 3]
    picture = Image.linear_gradient("L").resize(size).convert("RGB")
    place = [int(generator.integers(0, end - used)) for end, used in zip(size, turned.size, strict=True)]
    picture.paste(turned, (place[0], place[1]), turned)
    return picture


def compare(page: Page, predictor: Predictor, pictures: list[bytes]) -> None:
    """Asserts that 50 and more faces agree with predict.py on average, and nine of ten each within 0.1 years and 0.01.

    YuNet in OpenCV and in ONNX Runtime agree to about 0.00001 pixels. Where two cells of the detector have equal
    scores, or a face is turned and detected three times in a row, that decides between landmarks farther apart.
    """
    apart: list[tuple[float, ...]] = []
    for content in pictures:
        answer = page.evaluate(PREDICT, [base64.b64encode(content).decode(), None])
        expected = predictor(content)
        if expected[0].error:
            assert (answer["faces"], answer["error"]) == ([], expected[0].error)
            continue
        assert (answer["width"], answer["height"]) == Image.open(io.BytesIO(content)).size
        rows = [to_row(each, predictor.tasks) for each in expected]
        assert [list(face) for face in answer["faces"]] == [list(row)[1:-1] for row in rows]
        for face, row in zip(answer["faces"], rows, strict=True):
            shift = max(abs(face[side] - row[side]) for side in ("left", "top", "right", "bottom"))
            apart.append((abs(face["age"] - row["age"]), abs(face["p_female"] - row["p_female"]), shift))
    faces = np.array(apart)
    agreeing = (faces < (0.1, 0.01, 1.0)).all(1).mean()
    print(f"{len(faces)} faces, {agreeing:.1%} agree; mean {faces.mean(0)}, largest {faces.max(0)}")
    assert len(faces) >= 50 and agreeing >= 0.9
    assert (faces.mean(0) < (0.05, 0.005, 0.5)).all() and (faces.max(0) < (2.0, 0.1, 10.0)).all()


def test_site_predicts_50_drawn_and_pasted_faces_as_predict_py_does(
    open_page: Page, predictor: Predictor, photograph: Image.Image
) -> None:
    people = [((age, age % 2, age % 5), np.random.default_rng(age)) for age in range(2, 90, 3)]
    drawn = [draw_face(*person, generator, 200) for person, generator in people]
    face = photograph.crop((130, 0, 330, 200))
    pictures = [*drawn, *(pasted(face, number) for number in range(24)), photograph]
    compare(open_page, predictor, [png(each) for each in pictures] + [draw_sample("group.jpg")])


@pytest.mark.skipif(UTKFACE is None, reason="UTKFACE_DIR names no folder of UTKFace")
def test_site_predicts_50_faces_of_utkface_as_predict_py_does(open_page: Page, predictor: Predictor) -> None:
    files = sorted(Path(UTKFACE or "").glob("*.jpg"))
    faces = [Image.open(file).convert("RGB") for file in files[:: len(files) // 50][:50]]
    pictures = [pasted(face, number) if number % 2 else face for number, face in enumerate(faces)]
    compare(open_page, predictor, [png(each) for each in pictures])


@pytest.mark.parametrize("detect", ["always", "never"])
def test_site_takes_the_modes_of_the_detection(
    open_page: Page, predictor: Predictor, detect: Any, photograph: Image.Image
) -> None:
    content = png(photograph.crop((130, 0, 330, 200)))
    (face,) = open_page.evaluate(PREDICT, [base64.b64encode(content).decode(), detect])["faces"]
    (expected,) = predictor.with_detection(detect)(content)
    assert face["age"] == pytest.approx(expected.age, abs=0.1)
    assert (face["score"] is None) == (expected.score is None) == (detect == "never")


def rows_of(page: Page, name: str) -> list[list[str]]:
    """Waits for the predictions of the picture of this name and returns the rows of the table."""
    page.wait_for_function("name => document.getElementById('name').textContent === name", arg=name)
    page.wait_for_selector("#answer:not([hidden])")
    rows: list[list[str]] = page.eval_on_selector_all(
        "#faces tbody tr", "rows => rows.map(row => [...row.cells].map(cell => cell.textContent))"
    )
    return rows


def test_site_works_offline_with_uploads_samples_and_the_camera(
    browser: Browser, address: str, predictor: Predictor, photograph: Image.Image
) -> None:
    content = png(photograph)
    (expected,) = predictor(content)
    with chromium.open_page(browser, address, seconds=60) as page:
        assert page.locator("#unstarted").count() == 0 and page.locator("#script").is_hidden()
        assert "leaves this device at no time" in page.inner_text("#privacy")
        assert page.inner_text("#limits") == "Up to 40 megapixels."
        page.click("#samples button:last-child")
        assert len(rows_of(page, "drawn sample 6")) == 3  # the worker has started
        page.context.set_offline(True)
        page.set_input_files("#file", {"name": "a.png", "mimeType": "image/png", "buffer": content})
        ((_, age, within, gender, *_),) = rows_of(page, "a.png")
        assert float(age) == pytest.approx(expected.age, abs=0.11) and gender == expected.gender
        assert within == f"{expected.age_low:.0f}\u2013{expected.age_high:.0f}"
        page.click("#open-camera")
        page.wait_for_function("() => document.getElementById('video').videoWidth > 0")
        page.click("#take")
        assert rows_of(page, "camera picture") == []  # Chromium's fake camera shows no face
        assert page.inner_text("#status") == "No face was found in this picture." and page.inner_text("#error") == ""


def test_site_names_a_picture_that_can_not_be_read(open_page: Page) -> None:
    for content, error in ((b"", "the file is empty"), (b"no picture", "not a picture that this browser can read")):
        open_page.set_input_files("#file", {"name": "bad.png", "mimeType": "image/png", "buffer": content})
        open_page.wait_for_function(
            "text => document.getElementById('error').textContent === text", arg=f"bad.png: {error}"
        )


def test_a_later_picture_replaces_one_in_progress(browser: Browser, address: str, photograph: Image.Image) -> None:
    with chromium.open_page(browser, address, seconds=60) as page:
        large = png(photograph.resize((4000, 4000)))
        page.set_input_files("#file", {"name": "slow.png", "mimeType": "image/png", "buffer": large})
        page.set_input_files("#file", {"name": "next.png", "mimeType": "image/png", "buffer": png(photograph)})
        assert len(rows_of(page, "next.png")) == 1
        page.wait_for_timeout(500)
        assert page.inner_text("#name") == "next.png" and page.inner_text("#error") == ""


def test_policy_blocks_requests_to_other_origins_in_page_and_worker(browser: Browser, address: str, site: Path) -> None:
    send = "address => fetch(address).then(() => 'sent', error => error.name)"
    with file_server(site) as other:
        context = browser.new_context()
        page = context.new_page()
        arrived: list[str] = []
        context.on("response", lambda response: arrived.append(response.url))
        with page.expect_worker() as started:
            page.goto(address)
        page.wait_for_selector("#samples img")
        assert page.evaluate(send, f"{address}model.json") == "sent"
        assert page.evaluate(send, f"{other}model.json") == "TypeError"
        assert started.value.evaluate(send, f"{address}model.json") == "sent"
        assert started.value.evaluate(send, f"{other}model.json") == "TypeError"
        assert not any(url.startswith(other) for url in arrived)
        context.close()


@pytest.mark.parametrize(
    ("missing", "error"),
    [
        ("model.onnx", "model.onnx can't be loaded: 404 Not Found"),
        ("runtime/ort.wasm.min.mjs", "the files of this page can't be loaded"),
    ],
)
def test_site_reports_a_missing_file(
    browser: Browser, address: str, photograph: Image.Image, missing: str, error: str
) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.set_default_timeout(60_000)
    context.route(f"**/{missing}", lambda route: route.fulfill(status=404, body="not here"))
    page.goto(address)
    page.wait_for_selector("#samples img")
    page.set_input_files("#file", {"name": "a.png", "mimeType": "image/png", "buffer": png(photograph)})
    page.wait_for_selector("#error:not(:empty)")
    assert page.inner_text("#error") == f"a.png: {error}"
    context.close()


def test_site_opened_as_a_file_explains_that_it_needs_a_web_server(browser: Browser, site: Path) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(site.joinpath("index.html").as_uri())
    page.wait_for_timeout(2500)
    assert page.locator("#unstarted").is_visible() and "python -m http.server" in page.inner_text("#unstarted")
    context.close()
