"""Helpers of the tests that stop a run and compare it with an uninterrupted one."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY, Outcome, metrics_of

from agegender.evaluation.report.curves import read_curves
from agegender.training.module import AgeGenderModule

EVERYTHING_RANDOM = (
    *TINY,
    "augment=light",
    "augment.mixup=0.4",
    "augment.cutmix=1",
    "optim=adamw",
    "model.dropout=0.3",
    "model.trunk.conv_dropout=0.1",
)
FOUR = (*EVERYTHING_RANDOM, "trainer.max_epochs=4")
TIMINGS = {"seconds_per_epoch", "images_per_second", "train_seconds", "overrides"}
Run = Callable[..., Outcome]


class CrashError(Exception):
    """Simulates a power cut."""


def differences(first: Any, second: Any, place: str = "") -> list[str]:
    """Returns the key of every value in which two checkpoints differ, compared bit by bit."""
    if isinstance(first, torch.Tensor):
        same = isinstance(second, torch.Tensor) and torch.equal(first, second)
        return [] if same else [place]
    if isinstance(first, dict) and isinstance(second, dict):
        if set(first) != set(second):
            return [f"{place}: {sorted(map(str, set(first) ^ set(second)))}"]
        return [found for key in first for found in differences(first[key], second[key], f"{place}.{key}")]
    if isinstance(first, list | tuple) and isinstance(second, list | tuple) and len(first) == len(second):
        pairs = enumerate(zip(first, second, strict=True))
        return [found for i, (a, b) in pairs for found in differences(a, b, f"{place}[{i}]")]
    return [] if first == second else [f"{place}: {first} != {second}"]


def assert_same_run(first: Path, second: Path) -> None:
    for name in ("best.ckpt", "last.ckpt"):
        one, other = (torch.load(run / "checkpoints" / name, weights_only=True) for run in (first, second))
        for key in ("state_dict", "optimizer_states", "lr_schedulers", "epoch", "global_step", "hyper_parameters"):
            assert differences(one[key], other[key], key) == []
        states = [
            {key.split("{")[0]: value for key, value in checkpoint["callbacks"].items() if "'monitor': None" not in key}
            for checkpoint in (one, other)
        ]
        assert (
            states[0]["RelocatableCheckpoint"]["best_model_score"]
            == states[1]["RelocatableCheckpoint"]["best_model_score"]
        )
        stopping = [state.get("EarlyStopping") for state in states]  # None where the runs have none
        assert differences(stopping[0], stopping[1], "early stopping") == []
    ours, theirs = metrics_of(first), metrics_of(second)
    assert {key: ours[key] for key in ours if key not in TIMINGS} == {
        key: theirs[key] for key in theirs if key not in TIMINGS
    }
    assert (first / "predictions.csv").read_bytes() == (second / "predictions.csv").read_bytes()
    assert curve(first, "val/age_mae") == curve(second, "val/age_mae")


def curve(run: Path, tag: str) -> dict[int, float]:
    return dict(read_curves(run)[tag])


def stop_at(monkeypatch: pytest.MonkeyPatch, epoch: int, batch: int, act: Callable[[], None]) -> None:
    """Calls `act` once, before the given step."""
    begin = AgeGenderModule.on_train_batch_start
    acted: list[bool] = []

    def begin_or_act(self: AgeGenderModule, faces: Any, batch_idx: int) -> None:
        if (self.current_epoch, batch_idx) == (epoch, batch) and not acted:
            acted.append(True)
            act()
        begin(self, faces, batch_idx)

    monkeypatch.setattr(AgeGenderModule, "on_train_batch_start", begin_or_act)


def crash() -> None:
    raise CrashError


def press_ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture
def uninterrupted(run_here: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an uninterrupted run of four epochs with every source of randomness; trained once."""
    folder = tmp_path_factory.getbasetemp() / "uninterrupted"
    if not folder.exists():
        outcome = run_here("train.py", *FOUR, f"hydra.run.dir={folder}")
        assert outcome.code == 0, outcome.err
    return folder
