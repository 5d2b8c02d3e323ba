"""The parity check of an export finds every difference beyond rounding, on the faces that it reports."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.made_predictions import FIVE
from helpers.made_runs import AGE, GENDER, HEIGHT

from agegender.errors import AgeGenderError
from agegender.prediction.export import parity
from agegender.prediction.export.parity import MOST, Outputs, check_faces, check_parity, check_quantized

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


COLUMNS = [name for info in FIVE for name in info.columns]
FACES = parity.Faces(np.zeros((1, 2, 2, 3), np.uint8), "these", False)


def random_outputs(count: int) -> Outputs:
    rng = np.random.default_rng(0)
    age, height = rng.uniform(1, 90, count), rng.uniform(50, 200, count)
    ages = [age, age / 5, np.floor(age * 0.8), np.ceil(age * 1.3)]
    heights = [height, height / 9, height - 7.5, height + 7.5]
    shares = rng.dirichlet(np.ones(5), count).T
    return dict(zip(COLUMNS, [*ages, rng.random(count), rng.random(count), *heights, *shares], strict=True))


def changed(outputs: Outputs, column: str, face: int, by: float) -> Outputs:
    copies = {name: values.copy() for name, values in outputs.items()}
    copies[column][face] += by
    return copies


def test_check_parity_allows_whole_year_steps_in_one_percent_of_faces() -> None:
    theirs = random_outputs(200)
    ours = changed(changed(theirs, "age_low", 3, 1), "age_high", 7, -2)
    assert "2 of 200 faces by whole years" in check_parity(ours, theirs, FIVE, "these")
    ours = changed(ours, "age", 11, -1)  # an age in whole years, as of CORAL
    with pytest.raises(AgeGenderError, match="3 of 200 faces"):
        check_parity(ours, theirs, FIVE, "these")


def test_check_parity_allows_steps_of_any_size_for_ends_with_decimals() -> None:
    theirs = random_outputs(200)
    ours = changed(theirs, "height_low", 3, 0.25)
    assert "1 of 200 faces by steps in cm" in check_parity(ours, theirs, FIVE, "these")
    with pytest.raises(AgeGenderError, match=r"height_std by 2\.5e-01"):
        check_parity(changed(theirs, "height_std", 3, 0.25), theirs, FIVE, "these")


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("wrong", [2e-2, float("nan"), 40.5])
def test_check_parity_finds_one_different_face(column: str, wrong: float) -> None:
    theirs = random_outputs(200)
    if column not in ("height_low", "height_high") or wrong != wrong:  # others are steps
        with pytest.raises(AgeGenderError, match="no file is written: on these"):
            check_parity(changed(theirs, column, 17, wrong), theirs, FIVE, "these")
    if column in ("age", "height") or column.startswith("p_"):
        ours = changed(theirs, column, 17, wrong * 50_000)
        with pytest.raises(AgeGenderError, match="precision=int8"):
            check_quantized(ours, theirs, FIVE, "int8", FACES)


@pytest.mark.parametrize(("column", "drawn_only"), [("age", 5e-4), ("age_std", 5e-4), ("height", 5e-3)])
def test_check_parity_tolerates_ten_times_more_on_drawn_faces(column: str, drawn_only: float) -> None:
    theirs = random_outputs(200)
    ours = changed(theirs, column, 17, drawn_only)
    assert "of probability" in check_parity(ours, theirs, FIVE, "these")
    with pytest.raises(AgeGenderError, match=f"{column} by 5.0e-0"):
        check_parity(ours, theirs, FIVE, "these", drawn=False)


def test_check_parity_tolerates_the_rounding_of_large_numbers() -> None:
    theirs = {name: values * 1e5 for name, values in random_outputs(200).items() if name.startswith("height")}
    ours = {name: values * (1 + 2e-7) for name, values in theirs.items()}
    assert check_parity(ours, theirs, [HEIGHT], "these", drawn=False).endswith(" cm")
    with pytest.raises(AgeGenderError, match="differ"):
        check_parity({name: values * 1.0001 for name, values in theirs.items()}, theirs, [HEIGHT], "these")


def test_check_parity_treats_matching_nans_as_equal() -> None:
    theirs = random_outputs(10)
    for name in ("age_std", "age_low", "age_high"):
        theirs[name][:] = np.nan
    same = check_parity(changed(theirs, "age", 0, 0), theirs, (AGE, GENDER), "these")
    assert same == "at most 0.0e+00 years and 0.0e+00 of probability"
    assert check_quantized(theirs, theirs, FIVE, "int8", FACES) == (
        "0.0000 years, 0.00000 of probability and 0.0000 cm on average"
    )
