"""Risk-coverage curves and their area, against cases computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from agegender.evaluation.statistics.risk_coverage import risk_coverage

Floats = NDArray[np.float64]


def floats(*values: float) -> Floats:
    return np.array(values, dtype=np.float64)


def curve_of(uncertainty: Floats, losses: Floats, *weights: float) -> tuple[list[float], float]:
    """The risk at 1, 2, ..., n answered images, and the area."""
    counted = floats(*weights) if weights else np.ones(len(losses))
    total = int(counted.sum())
    risks, area = risk_coverage(counted[None], uncertainty, losses, np.arange(1, total + 1) / total)
    return risks[0].tolist(), float(area[0])


def test_risk_coverage_matches_hand_computation() -> None:
    # by uncertainty: losses 1, 0, 5, 2
    risks, area = curve_of(floats(3, 1, 2, 9), floats(5, 1, 0, 2))
    assert risks == pytest.approx([1, 1 / 2, 6 / 3, 8 / 4])
    assert area == pytest.approx((1 + 1 / 2 + 2 + 2) / 4)


def test_risk_coverage_of_ties_is_the_mean_over_their_orders() -> None:
    # loss 4 first, then two equal ones with losses 1 and 3: (4, 1, 3) or (4, 3, 1)
    risks, area = curve_of(floats(0, 5, 5), floats(4, 1, 3))
    assert risks == pytest.approx([4, (5 / 2 + 7 / 2) / 2, 8 / 3])
    assert area == pytest.approx((4 + 3 + 8 / 3) / 3)


def test_risk_coverage_of_equal_uncertainties_is_flat() -> None:
    risks, area = curve_of(np.full(4, 0.3), floats(1, 0, 0, 1))
    assert risks == pytest.approx([0.5] * 4) and area == pytest.approx(0.5)


def test_risk_coverage_counts_an_image_as_often_as_its_weight() -> None:
    uncertainty, losses = floats(1, 2, 3), floats(4, 1, 7)
    risks, area = curve_of(uncertainty, losses, 2, 0, 1)
    assert risks == pytest.approx([4, 4, 5]) and area == pytest.approx(13 / 3)


def test_risk_coverage_of_no_image_is_undefined() -> None:
    risks, area = risk_coverage(np.zeros((1, 2)), floats(1, 2), floats(1, 1), [0.5, 1])
    assert np.isnan(risks).all() and np.isnan(area).all()
    risks, area = risk_coverage(np.zeros((3, 0)), floats(), floats(), [1.0])
    assert risks.shape == (3, 1) and np.isnan(risks).all() and np.isnan(area).all()


faces = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9), st.integers(0, 2)), min_size=1, max_size=12)


@given(faces, st.randoms())
def test_risk_coverage_depends_on_no_order_of_the_rows(rows: list[tuple[int, int, int]], random: st.DataObject) -> None:
    mixed = list(rows)
    random.shuffle(mixed)  # type: ignore[attr-defined]
    one, other = (
        risk_coverage(table[None, :, 2], table[:, 0], table[:, 1], [0.3, 0.5, 1.0])
        for table in (np.array(rows, dtype=np.float64), np.array(mixed, dtype=np.float64))
    )
    np.testing.assert_allclose(one[0], other[0])
    np.testing.assert_allclose(one[1], other[1])


@given(faces)
def test_risk_of_all_images_is_their_mean_loss(rows: list[tuple[int, int, int]]) -> None:
    table = np.array(rows, dtype=np.float64)
    weights = table[:, 2] + 1
    risks, area = risk_coverage(weights[None], table[:, 0], table[:, 1], [1.0])
    assert risks[0, 0] == pytest.approx(np.average(table[:, 1], weights=weights))
    assert table[:, 1].min() - 1e-9 <= area[0] <= table[:, 1].max() + 1e-9
