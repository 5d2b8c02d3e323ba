"""Jobs are grouped by their settings apart from seed and fold."""

from __future__ import annotations

import math
from typing import Any

import pytest

from agegender.evaluation.statistics.student import spread_of
from agegender.sweeps.groups import final_metrics, group_jobs, numeric_setting

SCORES = {(1e-3, 0): 5.0, (1e-3, 1): 7.0, (3e-3, 0): 4.0, (3e-3, 1): 6.0}


def job(number: int, score: float | None, *varied: str) -> dict[str, Any]:
    error = None if score is not None else "it failed"
    return {"job": number, "overrides": ["data=synthetic", *varied], "score": score, "error": error}


def grid(scores: dict[tuple[float, int], float | None]) -> list[dict[str, Any]]:
    return [job(i, score, f"optim.lr={lr}", f"seed={seed}") for i, ((lr, seed), score) in enumerate(scores.items())]


def test_groups_hold_one_setting_each_best_mean_first() -> None:
    jobs = grid(dict(SCORES))
    metrics = {each["job"]: {"val/age_mae": each["score"], "test/age_mae": 10 * each["score"]} for each in jobs}
    best, second = group_jobs(jobs, ["optim.lr", "seed"], metrics, "min")
    assert (best.settings, best.jobs, best.failed) == (("optim.lr=0.003",), (2, 3), ())
    assert (second.settings, second.jobs) == (("optim.lr=0.001",), (0, 1))
    assert best.score == best.metrics["val/age_mae"] == spread_of([4.0, 6.0])
    assert best.metrics["test/age_mae"].mean == 50 and second.metrics["test/age_mae"].sd == pytest.approx(
        math.sqrt(200)
    )
    assert group_jobs(jobs, ["optim.lr", "seed"], metrics, "max")[0] == second


def test_group_ignores_failed_jobs_and_metrics_that_not_all_have() -> None:
    jobs = grid({(1e-3, 0): 5.0, (1e-3, 1): 7.0, (1e-3, 2): None, (3e-3, 0): None, (3e-3, 1): None})
    metrics = {0: {"val/age_mae": 5.0, "test/age_mae": 6.0}, 1: {"val/age_mae": 7.0}}
    best, failed = group_jobs(jobs, ["optim.lr", "seed"], metrics, "min")
    assert (best.jobs, best.failed, list(best.metrics)) == ((0, 1), (2,), ["val/age_mae"])
    assert (failed.jobs, failed.failed, failed.score, failed.metrics) == ((), (3, 4), None, {})


def test_jobs_without_repeats_form_no_groups() -> None:
    jobs = [job(0, 5.0, "optim.lr=0.1"), job(1, 6.0, "optim.lr=0.2")]
    assert group_jobs(jobs, ["optim.lr"], {0: {}, 1: {}}, "min") == []


def test_folds_and_seeds_repeat_together() -> None:
    jobs = [job(2 * fold + seed, 5.0, f"+data.fold={fold}", f"seed={seed}") for fold in (0, 1) for seed in (0, 1)]
    (group,) = group_jobs(jobs, ["data.fold", "seed"], {each["job"]: {} for each in jobs}, "min")
    assert group.jobs == (0, 1, 2, 3) and group.settings == ()


def test_numeric_setting_is_the_only_one_beside_seed_and_fold() -> None:
    jobs = grid(dict(SCORES))
    assert numeric_setting(["optim.lr", "seed"], jobs) == ("optim.lr", {0: 1e-3, 1: 1e-3, 2: 3e-3, 3: 3e-3})
    assert numeric_setting(["seed"], jobs) is None
    assert numeric_setting(["optim.lr", "data.batch_size"], jobs) is None
    assert numeric_setting(["age"], [job(0, 5.0, "age=mae"), job(1, 5.0, "age=dldl")]) is None
    assert numeric_setting(["a"], [job(0, 5.0, "a=1"), job(1, 5.0, "a=null")]) is None


def test_final_metrics_are_validation_and_test_metrics_with_a_value() -> None:
    results = {"val/age_mae": 5, "test/gender_auroc": None, "best_score": 5.0, "epochs": 3}
    assert final_metrics(results) == {"val/age_mae": 5.0}
