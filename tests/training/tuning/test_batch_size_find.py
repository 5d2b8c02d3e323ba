"""The batch-size finder: the sizes that it tries, its suggestion, and what a run of it leaves."""

# ruff: noqa: F401, F811
# An imported fixture is also the name of an argument.

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY, Outcome
from helpers.composed import RefusalOf, refusal_of

from agegender.training.module import AgeGenderModule

Run = Callable[..., Outcome]
FINDS = (*TINY, "batch_size_find=true", "name=found")


def limit_memory(monkeypatch: pytest.MonkeyPatch, most: int) -> list[int]:
    """Makes a training step of more faces fail as on a GPU, and returns the sizes of the steps' batches."""
    sizes: list[int] = []
    step = AgeGenderModule.training_step

    def limited(self: AgeGenderModule, batch: Any, batch_idx: int) -> torch.Tensor:
        sizes.append(len(batch["row"]))
        if sizes[-1] > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return step(self, batch, batch_idx)

    monkeypatch.setattr(AgeGenderModule, "training_step", limited)
    return sizes


def test_largest_batch_size_that_fits_is_suggested_and_no_run_is_left(
    run_here: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = limit_memory(monkeypatch, 20)
    outcome = run_here("train.py", *FINDS)
    assert outcome.code == 0, outcome.err
    assert sizes == [2, 2, 4, 4, 8, 8, 16, 16, 32]
    line = outcome.out.splitlines()[-1]
    told = r"suggested data\.batch_size=16 \(32 faces don't fit the memory\); now: python train\.py (.*)"
    found = re.fullmatch(told + r" data\.batch_size=16", line)
    assert found and "batch_size" not in found[1] and "name=found" in found[1]
    assert not list(tmp_path.rglob("*.ckpt")) and not list((tmp_path / "logs" / "found").iterdir())


@pytest.mark.slow
def test_batch_size_is_at_most_the_number_of_training_faces(run_here: Run) -> None:
    outcome = run_here("train.py", *FINDS, "data.limit=30")
    assert outcome.code == 0, outcome.err
    assert re.search(r"suggested data\.batch_size=16 \(there are 2\d training faces\); now: ", outcome.out)


def test_batch_size_of_no_fitting_size_is_refused_in_one_line(
    refusal_of: RefusalOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_memory(monkeypatch, 1)
    assert "batch_size_find: 2 faces don't fit the memory: use a smaller" in refusal_of(*FINDS)


def test_batch_size_find_is_refused_on_several_devices(refusal_of: RefusalOf) -> None:
    several = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2")
    assert "batch_size_find=true is for one device" in refusal_of(*FINDS, *several)
