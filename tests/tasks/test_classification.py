"""Tasks whose label is a class: loss, probabilities, calibration and soft targets against cases computed by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from helpers.made_networks import CONFIDENCE
from helpers.nodes import gender_node

from agegender.errors import AgeGenderError
from agegender.tasks.classification import Binary, Multiclass
from agegender.tasks.confidence import ClassCalibration
from agegender.tasks.info import UNSURE
from agegender.tasks.task import build_tasks

COLORS = {"_target_": "agegender.tasks.Multiclass", "label": "hair", "classes": ["black", "brown", "red"]}
RAW = torch.tensor([[0.5, 0.2, 0.3]]).log()


def smile(**options: Any) -> Binary:
    task = Binary("smiling", ["no", "yes"], **options)
    task.name = "smile"
    return task


def hair() -> Multiclass:
    task = build_tasks({"hair": COLORS})["hair"]
    assert isinstance(task, Multiclass)
    return task


@pytest.mark.parametrize("output", ["logit", "sigmoid"])
def test_binary_loss_is_the_cross_entropy_of_the_second_class(output: Any) -> None:
    task = smile(output=output)
    raw = task.activation(torch.tensor([[math.log(3)], [math.log(3)], [0.0]]))  # probabilities 3/4, 3/4 and 1/2
    wanted = [-math.log(3 / 4), -math.log(1 / 4), math.log(2)]
    assert task.loss(raw, torch.tensor([1.0, 0.0, 0.3])).tolist() == pytest.approx(wanted, rel=1e-5)
    assert task.decode(raw)["p_smile"].tolist() == pytest.approx([3 / 4, 3 / 4, 1 / 2])
    assert list(task.predict(raw)) == list(task.info.columns) == ["p_smile"]


def test_binary_loss_of_a_sigmoid_is_bounded_and_that_of_a_logit_is_not() -> None:
    truth, wrong = torch.tensor([0.0]), torch.tensor([[40.0]])
    assert smile().loss(wrong, truth).item() == pytest.approx(40)
    clipped = smile(output="sigmoid")
    assert clipped.loss(clipped.activation(wrong), truth).item() == pytest.approx(-math.log(1e-7), rel=0.02)


def test_binary_column_has_the_name_given() -> None:
    assert build_tasks({"gender": gender_node()})["gender"].info.columns == ("p_female",)
    assert smile(column="smiles").info.fields == ("smiles", "smile")


def test_multiclass_loss_is_the_cross_entropy_and_its_columns_are_the_softmax() -> None:
    task = hair()
    raw = torch.cat((RAW, RAW, RAW))
    wanted = [-math.log(0.5), -math.log(0.2), -math.log(0.3)]
    assert task.loss(raw, torch.tensor([0.0, 1.0, 2.0])).tolist() == pytest.approx(wanted)
    predicted = task.predict(RAW + 7)  # softmax ignores a shift
    assert list(predicted) == ["p_hair_black", "p_hair_brown", "p_hair_red"] == list(task.info.columns)
    assert [value.item() for value in predicted.values()] == pytest.approx([0.5, 0.2, 0.3])
    assert task.decode(RAW)["hair"].tolist() == [0]


@pytest.mark.parametrize(("task", "raw"), [(smile(), torch.tensor([[1.2]])), (hair(), RAW)], ids=["binary", "classes"])
def test_temperature_divides_the_logits(task: Binary | Multiclass, raw: torch.Tensor) -> None:
    columns = task.info.columns
    plain = [task.predict(raw / 2)[column].item() for column in columns]
    assert task.info.min_confidence == pytest.approx(1 / len(task.classes))
    task.calibration = ClassCalibration(temperature=2.0, min_confidence=0.7, answered=0.9)
    assert [task.predict(raw)[column].item() for column in columns] == pytest.approx(plain)
    assert task.info.min_confidence == 0.7
    assert task.loss(raw, torch.ones(1)).item() == pytest.approx(
        type(task)("x", task.classes).loss(raw, torch.ones(1)).item()
    )  # the loss of the training is that of the uncalibrated outputs


def test_predicted_class_below_min_confidence_is_unsure() -> None:
    task = hair()
    values = {column: value.item() for column, value in task.predict(RAW).items()}
    assert task.info.predicted_class(values) == "black"  # at least chance, 1/3
    task.calibration = ClassCalibration(temperature=1.0, min_confidence=0.51, answered=0.9)
    assert task.info.predicted_class(values) == UNSURE
    assert smile().info.predicted_class({"p_smile": 0.5}) == "no" and smile().info.predicted_class(
        {"p_smile": 0.51}
    ) == ("yes")


@pytest.mark.parametrize("task", [smile(), smile(output="sigmoid"), hair()], ids=["logit", "sigmoid", "classes"])
def test_calibration_makes_overconfident_probabilities_honest(task: Binary | Multiclass) -> None:
    rng, classes = np.random.default_rng(0), len(task.classes)
    logits = rng.normal(0, 1.5, (4000, task.num_outputs))
    if classes == 2:
        labels = (rng.random(4000) < 1 / (1 + np.exp(-logits[:, 0]))).astype(float)
    else:
        labels = (logits + rng.gumbel(size=logits.shape)).argmax(1).astype(float)
    raw = task.activation(torch.from_numpy(3 * logits))  # three times too sure
    labels[::7] = np.nan
    inputs = task.calibration_inputs(raw).numpy()
    task.fit_calibration(inputs, labels, inputs)
    assert task.calibration is not None and task.temperature == pytest.approx(3, rel=0.1)
    task.fit_calibration(inputs, np.full(4000, np.nan), inputs)
    assert task.calibration is None and task.temperature == 1
    task.calibration = CONFIDENCE
    task.fit_calibration(np.full_like(inputs, np.nan), labels, inputs)
    assert task.calibration is None


@pytest.mark.parametrize("task", [smile(), smile(output="sigmoid"), hair()], ids=["logit", "sigmoid", "classes"])
def test_soft_loss_is_least_at_the_teachers_outputs(task: Binary | Multiclass) -> None:
    outputs = torch.tensor([[0.3, -1.0, 2.0], [1.0, 0.0, 0.1]])[:, : task.num_outputs]
    soft = task.soft_target(task.activation(outputs))
    assert soft.shape == (2, task.num_outputs) and (soft >= 0).all() and (soft <= 1).all()
    student = outputs.clone().requires_grad_()
    loss = task.soft_loss(task.activation(student), soft)
    assert torch.autograd.grad(loss, student)[0].abs().max() < 1e-6
    assert task.soft_loss(task.activation(outputs + torch.tensor([1.0, 0.0, 0.0])[: task.num_outputs]), soft) > loss


def test_soft_losses_match_hand_computation() -> None:
    cross_entropy = -(0.25 * math.log(0.5) + 0.75 * math.log(0.5))
    assert smile().soft_loss(torch.zeros(1, 1), torch.tensor([[0.25]])).item() == pytest.approx(cross_entropy)
    divergence = sum(p * math.log(p / q) for p, q in zip((0.2, 0.2, 0.6), (0.5, 0.2, 0.3), strict=True))
    assert hair().soft_loss(RAW, torch.tensor([[0.2, 0.2, 0.6]])).item() == pytest.approx(divergence, rel=1e-5)


def test_baseline_is_the_accuracy_of_the_most_frequent_training_class() -> None:
    assert hair().baseline(np.array([2.0, 2.0, 1.0]), np.array([0.0, 2.0, 2.0, 1.0])) == {"acc": 0.5}


@pytest.mark.parametrize(
    ("kind", "classes", "message"),
    [
        ("Binary", ["no", "yes", "maybe"], "must be two: use Multiclass for more"),
        ("Binary", ["no", "No"], "must be different printable names, without a sign of a formula at the start"),
        ("Multiclass", ["red"], "must be at least two"),
        (
            "Multiclass",
            ["red", "", "black"],
            "must be different printable names, without a sign of a formula at the start",
        ),
    ],
)
def test_classes_that_do_not_fit_are_refused_in_one_line(kind: str, classes: list[str], message: str) -> None:
    node = {"_target_": f"agegender.tasks.{kind}", "label": "hair", "classes": classes}
    with pytest.raises(AgeGenderError, match=rf"^tasks\.hair\.classes=.* {message}$"):
        build_tasks({"hair": node})
