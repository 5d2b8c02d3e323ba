"""A long run does not leak memory, file handles or threads."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import TINY, Outcome

from agegender.training.module import AgeGenderModule

Run = Callable[..., Outcome]


def resident_memory() -> float:
    """Returns the resident memory of this process, in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux's /proc")
def test_train_for_200_epochs_leaks_no_memory_file_handles_or_threads(
    run_here: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = AgeGenderModule.on_train_epoch_end
    taken: list[tuple[float, int, int, int]] = []

    def look(self: AgeGenderModule) -> None:
        own(self)
        gc.collect()
        taken.append(
            (resident_memory(), len(os.listdir("/proc/self/fd")), threading.active_count(), len(gc.get_objects()))
        )

    monkeypatch.setattr(AgeGenderModule, "on_train_epoch_end", look)
    short = ("+trainer.limit_train_batches=1", "callbacks.image_logger.faces=1", "callbacks.early_stopping=null")
    asked = (*TINY, "data.synthetic.count=60", "trainer.max_epochs=200", *short, "test=false")
    outcome = run_here("train.py", *asked)
    assert outcome.code == 0, outcome.err
    assert len(taken) == 200
    print(*(f"epoch {epoch}: {taken[epoch - 1]}" for epoch in (1, 10, 50, 100, 150, 200)), sep="\n")
    early, late = taken[49], taken[199]
    assert late[0] < early[0] + 10  # MB
    assert late[1:3] == early[1:3]
    assert late[3] < early[3] * 1.02  # Python objects
