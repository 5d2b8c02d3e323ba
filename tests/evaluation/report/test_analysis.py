"""Metrics of a run, computed by hand for a few predictions."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.made_runs import AGE, ETHNICITY, HEIGHT, SMILE, Made, make_run
from hypothesis import given
from hypothesis import strategies as st

from agegender.evaluation.report.analysis import RunMetrics, SubgroupMetrics, analyze, paired_difference, to_json
from agegender.evaluation.report.predictions_file import RunPredictions
from agegender.evaluation.report.run_reader import read_run
from agegender.evaluation.report.task_metrics import ClassMetrics, NumberMetrics
from agegender.evaluation.statistics.bootstrap import Estimate

HEADLINE = (
    *("age_mae", "age_cs5", "age_cs5_whole", "gender_acc", "gender_acc_from_5", "gender_answered"),
    *("gender_acc_answered", "gender_auroc", "gender_ece"),
)
FEW_FACES = (
    Made("a.jpg", age=2, age_pred=7, gender=1, p_female=0.9, group=0),
    Made("b.jpg", age=3, age_pred=1, gender=0, p_female=0.6, group=2),
    Made("c.jpg", age=70, age_pred=60, gender=1, p_female=0.2, group=2),
    Made("d.jpg", age=75, age_pred=75, gender=0, p_female=0.1, group=2),
)


def found(folder: Path, *made: Made, faces: int = 2, seed: int = 0, **more: Any) -> tuple[RunPredictions, RunMetrics]:
    run = read_run(make_run(folder / "run", made, **more)).predictions
    return run, analyze(run, resamples=200, faces=faces, seed=seed)


def of_age(findings: RunMetrics) -> NumberMetrics:
    metrics = findings.tasks["age"]
    assert isinstance(metrics, NumberMetrics)
    return metrics


def of_classes(findings: RunMetrics, task: str = "gender") -> ClassMetrics:
    metrics = findings.tasks[task]
    assert isinstance(metrics, ClassMetrics)
    return metrics


def metric_of(part: SubgroupMetrics, name: str) -> float:
    return part.metrics[name].value


def test_headline_metrics_match_hand_computation(tmp_path: Path) -> None:
    _, findings = found(tmp_path, *FEW_FACES)
    values = {name: estimate.value for name, estimate in findings.headline.items()}
    # errors 5, 2, 10, 0; of the four pairs of a woman and a man, c loses to b; gaps of the bins 0.1, 0.6, 0.8, 0.1
    ages = {"age_mae": 4.25, "age_cs5": 0.75, "age_cs5_whole": 0.75}
    genders = {"gender_acc": 0.5, "gender_acc_from_5": 0.5, "gender_auroc": 0.75, "gender_ece": 1.6 / 4}
    assert values == pytest.approx(ages | genders | {"gender_answered": 1, "gender_acc_answered": 0.5})
    assert tuple(values) == HEADLINE
    assert findings.images == findings.clusters == 4
    assert of_classes(findings).confusion.tolist() == [[1, 1], [1, 1]]
    assert of_age(findings).limits.tolist() == list(range(21))
    assert of_age(findings).cumulative_score[[0, 2, 4, 5, 9, 10]].tolist() == [0.25, 0.5, 0.5, 0.75, 0.75, 1]


def test_rounded_age_metrics_use_whole_years(tmp_path: Path) -> None:
    near, far = Made("a.jpg", age=30, age_pred=35.4), Made("b.jpg", age=30, age_pred=35.6)
    _, findings = found(tmp_path, near, far, Made("c.jpg", age=30, age_pred=24.6))
    assert findings.headline["age_cs5"].value == 0
    assert findings.headline["age_cs5_whole"].value == pytest.approx(2 / 3)


def test_slices_have_the_metrics_of_their_images_and_empty_ones_are_omitted(tmp_path: Path) -> None:
    _, findings = found(tmp_path, *FEW_FACES)
    assert {kind: [part.name for part in parts] for kind, parts in findings.slices.items()} == {
        "age": ["0-2", "3-9", "70+"],
        "gender": ["male", "female"],
        "group": ["White", "Asian"],
    }
    old, asian = findings.slices["age"][2], findings.slices["group"][1]
    assert old.images == 2
    assert [metric_of(old, name) for name in ("age_mae", "age_bias", "age_cs5")] == [5, -5, 0.5]
    assert vars(old.metrics["gender_acc"]) == {"value": 0.5, "low": 0, "high": 1}
    assert (asian.images, metric_of(asian, "age_mae"), metric_of(asian, "age_bias")) == (3, 4, -4)
    for parts in findings.slices.values():
        assert sum(part.images for part in parts) == 4


def test_overall_metric_is_the_weighted_mean_of_its_slices(tmp_path: Path) -> None:
    _, findings = found(tmp_path, *FEW_FACES)
    for parts in findings.slices.values():
        assert sum(part.images * metric_of(part, "age_mae") for part in parts) / 4 == pytest.approx(4.25)
        assert sum(part.images * metric_of(part, "gender_acc") for part in parts) / 4 == pytest.approx(0.5)


def test_classes_below_min_confidence_count_as_unanswered(tmp_path: Path) -> None:
    _, findings = found(tmp_path, *FEW_FACES, min_confidence=0.7)
    values = {name: estimate.value for name, estimate in findings.headline.items()}
    assert values["gender_answered"] == 0.75  # b, at 0.6, is not
    assert values["gender_acc_answered"] == pytest.approx(2 / 3) and values["gender_acc"] == 0.5


PARTLY_LABELED = (
    Made("a.jpg", age=2, age_pred=7, gender=1, p_female=0.9, group=0),
    Made("b.jpg", age="", age_pred=1, gender=0, p_female=0.6, group=""),
    Made("c.jpg", age=70, age_pred=60, gender="", p_female=0.2, group=2),
    Made("d.jpg", age=75, age_pred=75, gender=0, p_female=0.1, group=2),
)


def test_missing_labels_are_not_counted(tmp_path: Path) -> None:
    _, findings = found(tmp_path, *PARTLY_LABELED)
    assert (findings.images, of_age(findings).images, of_classes(findings).images) == (4, 3, 3)
    values = {name: estimate.value for name, estimate in findings.headline.items()}
    # errors 5, 10, 0; a is right, b wrong, d right; a above both men; gaps of the bins 0.1, 0.6, 0.1
    ages = {"age_mae": 5, "age_cs5": 2 / 3, "age_cs5_whole": 2 / 3}
    genders = {"gender_acc": 2 / 3, "gender_acc_from_5": 1, "gender_auroc": 1, "gender_ece": 0.8 / 3}
    assert values == pytest.approx(ages | genders | {"gender_answered": 1, "gender_acc_answered": 2 / 3})
    assert of_classes(findings).confusion.tolist() == [[1, 1], [0, 1]]
    assert {kind: [part.name for part in parts] for kind, parts in findings.slices.items()} == {
        "age": ["0-2", "70+"],
        "gender": ["male", "female"],
        "group": ["White", "Asian"],
    }
    old, men = findings.slices["age"][1], findings.slices["gender"][0]
    assert (old.images, old.known) == (2, {"age": 2, "gender": 1})
    assert (metric_of(old, "age_mae"), metric_of(old, "gender_acc")) == (5, 1)
    assert (men.images, men.known) == (2, {"age": 1, "gender": 2})
    assert (metric_of(men, "age_mae"), metric_of(men, "age_bias")) == (0, 0)
    assert of_age(findings).worst.tolist() == [2, 0] and of_classes(findings).worst.tolist() == [1]


@pytest.mark.parametrize(("lacking", "left"), [("age", "gender"), ("gender", "age")])
def test_metrics_of_a_missing_label_kind_are_nan_and_others_stay(tmp_path: Path, lacking: str, left: str) -> None:
    _, whole = found(tmp_path / "whole", *FEW_FACES)
    none: dict[str, Any] = {lacking: ""}
    _, findings = found(tmp_path, *(replace(made, **none) for made in FEW_FACES))
    for name in HEADLINE:
        value, before = findings.headline[name].value, whole.headline[name].value
        without = name.startswith(lacking) or (name == "gender_acc_from_5" and lacking == "age")
        assert np.isnan(value) if without else value == before and name.startswith(left)
    assert lacking not in findings.slices and findings.slices[left]
    json.dumps(to_json(findings), allow_nan=False)


def further(height: float | str, predicted: float, smile: int | str, p_smile: float, *others: float) -> dict[str, Any]:
    """Cells of three further tasks; `others` are the five probabilities of `ETHNICITY`."""
    values = {"height": height, "height_pred": predicted, "smile": smile, "p_smile": p_smile}
    return values | dict(zip(ETHNICITY.columns, others, strict=True))


FURTHER = (  # height, smile and group of a face each are missing
    Made("a.jpg", age=10, group=0, more=further(170, 172, 1, 0.9, 0.5, 0.2, 0.1, 0.1, 0.1)),
    Made("b.jpg", age=20, group=1, more=further(180, 176, 0, 0.2, 0.6, 0.1, 0.1, 0.1, 0.1)),
    Made("c.jpg", age=30, group=4, more=further("", 160, 0, 0.6, 0.1, 0.1, 0.1, 0.0, 0.7)),
    Made("d.jpg", age=40, group="", more=further(160, 160, "", 0.5, 0.1, 0.1, 0.1, 0.0, 0.7)),
)


def test_metrics_of_further_tasks_match_hand_computation(tmp_path: Path) -> None:
    tasks: dict[str, Any] = {"tasks": (HEIGHT, SMILE, ETHNICITY), "labels": ("age", "group")}
    _, findings = found(tmp_path, *FURTHER, metrics={"test/height_cs2": None}, **tasks)
    assert {name: estimate.value for name, estimate in findings.headline.items()} == pytest.approx(
        # heights: errors 2, -4, 0. Smiles: right, right, wrong; bins' gaps 0.1, 0.2, 0.6. Groups: right, wrong, right
        {
            "height_mae": 2,
            "height_cs2": 2 / 3,
            "height_cs2_whole": 2 / 3,
            "smile_acc": 2 / 3,
            "smile_answered": 1,
            "smile_acc_answered": 2 / 3,
            "smile_auroc": 1,
            "smile_ece": 0.9 / 3,
            "ethnicity_acc": 2 / 3,
            "ethnicity_answered": 1,
            "ethnicity_acc_answered": 2 / 3,
            # of the likeliest class: 0.5 right, 0.6 wrong, 0.7 right
            "ethnicity_ece": (0.5 + 0.6 + 0.3) / 3,
        }
    )
    assert findings.tasks["height"].metrics["bias"].value == pytest.approx(-2 / 3)
    assert of_classes(findings, "ethnicity").confusion.tolist() == [
        *([1, 0, 0, 0, 0], [1, 0, 0, 0, 0], [0] * 5, [0] * 5, [0, 0, 0, 0, 1])
    ]
    assert of_classes(findings, "ethnicity").roc is None and of_classes(findings, "smile").roc is not None
    assert [found.worst.tolist() for found in findings.tasks.values()] == [[1, 0], [2], [1]]
    slices = {label: [part.name for part in parts] for label, parts in findings.slices.items()}
    assert slices == {
        "smile": ["no", "yes"],
        "group": ["White", "Black", "Others"],
        "age": ["10-19", "20-29", "30-39", "40-49"],
    }
    no, _ = findings.slices["smile"]
    assert (no.images, no.known) == (2, {"height": 1, "smile": 2, "ethnicity": 2})
    assert (metric_of(no, "height_mae"), metric_of(no, "smile_acc"), metric_of(no, "ethnicity_acc")) == (4, 0.5, 0.5)
    json.dumps(to_json(findings), allow_nan=False)


@pytest.mark.parametrize("lacking", ["height", "smile", "group"])
def test_further_label_that_nobody_has_leaves_the_others_as_they_are(tmp_path: Path, lacking: str) -> None:
    tasks: dict[str, Any] = {"tasks": (AGE, HEIGHT, SMILE, ETHNICITY), "labels": ()}
    _, whole = found(tmp_path / "whole", *FURTHER, **tasks)
    none: dict[str, Any] = {"group": ""} if lacking == "group" else {}
    _, findings = found(tmp_path, *(replace(one, **none, more={**one.more, lacking: ""}) for one in FURTHER), **tasks)
    for name, task in findings.tasks.items():
        assert (task.images == 0) == (task.task.label == lacking)
        for metric, estimate in task.metrics.items():
            expected = np.nan if task.task.label == lacking else whole.tasks[name].metrics[metric].value
            assert estimate.value == pytest.approx(expected, nan_ok=True)
    assert lacking not in findings.slices
    json.dumps(to_json(findings), allow_nan=False)


def test_bootstrap_draws_copies_of_a_photograph_together(tmp_path: Path) -> None:
    copies = [Made(f"{i}.jpg", age_pred=30 + i % 2 * 8, photograph=str(i % 2)) for i in range(40)]
    _, together = found(tmp_path, *copies)
    singles = [Made(f"{i}.jpg", age_pred=30 + i % 2 * 8) for i in range(40)]
    _, apart = found(tmp_path / "apart", *singles)
    assert (together.clusters, apart.clusters) == (2, 40)
    assert (together.headline["age_mae"].low, together.headline["age_mae"].high) == (0, 8)
    assert 2 < apart.headline["age_mae"].low < 4 < apart.headline["age_mae"].high < 6


def test_analysis_does_not_depend_on_the_order_of_predictions(tmp_path: Path) -> None:
    _, first = found(tmp_path, *FEW_FACES)
    _, again = found(tmp_path / "again", *reversed(FEW_FACES))
    _, other = found(tmp_path / "other", *FEW_FACES, seed=1)
    assert to_json(first) == to_json(again) != to_json(other)


def test_example_cases_are_largest_errors_surest_mistakes_and_a_sample(tmp_path: Path) -> None:
    answers, findings = found(tmp_path, *FEW_FACES)
    assert [answers.names[row] for row in of_age(findings).worst] == ["c.jpg", "a.jpg"]
    assert [answers.names[row] for row in of_classes(findings).worst] == ["c.jpg", "b.jpg"]
    assert len({answers.names[row] for row in findings.random}) == 2
    _, everyone = found(tmp_path / "all", *FEW_FACES, faces=99)
    assert everyone.random.tolist() == [0, 1, 2, 3]  # each once, by age
    _, nobody = found(tmp_path / "none", *FEW_FACES, faces=0)
    assert not len(nobody.random) and not any(len(task.worst) for task in nobody.tasks.values())


def test_coverage_counts_images_with_a_std_only(tmp_path: Path) -> None:
    made = [Made(f"{i}.jpg", age_pred=30 + error, age_std=std) for i, (error, std) in enumerate(
        [(1, "1"), (2, "1"), (0, "0"), (50, "")]
    )]  # fmt: skip
    _, findings = found(tmp_path, *made)
    age = of_age(findings)
    assert age.metrics["coverage"].value == pytest.approx(2 / 3)
    assert age.spread is not None and age.spread.images == 3
    without = of_age(found(tmp_path / "without", *FEW_FACES)[1])
    assert np.isnan(without.metrics["coverage"].value) and without.spread is None


def test_interval_coverage_is_counted_overall_and_per_slice(tmp_path: Path) -> None:
    made = [
        Made("a.jpg", age=30, age_std="1", interval=(30, 40)),  # at its end is inside
        Made("b.jpg", age=30, age_std="99", interval=(31, 40)),  # whatever the spread says
        Made("c.jpg", age=75, age_std="1", interval=(50, 75)),
        Made("d.jpg", age=75, age_pred=75, age_std="1"),  # a spread alone: of a normal distribution
        Made("e.jpg", age=5),
    ]
    _, findings = found(tmp_path, *made)
    assert of_age(findings).metrics["coverage"].value == 0.75
    parts = {part.name: metric_of(part, "age_coverage") for part in findings.slices["age"]}
    assert parts == pytest.approx({"3-9": float("nan"), "30-39": 0.5, "70+": 1.0}, nan_ok=True)


def test_comparison_of_a_constant_difference_has_a_zero_width_interval(tmp_path: Path) -> None:
    first = [Made(f"{i}.jpg", age_pred=31 + i, gender=i % 2, p_female=0.5 + i / 50) for i in range(20)]
    second = [Made(f"{i}.jpg", age_pred=30 + i, gender=i % 2, p_female=0.5 + i / 50) for i in range(20)]
    (_, worse), (_, better) = found(tmp_path / "a", *first), found(tmp_path / "b", *second)
    difference = paired_difference(worse, better)
    assert vars(difference["age_mae"]) == pytest.approx({"value": -1, "low": -1, "high": -1})
    assert worse.headline["age_mae"].high - worse.headline["age_mae"].low > 2  # each alone is far less sure
    assert vars(difference["gender_acc"]) == {"value": 0, "low": 0, "high": 0}


@pytest.mark.parametrize(
    "made",
    [
        [Made("one.jpg")],
        [Made("a.jpg"), Made("b.jpg", gender=0)],
        [Made(f"{i}.jpg", age=i, gender=i % 2, p_female=0.5, age_std="4") for i in range(5)],
        [Made(f"{i}.jpg", gender=1, p_female=1) for i in range(5)],
        [Made("a.jpg", age_pred=1e9), Made("b.jpg", age_pred=-1e9, age_std="0")],
        [Made(f"{i}.jpg", photograph="same", gender=i) for i in range(2)],
    ],
    ids=["one image", "one gender", "constant p_female", "all the same", "far out", "one photograph"],
)
def test_analysis_of_degenerate_predictions_gives_no_warning(tmp_path: Path, made: list[Made]) -> None:
    _, findings = found(tmp_path, *made)
    both = len({one.gender for one in made}) == 2
    assert np.isfinite(findings.headline["gender_auroc"].value) == both
    assert (of_classes(findings).roc is not None) == both
    for name in ("age_mae", "age_cs5", "gender_acc", "gender_ece"):
        assert np.isfinite([*vars(findings.headline[name]).values()]).all()
    json.dumps(to_json(findings), allow_nan=False)


NUMBERS = st.floats() | st.integers(-9, 9) | st.none() | st.text(max_size=3) | st.booleans()
NESTED = st.recursive(
    NUMBERS | NUMBERS.map(lambda value: np.array([1.0, np.nan])) | st.builds(Estimate, *[st.floats()] * 3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(NESTED)
def test_plain_values_of_arbitrary_input_are_json_without_nan(value: Any) -> None:
    text = json.dumps(to_json(value), allow_nan=False)
    assert to_json(json.loads(text)) == to_json(value)


def test_plain_values_replace_nan_by_null_only() -> None:
    estimate = Estimate(1.5, float("nan"), float("inf"))
    assert to_json({"a": (estimate, np.array([1, 2])), "b": np.float64("nan"), "c": "x"}) == {
        "a": [{"value": 1.5, "low": None, "high": None}, [1, 2]],
        "b": None,
        "c": "x",
    }
