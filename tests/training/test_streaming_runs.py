"""Runs on streamed faces: resume, missing shards and several processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
import torch
from conftest import ROOT, Outcome, metrics_of, run_script
from helpers.packs import BUCKET, bucket_with, pack_small
from helpers.stopped_runs import differences
from helpers.waiting import wait_for_text

from agegender.training.module import AgeGenderModule

Run = Callable[..., Outcome]
SETTINGS = (
    *(
        "data=streaming",
        "data.image_size=32",
        "data.batch_size=16",
        "model.trunk.channels=[8,16]",
        "model.head_units=[16]",
    ),
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
def test_streaming_run_stopped_in_an_epoch_resumes_to_the_same_bits(
    run_here: Run, faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    shards = pack_small(faces, tmp_path / "shards")
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
    assert differences(ours["state_dict"], theirs["state_dict"]) == []
    predictions = [(tmp_path / run / "predictions.csv").read_bytes() for run in ("stopped", "whole")]
    assert predictions[0] == predictions[1]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_streaming_run_without_more_shards_ends_and_keeps_the_checkpoint(
    faces: Path, tmp_path: Path, workers: int
) -> None:
    shards = pack_small(faces, tmp_path / "shards")
    with bucket_with(shards, "faces") as address:
        whole = (*SETTINGS, f"data.dir={address}", f"data.num_workers={workers}", "trainer.max_epochs=1")
        outcome = run_script("train.py", *whole, "data.cache_dir=cache", "hydra.run.dir=run", cwd=tmp_path)
        assert outcome.code == 0, outcome.err
        client = boto3.client("s3")
        for held in client.list_objects_v2(Bucket=BUCKET, Prefix="faces/train/chunk")["Contents"]:
            client.delete_object(Bucket=BUCKET, Key=held["Key"])
        again = ("resume=run", "trainer.max_epochs=2", "data.cache_dir=another")
        outcome = run_script("train.py", *again, cwd=tmp_path)
        assert outcome.code == 1
        line = outcome.err.splitlines()[-1]  # LitData reports before it
        assert line.startswith(f"error: no more shards come from {address}/train (")
        assert "run/checkpoints/last.ckpt is kept; continue with: python train.py resume=" in line


TWO = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2")


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_streaming_on_two_processes_scores_as_on_one(run_here: Run, faces: Path, tmp_path: Path, workers: int) -> None:
    """The most uneven partition: with a batch size of 16 each, LitData gives one process nearly all test faces."""
    shards = pack_small(faces, tmp_path / "shards")
    settings = (*SETTINGS, f"data.dir={shards}", f"data.num_workers={workers}", "data.batch_size=32")
    both = run_script(
        "train.py", *settings, *TWO, "trainer.max_epochs=1", "hydra.run.dir=two", cwd=tmp_path, timeout=900
    )
    assert both.code == 0 and both.err == "", both.err
    alone = run_here("train.py", *settings, "fit=false", "weights=two", "hydra.run.dir=one")
    assert alone.code == 0, alone.err
    ours, theirs = metrics_of(tmp_path / "two"), metrics_of(tmp_path / "one")
    names = [name for name in theirs if name.startswith(("test/", "val/", "baseline/", "images/"))]
    assert len(names) > 12
    assert {name: ours[name] for name in names} == pytest.approx({name: theirs[name] for name in names}, rel=1e-4)
    rows = [np.genfromtxt(tmp_path / run / "predictions.csv", str, delimiter=",") for run in ("two", "one")]
    assert (rows[0][:, 0] == rows[1][:, 0]).all() and len(rows[0]) == ours["images/test"] + 1  # each once, in order
    for column in (2, rows[0][0].tolist().index("p_female")):
        first, second = (row[1:, column].astype(float) for row in rows)
        assert first == pytest.approx(second, abs=0.02)  # rounded to 0.01


@pytest.mark.slow
def test_streaming_on_two_processes_resumes_to_the_same_bits(faces: Path, tmp_path: Path) -> None:
    shards = pack_small(faces, tmp_path / "shards")
    unscheduled = (
        "callbacks.early_stopping=null",
        "optim.scheduler=null",
    )  # nothing depends on the length of the training
    settings = (*SETTINGS, *TWO, *unscheduled, f"data.dir={shards}", "data.num_workers=0")
    log = tmp_path / "log"
    with log.open("w", encoding="utf-8") as file:
        command = (sys.executable, str(ROOT / "train.py"), *settings, "trainer.max_epochs=400", "hydra.run.dir=run")
        process = subprocess.Popen(command, cwd=tmp_path, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)
    wait_for_text("epoch 2/", log, process)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(300) == 130, log.read_text(encoding="utf-8")
    last = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)["epoch"] + 3
    unlike = run_script("train.py", "resume=run", "trainer.devices=1", cwd=tmp_path)
    unlike.assert_one_line_error("an epoch's shards were split over 2 devices (data=streaming), not 1")
    for name, begin in (("run", ("resume=run",)), ("whole", (*settings, "hydra.run.dir=whole"))):
        outcome = run_script("train.py", *begin, f"trainer.max_epochs={last}", cwd=tmp_path, timeout=900)
        assert outcome.code == 0, f"{name}: {outcome.err}"
    ours, theirs = (torch.load(tmp_path / run / "checkpoints/last.ckpt", weights_only=True) for run in ("run", "whole"))
    assert ours["global_step"] == theirs["global_step"]
    assert differences(ours["state_dict"], theirs["state_dict"]) == []
