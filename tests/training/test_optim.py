"""Optimizers and schedulers built from a config, in the form that Lightning expects."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.optim import SGD
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR, ReduceLROnPlateau

from agegender.errors import AgeGenderError
from agegender.training.optim import WarmupCosine, build_optimizer, build_scheduler, warmup_cosine

TORCHS = "torch.optim.lr_scheduler"


def sgd() -> SGD:
    return SGD([torch.nn.Parameter(torch.zeros(2))], lr=0.1)


def made(node: dict[str, Any]) -> Any:
    return build_scheduler(node, sgd(), steps=40, epochs=4)


@pytest.mark.parametrize(("interval", "length"), [("step", 40), ("epoch", 4)])
def test_build_scheduler_sets_the_length_in_units_of_its_interval(interval: str, length: int) -> None:
    found = made({"_target_": f"{TORCHS}.OneCycleLR", "interval": interval, "max_lr": 0.3})
    assert isinstance(found["scheduler"], OneCycleLR) and found["scheduler"].total_steps == length
    assert found["interval"] == interval and "monitor" not in found


def test_build_scheduler_keeps_a_given_length() -> None:
    node = {"_target_": f"{TORCHS}.OneCycleLR", "interval": "step", "max_lr": 0.3}
    assert made({**node, "total_steps": 7})["scheduler"].total_steps == 7
    assert made({**node, "epochs": 2, "steps_per_epoch": 6})["scheduler"].total_steps == 12


def test_build_scheduler_steps_per_epoch_by_default() -> None:
    found = made({"_target_": f"{TORCHS}.CosineAnnealingLR", "T_max": 4})
    assert isinstance(found["scheduler"], CosineAnnealingLR) and found["interval"] == "epoch"


def test_build_scheduler_monitors_the_loss_for_a_plateau_by_default() -> None:
    node = {"_target_": f"{TORCHS}.ReduceLROnPlateau", "patience": 2}
    found = made(node)
    assert isinstance(found["scheduler"], ReduceLROnPlateau) and found["monitor"] == "val/loss"
    assert made({**node, "monitor": "val/age_mae"})["monitor"] == "val/age_mae"


def test_warmup_cosine_uses_the_new_length_when_resumed() -> None:
    def scheduler(steps: int) -> WarmupCosine:
        found = WarmupCosine(sgd(), steps, warmup_fraction=0.1, final_lr_ratio=0.0)
        for _ in range(9):
            found.optimizer.step()
            found.step()
        return found

    short, long = scheduler(10), WarmupCosine(sgd(), 100, warmup_fraction=0.1, final_lr_ratio=0.0)
    long.load_state_dict(short.state_dict())
    long.optimizer.step()
    long.step()
    assert long.get_last_lr() == pytest.approx([0.1 * warmup_cosine(10, 100, 0.1, 0.0)])


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"_target_": f"{TORCHS}.OneCycleLR"}, "OneCycleLR can't be built with these settings"),
        ({"_target_": f"{TORCHS}.SequentialLR", "schedulers": []}, "SequentialLR can't be built with these settings"),
        ({"_target_": "torch.optim.Adam"}, "it is not a subclass of torch.optim.lr_scheduler.LRScheduler"),
        (
            {"_target_": "agegender.training.optim.WarmupCosine", "final_lr_ratio": -1},
            "optim.scheduler.final_lr_ratio=-1 must be a fraction",
        ),
    ],
)
def test_build_scheduler_refuses_in_one_line(node: dict[str, Any], message: str) -> None:
    with pytest.raises(AgeGenderError, match=message) as refused:
        made(node)
    assert "\n" not in str(refused.value)


def test_build_optimizer_refuses_a_scheduler() -> None:
    with pytest.raises(AgeGenderError, match=r"it is not a subclass of torch\.optim\.Optimizer"):
        build_optimizer({"_target_": f"{TORCHS}.StepLR"}, [{"params": [torch.nn.Parameter(torch.zeros(1))]}])
