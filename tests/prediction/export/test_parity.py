"""The parity check of an export finds every difference beyond rounding, on the faces that it reports."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from agegender.errors import AgeGenderError
from agegender.prediction.backends.onnx_backend import OUTPUTS
from agegender.prediction.export import parity
from agegender.prediction.export.parity import MOST, TOLERANCE, check_faces, check_parity, check_quantized

# The faces


def test_check_faces_samples_evenly_from_many_images(faces: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MOST > 120
    monkeypatch.setattr(parity, "MOST", 50)
    part = check_faces(str(faces), 32, grayscale=True)
    assert part.pixels.shape == (40, 32, 32, 1) and part.words == f"40 of 120 images at {faces}"


def test_check_faces_skips_unreadable_images(faces: Path, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"nothing")
    (tmp_path / "b.jpg").write_bytes(min(faces.glob("*.jpg")).read_bytes())
    assert check_faces(str(tmp_path), 32, grayscale=False).words == f"1 of 2 images at {tmp_path}"


# The differences


def random_outputs(count: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    age = rng.uniform(1, 90, count)
    return np.stack([age, age / 5, np.floor(age * 0.8), np.ceil(age * 1.3), rng.random(count)], 1)


def test_check_parity_allows_whole_year_steps_in_one_percent_of_faces() -> None:
    theirs = random_outputs(200)
    ours = theirs.copy()
    ours[[3, 7], [2, 3]] += (1, -2)
    assert "2 of 200 faces by whole years" in check_parity(ours, theirs, "these")
    ours[11, 0] -= 1  # an age in whole years, as of CORAL
    with pytest.raises(AgeGenderError, match="3 of 200 faces"):
        check_parity(ours, theirs, "these")


@pytest.mark.parametrize("column", range(5))
@pytest.mark.parametrize("wrong", [2e-3, float("nan"), 40.5])
def test_check_parity_finds_one_different_face(column: int, wrong: float) -> None:
    theirs = random_outputs(200)
    ours = theirs.copy()
    ours[17, column] += wrong
    with pytest.raises(AgeGenderError, match="no file is written: on these"):
        check_parity(ours, theirs, "these")
    ours[17, column] = theirs[17, column] + 5e-4
    if column in (0, 1):  # tolerated on drawn faces only
        check_parity(ours, theirs, "these")
    with pytest.raises(AgeGenderError, match="no file is written: on these"):
        check_parity(ours, theirs, "these", drawn=False)
    ours[17, column] = theirs[17, column] + wrong
    if column in (0, 4) and wrong != 2e-3:
        with pytest.raises(AgeGenderError, match="precision=int8"):
            check_quantized(ours, theirs, "int8", parity.Faces(np.zeros((1, 2, 2, 3), np.uint8), "these", False))


def test_check_parity_treats_matching_nans_as_equal() -> None:
    theirs = random_outputs(10)
    theirs[:, 1:4] = np.nan
    assert "at most 0.0e+00 years" in check_parity(theirs.copy(), theirs, "these")
    assert len(TOLERANCE) == len(OUTPUTS)
