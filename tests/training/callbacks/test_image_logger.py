"""The logged images show the counted values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from agegender.training.callbacks import image_logger
from agegender.training.callbacks.image_logger import ACCENT, PAPER, age_scatter, confusion_matrix


@pytest.fixture
def drawn_texts(monkeypatch: pytest.MonkeyPatch) -> list[tuple[tuple[float, float], str]]:
    """The texts that are drawn, with their positions."""
    texts: list[tuple[tuple[float, float], str]] = []
    draw_text = ImageDraw.ImageDraw.text

    def spy(self: ImageDraw.ImageDraw, xy: tuple[float, float], text: str, *rest: object, **options: object) -> None:
        texts.append((xy, text))
        draw_text(self, xy, text, *rest, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", spy)
    return texts


def test_confusion_matrix_has_a_row_per_label_and_a_column_per_prediction(
    drawn_texts: list[tuple[tuple[float, float], str]],
) -> None:
    true = np.array([0] * 5 + [1] * 4)
    predicted = np.array([0, 0, 0, 1, 1, 0, 1, 1, 1])
    confusion_matrix(true, predicted)
    cells = sorted(((xy[1], xy[0]), text) for xy, text in drawn_texts if "%" in text)  # row by row
    assert [text for _, text in cells] == ["3\n60.0 %", "2\n40.0 %", "1\n25.0 %", "3\n75.0 %"]


def test_confusion_matrix_is_drawn_without_one_of_the_labels(
    drawn_texts: list[tuple[tuple[float, float], str]],
) -> None:
    confusion_matrix(np.array([1, 1]), np.array([True, True]))
    assert [text for _, text in drawn_texts if "%" in text] == ["0\n0.0 %", "0\n0.0 %", "0\n0.0 %", "2\n100.0 %"]


def test_confusion_matrix_draws_fuller_cells_darker() -> None:
    sheet = confusion_matrix(np.array([0, 0, 0, 0, 1]), np.array([0, 0, 0, 1, 1]))
    brightness = [sum(sheet.getpixel(place)) for place in ((80, 80), (260, 80), (260, 260))]  # type: ignore[arg-type]
    assert brightness[1] > brightness[0] > brightness[2] == sum(ACCENT)


def bluish_pixels(sheet: Image.Image) -> NDArray[np.int64]:
    """Returns the positions (x, y) of bluish pixels: those of the points, as the rest is gray."""
    pixels = np.asarray(sheet).astype(int)
    places: NDArray[np.int64] = np.argwhere(pixels[..., 2] - pixels[..., 0] > 25)[:, ::-1]
    return places


@settings(max_examples=25)
@given(true=st.integers(0, 116), predicted=st.floats(0, 150))
def test_age_scatter_places_points_at_true_and_predicted_age(true: int, predicted: float) -> None:
    origin, unit = (bluish_pixels(age_scatter(np.array([x]), np.array([x]))).mean(0) for x in (0, 100))
    found = bluish_pixels(age_scatter(np.array([true]), np.array([predicted]))).mean(0) - origin
    top = max(100, int(np.ceil(max(true, predicted) / 20)) * 20)
    scale = (unit - origin) / top  # pixels per year; upwards is negative
    assert np.allclose(found, scale * np.array([true, predicted]), atol=1.6)


def test_age_scatter_keeps_ticks_and_labels_inside_the_image(
    drawn_texts: list[tuple[tuple[float, float], str]],
) -> None:
    sheet = age_scatter(np.array([5, 116]), np.array([9.0, 131.0]))
    assert {str(tick) for tick in range(0, 141, 20)} <= {text for _, text in drawn_texts}
    assert all(0 <= x <= sheet.width and 0 <= y <= sheet.height for (x, y), _ in drawn_texts)
    border = np.asarray(sheet)[[0, -1]]
    assert (border == PAPER).all()


def test_image_logger_needs_no_matplotlib() -> None:
    assert not any("matplotlib" in str(getattr(value, "__module__", "")) for value in vars(image_logger).values())
