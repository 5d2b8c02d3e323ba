"""A training on streamed faces that was stopped continues as if it had not been."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Outcome

from agegender.data.pack import pack
from agegender.training.module import AgeGenderModule

Run = Callable[..., Outcome]
SETTINGS = (
    *("data=streaming", "data.image_size=32", "data.batch_size=16", "model.channels=[8,16]", "model.head_units=[16]"),
    *("trainer=cpu", "trainer.max_epochs=3", "trainer.log_every_n_steps=1", "report=false", "augment=light"),
    *("model.dropout=0.3", "optim=adamw"),
)


def press_ctrl_c_once(patch: pytest.MonkeyPatch, epoch: int, batch: int) -> None:
    begin = AgeGenderModule.on_train_batch_start

    def begin_or_stop(self: AgeGenderModule, faces: Any, batch_idx: int) -> None:
        if (self.current_epoch, batch_idx) == (epoch, batch):
            os.kill(os.getpid(), signal.SIGINT)
        begin(self, faces, batch_idx)

    patch.setattr(AgeGenderModule, "on_train_batch_start", begin_or_stop)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_a_streamed_training_stopped_in_an_epoch_continues_to_the_same_bits(
    run_here: Run, faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("agegender.data.pack.MB", 20_000)
        shards = pack({"dir": str(faces)}, str(tmp_path / "shards"), shard_mb=1)
    settings = (*SETTINGS, f"data.dir={shards}", f"data.num_workers={workers}")
    assert run_here("train.py", *settings, "hydra.run.dir=whole").code == 0
    with monkeypatch.context() as patch:
        press_ctrl_c_once(patch, 1, 2)
        assert run_here("train.py", *settings, "hydra.run.dir=stopped").code == 130
    outcome = run_here("train.py", "resume=stopped")
    assert outcome.code == 0, outcome.err
    ours, theirs = (
        torch.load(tmp_path / run / "checkpoints" / "last.ckpt", weights_only=True) for run in ("stopped", "whole")
    )
    assert (ours["epoch"], ours["global_step"]) == (theirs["epoch"], theirs["global_step"])
    assert all(torch.equal(ours["state_dict"][name], value) for name, value in theirs["state_dict"].items())
    predictions = [(tmp_path / run / "predictions.csv").read_bytes() for run in ("stopped", "whole")]
    assert predictions[0] == predictions[1]
