"""Report and explore page in Chromium: at the width of a phone, and in dark mode."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

import pytest
from helpers.blank_plots import blank_plots
from helpers.chromium import CHROMIUM, launched
from helpers.made_runs import AGE, ETHNICITY, GENDER, HEIGHT, Made, make_run
from helpers.readability import broken_words, lowest_contrast, page_width

from agegender.evaluation.explore.explore import explore
from agegender.evaluation.report.report import write_report

if TYPE_CHECKING:
    from playwright.sync_api import Browser
else:
    pytest.importorskip("playwright", reason="the browser is driven by the package playwright")

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")
WIDTH = 390  # CSS pixels of a phone


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as browser:
        yield browser


def made(number: int) -> Made:
    probabilities: dict[str, float | str] = {
        name: 0.6 if place == number % 5 else 0.1 for place, name in enumerate(ETHNICITY.columns)
    }
    height = {
        "height": 160 + number,
        "height_pred": 163,
        "height_std": 4 + number % 3,
        "height_low": 150,
        "height_high": 170,
    }
    return Made(
        f"an_image_whose_name_has_no_place_to_break_and_is_wider_than_a_phone_{number}.jpg",
        *(number, number + 4.0, number % 2, 0.3 + 0.4 * (number % 3 == 0), number % 5),
        age_std=f"{3 + number % 4}",
        interval=(number, number + 9),
        more=probabilities | height,
    )  # fmt: skip


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The addresses of the pages."""
    folder = tmp_path_factory.mktemp("pages")
    run = make_run(
        folder / "a_folder_of_a_run_whose_name_is_wider_than_a_phone",
        [made(number) for number in range(60)],
        {"table": "labels.csv"},
        tasks=(AGE, GENDER, HEIGHT, ETHNICITY),
    )
    drawn = {"synthetic": {"count": 40, "size": 32}, "cache_dir": str(folder / "cache")}
    with blank_plots():
        paths = {
            "report": write_report([run], resamples=20, faces=3, thresholds=(18, 21)),
            "explore": explore(drawn, str(folder / "explore"), samples=8, outliers=4),
        }
    return {name: path.as_uri() for name, path in paths.items()}


@pytest.mark.parametrize("name", ["report", "explore"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_is_readable_on_a_phone_in_light_and_dark(
    browser: Browser, pages: dict[str, str], name: str, scheme: Literal["light", "dark"]
) -> None:
    page = browser.new_page(viewport={"width": WIDTH, "height": 844}, is_mobile=True, color_scheme=scheme)
    page.goto(pages[name])
    assert page_width(page) <= WIDTH
    assert broken_words(page, "td, th, dt, caption, h2, .sentence, .numbers *") == []
    ratio, text = lowest_contrast(page)
    assert ratio >= 4.5, text
    dark: bool = page.evaluate("getComputedStyle(document.body).backgroundColor !== 'rgb(255, 255, 255)'")
    assert dark == (scheme == "dark")
    backgrounds = page.eval_on_selector_all(
        ".plots img", "all => [...new Set(all.map(one => getComputedStyle(one).backgroundColor))]"
    )
    assert backgrounds == ["rgb(255, 255, 255)"]  # the plots' labels are dark in both
    page.close()


def test_pages_open_with_a_sentence_and_three_numbers(browser: Browser, pages: dict[str, str]) -> None:
    openings = {
        "report": ("Off by 4.0 years on average; right about gender for ", "4.0 years"),
        "explore": ("40 faces, half of them up to ", "40"),
    }
    page = browser.new_page()
    for name, (start, first) in openings.items():
        page.goto(pages[name])
        assert page.inner_text(".sentence").startswith(start)
        numbers = page.locator(".numbers strong").all_inner_texts()
        assert len(numbers) == 3 and numbers[0] == first
        places = page.eval_on_selector_all(".sentence, .numbers, .facts", "all => all.map(one => one.className)")
        assert places == ["sentence", "numbers", "facts"]
    page.close()


def test_report_sets_narrow_tables_beside_their_plot(browser: Browser, pages: dict[str, str]) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.goto(pages["report"])
    section = page.locator("section", has=page.locator("h2", has_text="Calibration of p_female"))
    table, plot = section.locator("table").bounding_box(), section.locator("img").bounding_box()
    assert table is not None and plot is not None
    assert plot["x"] > table["x"] + table["width"] and plot["y"] < table["y"] + table["height"]
    assert "UTKFace" not in page.inner_text("body") and "labels.csv" in page.locator(".note").all_inner_texts()[0]
    page.close()
