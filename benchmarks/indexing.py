"""Time and memory of reading 1,000,000 file names; no image is opened.

Empty files named as in UTKFace are created in a temporary folder (or given with `--names`). `list_utkface_files`, the
first step of every run, reads them in a process of its own, whose peak memory the operating system reports. Goals:
20 s and 1 GiB, both including the start of the process. `python -m benchmarks.indexing [--count 1000000]`.
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
from agegender.data.index.utkface import list_utkface_files
listing = list_utkface_files(Path(sys.argv[1]))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps([len(listing.labels), time.perf_counter() - start, time.process_time(), peak * 1024]))
"""


@dataclass(frozen=True)
class Indexed:
    """Time and memory of reading names.

    Attributes:
        names: Number of names.
        seconds: Wall time of the whole process.
        reading: Wall time of reading the names, in seconds.
        cpu: CPU time of the process, in seconds.
        peak: Peak resident memory of the process, in bytes.
    """

    names: int
    seconds: float
    reading: float
    cpu: float
    peak: int

    def __str__(self) -> str:
        """Return the results in a line."""
        held = f"{self.peak / 2**30:.2f} GiB, {self.peak / self.names:,.0f} B a name"
        took = f"{self.seconds:.1f} s (reading {self.reading:.1f} s, {self.cpu:.1f} s of CPU time)"
        return f"{self.names:,} names: {took}, {held}"


def make_names(folder: Path, count: int) -> None:
    """Create empty files named as in UTKFace."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        for number in range(count):
            name = f"{number % 116 + 1}_{number % 2}_{number % 5}_{20170116000000000 + number}.jpg.chip.jpg"
            os.close(os.open(name, os.O_CREAT | os.O_WRONLY, dir_fd=descriptor))
    finally:
        os.close(descriptor)


def measure(folder: Path) -> Indexed:
    """Read the names of a folder in a process of its own."""
    start = time.perf_counter()
    command = [sys.executable, "-c", _READ, str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    names, reading, cpu, peak = json.loads(done.stdout)
    return Indexed(names, time.perf_counter() - start, reading, cpu, peak)


def main() -> None:
    """Print the measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1_000_000, help="number of names to create")
    parser.add_argument("--names", type=Path, help="existing folder of such names, which is kept")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        if chosen.names is None:
            make_names(Path(made), chosen.count)
        print(measure(chosen.names or Path(made)))


if __name__ == "__main__":
    main()
