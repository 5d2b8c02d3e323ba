"""The benchmarks run, and nothing is several times slower: floors far below the values of docs/performance.md."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks import augmenting, decoding, loader, memory, predicting

# The benchmarks use two workers on any number of cores; PyTorch's loader forks beside its threads.
pytestmark = [
    pytest.mark.benchmark,
    pytest.mark.filterwarnings("ignore:.*worker processes in total.*:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning"),
]


def test_pixel_cache_builds_as_fast_as_the_decoder() -> None:
    measured = decoding.measure(None, rounds=3)
    assert measured.ratio >= 0.7, measured


def test_cached_loader_outruns_a_plain_one() -> None:
    measured = loader.measure(None, rounds=3)
    assert measured.ratio >= 8, measured


def test_strong_augmentation_costs_little_per_step() -> None:
    measured = augmenting.measure(rounds=5)
    assert measured.ratio >= 0.8, measured


def test_predictor_takes_ten_milliseconds_per_image() -> None:
    assert predicting.latency() <= 10


def test_predictor_keeps_up_with_the_decoding_of_photographs(tmp_path: Path) -> None:
    measured = predicting.throughput(predicting.photographs(tmp_path / "photographs"), rounds=3)
    assert measured.ratio >= 0.6, measured


def test_predict_starts_within_twice_the_import_time() -> None:
    measured = predicting.cold_start(rounds=3)
    assert measured.ratio >= 0.5, measured


def test_help_and_a_misspelled_key_take_four_seconds() -> None:
    answered = predicting.help_seconds()
    assert max(answered.values()) < 4, answered


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_grow_with_epochs() -> None:
    settings = ("data=synthetic", *memory.STEADY, *memory.SMALL, "data.limit=400")
    memory.peak([*settings, "trainer.max_epochs=1"])  # draws and decodes the pictures
    few, many = (memory.peak([*settings, f"trainer.max_epochs={epochs}"]) for epochs in (3, 10))
    assert many <= 1.1 * few, (few, many)
