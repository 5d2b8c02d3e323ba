"""How long it takes to read 1,000,000 file names, and the memory that takes; no picture is opened.

Empty files under names as in UTKFace are made in a folder of their own (`--names`), and read by the function that every
run begins with, in a process of its own whose peak is what the system reports. Goals: 20 s and 1 GiB, the process's
start included in both. `python -m benchmarks.indexing [--count 1000000]`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent

_READ = """
import json, resource, sys, time
from pathlib import Path
start = time.perf_counter()
from agegender.data.names import read_names
listing = read_names(Path(sys.argv[1]))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps([len(listing.labels), time.perf_counter() - start, time.process_time(), peak * 1024]))
"""


@dataclass(frozen=True)
class Indexed:
    """What reading the names took.

    Attributes:
        names: How many there were.
        seconds: From the start of the process to the end.
        reading: Of these, for the names alone.
        cpu: Seconds of work on a core, all in all: `seconds`, were nothing else going on.
        peak: Bytes of memory that the process held at once.
    """

    names: int
    seconds: float
    reading: float
    cpu: float
    peak: int

    def __str__(self) -> str:
        """Return it as a line."""
        held = f"{self.peak / 2**30:.2f} GiB, {self.peak / self.names:,.0f} B a name"
        took = f"{self.seconds:.1f} s (reading {self.reading:.1f} s, {self.cpu:.1f} s of a core)"
        return f"{self.names:,} names: {took}, {held}"


def make_names(folder: Path, count: int) -> None:
    """Make empty files named as in UTKFace."""
    folder.mkdir(parents=True, exist_ok=True)
    where = os.open(folder, os.O_RDONLY)
    try:
        for number in range(count):
            name = f"{number % 116 + 1}_{number % 2}_{number % 5}_{20170116000000000 + number}.jpg.chip.jpg"
            os.close(os.open(name, os.O_CREAT | os.O_WRONLY, dir_fd=where))
    finally:
        os.close(where)


def measure(folder: Path) -> Indexed:
    """Read the names of a folder in a process of its own."""
    start = time.perf_counter()
    command = [sys.executable, "-c", _READ, str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    names, reading, cpu, peak = json.loads(done.stdout)
    return Indexed(names, time.perf_counter() - start, reading, cpu, peak)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1_000_000, help="how many names to make")
    parser.add_argument("--names", type=Path, help="folder that holds them already, and is kept")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        if chosen.names is None:
            make_names(Path(made), chosen.count)
        print(measure(chosen.names or Path(made)))


if __name__ == "__main__":
    main()
