"""All metrics of one run, computed once for both the report's page and `report.json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, is_dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agegender.data.index.utkface import GROUPS, MISSING
from agegender.evaluation.report.run_reader import RunPredictions
from agegender.evaluation.statistics.bootstrap import Estimate, percentile_intervals, resample
from agegender.evaluation.statistics.calibration import (
    IntervalCalibration,
    Reliability,
    reliability,
    spread,
    weighted_ece,
    within_interval,
)
from agegender.evaluation.statistics.metrics import (
    AGE_BANDS,
    COVERAGE,
    Floats,
    Integers,
    Roc,
    age_bands,
    confusion,
    cumulative_score,
    predicts_female,
    roc,
    weighted_auroc,
    weighted_means,
)

# Metrics that are means over images; AUROC and ECE, which are not, follow in HEADLINE.
_MEANS = (
    "age_mae",
    "age_cs5",
    "age_cs5_whole",
    "gender_acc",
    "gender_acc_from_5",
    "gender_answered",
    "gender_acc_answered",
)
HEADLINE = (*_MEANS, "gender_auroc", "gender_ece")
GENDERS = ("male", "female")
# The slices of the test images by kind, and the kinds' display names. Groups are UTKFace's; a table may have others.
SUBGROUPS: dict[str, tuple[str, ...]] = {"age": AGE_BANDS, "gender": GENDERS, "group": GROUPS}
SUBGROUP_TITLES = {"age": "age band", "gender": "gender", "group": "group"}
YEARS = tuple(range(21))  # of the CS@k curve
_CHILD = 5  # years; below this age, gender is hardly visible in an image
SMALL_SAMPLE = 20  # images; below this count, an interval is unreliable


@dataclass(frozen=True)
class SubgroupMetrics:
    """The metrics of one slice of the test images: an age band, a gender, or a group.

    Attributes:
        ages: Number of images with a known age; the age metrics are computed from these.
        genders: Number of images with a known gender; the gender metrics are computed from these.
        coverage: Fraction of true ages inside the predicted 80 % intervals; NaN where none is predicted.
    """

    name: str
    images: int
    ages: int
    genders: int
    mean_age: float
    age_mae: Estimate
    age_bias: float
    age_cs5: float
    gender_acc: Estimate
    coverage: Estimate


@dataclass(frozen=True)
class ExampleRows:
    """Images shown as examples, as rows of the run's predictions `[k]`."""

    largest_age_errors: Integers
    wrong_genders: Integers
    random: Integers


@dataclass(frozen=True)
class RunMetrics:
    """The metrics of one run.

    Attributes:
        images: Number of test images.
        ages: Number of images with a known age; the age metrics are computed from these.
        genders: Number of images with a known gender; the gender metrics are computed from these.
        clusters: Number of distinct photographs, the unit of resampling.
        headline: Each of `HEADLINE` with its interval; ages in years, fractions from 0 to 1.
        slices: By the kinds of `PARTS`; slices without an image are left out.
        cumulative_score: `[k]`, CS@k for k in `YEARS`.
        roc: None unless both genders were tested.
        confusion: `[2, 2]`, true by predicted gender.
        reliability: Reliability diagram of `p_female`.
        spread: Calibration of the predicted age standard deviations; None if the run predicts none.
        coverage: Fraction of true ages inside the predicted 80 % intervals, with its own interval; None if the run
            predicts none.
        cases: Images shown as examples.
        samples: `[resamples, k]`, the headline metrics of each resample.
    """

    images: int
    ages: int
    genders: int
    clusters: int
    headline: dict[str, Estimate]
    slices: dict[str, list[SubgroupMetrics]]
    cumulative_score: Floats
    roc: Roc | None
    confusion: Integers
    reliability: Reliability
    spread: IntervalCalibration | None
    coverage: Estimate | None
    cases: ExampleRows
    samples: Floats


def analyze(answers: RunPredictions, resamples: int, faces: int, seed: int) -> RunMetrics:
    """Compute all metrics of a run, with bootstrap intervals.

    Args:
        answers: The run's predictions, at least one.
        resamples: Number of bootstrap resamples.
        faces: Maximum number of images in each row of cases.
        seed: Random seed of the resamples and of the random cases.
    """
    parts, has_age, has_gender = _parts(answers), answers.has_age, answers.has_gender
    errors, p_female, gender = _errors(answers)[has_age], answers.p_female[has_gender], answers.gender[has_gender]
    found, samples = _estimate(answers, parts, resamples, seed)
    headline, (coverage, *rest) = found[: len(HEADLINE)], found[len(HEADLINE) :]
    of_parts = iter(rest)
    return RunMetrics(
        images=len(has_age),
        ages=len(errors),
        genders=len(gender),
        clusters=int(answers.clusters.max()) + 1,
        headline=dict(zip(HEADLINE, headline, strict=True)),
        slices={
            kind: [_slice(answers, name, part, *islice(of_parts, 3)) for name, part in named.items()]
            for kind, named in parts.items()
        },
        cumulative_score=cumulative_score(errors, YEARS),
        roc=roc(p_female, gender),
        confusion=confusion(gender, predicts_female(p_female)),
        reliability=reliability(p_female, gender),
        spread=spread(errors, answers.age_std[has_age]),
        coverage=coverage if np.isfinite(coverage.value) else None,
        cases=_cases(answers, faces, seed),
        samples=samples[:, : len(HEADLINE)],
    )


_Parts = dict[str, dict[str, NDArray[np.bool_]]]


def _errors(answers: RunPredictions) -> Floats:
    """Return the absolute age errors in years `[n]`; NaN where the age is unknown."""
    return np.abs(answers.age_pred - answers.age)


def _estimate(answers: RunPredictions, parts: _Parts, resamples: int, seed: int) -> tuple[list[Estimate], Floats]:
    """Return estimates (headline, coverage; then age MAE, gender accuracy, coverage of each slice) and all samples."""
    errors, has_age, has_gender = _errors(answers), answers.has_age, answers.has_gender
    right = (predicts_female(answers.p_female) == answers.gender).astype(np.float64)
    inside, stated = _held(answers)
    # All means over images are computed in one matrix product; see `weighted_means`.
    # Labels are whole years: ten of them lie within five years of 30.4, but eleven within five years of 30. So CS@5
    # favors models that predict whole years (classes, ranks), and is computed for rounded predictions as well.
    whole = np.abs(np.rint(answers.age_pred) - answers.age)
    columns = [(errors, has_age), *((_within_five(off), has_age) for off in (errors, whole)), (right, has_gender)]
    # Infants' gender is hardly visible: every model's accuracy there is near chance.
    columns.append((right, has_gender & ~(answers.age < _CHILD)))
    answered = np.maximum(answers.p_female, 1 - answers.p_female) >= answers.min_confidence
    columns += [(answered.astype(np.float64), has_gender), (right, has_gender & answered), (inside, stated)]
    for part in (part for named in parts.values() for part in named.values()):
        columns += [(errors, part & has_age), (right, part & has_gender), (inside, part & stated)]
    values, within = (np.stack(side, axis=1) for side in zip(*columns, strict=True))

    def statistics(weights: Floats) -> Floats:
        means = weighted_means(weights, values, within)
        gender = weights[:, has_gender], answers.p_female[has_gender], answers.gender[has_gender]
        others = [by(*gender) for by in (weighted_auroc, weighted_ece)]
        return np.column_stack(
            [means[:, : len(_MEANS)], *others, means[:, len(_MEANS) :]]
        )  # in the order of `HEADLINE`

    samples = resample(statistics, answers.clusters, resamples, seed)
    return percentile_intervals(statistics(np.ones((1, len(errors))))[0], samples), samples


def _within_five(errors: Floats) -> Floats:
    return (errors <= 5).astype(np.float64)


def _held(answers: RunPredictions) -> tuple[Floats, NDArray[np.bool_]]:
    """Tells (1 or 0) whose true age lies in the stated 80 % interval, and for whom that can be told.

    Runs that were tested before there were intervals state a spread only: theirs are those of a normal distribution.
    """
    stated = np.isfinite(answers.age_low)
    inside = (answers.age_low <= answers.age) & (answers.age <= answers.age_high)
    spread_only = np.isfinite(answers.age_std) & ~stated
    normal = within_interval(_errors(answers), np.where(spread_only, answers.age_std, 0.0), COVERAGE)
    return np.where(stated, inside, normal), (stated | spread_only) & answers.has_age


def _parts(answers: RunPredictions) -> _Parts:
    """Return a mask `[n]` of the images of each slice, by kind; slices without an image are left out."""
    bands = np.where(answers.has_age, age_bands(answers.age), MISSING)
    places = {"age": bands, "gender": answers.gender, "group": answers.group}
    names = SUBGROUPS | {"group": answers.groups}
    return {
        kind: {name: place == i for i, name in enumerate(names[kind]) if (place == i).any()}
        for kind, place in places.items()
    }


def _slice(answers: RunPredictions, name: str, part: NDArray[np.bool_], *found: Estimate) -> SubgroupMetrics:
    mae, accuracy, coverage = found
    has_age = part & answers.has_age
    age, errors = answers.age[has_age], (answers.age_pred - answers.age)[has_age]
    return SubgroupMetrics(
        name=name,
        images=int(part.sum()),
        ages=len(age),
        genders=int((part & answers.has_gender).sum()),
        mean_age=_mean(age),
        age_mae=mae,
        age_bias=_mean(errors),
        age_cs5=_mean(np.abs(errors) <= 5),
        gender_acc=accuracy,
        coverage=coverage,
    )


def _mean(values: NDArray[Any]) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _cases(answers: RunPredictions, faces: int, seed: int) -> ExampleRows:
    errors, has_age = _errors(answers), np.flatnonzero(answers.has_age)
    wrong = np.flatnonzero((predicts_female(answers.p_female) != answers.gender) & answers.has_gender)
    surest = wrong[np.argsort(-np.abs(answers.p_female[wrong] - 0.5), kind="stable")]
    drawn = np.random.default_rng(seed).permutation(len(errors))[:faces]
    return ExampleRows(
        largest_age_errors=has_age[np.argsort(-errors[has_age], kind="stable")][:faces],
        wrong_genders=surest[:faces],
        random=drawn[np.argsort(answers.age[drawn], kind="stable")],
    )


def paired_difference(first: RunMetrics, second: RunMetrics) -> dict[str, Estimate]:
    """Return second minus first of each headline metric; both must come from the same images, clusters and seed."""
    values = np.array([second.headline[name].value - first.headline[name].value for name in HEADLINE])
    return dict(zip(HEADLINE, percentile_intervals(values, second.samples - first.samples), strict=True))


def to_json(value: Any) -> Any:
    """Convert findings to plain types for JSON; NaN and infinity become None."""
    if is_dataclass(value) and not isinstance(value, type):
        return to_json(asdict(value))
    if isinstance(value, Mapping):
        return {key: to_json(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return to_json(value.tolist())
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return value
