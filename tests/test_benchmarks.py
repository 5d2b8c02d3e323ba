"""The benchmarks run, and nothing has become several times slower: floors far below what docs/performance.md shows."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks import augmenting, decoding, loader, memory, predicting

# Two workers are meant, however few cores there are; and forking beside PyTorch's threads is what its loader does.
pytestmark = [
    pytest.mark.benchmark,
    pytest.mark.filterwarnings("ignore:.*worker processes in total.*:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning"),
]


def test_the_build_of_the_cache_keeps_up_with_the_decoder() -> None:
    measured = decoding.measure(None, rounds=3)
    assert measured.ratio >= 0.7, measured


def test_the_cached_loader_outruns_a_plain_one() -> None:
    measured = loader.measure(None, rounds=3)
    assert measured.ratio >= 8, measured


def test_the_strong_augmentation_costs_a_training_step_little() -> None:
    measured = augmenting.measure(rounds=5)
    assert measured.ratio >= 0.8, measured


def test_one_picture_is_answered_by_the_default_network_in_ten_milliseconds() -> None:
    assert predicting.latency() <= 10


def test_photographs_are_answered_hardly_slower_than_they_are_decoded(tmp_path: Path) -> None:
    measured = predicting.throughput(predicting.photographs(tmp_path / "photographs"), rounds=3)
    assert measured.ratio >= 0.6, measured


def test_predicting_starts_in_less_than_twice_the_time_of_importing_its_libraries() -> None:
    measured = predicting.cold_start(rounds=3)
    assert measured.ratio >= 0.5, measured


def test_help_and_a_misspelled_key_are_answered_in_four_seconds() -> None:
    answered = predicting.help_seconds()
    assert max(answered.values()) < 4, answered


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_more_epochs_take_no_more_memory() -> None:
    settings = ("data=synthetic", *memory.STEADY, *memory.SMALL, "data.limit=400")
    memory.peak([*settings, "trainer.max_epochs=1"])  # draws and decodes the pictures
    few, many = (memory.peak([*settings, f"trainer.max_epochs={epochs}"]) for epochs in (3, 10))
    assert many <= 1.1 * few, (few, many)
