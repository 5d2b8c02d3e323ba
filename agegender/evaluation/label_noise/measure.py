"""The disagreement between the labels of copies of one photograph."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from agegender.evaluation.statistics.metrics import Floats, Integers


@dataclass(frozen=True)
class LabelNoise:
    """The disagreement between the labels of copies.

    Attributes:
        photographs: Number of photographs with at least two labeled files.
        images: Number of these files.
        best_constant: Score of the best single prediction per photograph, the mean over the files: the mean absolute
            error of the median of a photograph's labels, or the accuracy of its most frequent class. A model that
            predicts the same for all copies of a photograph can't do better on these files.
        other_copy: Score of another copy's label as the prediction, the mean over the files and their other copies:
            the agreement of two labelings. For photographs of two files, its error is twice that of `best_constant`.
        errors: `[images]`, absolute errors of the median; for classes 1 where the most frequent class is wrong, else 0.
    """

    photographs: int
    images: int
    best_constant: float
    other_copy: float
    errors: Floats


def label_noise(labels: Floats, groups: Integers, *, classes: bool) -> LabelNoise | None:
    """Measure label noise from copies.

    Repeated labels of one object estimate the noise of a labeling without any truth (Dawid and Skene, Applied
    Statistics 1979). `best_constant` is an optimistic bound, since its constant is chosen with the labels it is scored
    on; `other_copy` is a pessimistic one for the truth, since both labels have errors.

    Args:
        labels: `[n]`; NaN where unknown.
        groups: `[n]`, number of each file's photograph.
        classes: Whether the labels are positions of classes; else they are numbers.

    Returns:
        None if no photograph has two labels.
    """
    known = ~np.isnan(labels)
    labels, groups = labels[known].astype(np.float64), groups[known]
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    copies = [each for each in np.split(labels[order], starts[1:]) if len(each) > 1]
    if not copies:
        return None
    errors = np.concatenate([_errors_of_best(each, classes) for each in copies])
    others = np.concatenate([_errors_of_others(each, classes) for each in copies])
    best, other = float(errors.mean()), float(others.mean())
    if classes:
        best, other = 1 - best, 1 - other
    return LabelNoise(len(copies), len(errors), best, other, errors)


def _errors_of_best(labels: Floats, classes: bool) -> Floats:
    """Return the error `[m]` of the best constant for the m labels of a photograph."""
    if classes:
        return np.asarray(labels != np.bincount(labels.astype(np.int64)).argmax(), dtype=np.float64)
    return np.asarray(np.abs(labels - np.median(labels)), dtype=np.float64)


def _errors_of_others(labels: Floats, classes: bool) -> Floats:
    """Return for each of the m labels of a photograph the mean error `[m]` of the others as its prediction."""
    apart = labels[:, None] - labels
    errors = (apart != 0).astype(np.float64) if classes else np.abs(apart)
    return np.asarray(errors.sum(1) / (len(labels) - 1), dtype=np.float64)
