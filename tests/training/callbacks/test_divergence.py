"""A non-finite loss ends the run with its step, rate and files, and no non-finite weights are saved."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from conftest import TINY, Outcome

from agegender.training.callbacks.divergence import StopOnNonFinite
from agegender.training.module import AgeGenderModule

Run = Callable[..., Outcome]


def scale_loss(monkeypatch: pytest.MonkeyPatch, epoch: int, batch: int, value: float) -> list[list[int]]:
    """Multiplies the loss of one step by `value`; returns a list that receives the rows of its batch."""
    own = AgeGenderModule.training_step
    rows: list[list[int]] = []

    def step(self: AgeGenderModule, faces: Any, batch_idx: int) -> torch.Tensor:
        loss = own(self, faces, batch_idx)
        if (self.current_epoch, batch_idx) != (epoch, batch):
            return loss
        rows.append(faces["row"].tolist())
        return loss * value

    monkeypatch.setattr(AgeGenderModule, "training_step", step)
    return rows


@pytest.mark.parametrize("value", [float("nan"), pytest.param(float("inf"), marks=pytest.mark.slow)])
def test_non_finite_loss_stops_the_run_and_keeps_the_last_checkpoint(
    run_here: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    rows = scale_loss(monkeypatch, 1, 2, value)
    outcome = run_here("train.py", *TINY, "hydra.run.dir=run", "optim.lr=0.002")
    run = tmp_path / "run"
    outcome.assert_one_line_error(f"the loss of step 9 (epoch 2) is {value}, at learning rate 0.002, with the faces ")
    listed = (run / "diverged.txt").read_text().splitlines()
    assert len(listed) == len(rows[0]) == 16 and all(Path(path).is_file() for path in listed)
    assert Path(listed[0]).name in outcome.err and "and 12 more" in outcome.err
    assert f"{run}/checkpoints/last.ckpt is kept; start from it with a lower rate (weights={run} optim.lr=...)" in (
        outcome.err
    )
    last = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    weights = [value for value in last["state_dict"].values() if isinstance(value, torch.Tensor)]
    assert last["global_step"] == 6 and all(value.isfinite().all() for value in weights)


@pytest.mark.slow
def test_non_finite_loss_is_reported_at_the_next_logging_step_on_a_device(
    run_here: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StopOnNonFinite, "checks_every_step", staticmethod(lambda *_: False))
    looked: list[int] = []
    look = StopOnNonFinite._look

    def note(self: StopOnNonFinite, trainer: pl.Trainer) -> None:
        looked.append(trainer.global_step)
        look(self, trainer)

    monkeypatch.setattr(StopOnNonFinite, "_look", note)
    scale_loss(monkeypatch, 0, 1, float("nan"))
    outcome = run_here("train.py", *TINY, "trainer.log_every_n_steps=4", "hydra.run.dir=run")
    assert outcome.code == 1 and "the loss of step 2 (epoch 1) is nan" in outcome.err
    assert looked == [4]
    assert "There is no checkpoint yet" in outcome.err


def test_non_finite_weights_are_never_saved(run_here: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = AgeGenderModule.on_train_epoch_end

    def spoil_weights(self: AgeGenderModule) -> None:
        own(self)
        if self.current_epoch == 1:
            with torch.no_grad():
                next(self.parameters()).view(-1)[0] = torch.nan

    monkeypatch.setattr(AgeGenderModule, "on_train_epoch_end", spoil_weights)
    outcome = run_here("train.py", *TINY, "hydra.run.dir=run")
    outcome.assert_one_line_error("after step 12 (epoch 2) the weights are not finite, and were not saved")
    assert torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)["global_step"] == 6


@pytest.mark.slow
def test_divergence_error_names_the_learning_rate(run_here: Run) -> None:
    outcome = run_here("train.py", *TINY, "optim.lr=1e30")
    outcome.assert_one_line_error("the training diverged: the loss of step ", "learning rate 1e+30")
