"""Checks that a training reaches a validation that selects the best checkpoint, and a test."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl

from agegender.errors import require

_NO_BEST = "so no validation chooses the best checkpoint"


def check_schedule_settings(settings: Mapping[str, Any]) -> None:
    """Check what the settings alone decide, before any data is read.

    Raises:
        AgeGenderError: The training would end without a best checkpoint, or the test without faces.
    """
    trainer = settings["trainer"]
    require(
        not settings["test"] or trainer.get("limit_test_batches") != 0,
        "trainer.limit_test_batches=0 leaves nothing to test: set test=false, or allow at least one batch",
    )
    if not settings["fit"]:
        return
    epochs = trainer.get("max_epochs")
    for name in ("max_epochs", "max_steps", "limit_train_batches", "limit_val_batches"):
        require(trainer.get(name) != 0, f"trainer.{name}=0 leaves nothing to do, {_NO_BEST}: set it above 0")
    bounded = epochs is not None and epochs > 0
    every = trainer.get("check_val_every_n_epoch") or 1
    require(
        not bounded or every <= epochs,
        f"trainer.check_val_every_n_epoch={every} exceeds trainer.max_epochs={epochs}, {_NO_BEST}: lower it",
    )
    checkpoint = (settings.get("callbacks") or {}).get("checkpoint") or {}
    kept, saves = checkpoint.get("save_top_k", 1), checkpoint.get("every_n_epochs") or 1
    where = "callbacks.checkpoint"
    require(kept != 0, f"{where}.save_top_k=0 keeps no checkpoint to test: set it to 1 or more")
    require(
        kept == 1 or "{" in (checkpoint.get("filename") or "{"),
        f"{where}.save_top_k={kept} keeps several files: give them different names, such as "
        f"'{where}.filename=\"best-{{epoch}}\"'",
    )
    require(
        not bounded or saves * every <= epochs,
        f"{where}.every_n_epochs={saves} exceeds the number of validations in trainer.max_epochs={epochs}, so no "
        "checkpoint is saved: lower it",
    )


def check_schedule(trainer: pl.Trainer, train_faces: int, val_faces: int, batch_size: int) -> None:
    """Check what also depends on the number of faces, before the training begins.

    Args:
        trainer: The Trainer of the run.
        train_faces: Number of training faces.
        val_faces: Number of validation faces.
        batch_size: Faces per step on all devices together.

    Raises:
        AgeGenderError: The training would end without a validation.
    """
    counts = {"train": math.ceil(train_faces / batch_size), "val": math.ceil(val_faces / batch_size)}
    limited = {}
    for name, count in counts.items():
        limit = getattr(trainer, f"limit_{name}_batches")
        limited[name] = min(count, limit) if isinstance(limit, int) else int(count * limit)
        key = f"trainer.limit_{name}_batches={limit}"
        require(limited[name] > 0 or count == 0, f"{key} of {count} batches is less than one, {_NO_BEST}: raise it")
    batches, interval, every = limited["train"], trainer.val_check_interval, trainer.check_val_every_n_epoch
    if not isinstance(interval, int | float):  # a time, or none
        return
    counted = isinstance(interval, int)
    require(
        not counted or every is None or interval <= batches,
        f"trainer.val_check_interval={interval} exceeds an epoch's {batches} batches: set a lower number, or a "
        "fraction from 0 to 1",
    )
    first = int(interval) if counted else max(1, int(batches * interval))
    steps = math.ceil((first + batches * ((every or 1) - 1)) / trainer.accumulate_grad_batches)
    require(
        trainer.max_steps in (None, -1) or trainer.max_steps >= steps,
        f"trainer.max_steps={trainer.max_steps} ends before the first validation at step {steps}, {_NO_BEST}: "
        "raise it, or lower trainer.val_check_interval",
    )
