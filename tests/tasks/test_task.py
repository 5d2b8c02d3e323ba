"""What holds for every task: masked losses, state, columns and names."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from helpers.made_networks import calibration_of
from helpers.nodes import AGES, age_node, gender_node
from hypothesis import given, settings
from hypothesis import strategies as st

from agegender.errors import AgeGenderError
from agegender.tasks.info import TaskInfo
from agegender.tasks.labels import labels_of
from agegender.tasks.monitor import find_monitor, metric_modes
from agegender.tasks.task import Task, build_tasks

NODES: dict[str, dict[str, Any]] = {
    **{name: age_node(name) for name in AGES},
    "relu": age_node("mae", output="relu"),
    "weight": {"_target_": "agegender.tasks.Regression", "label": "kg", "scale": 12.0, "offset": 70.0, "digits": 1},
    "gender": gender_node(),
    "keras": gender_node(output="sigmoid", column="p_keras"),
    "hair": {"_target_": "agegender.tasks.Multiclass", "label": "hair", "classes": ["black", "brown", "red"]},
}


def built(name: str) -> Task:
    return build_tasks({name: NODES[name]})[name]


def labels_for(task: Task, count: int, seed: int) -> torch.Tensor:
    high = len(task.classes) or 100
    return torch.randint(0, high, (count,), generator=torch.Generator().manual_seed(seed)).float()


@pytest.mark.parametrize("name", NODES)
@settings(max_examples=25)
@given(known=st.lists(st.booleans(), min_size=1, max_size=8), seed=st.integers(0, 1000))
def test_masked_loss_is_the_loss_of_the_labeled_samples_alone(name: str, known: list[bool], seed: int) -> None:
    task, mask = built(name), torch.tensor(known)
    outputs = torch.randn(len(known), task.num_outputs, generator=torch.Generator().manual_seed(seed))
    raw = task.activation(outputs).requires_grad_()
    target = labels_for(task, len(known), seed)
    mean, count = task.masked_loss(raw, torch.where(mask, target, torch.nan))
    assert mean.shape == () and count.item() == sum(known)
    alone = task.loss(raw[mask], target[mask])
    assert alone.shape[0] == sum(known) and alone.ndim in (1, 2)
    wanted_mean = alone.sum() / max(1, sum(known))
    assert mean.item() == pytest.approx(wanted_mean.item(), rel=1e-5, abs=1e-6)
    gradient, wanted = (torch.autograd.grad(loss, raw, retain_graph=True)[0] for loss in (mean, wanted_mean))
    torch.testing.assert_close(gradient, wanted)
    assert (gradient[~mask] == 0).all()


@pytest.mark.parametrize("name", NODES)
def test_predictions_are_the_columns_of_the_description(name: str) -> None:
    task = built(name)
    raw = task.activation(torch.randn(3, task.num_outputs))
    for calibration in (None, calibration_of(task)):
        task.calibration = calibration
        predicted = task.predict(raw)
        assert tuple(predicted) == task.info.columns and all(value.shape == (3,) for value in predicted.values())
        assert {spec.source for spec in task.metrics().values()} <= set(task.decode(raw))
        assert TaskInfo.from_dict(task.info.to_dict()) == task.info


@pytest.mark.parametrize("name", NODES)
def test_state_dict_restores_predictions_with_their_calibration(name: str) -> None:
    task, other = built(name), built(name)
    assert "_extra_state" in task.state_dict()
    task.calibration = calibration_of(task)
    other.load_state_dict(task.state_dict())
    raw = task.activation(torch.randn(3, task.num_outputs))
    predicted = other.predict(raw)
    assert other.calibration == task.calibration is not None
    assert all(torch.equal(value, predicted[column]) for column, value in task.predict(raw).items())
    other.load_state_dict(built(name).state_dict())
    assert other.calibration is None


@pytest.mark.parametrize("name", ["dldl", "gender"])
def test_damaged_calibration_in_a_state_dict_is_refused(name: str) -> None:
    task = built(name)
    with pytest.raises(AgeGenderError, match="calibration is invalid"):
        task.load_state_dict(task.state_dict() | {"_extra_state": {"temperature": "warm"}})


@pytest.mark.parametrize("name", NODES)
def test_soft_targets_are_distributions_or_refused_by_name(name: str) -> None:
    task = built(name)
    raw = task.activation(torch.randn(2, task.num_outputs, requires_grad=True))
    if name not in ("classes", "dldl", "gender", "keras", "hair"):
        with pytest.raises(AgeGenderError, match=f"^teacher= requires distributions, and tasks.{name} predicts none"):
            task.soft_target(raw)
        return
    soft = task.soft_target(raw).detach()
    assert soft.shape == (2, task.num_outputs)
    assert soft.shape[1] == 1 or soft.sum(1).tolist() == pytest.approx([1, 1])
    assert torch.autograd.grad(task.soft_loss(raw, soft), raw)[0].abs().max() < 1e-6


def test_regression_takes_scale_and_offset_from_the_training_labels_and_keeps_them() -> None:
    node = {"_target_": "agegender.tasks.Regression", "label": "kg"}
    task, loaded = (build_tasks({"weight": node})["weight"] for _ in range(2))
    task.prepare(np.array([50.0, 70.0, 90.0]))
    deviation = np.std([50, 70, 90])
    assert task.decode(torch.tensor([[0.0], [1.0]]))["weight"].tolist() == pytest.approx([70, 70 + deviation])
    assert task.loss(torch.zeros(1, 1), torch.tensor([70 + deviation])).tolist() == pytest.approx([1.0])
    loaded.load_state_dict(task.state_dict())
    assert torch.equal(loaded.decode(torch.ones(1, 1))["weight"], task.decode(torch.ones(1, 1))["weight"])
    for labels, wanted in ((np.full(3, 7.0), [7.0, 8.0]), (np.zeros(0), [0.0, 1.0])):  # one value, and no label
        (fresh,) = build_tasks({"weight": node}).values()
        fresh.prepare(labels)
        assert fresh.decode(torch.tensor([[0.0], [1.0]]))["weight"].tolist() == wanted


def test_regression_baseline_is_the_error_of_the_training_median() -> None:
    assert built("weight").baseline(np.array([60.0, 70.0, 200.0]), np.array([70.0, 80.0])) == {"mae": 5.0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"limits": [10, 5]}, "limits=[10, 5] must be two numbers, the lower one first"),
        ({"output": "relu"}, "output=relu needs limits"),
        ({"tolerance": -1}, "tolerance=-1 must be at least 0"),
        ({"digits": -1}, "digits=-1 must be at least 0"),
        ({"weight": -1.0}, "weight=-1.0 must be at least 0"),
        ({"weight": 0.0}, "all weights of the tasks are 0"),
    ],
)
def test_number_out_of_range_is_refused_by_the_name_of_its_task(options: dict[str, Any], message: str) -> None:
    with pytest.raises(AgeGenderError) as refused:
        build_tasks({"kg": {"_target_": "agegender.tasks.Regression", "label": "kg", **options}})
    assert message in str(refused.value) and "\n" not in str(refused.value)
    assert str(refused.value).startswith("tasks.kg.") or "all weights" in message


HAIR = NODES["hair"]


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ({"age": age_node("mae"), "age_std": gender_node()}, "tasks.age_std: age has a column age_std too"),
        ({"gender": gender_node(), "p_female": age_node("mae")}, "tasks.p_female: gender has a column p_female too"),
        ({"gender": gender_node(), "sex": gender_node()}, "tasks.sex: gender has a column p_female too"),
        ({"score": HAIR}, "tasks.score: every prediction has a column score too"),
        ({"row": HAIR}, "tasks.row: every prediction has a column row too"),
        ({"keys": HAIR}, "tasks.keys: the name can't be used"),
        ({"my hair": HAIR}, "tasks.my hair: the name can't be used"),
        ({}, "tasks is empty"),
        ({"age": None}, "tasks is empty"),
    ],
)
def test_names_that_clash_are_refused_in_one_line(nodes: dict[str, Any], message: str) -> None:
    with pytest.raises(AgeGenderError) as refused:
        build_tasks(nodes)
    assert str(refused.value).startswith(message) and "\n" not in str(refused.value)


def test_task_that_is_null_is_left_out() -> None:
    nodes: dict[str, Any] = {"age": age_node("mae"), "gender": None}
    assert list(build_tasks(nodes)) == ["age"] and labels_of(nodes) == {"age": None}


def test_monitor_follows_from_the_first_task_and_mode_from_the_metric() -> None:
    both = {"age": age_node("dldl"), "gender": gender_node()}
    assert find_monitor(both, None) == ("val/age_mae", "min")
    assert find_monitor({"gender": gender_node()}, None) == ("val/gender_acc", "max")
    assert find_monitor(both, "val/gender_auroc") == ("val/gender_auroc", "max")
    assert find_monitor(both, "val/age_cs5") == ("val/age_cs5", "max")
    assert find_monitor(both, "val/gender_loss") == find_monitor(both, "val/gender_loss") == ("val/gender_loss", "min")
    assert list(metric_modes({"hair": HAIR})) == ["val/hair_acc", "val/loss", "val/hair_loss"]
    with pytest.raises(AgeGenderError, match="monitor=val/gender_acc"):
        find_monitor({"age": age_node("mae")}, "val/gender_acc")


def test_labels_of_two_tasks_on_one_column_agree() -> None:
    assert labels_of({"age": age_node("mae"), "bins": age_node("classes")}) == {"age": None}
    with pytest.raises(AgeGenderError, match=r"tasks\.b\.classes=.*: another task gives hair the classes"):
        labels_of({"a": HAIR, "b": HAIR | {"classes": ["red", "other"]}})
