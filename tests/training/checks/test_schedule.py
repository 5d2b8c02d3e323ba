"""A training whose settings leave no best checkpoint, or nothing to test, is refused before it begins."""

# ruff: noqa: F401, F811
# An imported fixture is also the name of an argument.

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from conftest import TINY, Outcome, metrics_of
from helpers.composed import RefusalOf, refusal_of

from agegender.errors import AgeGenderError
from agegender.runs.checkpoint import find_checkpoint
from agegender.training.checks.schedule import check_schedule

Run = Callable[..., Outcome]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("trainer.max_epochs=0", "trainer.max_epochs=0 leaves nothing to do"),
        ("+trainer.max_steps=0", "trainer.max_steps=0 leaves nothing to do"),
        ("+trainer.limit_train_batches=0", "trainer.limit_train_batches=0 leaves nothing to do"),
        ("+trainer.limit_val_batches=0", "trainer.limit_val_batches=0 leaves nothing to do"),
        ("+trainer.limit_test_batches=0", "trainer.limit_test_batches=0 leaves nothing to test: set test=false"),
        ("++trainer.check_val_every_n_epoch=3", "trainer.check_val_every_n_epoch=3 exceeds trainer.max_epochs="),
        ("+callbacks.checkpoint.save_top_k=0", "callbacks.checkpoint.save_top_k=0 keeps no checkpoint"),
        ("+callbacks.checkpoint.save_top_k=3", "keeps several files: give them different names"),
        ("+callbacks.checkpoint.every_n_epochs=9", "callbacks.checkpoint.every_n_epochs=9 exceeds the number of"),
        ("callbacks.checkpoint.mode=max", "callbacks.checkpoint.mode=max, but min is best for val/age_mae: remove it"),
        ("callbacks.early_stopping.monitor=val/nope", "callbacks.early_stopping.monitor=val/nope is not known"),
        ("+callbacks.x._target_=lightning.pytorch.callbacks.LearningRateFinder", "callbacks.x: lightning.pytorch"),
        ("+callbacks.x._target_=lightning.pytorch.callbacks.BatchSizeFinder", "callbacks.x: lightning.pytorch"),
    ],
)
def test_training_without_a_best_checkpoint_or_a_test_is_refused_before_data_is_read(
    refusal_of: RefusalOf, tmp_path: Path, setting: str, message: str
) -> None:
    assert message in refusal_of(*TINY, setting)
    assert not list(tmp_path.rglob("*.csv"))  # no index of the faces


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_steps": 9}, "trainer.max_steps=9 ends before the first validation at step 10"),
        ({"max_steps": 10}, None),
        ({"max_steps": 4, "accumulate_grad_batches": 2}, "at step 5"),
        ({"max_steps": 5, "accumulate_grad_batches": 2}, None),
        ({"max_steps": 19, "check_val_every_n_epoch": 2}, "at step 20"),
        ({"max_steps": 5, "val_check_interval": 0.5}, None),
        ({"max_steps": 3, "val_check_interval": 4}, "at step 4"),
        ({"max_steps": 6, "limit_train_batches": 6}, None),
        ({"val_check_interval": 11}, "trainer.val_check_interval=11 exceeds an epoch's 10 batches"),
        ({"val_check_interval": 11, "check_val_every_n_epoch": None}, None),
        ({"limit_val_batches": 0.4}, "trainer.limit_val_batches=0.4 of 2 batches is less than one"),
        ({"limit_val_batches": 0.5}, None),
        ({"limit_train_batches": 0.05}, "trainer.limit_train_batches=0.05 of 10 batches is less than one"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*GPU available")
def test_schedule_is_refused_exactly_if_no_validation_is_reached(options: dict[str, Any], message: str | None) -> None:
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, **{"max_epochs": 5, **options})
    if message is None:
        check_schedule(trainer, 80, 16, 8)
    else:
        with pytest.raises(AgeGenderError, match=message.replace("(", r"\(")):
            check_schedule(trainer, 80, 16, 8)


def test_run_knows_its_best_checkpoint_under_any_name_moved_and_resumed(run_here: Run, tmp_path: Path) -> None:
    names = ("+callbacks.checkpoint.save_top_k=2", 'callbacks.checkpoint.filename="ep-{epoch}"', "test=false")
    assert run_here("train.py", *TINY, *names, "callbacks.image_logger=null", "hydra.run.dir=run").code == 0
    (tmp_path / "run").rename(tmp_path / "moved")
    best = find_checkpoint(tmp_path / "moved")
    results = metrics_of(tmp_path / "moved")
    assert best.parent == tmp_path / "moved" / "checkpoints" and best.stem == f"ep-{results['best_epoch']}"
    assert torch.load(best, weights_only=True)["epoch"] + 1 == results["best_epoch"]
    outcome = run_here("train.py", "resume=moved", "trainer.max_epochs=3")
    assert outcome.code == 0, outcome.err
    assert find_checkpoint(tmp_path / "moved").stem == f"ep-{metrics_of(tmp_path / 'moved')['best_epoch']}"


def test_run_whose_best_checkpoint_is_gone_says_which_one_is_used(
    trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").write_bytes((trained_run / "checkpoints" / "last.ckpt").read_bytes())
    (tmp_path / "best_checkpoint.txt").write_text("checkpoints/gone.ckpt\n")
    assert find_checkpoint(tmp_path).name == "last.ckpt"
    warned = capsys.readouterr().err
    assert "gone.ckpt, which does not exist" in warned and "last.ckpt is used" in warned


def test_epoch_without_validation_prints_no_validation_metrics(run_here: Run) -> None:
    outcome = run_here("train.py", *TINY, "++trainer.check_val_every_n_epoch=2", "test=false")
    lines = [line for line in outcome.out.splitlines() if line.startswith("epoch ")]
    assert ["validation" in line for line in lines] == [False, True]


def test_resume_auto_of_a_finished_run_ends_at_once(run_here: Run, tmp_path: Path) -> None:
    command = ("train.py", *TINY, "trainer.max_epochs=1", "test=false", "name=done")
    assert run_here(*command).code == 0
    outcome = run_here(*command, "resume=auto")
    assert outcome.code == 0 and "is finished: nothing is left to do" in outcome.out
    assert len(list((tmp_path / "logs" / "done").iterdir())) == 1
    other = run_here(*command, "seed=5", "resume=auto")
    assert other.code == 0 and "is finished" not in other.out
