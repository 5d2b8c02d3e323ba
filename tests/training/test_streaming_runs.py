"""A training on streamed faces that was stopped continues as if it had not been."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Outcome
from training.test_resume import assert_same_run, press_ctrl_c, stop_at

from agegender.data.pack import pack

Run = Callable[..., Outcome]
SETTINGS = (
    *("data=streaming", "data.image_size=32", "data.batch_size=16", "model.channels=[8,16]", "model.head_units=[16]"),
    *("trainer=cpu", "trainer.max_epochs=3", "trainer.log_every_n_steps=1", "report=false", "augment=light"),
    *("model.dropout=0.3", "optim=adamw"),
)


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
        stop_at(patch, 1, 2, press_ctrl_c)
        assert run_here("train.py", *settings, "hydra.run.dir=stopped").code == 130
    outcome = run_here("train.py", "resume=stopped")
    assert outcome.code == 0, outcome.err
    assert_same_run(tmp_path / "stopped", tmp_path / "whole")
