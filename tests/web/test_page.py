"""The web page in a real browser: Chromium, headless, driven by Playwright."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from helpers import chromium
from helpers.chromium import CHROMIUM, launched
from helpers.made_networks import save_network
from helpers.made_predictions import TWO
from helpers.nodes import FURTHER, task_nodes
from helpers.readability import broken_words, lowest_contrast, page_width
from helpers.served import LIMITS, ask, served
from PIL import Image

from agegender.prediction.prediction import Prediction, columns_of, describe
from agegender.prediction.predictor import Predictor

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page
else:
    try:
        from playwright.sync_api import Browser, Page
    except ImportError:
        pytest.skip("the browser is driven by the package playwright", allow_module_level=True)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")
BOX = (20, 60, 140)  # the color of boxes and labels


@pytest.fixture(scope="module")
def address(trained_run: Path) -> Iterator[str]:
    with served(trained_run / "checkpoints" / "best.ckpt", min_confidence=0.5) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as browser:
        yield browser


@contextmanager
def open_page(browser: Browser, address: str, width: int = 1100, height: int = 800, **options: Any) -> Iterator[Page]:
    """Opens the page in a window of this size; see `chromium.open_page`."""
    size = {"width": width, "height": height}
    with chromium.open_page(browser, address, refusals=True, viewport=size, **options) as page:
        yield page


@pytest.fixture(scope="module")
def opened(browser: Browser, address: str) -> Iterator[Page]:
    """A tab for the tests that need no other settings of the browser."""
    with open_page(browser, address) as page:
        yield page


@pytest.fixture
def page(opened: Page) -> Page:
    """That tab, loaded anew."""
    opened.reload()
    opened.wait_for_selector("#samples img")
    return opened


@pytest.fixture(scope="module")
def photograph() -> bytes:
    data = pytest.importorskip("skimage.data", reason="the photograph is scikit-image's")
    return encoded(Image.fromarray(data.astronaut()), "JPEG", quality=92)


def encoded(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def upload_file(page: Page, name: str, content: bytes, kind: str = "image/jpeg") -> None:
    page.set_input_files("#file", {"name": name, "mimeType": kind, "buffer": content})


def wait_for_rows(page: Page, name: str) -> list[list[str]]:
    """Waits for the predictions of the image of this name and returns the rows of the table."""
    page.wait_for_function("name => document.getElementById('name').textContent === name", arg=name)
    page.wait_for_selector("#answer:not([hidden])")
    rows: list[list[str]] = page.eval_on_selector_all(
        "#faces tbody tr", "rows => rows.map(row => [...row.cells].map(cell => cell.textContent))"
    )
    return rows


def texts_of(page: Page, selector: str) -> list[str]:
    """Returns the texts of elements."""
    found: list[str] = page.eval_on_selector_all(selector, "all => all.map(one => one.textContent)")
    return found


def canvas(page: Page) -> Image.Image:
    """Returns the image on the canvas."""
    uri: str = page.eval_on_selector("#picture", "canvas => canvas.toDataURL()")
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB")


def box_bounds(page: Page) -> tuple[int, int, int, int] | None:
    """Returns the bounding box of the box-colored pixels of the canvas."""
    picture = canvas(page)
    mask = Image.new("1", picture.size)
    mask.putdata([pixel == BOX for pixel in picture.get_flattened_data()])
    return mask.getbbox()


def horizontal_overflow(page: Page) -> int:
    """Returns the width of the page beyond its window, in pixels."""
    wider: int = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    return wider


def assert_explained(page: Page, expected: Prediction) -> None:
    """Asserts that the page describes a face in words."""
    (words,) = (text.replace("\u00a0", " ") for text in texts_of(page, "#words li"))
    low, high, probability = expected.age_low, expected.age_high, describe(expected, TWO)[1].split(maxsplit=1)[1]
    assert words == (
        f"Face 1: age about {expected.age:.0f} years, between {low:.0f} and {high:.0f} with 80 % probability; "
        f"gender {expected.gender} with {probability} probability."
    )


def test_page_loads_and_explains_its_metrics(page: Page) -> None:
    assert page.title() == "agegender: age and gender from faces"
    about = "Predictions for the faces in a picture: an age with an interval, and a gender with its probability."
    assert page.inner_text("#predicts") == about
    meaning = page.inner_text("#meaning")
    for text in ("trained on drawn faces", "80 % of the test faces", "binary label", "non-commercial research only"):
        assert text in meaning
    assert re.match(r"Measured on \d+ test faces: the age is off by .* not measured\.", page.inner_text("#figures"))
    assert "Up to 3 MB and 2 megapixels" in page.inner_text("#drop")
    assert "/api/predict" in page.inner_text("#curl")
    assert page.locator("#samples button").count() == 6
    assert page.locator("#answer").is_hidden() and page.inner_text("#error") == ""


def test_page_shows_an_upload_with_a_box_a_row_and_words(page: Page, photograph: bytes, trained_run: Path) -> None:
    (expected,) = Predictor(trained_run, "cpu", min_confidence=0.5)(photograph)
    upload_file(page, "astronaut.jpg", photograph)
    ((number, age, within, gender, probability, score),) = wait_for_rows(page, "astronaut.jpg")
    words = ", ".join(describe(expected, TWO))
    assert (number, age, within) == ("1", f"{expected.age:.1f}", f"{expected.age_low:.0f}\u2013{expected.age_high:.0f}")
    assert (f"{gender} {probability}", score) == (describe(expected, TWO)[1], f"{expected.score:.2f}")
    assert page.inner_text("#status") == f"One face: {words}"
    assert page.get_attribute("#picture", "aria-label") == f"astronaut.jpg: {words}"
    picture, box = canvas(page), box_bounds(page)
    assert picture.size == (512, 512)  # large enough, not enlarged
    assert box is not None
    left, top, right, bottom = (edge or 0.0 for edge in (expected.left, expected.top, expected.right, expected.bottom))
    assert box[0] == pytest.approx(left, abs=4) and box[1] == pytest.approx(top, abs=4)
    assert right - 2 < box[2] < right + 120 and bottom < box[3] < bottom + 70  # the label is below the box
    inside = picture.crop((round(left) + 8, round(top) + 8, round(right) - 8, round(bottom) - 8))
    theirs = Image.open(io.BytesIO(photograph)).crop(
        (round(left) + 8, round(top) + 8, round(right) - 8, round(bottom) - 8)
    )
    assert inside.resize((4, 4)).tobytes() == pytest.approx(theirs.resize((4, 4)).tobytes(), abs=25)
    assert_explained(page, expected)


def test_page_shows_an_unsure_gender_without_a_probability(
    browser: Browser, photograph: bytes, trained_run: Path
) -> None:
    (expected,) = Predictor(trained_run, "cpu", min_confidence=1.0)(photograph)
    with (
        served(trained_run / "checkpoints" / "best.ckpt", min_confidence=1.0) as unsure,
        open_page(browser, unsure) as page,
    ):
        assert "is below 100 %, the gender is given as unsure" in page.inner_text("#meaning")
        upload_file(page, "astronaut.jpg", photograph)
        ((_, _, _, gender, probability, _),) = wait_for_rows(page, "astronaut.jpg")
        assert (gender, probability) == ("unsure", "\u2013")
        unsure_words = "gender unsure, as neither label has a probability of at least 100 % (min_confidence)."
        assert texts_of(page, "#words li")[0].replace("\u00a0", " ").endswith(unsure_words)
        words = ", ".join(describe(expected, TWO))
        assert words.endswith(", unsure") and page.inner_text("#status") == f"One face: {words}"
        assert page.get_attribute("#picture", "aria-label") == f"astronaut.jpg: {words}"
        assert box_bounds(page) is not None


def test_page_shows_every_kind_of_task(browser: Browser, faces: Path, tmp_path: Path) -> None:
    weights, picture = tmp_path / "wide.ckpt", min(faces.glob("*.jpg")).read_bytes()
    band = {"ages": "0-2", "images": 3, "age_mae": 1.54, "gender_acc": 0.5, "mood_acc": 0.25, "height_mae": None}
    metrics = {"test/age_mae": 5.04, "test/gender_acc": 0.9, "test/mood_acc": 0.7, "test/height_mae": 8.0}
    save_network(weights, tasks=task_nodes("dldl") | FURTHER)
    weights.with_suffix(".json").write_text(
        json.dumps(metrics | {"images/test": 1234, "bands": [band | {"coverage": 0.8}]})
    )
    predictor = Predictor(weights, "cpu", detect="never")
    (expected,) = predictor(picture)
    with served(weights, "never") as address, open_page(browser, address) as page:
        assert page.title() == "agegender: age, gender, mood, glasses and height from faces"
        assert page.inner_text("#figures") == (
            "Measured on 1,234 test faces: the age is off by 5.0 years on average, the gender agrees with the label "
            "for 90 %, the mood agrees with the label for 70 %, and the height is off by 8.0 cm on average."
        )
        assert texts_of(page, "#bands th") == [
            *("true age", "test faces", "age: mean error, years", "gender correct", "mood correct", "glasses correct"),
            *("height: mean error, cm", "age in its interval"),
        ]
        assert texts_of(page, "#bands td") == ["0\u20132", "3", "1.5", "50 %", "25 %", "\u2013", "\u2013", "80 %"]
        upload_file(page, "face.jpg", picture)
        (cells,) = wait_for_rows(page, "face.jpg")
        heads = [head.replace("\u00ad", "") for head in texts_of(page, "#faces th")]
        class_heads = ["gender", "probability", "mood", "probability", "glasses", "probability"]
        assert heads == ["face", "age", "80 % interval", *class_heads, "height", "80 % interval", "detection"]
        texts = describe(expected, predictor.tasks)
        assert page.inner_text("#status") == f"One face: {', '.join(texts)}"
        assert [f"{task}: {' '.join(cells[place : place + 2])}" for task, place in (("mood", 5), ("glasses", 7))] == (
            texts[2:4]
        )
        height, low, high = (expected.values[name] for name in ("height", "height_low", "height_high"))
        assert cells[9:] == [f"{height:.2f}", f"{low:.2f}\u2013{high:.2f}", "\u2013"]
        assert horizontal_overflow(page) <= 0
        page.set_viewport_size({"width": 360, "height": 640})
        upload_file(page, "again.jpg", picture)
        wait_for_rows(page, "again.jpg")
        assert horizontal_overflow(page) <= 0


def test_page_shows_an_image_upright_with_its_box(page: Page, photograph: bytes) -> None:
    upright = Image.open(io.BytesIO(photograph)).crop((100, 0, 350, 400))
    exif = Image.Exif()
    exif[0x0112] = 6
    upload_file(page, "upright.png", encoded(upright), "image/png")
    (expected,) = wait_for_rows(page, "upright.png")
    box = box_bounds(page)
    upload_file(
        page, "turned.jpg", encoded(upright.transpose(Image.Transpose.ROTATE_90), "JPEG", quality=98, exif=exif)
    )
    (row,) = wait_for_rows(page, "turned.jpg")
    picture = canvas(page)
    assert picture.width / picture.height == pytest.approx(250 / 400, rel=0.01)
    assert box is not None and box_bounds(page) == pytest.approx(box, abs=5)
    assert float(row[1]) == pytest.approx(float(expected[1]), abs=3)


def test_page_accepts_pasted_and_dropped_images(page: Page, photograph: bytes) -> None:
    hand_over = """([kind, name, content]) => {
        const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
        const data = new DataTransfer();
        data.items.add(new File([bytes], name, {type: "image/jpeg"}));
        const event = kind === "paste"
            ? new ClipboardEvent("paste", {clipboardData: data, bubbles: true})
            : new DragEvent("drop", {dataTransfer: data, bubbles: true, cancelable: true});
        document.querySelector("main").dispatchEvent(event);
    }"""
    for kind in ("paste", "drop"):
        page.evaluate(hand_over, [kind, f"{kind}.jpg", base64.b64encode(photograph).decode()])
        assert len(wait_for_rows(page, f"{kind}.jpg")) == 1
    page.evaluate("document.dispatchEvent(new ClipboardEvent('paste', {clipboardData: new DataTransfer()}))")
    assert page.inner_text("#error") == "the clipboard contains no picture"


def test_page_names_a_refused_file_with_the_reason(page: Page, faces: Path) -> None:
    face = min(faces.glob("*.jpg")).read_bytes()
    upload_file(page, "good.jpg", face)
    wait_for_rows(page, "good.jpg")
    for content, error in (
        (b"no picture", "not a picture that can be read"),
        (b"", "the file is empty"),
        (b"\0" * (LIMITS.size + 1), "too large: the limit is 3 MB"),
        (encoded(Image.new("1", (2000, 2000))), "too many pixels: 4.0 megapixels; the limit is 2 megapixels"),
    ):
        upload_file(page, "bad.jpg", content)
        page.wait_for_selector("#error:not(:empty)")
        assert page.inner_text("#error") == f"bad.jpg: {error}"
        assert page.locator("#answer").is_hidden()  # the previous predictions are hidden
        again = f"after {error}.jpg"
        upload_file(page, again, face)
        assert len(wait_for_rows(page, again)) == 1 and page.inner_text("#error") == ""


def test_page_answers_that_an_image_has_no_face(page: Page) -> None:
    upload_file(page, "teal.png", encoded(Image.new("RGB", (300, 200), "teal")), "image/png")
    assert wait_for_rows(page, "teal.png") == []
    assert page.inner_text("#status") == "No face was found in this picture." and page.inner_text("#error") == ""
    assert page.locator("#marked").is_hidden() and page.locator("#csv").is_visible()
    assert page.locator("#faces").is_hidden() and box_bounds(page) is None
    assert canvas(page).size == (540, 360)  # small pictures are enlarged, so that labels can be read


def test_page_fills_the_table_for_an_image_that_it_can_not_show(page: Page, photograph: bytes) -> None:
    upload_file(page, "photo.tiff", encoded(Image.open(io.BytesIO(photograph)), "TIFF"), "image/tiff")
    assert len(wait_for_rows(page, "photo.tiff")) == 1
    assert page.locator("#undrawn").is_visible() and page.locator("#picture").is_hidden()


def test_page_escapes_file_names(page: Page, photograph: bytes) -> None:
    name = "<img src=x onerror=document.title='hacked'><b>.jpg"
    upload_file(page, name, photograph)
    assert len(wait_for_rows(page, name)) == 1
    upload_file(page, name, b"broken")
    page.wait_for_selector("#error:not(:empty)")
    assert page.inner_text("#error").startswith(name)
    assert page.locator("main b, main img[src=x]").count() == 0 and page.title() != "hacked"


def test_samples_can_be_chosen_by_mouse_and_keyboard(page: Page) -> None:
    page.click("#samples button:first-child")
    assert len(wait_for_rows(page, "drawn sample 1")) == 1
    page.focus("#samples button:last-child")
    page.keyboard.press("Enter")
    assert len(wait_for_rows(page, "drawn sample 6")) == 3
    assert page.inner_text("#status").startswith("3 faces: ")


def test_camera_takes_one_frame_and_is_closed(page: Page) -> None:
    page.click("#open-camera")
    page.wait_for_function("() => document.getElementById('video').videoWidth > 0")
    page.click("#take")
    assert wait_for_rows(page, "camera picture") == []  # Chromium's fake camera shows no face
    assert page.locator("#camera").is_hidden() and page.locator("#open-camera").is_enabled()
    assert page.evaluate("document.getElementById('video').srcObject") is None


def test_page_explains_a_missing_camera(browser: Browser, address: str) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.add_init_script("Object.defineProperty(navigator, 'mediaDevices', {value: undefined})")
    page.goto(address)
    page.wait_for_selector("#no-camera:not([hidden])")
    assert page.locator("#open-camera").is_disabled() and "camera" in page.inner_text("#no-camera")
    context.close()


def test_page_fits_the_width_of_a_phone(browser: Browser, address: str, photograph: bytes) -> None:
    width = 320
    with open_page(browser, address, width, 640, device_scale_factor=2, has_touch=True, is_mobile=True) as page:
        assert horizontal_overflow(page) <= 0
        upload_file(page, "a_name_without_any_place_to_break_it_that_is_longer_than_a_phone_is_wide.jpg", photograph)
        assert (
            len(wait_for_rows(page, "a_name_without_any_place_to_break_it_that_is_longer_than_a_phone_is_wide.jpg"))
            == 1
        )
        assert horizontal_overflow(page) <= 0
        across: float = page.eval_on_selector("#picture", "canvas => canvas.getBoundingClientRect().width")
        assert 0.8 * width < across <= width and canvas(page).width == pytest.approx(2 * across, abs=2)
        page.click("#samples button:last-child")
        assert len(wait_for_rows(page, "drawn sample 6")) == 3
        assert horizontal_overflow(page) <= 0


def several(photograph: bytes) -> list[Any]:
    """A picture with a face, one without, a broken one, and one whose name is a formula with a quote and a comma."""
    contents = {
        "astronaut.jpg": photograph,
        "teal.png": encoded(Image.new("RGB", (300, 200), "teal")),
        "broken.jpg": b"no picture",
        '=a"b,c.jpg': photograph,
    }
    return [{"name": name, "mimeType": "image/jpeg", "buffer": content} for name, content in contents.items()]


def test_page_lists_several_pictures_and_shows_the_chosen_one(page: Page, photograph: bytes, trained_run: Path) -> None:
    (expected,) = Predictor(trained_run, "cpu", min_confidence=0.5)(photograph)
    page.set_input_files("#file", several(photograph))
    page.wait_for_selector("#csv:not([hidden])")
    words = ", ".join(describe(expected, TWO))
    assert texts_of(page, "#pictures span") == [words, "no face", "not a picture that can be read", words]
    assert page.inner_text("#status") == "4 pictures: 2 with faces, 1 without, 1 that failed"
    assert page.inner_text("#name") == "astronaut.jpg"
    page.click("#pictures li:nth-child(3) button")
    page.wait_for_selector("#error:not(:empty)")
    assert page.inner_text("#error") == "broken.jpg: not a picture that can be read"
    assert page.locator("#answer").is_hidden()
    page.click("#pictures li:nth-child(4) button")
    assert len(wait_for_rows(page, '=a"b,c.jpg')) == 1 and page.inner_text("#error") == ""
    current = "all => all.map(one => one.getAttribute('aria-current'))"
    assert page.eval_on_selector_all("#pictures button", current) == ["false", "false", "false", "true"]
    upload_file(page, "one.jpg", photograph)
    wait_for_rows(page, "one.jpg")
    assert page.locator("#several").is_hidden()  # later pictures replace earlier ones


def test_page_saves_the_answers_of_the_api_as_csv(page: Page, address: str, photograph: bytes) -> None:
    page.set_input_files("#file", several(photograph))
    page.wait_for_selector("#csv:not([hidden])")
    with page.expect_download() as saved:
        page.click("#csv")
    assert saved.value.suggested_filename == "answers.csv"
    rows = list(csv.DictReader(io.StringIO(saved.value.path().read_bytes().decode(), newline="")))
    assert list(rows[0]) == list(columns_of(TWO))
    answers = [ask(address, body=each["buffer"]).json for each in several(photograph)]
    paths = ("astronaut.jpg", "teal.png", "broken.jpg", './=a"b,c.jpg')
    for row, path, answer in zip(rows, paths, answers, strict=True):
        (face,) = answer.get("faces") or [dict.fromkeys(name for name in row if name not in ("path", "error"))]
        assert (row.pop("path"), row.pop("error")) == (path, answer["error"] or "")
        for name, value in row.items():
            given = face[name]
            assert (float(value) == given) if isinstance(given, float | int) else value == (given or "")


def test_page_saves_the_marked_picture_as_large_as_it_was(page: Page, photograph: bytes) -> None:
    large = Image.open(io.BytesIO(photograph)).resize((1400, 1400))
    upload_file(page, "large.photo.jpg", encoded(large, "JPEG"))
    wait_for_rows(page, "large.photo.jpg")
    with page.expect_download() as saved:
        page.click("#marked")
    assert saved.value.suggested_filename == "large.photo_marked.jpg"
    marked = Image.open(saved.value.path()).convert("RGB")
    assert marked.format is None and marked.size == pytest.approx(large.size, abs=2)
    away = np.abs(np.asarray(marked, np.int64) - BOX).max(axis=2)
    assert (away < 25).sum() > 2000  # pixels of box and label, changed a little by JPEG


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_is_readable_on_a_phone_in_light_and_dark(
    browser: Browser, address: str, photograph: bytes, scheme: str
) -> None:
    with open_page(browser, address, 390, 844, is_mobile=True, color_scheme=scheme) as page:
        page.set_input_files("#file", several(photograph))
        page.wait_for_selector("#csv:not([hidden])")
        for chosen, wait in ((3, "#error:not(:empty)"), (1, "#answer:not([hidden])")):
            page.click(f"#pictures li:nth-child({chosen}) button")
            page.wait_for_selector(wait)
            assert page_width(page) <= 390
            assert broken_words(page, "td, th, h1, h2, button, #words") == []
            ratio, text = lowest_contrast(page)
            assert ratio >= 4.5, text


def test_page_reports_an_unreachable_server(browser: Browser, address: str, photograph: bytes) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(address)
    page.wait_for_selector("#samples img")
    page.route("**/api/predict*", lambda route: route.abort())
    upload_file(page, "photo.jpg", photograph)
    page.wait_for_selector("#error:not(:empty)")
    assert page.inner_text("#error") == "photo.jpg: the server can't be reached"
    context.close()
