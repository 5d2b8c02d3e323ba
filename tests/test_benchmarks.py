"""The benchmarks run, and nothing has become several times slower: floors far below what docs/performance.md shows."""

from __future__ import annotations

import pytest

from benchmarks import augmenting, decoding, loader

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
