"""Occlusion maps: a network's map is largest where it looks, and the report shows the maps of the worst cases."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from agegender.errors import AgeGenderError
from agegender.evaluation.report.report import write_report
from agegender.evaluation.saliency.occlusion import GRAY, occlusion_map
from agegender.evaluation.saliency.sections import heat_image, prediction_change
from agegender.evaluation.statistics.metrics import Floats
from agegender.tasks.info import TaskInfo

AGE = TaskInfo("age", "number", "age", ("age", "age_std", "age_low", "age_high"), (1, 1, 1, 1), unit="years")
GENDER = TaskInfo("gender", "binary", "gender", ("p_female",), (4,), classes=("male", "female"))
HAIR = TaskInfo("hair", "classes", "hair", ("p_a", "p_b", "p_c"), (4, 4, 4), classes=("a", "b", "c"))


@given(size=st.integers(10, 64), corner=st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_map_of_a_network_that_looks_at_one_patch_is_largest_there(size: int, corner: tuple[float, float]) -> None:
    side = max(2, size // 8)
    top, left = (round(place * (size - side)) for place in corner)
    pixels = np.full((size, size, 3), 255, np.uint8)

    def look(images: NDArray[np.uint8]) -> Floats:
        seen: Floats = images[:, top : top + side, left : left + side].mean((1, 2, 3))
        return np.abs(seen - 255)

    values = occlusion_map(pixels, look)
    place = np.unravel_index(values.argmax(), values.shape)
    reach = -(-size // 5)  # a patch that covers the place may stand out by its own side
    assert top - reach < place[0] < top + side + reach and left - reach < place[1] < left + side + reach
    assert values[top : top + side, left : left + side].mean() > values.mean()
    far = np.ones((size, size), bool)
    far[max(0, top - reach) : top + side + reach, max(0, left - reach) : left + side + reach] = False
    assert (values[far] == 0).all()


def test_map_of_a_pixel_is_the_mean_effect_of_the_patches_over_it() -> None:
    # 5 x 5 pixels: patches of one pixel, so each pixel has one patch
    pixels = np.zeros((5, 5, 1), np.uint8)
    weights = np.arange(25.0).reshape(5, 5)
    values = occlusion_map(pixels, lambda images: (images[..., 0] * weights).sum((1, 2)) / GRAY)
    np.testing.assert_allclose(values, weights)


def test_occlusion_leaves_the_image_unchanged() -> None:
    pixels = np.full((20, 20, 1), 9, np.uint8)
    occlusion_map(pixels, lambda images: np.zeros(len(images)))
    assert (pixels == 9).all()


def test_prediction_change_is_that_of_the_number_or_of_the_predicted_class() -> None:
    age = {"age": np.array([30.0])}
    assert prediction_change(AGE, age, {"age": np.array([25.0, 37.0])}).tolist() == [5, 7]
    male, female = {"p_female": np.array([0.1])}, {"p_female": np.array([0.8])}
    after = {"p_female": np.array([0.4, 0.05])}
    assert prediction_change(GENDER, male, after) == pytest.approx([0.3, 0])
    assert prediction_change(GENDER, female, after) == pytest.approx([0.4, 0.75])
    hair = {name: np.array([value]) for name, value in zip(HAIR.columns, (0.2, 0.7, 0.1), strict=True)}
    assert prediction_change(HAIR, hair, {name: np.array([0.5]) for name in HAIR.columns}) == pytest.approx([0.2])


def test_heat_image_is_red_at_the_largest_value_only() -> None:
    values = np.zeros((8, 8))
    values[2, 3] = 0.5
    image = np.asarray(heat_image(np.full((8, 8, 1), 200, np.uint8), values))
    assert image[2, 3].tolist() == [224, 56, 40] and image[5, 5].tolist() == [200, 200, 200]
    assert np.asarray(heat_image(np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4)))).max() == 0


@pytest.mark.usefixtures("undrawn")
def test_report_explains_the_worst_cases_beside_their_faces(trained_run: Path, tmp_path: Path) -> None:
    plain = write_report([trained_run], tmp_path / "plain", resamples=10, faces=2)
    page = write_report([trained_run], tmp_path / "explained", resamples=10, faces=2, explain=True).read_text()
    assert "explain=true" in page and "explain=true" not in plain.read_text()
    for task in ("age", "gender"):
        assert f"What the {task} errors depend on" in page and f"What the {task} errors" not in plain.read_text()
    assert len(re.findall(r"<br>|<figcaption>up to \d", page)) > 4
    assert len(re.findall(r"<figcaption>up to \d+\.?\d* years", page)) == 2


def test_report_explains_only_with_a_checkpoint(trained_run: Path, tmp_path: Path) -> None:
    shutil.copytree(trained_run, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints"))
    with pytest.raises(AgeGenderError, match="run"):
        write_report([tmp_path / "run"], tmp_path / "out", resamples=10, faces=1, explain=True)
    assert not (tmp_path / "out").exists()


def test_explained_predictions_are_those_of_the_run(trained_run: Path) -> None:
    from agegender.data.decode import eval_transform, read_image
    from agegender.evaluation.report.run_reader import read_run
    from agegender.prediction.backends.torch_backend import TorchBackend

    network, run = TorchBackend(trained_run), read_run(trained_run).predictions
    for row in (0, 7):
        pixels = eval_transform(read_image(run.paths[row]), network.image_size, network.grayscale).copy()
        assert network(pixels[np.newaxis])["age"][0] == pytest.approx(run.columns["age"][row], abs=0.06)
