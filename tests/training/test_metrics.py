"""The metrics of a stage, against hand-computed values."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from helpers.nodes import task_nodes
from hypothesis import given, settings
from hypothesis import strategies as st

from agegender.tasks.metrics import CumulativeScore
from agegender.tasks.task import build_tasks
from agegender.training.metrics import StageMetrics, StepOutput

YEARS = torch.tensor([10.0, 24.0, 40.0, 61.0])
AGE = torch.tensor([12.0, 24.0, 45.0, 51.0])  # errors 2, 0, 5, 10
P_FEMALE = torch.tensor([0.1, 0.8, 0.6, 0.7])
GENDER = torch.tensor([0.0, 1.0, 0.0, 1.0])
LOSSES = torch.tensor([3.0, 2.0, 1.0])  # the sum, age, gender
BINS = {"max_age": 20, "bin_width": 10}  # three classes of ages


def stage_metrics(stage: str, age: str = "mae", **options: Any) -> StageMetrics:
    return StageMetrics(stage, build_tasks(task_nodes(age, **options)))


def step(
    losses: torch.Tensor,
    years: torch.Tensor,
    age: torch.Tensor,
    p_female: torch.Tensor,
    gender: torch.Tensor,
    bins: torch.Tensor | None = None,
    counts: tuple[int, int, int] | None = None,
) -> StepOutput:
    """A step's output, `counts` being the numbers of faces, of ages and of genders; None for complete labels."""
    faces = torch.tensor([len(age)] * 3 if counts is None else counts).float()
    years_and_bins = {"age": years} if bins is None else {"age": years, "age_bin": bins}
    return StepOutput(
        losses, faces, {"age": years_and_bins, "gender": {"p_female": p_female}}, {"age": age, "gender": gender}
    )


@pytest.mark.parametrize("stage", ["train", "val", "test"])
def test_stage_metrics_equal_hand_computed_values(stage: str) -> None:
    metrics = stage_metrics(stage)
    metrics.update(step(LOSSES, YEARS, AGE, P_FEMALE, GENDER))
    figures = {name: value.item() for name, value in metrics.compute().items()}
    assert figures == pytest.approx(
        {
            f"{stage}/loss": 3.0,
            f"{stage}/age_loss": 2.0,
            f"{stage}/gender_loss": 1.0,
            f"{stage}/age_mae": 17 / 4,
            f"{stage}/age_mse": (4 + 0 + 25 + 100) / 4,
            f"{stage}/age_cs5": 3 / 4,  # an error of exactly 5 years is within
            f"{stage}/gender_acc": 3 / 4,
            f"{stage}/gender_auroc": 4 / 4,  # both women score above both men
        }
    )


def test_age_class_accuracy_equals_the_hand_computed_value() -> None:
    metrics = stage_metrics("val", "classes", **BINS)
    faces = (LOSSES, YEARS, torch.tensor([2.0, 12.0, 19.0, 90.0]), P_FEMALE, GENDER)  # classes 0, 1, 1, 2
    metrics.update(step(*faces, torch.tensor([0, 1, 2, 2])))
    assert metrics.compute()["val/age_class_acc"].item() == pytest.approx(3 / 4)
    metrics.update(step(*faces, torch.tensor([0, 1, 1, 2])))
    assert metrics.compute()["val/age_class_acc"].item() == 1  # an epoch forgets the one before


def test_stage_metrics_of_several_classes_equal_hand_computed_values() -> None:
    hair = {"_target_": "agegender.tasks.Multiclass", "label": "hair", "classes": ["black", "brown", "red"]}
    metrics = StageMetrics("val", build_tasks({"hair": hair}))
    labels = torch.tensor([0.0, 1.0, torch.nan, 2.0])
    metrics.update(
        StepOutput(
            torch.tensor([1.0, 2.0]),
            torch.tensor([4.0, 3.0]),
            {"hair": {"hair": torch.tensor([0, 2, 1, 2])}},
            {"hair": labels},
        )
    )
    figures = {name: value.item() for name, value in metrics.compute().items()}
    assert figures == pytest.approx({"val/loss": 1.0, "val/hair_loss": 2.0, "val/hair_acc": 2 / 3})


def test_loss_metric_is_the_mean_over_faces() -> None:
    metrics = stage_metrics("train")
    metrics.update(step(LOSSES, YEARS, AGE, P_FEMALE, GENDER))
    metrics.update(step(LOSSES + 5, YEARS[1:2], AGE[1:2], P_FEMALE[1:2], GENDER[1:2]))
    assert metrics.compute()["train/loss"].item() == pytest.approx((4 * 3 + 8) / 5)


def test_loss_metric_stays_nan() -> None:
    metrics = stage_metrics("train")
    metrics.update(step(LOSSES, YEARS, AGE, P_FEMALE, GENDER))
    metrics.update(step(LOSSES * torch.nan, YEARS, AGE, P_FEMALE, GENDER))
    assert metrics.compute()["train/loss"].isnan()


def test_stage_metrics_count_steps_beyond_the_buffer() -> None:
    metrics, steps = stage_metrics("train"), 2 * StageMetrics.STEPS_AT_A_TIME + 3
    for each in range(steps):
        metrics.update(step(LOSSES + each, AGE + each, AGE, P_FEMALE, GENDER))
    figures = metrics.compute()
    assert figures["train/age_mae"].item() == pytest.approx((steps - 1) / 2)
    assert figures["train/loss"].item() == pytest.approx(3 + (steps - 1) / 2)


def test_auroc_is_the_fraction_of_correctly_ordered_pairs() -> None:
    metrics = stage_metrics("val")
    metrics.update(step(LOSSES, YEARS, AGE, torch.tensor([0.75, 0.8, 0.6, 0.7]), GENDER))
    assert metrics.compute()["val/gender_auroc"].item() == pytest.approx(3 / 4)


@pytest.mark.parametrize("gender", [0.0, 1.0])
def test_auroc_of_one_gender_is_nan(gender: float) -> None:
    metrics = stage_metrics("val")
    metrics.update(step(LOSSES, YEARS, AGE, P_FEMALE, torch.full((4,), gender)))
    figures = metrics.compute()
    assert figures["val/gender_auroc"].isnan() and figures["val/gender_acc"].isfinite()


@pytest.mark.parametrize(("error", "within"), [(4.999, 1), (5.0, 1), (5.001, 0), (-5.0, 1), (-5.001, 0)])
def test_cumulative_score_includes_its_bound(error: float, within: int) -> None:
    score = CumulativeScore(5.0)
    score.update(torch.tensor([20.0 + error]), torch.tensor([20.0]))
    assert score.compute().item() == within


def test_stage_metrics_are_reset_by_each_epoch() -> None:
    metrics = stage_metrics("val")
    metrics.update(step(LOSSES, YEARS + 50, AGE, 1 - P_FEMALE, GENDER))
    metrics.compute()
    metrics.update(step(LOSSES, YEARS, AGE, P_FEMALE, GENDER))
    assert metrics.compute()["val/age_mae"].item() == pytest.approx(17 / 4)
    metrics.update(step(LOSSES, AGE, AGE, P_FEMALE, GENDER))
    assert metrics.compute()["val/age_cs5"].item() == 1


# Missing labels


def test_stage_metrics_ignore_missing_labels() -> None:
    age, gender = torch.tensor([2.0, 12.0, 19.0, torch.nan]), GENDER.clone()  # classes 0, 1, 1
    gender[2] = torch.nan
    years, bins = age + torch.tensor([-2.0, 0.0, 5.0, 0.0]), torch.tensor([0, 1, 2, 2])
    metrics = stage_metrics("val", "classes", **BINS)
    metrics.update(step(LOSSES, years, age, P_FEMALE, gender, bins, (4, 3, 3)))
    metrics.update(step(LOSSES + 4, YEARS[3:], age[3:], P_FEMALE[3:], GENDER[3:], bins[3:], (1, 0, 1)))
    figures = {name: value.item() for name, value in metrics.compute().items()}
    assert figures == pytest.approx(
        {
            "val/loss": (4 * 3 + 7) / 5,
            "val/age_loss": 2.0,  # the second step has no age labels
            "val/gender_loss": (3 * 1 + 5) / 4,
            "val/age_mae": 7 / 3,
            "val/age_mse": (4 + 0 + 25) / 3,
            "val/age_cs5": 1.0,
            "val/gender_acc": 1.0,
            "val/gender_auroc": 1.0,
            "val/age_class_acc": 2 / 3,
        }
    )


@pytest.mark.parametrize("label", ["age", "gender"])
def test_stage_metrics_of_an_unlabeled_task_are_nan(label: str) -> None:
    none, metrics = torch.full((4,), torch.nan), stage_metrics("test", "classes", **BINS)
    faces = {"age": AGE, "gender": GENDER} | {label: none}
    counts, bins = (4, 4 * (label == "gender"), 4 * (label == "age")), torch.tensor([0, 1, 1, 2])
    metrics.update(step(LOSSES, YEARS, faces["age"], P_FEMALE, faces["gender"], bins, counts))
    figures = metrics.compute()
    assert {name for name, value in figures.items() if value.isnan()} == {
        name for name in figures if name.startswith(f"test/{label}")
    }
    metrics.update(step(LOSSES, YEARS, AGE, P_FEMALE, GENDER, bins))
    assert all(value.isfinite() for value in metrics.compute().values())  # an epoch forgets the one before


@settings(max_examples=20)
@given(data=st.data(), count=st.integers(2, 60))
def test_stage_metrics_do_not_depend_on_chunk_sizes(data: st.DataObject, count: int) -> None:
    floats = st.lists(st.floats(0, 120, width=32), min_size=count, max_size=count)
    years, age = (torch.tensor(data.draw(floats)) for _ in range(2))
    p_female = torch.tensor(data.draw(st.lists(st.floats(0, 1, width=32), min_size=count, max_size=count)))
    rest = data.draw(st.lists(st.integers(0, 1), min_size=count - 2, max_size=count - 2))
    gender = torch.tensor([0, 1, *rest]).float()  # both classes occur, as an AUROC requires
    cuts = sorted({0, count, *data.draw(st.lists(st.integers(1, count - 1), max_size=5))})
    whole, chunked = stage_metrics("val"), stage_metrics("val")
    whole.update(step(LOSSES, years, age, p_female, gender))
    for start, end in itertools.pairwise(cuts):
        chunked.update(step(LOSSES, years[start:end], age[start:end], p_female[start:end], gender[start:end]))
    expected, found = whole.compute(), chunked.compute()
    for name in expected:
        assert found[name].item() == pytest.approx(expected[name].item(), rel=1e-4, abs=1e-5), name
    errors = (years - age).abs()
    assert found["val/age_mae"].item() == pytest.approx(errors.mean().item(), rel=1e-4, abs=1e-5)
    assert found["val/age_cs5"].item() == pytest.approx((errors <= 5).float().mean().item())
