"""The web page in a real browser: Chromium, headless, driven by Playwright."""

from __future__ import annotations

import base64
import io
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from helpers.served import LIMITS, served
from PIL import Image

from agegender.prediction.prediction import describe
from agegender.prediction.predictor import Predictor

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page
else:
    try:
        from playwright.sync_api import Browser, Page
    except ImportError:
        pytest.skip("the browser is driven by the package playwright", allow_module_level=True)

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --use-fake-device-for-media-stream --use-fake-ui-for-media-stream"
)
BOX = (20, 60, 140)  # the color of boxes and labels


@pytest.fixture(scope="module")
def address(trained_run: Path) -> Iterator[str]:
    with served(trained_run / "checkpoints" / "best.ckpt", min_confidence=0.5) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS.split())
        yield browser
        browser.close()


@contextmanager
def opened(browser: Browser, address: str, width: int = 1100, height: int = 800, **options: Any) -> Iterator[Page]:
    """Opens the page; at the end, no request may have gone elsewhere, and nothing may have failed but an answer."""
    context = browser.new_context(viewport={"width": width, "height": height}, **options)
    page = context.new_page()
    page.set_default_timeout(20_000)
    asked: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    try:
        page.goto(address)
        page.wait_for_selector("#samples img")
        yield page
    finally:
        context.close()
    hosts = {urlsplit(url).netloc for url in asked if not url.startswith("blob:")}
    assert hosts == {urlsplit(address).netloc}
    # Chromium itself notes each refused upload
    assert [text for text in complaints if "the server responded with a status of 4" not in text] == []


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    with opened(browser, address) as page:
        yield page


@pytest.fixture(scope="module")
def photograph() -> bytes:
    data = pytest.importorskip("skimage.data", reason="the photograph is scikit-image's")
    return encoded(Image.fromarray(data.astronaut()), "JPEG", quality=92)


def encoded(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def choose(page: Page, name: str, content: bytes, kind: str = "image/jpeg") -> None:
    page.set_input_files("#file", {"name": name, "mimeType": kind, "buffer": content})


def answered(page: Page, name: str) -> list[list[str]]:
    """Waits for the answer to the picture of this name; returns the table's rows."""
    page.wait_for_function("name => document.getElementById('name').textContent === name", arg=name)
    page.wait_for_selector("#answer:not([hidden])")
    rows: list[list[str]] = page.eval_on_selector_all(
        "#faces tbody tr", "rows => rows.map(row => [...row.cells].map(cell => cell.textContent))"
    )
    return rows


def canvas(page: Page) -> Image.Image:
    """Returns what is drawn."""
    uri: str = page.eval_on_selector("#picture", "canvas => canvas.toDataURL()")
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB")


def drawn(page: Page) -> tuple[int, int, int, int] | None:
    """Returns what of the canvas, in its pixels, lies between the outermost pixels of the boxes' color."""
    picture = canvas(page)
    mask = Image.new("1", picture.size)
    mask.putdata([pixel == BOX for pixel in picture.get_flattened_data()])
    return mask.getbbox()


def sideways(page: Page) -> int:
    """Returns by how much the page is wider than its window."""
    wider: int = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    return wider


def test_the_page_loads_and_says_what_its_figures_mean(page: Page) -> None:
    assert "age and gender" in page.title()
    meaning = page.inner_text("#meaning")
    for text in ("trained on drawn faces", "80 % of the test faces", "binary label", "non-commercial research only"):
        assert text in meaning
    assert re.match(r"Measured on \d+ test faces: the age is off by .* not measured\.", page.inner_text("#figures"))
    assert "Up to 3 MB and 2 megapixels" in page.inner_text("#drop")
    assert "/api/predict" in page.inner_text("#curl")
    assert page.locator("#samples button").count() == 6
    assert page.locator("#answer").is_hidden() and page.inner_text("#error") == ""


def test_an_upload_is_answered_with_a_box_on_the_picture_and_a_row(
    page: Page, photograph: bytes, trained_run: Path
) -> None:
    (expected,) = Predictor(trained_run, "cpu", min_confidence=0.5)(photograph)
    choose(page, "astronaut.jpg", photograph)
    ((number, age, within, gender, probability, score),) = answered(page, "astronaut.jpg")
    words = ", ".join(describe(expected))
    assert (number, age, within) == ("1", f"{expected.age:.1f}", f"{expected.age_low:.0f}\u2013{expected.age_high:.0f}")
    assert (f"{gender} {probability}", score) == (describe(expected)[1], f"{expected.score:.2f}")
    assert page.inner_text("#status") == f"One face: {words}"
    assert page.get_attribute("#picture", "aria-label") == f"astronaut.jpg: {words}"
    picture, box = canvas(page), drawn(page)
    assert picture.size == (512, 512)  # large enough as it is
    assert box is not None
    left, top, right, bottom = (edge or 0.0 for edge in (expected.left, expected.top, expected.right, expected.bottom))
    assert box[0] == pytest.approx(left, abs=4) and box[1] == pytest.approx(top, abs=4)
    assert right - 2 < box[2] < right + 120 and bottom < box[3] < bottom + 70  # the label is below the box
    inside = picture.crop((round(left) + 8, round(top) + 8, round(right) - 8, round(bottom) - 8))
    theirs = Image.open(io.BytesIO(photograph)).crop(
        (round(left) + 8, round(top) + 8, round(right) - 8, round(bottom) - 8)
    )
    assert inside.resize((4, 4)).tobytes() == pytest.approx(theirs.resize((4, 4)).tobytes(), abs=25)


def test_an_unsure_gender_is_told_without_a_probability(browser: Browser, photograph: bytes, trained_run: Path) -> None:
    (expected,) = Predictor(trained_run, "cpu", min_confidence=1.0)(photograph)
    with (
        served(trained_run / "checkpoints" / "best.ckpt", min_confidence=1.0) as unsure,
        opened(browser, unsure) as page,
    ):
        assert "is below 100 %, the gender is given as unsure" in page.inner_text("#meaning")
        choose(page, "astronaut.jpg", photograph)
        ((_, _, _, gender, probability, _),) = answered(page, "astronaut.jpg")
        assert (gender, probability) == ("unsure", "\u2013")
        words = ", ".join(describe(expected))
        assert words.endswith(", unsure") and page.inner_text("#status") == f"One face: {words}"
        assert page.get_attribute("#picture", "aria-label") == f"astronaut.jpg: {words}"
        assert drawn(page) is not None


def test_a_picture_stored_on_its_side_is_shown_upright_with_its_box(page: Page, photograph: bytes) -> None:
    upright = Image.open(io.BytesIO(photograph)).crop((100, 0, 350, 400))
    exif = Image.Exif()
    exif[0x0112] = 6
    choose(page, "upright.png", encoded(upright), "image/png")
    (expected,) = answered(page, "upright.png")
    box = drawn(page)
    choose(page, "turned.jpg", encoded(upright.transpose(Image.Transpose.ROTATE_90), "JPEG", quality=98, exif=exif))
    (row,) = answered(page, "turned.jpg")
    picture = canvas(page)
    assert picture.width / picture.height == pytest.approx(250 / 400, rel=0.01)
    assert box is not None and drawn(page) == pytest.approx(box, abs=5)
    assert float(row[1]) == pytest.approx(float(expected[1]), abs=3)


def test_a_pasted_and_a_dropped_picture_are_answered(page: Page, photograph: bytes) -> None:
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
        assert len(answered(page, f"{kind}.jpg")) == 1
    page.evaluate("document.dispatchEvent(new ClipboardEvent('paste', {clipboardData: new DataTransfer()}))")
    assert page.inner_text("#error") == "the clipboard contains no picture"


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"no picture", "not a picture that can be read"),
        (b"", "the file is empty"),
        (b"\0" * (LIMITS.size + 1), "too large: the limit is 3 MB"),
        (encoded(Image.new("1", (2000, 2000))), "too many pixels: 4.0 megapixels; the limit is 2 megapixels"),
    ],
    ids=["broken", "empty", "too large", "too many pixels"],
)
def test_a_file_that_is_refused_is_named_with_the_reason(
    page: Page, photograph: bytes, content: bytes, error: str
) -> None:
    choose(page, "good.jpg", photograph)
    answered(page, "good.jpg")
    choose(page, "bad.jpg", content)
    page.wait_for_selector("#error:not(:empty)")
    assert page.inner_text("#error") == f"bad.jpg: {error}"
    assert page.locator("#answer").is_hidden()  # nobody is to take the old answer for the new one's
    choose(page, "again.jpg", photograph)
    assert len(answered(page, "again.jpg")) == 1 and page.inner_text("#error") == ""


def test_a_picture_without_a_face_is_shown_and_says_so(page: Page) -> None:
    choose(page, "teal.png", encoded(Image.new("RGB", (300, 200), "teal")), "image/png")
    assert answered(page, "teal.png") == []
    assert page.inner_text("#error") == "teal.png: no face found"
    assert page.locator("#faces").is_hidden() and drawn(page) is None
    assert canvas(page).size == (540, 360)  # small pictures are enlarged, so that labels can be read


def test_a_picture_that_the_browser_can_not_show_is_answered_in_the_table(page: Page, photograph: bytes) -> None:
    choose(page, "photo.tiff", encoded(Image.open(io.BytesIO(photograph)), "TIFF"), "image/tiff")
    assert len(answered(page, "photo.tiff")) == 1
    assert page.locator("#undrawn").is_visible() and page.locator("#picture").is_hidden()


def test_a_file_name_is_text_and_never_part_of_the_page(page: Page, photograph: bytes) -> None:
    name = "<img src=x onerror=document.title='hacked'><b>.jpg"
    choose(page, name, photograph)
    assert len(answered(page, name)) == 1
    choose(page, name, b"broken")
    page.wait_for_selector("#error:not(:empty)")
    assert page.inner_text("#error").startswith(name)
    assert page.locator("main b, main img[src=x]").count() == 0 and page.title() != "hacked"


def test_samples_are_answered_by_mouse_and_by_keyboard(page: Page) -> None:
    page.click("#samples button:first-child")
    assert len(answered(page, "drawn sample 1")) == 1
    page.focus("#samples button:last-child")
    page.keyboard.press("Enter")
    assert len(answered(page, "drawn sample 6")) == 3
    assert page.inner_text("#status").startswith("3 faces: ")


def test_the_camera_gives_one_frame_and_is_closed_again(page: Page) -> None:
    page.click("#open-camera")
    page.wait_for_function("() => document.getElementById('video').videoWidth > 0")
    page.click("#take")
    assert answered(page, "camera picture") == []  # Chromium's stand-in for a camera shows no face
    assert page.locator("#camera").is_hidden() and page.locator("#open-camera").is_enabled()
    assert page.evaluate("document.getElementById('video').srcObject") is None


def test_without_a_camera_the_page_says_why(browser: Browser, address: str) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.add_init_script("Object.defineProperty(navigator, 'mediaDevices', {value: undefined})")
    page.goto(address)
    page.wait_for_selector("#no-camera:not([hidden])")
    assert page.locator("#open-camera").is_disabled() and "camera" in page.inner_text("#no-camera")
    context.close()


@pytest.mark.parametrize("width", [360, 320])
def test_a_phone_shows_everything_without_scrolling_sideways(
    browser: Browser, address: str, photograph: bytes, width: int
) -> None:
    with opened(browser, address, width, 640, device_scale_factor=2, has_touch=True, is_mobile=True) as page:
        assert sideways(page) <= 0
        choose(page, "a_name_without_any_place_to_break_it_that_is_longer_than_a_phone_is_wide.jpg", photograph)
        assert len(answered(page, "a_name_without_any_place_to_break_it_that_is_longer_than_a_phone_is_wide.jpg")) == 1
        assert sideways(page) <= 0
        across: float = page.eval_on_selector("#picture", "canvas => canvas.getBoundingClientRect().width")
        assert 0.8 * width < across <= width and canvas(page).width == pytest.approx(2 * across, abs=2)
        page.click("#samples button:last-child")
        assert len(answered(page, "drawn sample 6")) == 3
        assert sideways(page) <= 0


def test_a_server_that_went_away_is_said_to_be_out_of_reach(browser: Browser, address: str, photograph: bytes) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(address)
    page.wait_for_selector("#samples img")
    page.route("**/api/predict*", lambda route: route.abort())
    choose(page, "photo.jpg", photograph)
    page.wait_for_selector("#error:not(:empty)")
    assert page.inner_text("#error") == "photo.jpg: the server can't be reached"
    context.close()
