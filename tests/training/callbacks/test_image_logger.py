"""The logged images show the counted values."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.nodes import age_task, gender_node
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import ImageDraw

from agegender.tasks.task import build_tasks
from agegender.training.callbacks import image_logger
from agegender.training.callbacks.image_logger import ACCENT, PAPER, confusion_matrix, predicted_codes, scatter

AGE = age_task("mae").info
GENDERS = ("male", "female")


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
    confusion_matrix(true, predicted, GENDERS)
    cells = sorted(((xy[1], xy[0]), text) for xy, text in drawn_texts if "%" in text)  # row by row
    assert [text for _, text in cells] == ["3\n60.0 %", "2\n40.0 %", "1\n25.0 %", "3\n75.0 %"]


def test_confusion_matrix_is_drawn_without_one_of_the_labels(
    drawn_texts: list[tuple[tuple[float, float], str]],
) -> None:
    confusion_matrix(np.array([1, 1]), np.array([True, True]), GENDERS)
    assert [text for _, text in drawn_texts if "%" in text] == ["0\n0.0 %", "0\n0.0 %", "0\n0.0 %", "2\n100.0 %"]


def test_confusion_matrix_draws_fuller_cells_darker() -> None:
    sheet = confusion_matrix(np.array([0, 0, 0, 0, 1]), np.array([0, 0, 0, 1, 1]), GENDERS)
    brightness = [sum(sheet.getpixel(place)) for place in ((80, 80), (260, 80), (260, 260))]  # type: ignore[arg-type]
    assert brightness[1] > brightness[0] > brightness[2] == sum(ACCENT)


def point_at(x: float, y: float) -> NDArray[np.float64]:
    """Returns the pixel (x, y) of a point of the scatter plot, whose axes go from 0 to 100."""
    ends = [0.0, 100.0]
    without = np.asarray(scatter(np.array(ends), np.array(ends), AGE)).astype(int)
    with_point = np.asarray(scatter(np.array([*ends, x]), np.array([*ends, y]), AGE)).astype(int)
    place: NDArray[np.float64] = np.argwhere((without != with_point).any(2))[:, ::-1].mean(0)
    return place


@settings(max_examples=25)
@given(true=st.integers(0, 100), predicted=st.floats(0, 100))
def test_scatter_places_points_at_true_and_predicted_value(true: int, predicted: float) -> None:
    origin, unit = point_at(0, 0), point_at(100, 100)
    found = point_at(true, predicted) - origin
    scale = (unit - origin) / 100  # pixels per year; upwards is negative
    assert scale[0] > 0 > scale[1] and np.allclose(found, scale * np.array([true, predicted]), atol=1.6)


@pytest.mark.parametrize(
    ("true", "predicted", "ticks"),
    [
        ([5, 116], [9.0, 131.0], {str(tick) for tick in range(0, 141, 20)}),
        ([-2.5, 1.0], [0.25, 2.0], {"-3", "-2", "0", "2"}),
        ([7e5], [8e5], {"0", "400000", "800000"}),
        ([-30.0], [-30.0], {"-30", "-10", "0"}),
        ([0.0], [0.0], {"0"}),
    ],
)
def test_scatter_keeps_ticks_and_labels_inside_the_image(
    true: list[float], predicted: list[float], ticks: set[str], drawn_texts: list[tuple[tuple[float, float], str]]
) -> None:
    sheet = scatter(np.array(true), np.array(predicted), AGE)
    assert ticks <= {text for _, text in drawn_texts} and "true age, years" in {text for _, text in drawn_texts}
    assert all(0 <= x <= sheet.width and 0 <= y <= sheet.height for (x, y), _ in drawn_texts)
    border = np.asarray(sheet)[[0, -1]]
    assert (border == PAPER).all()


def test_predicted_codes_are_the_likeliest_classes() -> None:
    hair = {"_target_": "agegender.tasks.Multiclass", "label": "hair", "classes": ["black", "brown", "red"]}
    gender, colors = (task.info for task in build_tasks({"gender": gender_node(), "hair": hair}).values())
    answers = dict(zip(colors.columns, np.array([[0.5, 0.2, 0.3], [0.1, 0.2, 0.7]]).T, strict=True))
    assert predicted_codes(answers | {"p_female": np.array([0.4, 0.6])}, gender).tolist() == [0, 1]
    assert predicted_codes(answers, colors).tolist() == [0, 2]


def test_image_logger_needs_no_matplotlib() -> None:
    assert not any("matplotlib" in str(getattr(value, "__module__", "")) for value in vars(image_logger).values())
