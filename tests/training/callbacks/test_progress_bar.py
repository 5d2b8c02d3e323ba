"""The progress of a training: its estimate, and the bar's one line."""

from __future__ import annotations

import logging
import math
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agegender.training.callbacks.progress_bar import TrainingClock, duration, fit_line, progress_bar


def trainer_of(epoch: int = 0, **settings: Any) -> Any:
    defaults = {"num_training_batches": 100, "max_epochs": 30, "max_steps": -1, "accumulate_grad_batches": 1}
    return SimpleNamespace(current_epoch=epoch, **{**defaults, **settings})


def estimates(batches: list[tuple[float, int, int]], **settings: Any) -> list[Any]:
    """The estimates after batches, each given as the time, the epoch and the batch's index."""
    times = iter([time for time, _, _ in batches])
    clock = TrainingClock(lambda: next(times))
    return [clock.after_batch(trainer_of(epoch, **settings), batch) for _, epoch, batch in batches]


def test_estimate_leaves_out_the_first_batch() -> None:
    # the first ends at 50 s; from then on, 2 s per batch
    first, second, third = estimates([(50.0, 0, 0), (52.0, 0, 1), (70.0, 0, 10)])
    assert first is None
    assert second == (2.0 * 2998, 2.0 * 3000)
    assert third == (2.0 * 2989, 2.0 * 3000)


def test_estimate_includes_validations_between_epochs() -> None:
    # 199 batches of 1 s and a validation of 101 s between the epochs: 300 s for 199 batches
    _, last = estimates([(0.0, 0, 0), (300.0, 1, 99)])
    assert last.left == pytest.approx(300 / 199 * 2800)


def test_estimate_of_a_resumed_training_counts_its_own_batches() -> None:
    _, after = estimates([(0.0, 20, 0), (4.0, 20, 1)])
    assert after.left == 4.0 * (3000 - 2002)


@pytest.mark.parametrize(
    ("settings", "left"),
    [
        ({"max_steps": 12}, 10.0),
        ({"max_steps": 12, "accumulate_grad_batches": 2}, 22.0),
        ({"max_steps": 12, "max_epochs": -1}, 10.0),
        ({"max_epochs": -1}, None),
        ({"max_epochs": None}, None),
    ],
)
def test_estimate_follows_the_length_of_the_training(settings: dict[str, Any], left: float | None) -> None:
    _, found = estimates([(0.0, 0, 0), (1.0, 0, 1)], **settings)
    assert (found and found.left) == left


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (89.0, "89 s"), (90.0, "2 min"), (2400.0, "40 min"), (9000.0, "2.5 h")]
)
def test_duration_has_a_unit_that_fits(seconds: float, text: str) -> None:
    assert duration(seconds) == text


FIGURES = "38 min left loss 1.64 val 1.55 age mae 17.90 gender acc 75.00%"


def test_bar_holds_everything_on_80_columns() -> None:
    figures, bar = fit_line("epoch 12/30", FIGURES, 80)
    assert figures == FIGURES and bar >= 4


@given(st.text("x", min_size=1, max_size=20), st.text("y", max_size=200), st.integers(40, 200))
def test_bar_is_one_line(name: str, figures: str, width: int) -> None:
    text, bar = fit_line(name, figures, width)
    assert bar >= 4 and len(name) + 1 + bar + 1 + len(text) < width


def test_log_has_the_estimate_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: False)
    lines: Any = progress_bar()
    now = [0.0]
    monkeypatch.setattr(lines, "_clock", TrainingClock(lambda: now[0]))
    with caplog.at_level(logging.INFO):
        for batch in range(100):
            lines.on_train_batch_end(trainer_of(), None, None, None, batch)
            now[0] += 0.8
    assert [record.getMessage() for record in caplog.records] == ["about 40 min for 30 epochs"]
    assert math.isclose(3000 * 0.8, 40 * 60)
