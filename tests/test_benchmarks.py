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


def test_forward_pass_reaches_a_sixth_of_the_machines_multiply_rate() -> None:
    _, share = predicting.forward_pass()
    assert share >= 1 / 6


def test_predictor_keeps_up_with_the_decoding_of_photographs(tmp_path: Path) -> None:
    measured = predicting.throughput(predicting.photographs(tmp_path / "photographs"), rounds=3)
    assert measured.ratio >= 0.6, measured


def test_predict_starts_within_twice_the_import_time() -> None:
    measured = predicting.cold_start(rounds=3)
    assert measured.ratio >= 0.5, measured


@pytest.mark.parametrize(("argument", "code"), predicting.AT_ONCE.items())
def test_help_and_a_misspelled_key_need_no_slow_import(argument: str, code: int) -> None:
    measured = predicting.answers_at_once(argument, code)
    assert measured.ratio >= 1 / 16, measured


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_grow_with_epochs() -> None:
    settings = ("data=synthetic", *memory.STEADY, *memory.SMALL, "data.limit=400")
    memory.peak([*settings, "trainer.max_epochs=1"])  # draws and decodes the pictures
    few, many = (memory.peak([*settings, f"trainer.max_epochs={epochs}"]) for epochs in (3, 10))
    assert many <= 1.1 * few, (few, many)
