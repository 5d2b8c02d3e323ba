"""Predictions and metrics of a network on corrupted faces."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from agegender.data.augmentation.corruptions import CORRUPTIONS, corrupt
from agegender.data.index.utkface import MISSING
from agegender.evaluation.report.analysis import to_json
from agegender.evaluation.robustness.rebuilt_run import RebuiltRun
from agegender.evaluation.robustness.results_file import CLEAN, MEAN
from agegender.evaluation.statistics.bootstrap import Estimate, percentile_intervals, resample
from agegender.evaluation.statistics.metrics import GROWN, Floats, Integers, predicts_female, weighted_means
from agegender.models.network import RawOutputs
from agegender.prediction.backends.torch_backend import TorchBackend
from agegender.system.progress import track

CONDITIONS = (CLEAN, *CORRUPTIONS)
# The metrics of each condition, in the order of `_columns`; each is a mean over some of the faces.
MEASURES = ("age_mae", "age_bias", "age_cs5", "gender_acc", "gender_acc_from_5", "coverage")

_ANSWERS = ("age_pred", "p_female", "age_low", "age_high")


@torch.inference_mode()
def answer_all(run: RebuiltRun, batch_size: int) -> dict[str, dict[str, Floats]]:
    """Predict every face unchanged and under each corruption.

    A batch is decoded once and passed through the network once per condition.

    Args:
        run: Network and faces.
        batch_size: Faces per forward pass.

    Returns:
        For each of `CONDITIONS` the columns `age_pred`, `p_female`, `age_low` and `age_high`, each `[faces]` in the
        order of the faces; the last two are NaN where the network predicts no interval.
    """
    device, count = run.network.device, len(run.faces)
    answers = {condition: np.empty((len(_ANSWERS), count)) for condition in CONDITIONS}
    starts = range(0, count, batch_size)
    for start in track(starts, "predicting", len(starts)):
        part = slice(start, min(start + batch_size, count))
        batch = run.faces.__getitems__(range(part.start, part.stop))
        images = batch["image"].to(device)
        for condition in CONDITIONS:
            changed = images if condition == CLEAN else corrupt(images, condition, batch["row"])
            answers[condition][:, part] = _answer(run.network, changed.contiguous(memory_format=torch.channels_last))
    return {condition: dict(zip(_ANSWERS, columns, strict=True)) for condition, columns in answers.items()}


def _answer(asked: TorchBackend, images: torch.Tensor) -> Floats:
    network = asked.network
    outputs: RawOutputs = network.forward_tta(images) if asked.tta == "flip" else network(images)
    columns = network.years(outputs), network.p_female(outputs), *network.age_interval(outputs)
    return torch.stack(columns).double().cpu().numpy()


def measure(run: RebuiltRun, answers: dict[str, dict[str, Floats]], resamples: int, seed: int) -> dict[str, Any]:
    """Compute all metrics with their intervals.

    Args:
        run: Source of the labels.
        answers: See `answer_all`.
        resamples: Number of cluster bootstrap resamples. A resample draws the same photographs for all conditions, so
            changes are paired.
        seed: Random seed of the resamples.

    Returns:
        `images`, `ages`, `genders` and `photographs` (counts), and `conditions`: for each of `CONDITIONS`, and for
        `mean` over the corruptions, each of `MEASURES` as `value`, `low` and `high`; likewise `age_mae_change` and
        `gender_acc_change` against the clean faces (None for the clean faces themselves). A metric without any face is
        None. All in plain types, as stored in `robustness.json`.
    """
    rows, index = run.faces.rows, run.faces.index
    age = np.where(index.age[rows] == MISSING, np.nan, index.age[rows]).astype(np.float64)
    gender = index.gender[rows].astype(np.int64)
    columns = [column for condition in CONDITIONS for column in _columns(age, gender, answers[condition])]
    values, within = (np.stack(side, axis=1) for side in zip(*columns, strict=True))

    def statistics(weights: Floats) -> Floats:
        means = weighted_means(weights, values, within).reshape(len(weights), len(CONDITIONS), len(MEASURES))
        return _with_changes(means).reshape(len(weights), -1)

    samples = resample(statistics, run.clusters, resamples, seed)
    found = iter(percentile_intervals(statistics(np.ones((1, len(age))))[0], samples))
    names = (*MEASURES, "age_mae_change", "gender_acc_change")
    conditions = {condition: {name: _plain(next(found)) for name in names} for condition in (*CONDITIONS, MEAN)}
    conditions[CLEAN] |= {"age_mae_change": None, "gender_acc_change": None}
    return {
        "images": len(age),
        "ages": int(np.isfinite(age).sum()),
        "genders": int((gender != MISSING).sum()),
        "photographs": int(run.clusters.max()) + 1,
        "conditions": conditions,
    }


def _columns(age: Floats, gender: Integers, answers: dict[str, Floats]) -> Sequence[tuple[Floats, NDArray[np.bool_]]]:
    """Return the values `[faces]` of each of `MEASURES`, with the mask of the faces that are averaged over."""
    aged, gendered = np.isfinite(age), gender != MISSING
    errors = answers["age_pred"] - age
    right = (predicts_female(answers["p_female"]) == gender).astype(np.float64)
    stated = aged & np.isfinite(answers["age_low"])
    held = ((answers["age_low"] <= age) & (age <= answers["age_high"])).astype(np.float64)
    grown = gendered & aged & (np.nan_to_num(age) >= GROWN)
    within_five = (np.abs(errors) <= 5).astype(np.float64)
    return (
        (np.abs(errors), aged),
        (errors, aged),
        (within_five, aged),
        (right, gendered),
        (right, grown),
        (held, stated),
    )


def _with_changes(means: Floats) -> Floats:
    """Append the mean over the corruptions as a condition, and the changes against the clean faces as metrics.

    Args:
        means: `[resamples, conditions, metrics]`, the clean faces first.

    Returns:
        `[resamples, conditions + 1, metrics + 2]`.
    """
    all_means = np.concatenate([means, means[:, 1:].mean(1, keepdims=True)], axis=1)
    changed = [MEASURES.index("age_mae"), MEASURES.index("gender_acc")]
    return np.concatenate([all_means, (all_means - all_means[:, :1])[..., changed]], axis=2)


def _plain(found: Estimate) -> dict[str, float] | None:
    return to_json(found) if np.isfinite(found.value) else None
