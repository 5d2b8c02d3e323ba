"""Reading file names takes little time and memory, however many there are."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from benchmarks.indexing import make_names, measure


@pytest.mark.benchmark
def test_indexing_a_million_names_takes_ten_times_their_splitting_and_at_most_1_gib(tmp_path: Path) -> None:
    make_names(tmp_path / "names", 1_000_000)
    indexed = measure(tmp_path / "names")
    start = time.process_time()
    fields = [entry.name.split("_") for entry in os.scandir(tmp_path / "names")]
    bare = time.process_time() - start
    assert indexed.names == len(fields) == 1_000_000
    assert indexed.cpu < 10 * bare and indexed.peak < 2**30, f"{indexed}; splitting took {bare:.1f} s"


def test_indexing_benchmark_counts_every_name_once(tmp_path: Path) -> None:
    make_names(tmp_path / "names", 3_000)
    indexed = measure(tmp_path / "names")
    assert indexed.names == 3_000 and indexed.cpu > 0 and 0 < indexed.reading < indexed.seconds
