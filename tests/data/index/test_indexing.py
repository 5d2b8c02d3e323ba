"""Reading file names takes little time and memory, however many there are."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.indexing import make_names, measure


@pytest.mark.benchmark
def test_indexing_a_million_names_takes_at_most_20_s_and_1_gib(tmp_path: Path) -> None:
    """Seconds of a core: on a machine that is busy with something else, the clock tells about that."""
    make_names(tmp_path / "names", 1_000_000)
    indexed = measure(tmp_path / "names")
    assert indexed.names == 1_000_000
    assert indexed.cpu < 20 and indexed.peak < 2**30, str(indexed)


def test_indexing_benchmark_counts_every_name_once(tmp_path: Path) -> None:
    make_names(tmp_path / "names", 3_000)
    indexed = measure(tmp_path / "names")
    assert indexed.names == 3_000 and indexed.cpu > 0 and 0 < indexed.reading < indexed.seconds
