"""Selective prediction: the risk of the answered images by the fraction that is answered."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from agegender.evaluation.statistics.metrics import Floats, safe_divide


def risk_coverage(
    weights: Floats, uncertainty: Floats, losses: Floats, coverages: Sequence[float] | Floats
) -> tuple[Floats, Floats]:
    """Return the mean loss of the most certain images at each coverage, and the area under the risk-coverage curve.

    The curve is that of El-Yaniv and Wiener, "On the Foundations of Noise-free Selective Classification", JMLR 2010,
    for networks in Geifman and El-Yaniv, "Selective Classification for Deep Neural Networks", NeurIPS 2017. The area
    (AURC) is the mean of the risks at 1, 2, ..., n answered images. Images of equal uncertainty are answered in random
    order, of which this is the exact expectation, so the order of the rows has no effect.

    Args:
        weights: `[b, n]`, how often each image counts: whole numbers.
        uncertainty: `[n]`, finite; the lowest is answered first.
        losses: `[n]`, loss of each image.
        coverages: `[k]`, fractions of the images that are answered, above 0 and up to 1.

    Returns:
        The risks `[b, k]`, and the area `[b]`; NaN where no image counts.
    """
    order = np.argsort(uncertainty, kind="stable")
    first = np.flatnonzero(np.diff(uncertainty[order], prepend=-np.inf) > 0)  # of each level of uncertainty
    if not len(first):
        return np.full((len(weights), len(coverages)), np.nan), np.full(len(weights), np.nan)
    counted = weights[:, order]
    images = np.add.reduceat(counted, first, axis=1)
    lost = np.add.reduceat(counted * losses[order], first, axis=1)
    until, risked = np.cumsum(images, axis=1), np.cumsum(lost, axis=1)  # up to each level, including it
    before, earlier = until - images, risked - lost
    mean = np.divide(lost, images, out=np.zeros_like(lost), where=images > 0)
    total = until[:, -1]
    # The sum of (earlier + j * mean) / (before + j) over the level's images j = 1, 2, ..., by harmonic numbers.
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, int(total.max()) + 1))])
    span = harmonic[until.astype(np.int64)] - harmonic[before.astype(np.int64)]
    area = safe_divide((lost + (earlier - before * mean) * span).sum(1), total)
    risks = [_risk_at(fraction * total, until, before, earlier, mean) for fraction in coverages]
    return np.stack(risks, axis=1), area


def _risk_at(answered: Floats, until: Floats, before: Floats, earlier: Floats, mean: Floats) -> Floats:
    """Return the risk `[b]` of the `answered` `[b]` most certain images; a fraction of an image counts as such."""
    rows = np.arange(len(until))
    level = np.minimum((until < answered[:, None]).sum(1), until.shape[1] - 1)
    within = np.minimum(answered, until[rows, level]) - before[rows, level]
    return safe_divide(earlier[rows, level] + within * mean[rows, level], answered)
