"""Peak memory of `python train.py` without the page cache, and its growth with the numbers of epochs and images.

The process is sampled from outside. Counted are anonymous and shared memory (RssAnon and RssShmem) of the process and
its children, since the decoded pixels are a memory-mapped file whose pages belong to the page cache. A small network is
trained on synthetic faces; `--full` takes the default network and the whole folder. Limits: 2.5 GiB with `--full`, and
in all cases an increase of a tenth from 3 to 10 epochs. `python -m benchmarks.memory [--data folder [--full]]`.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from agegender.errors import AgeGenderError, require

ROOT = Path(__file__).parent.parent
SMALL = ("data.image_size=64", "model.trunk.channels=[8,8]", "model.head_units=[16]")
STEADY = ("callbacks.early_stopping=null", "trainer=cpu")  # as many epochs as were asked for


def peak(overrides: Sequence[str], every: float = 0.1) -> float:
    """Run `train.py` and return its peak memory in GiB.

    Args:
        overrides: Overrides on its command line.
        every: Sampling interval in seconds.

    Raises:
        AgeGenderError: This is not Linux, or the training failed.
    """
    require(sys.platform == "linux", "benchmarks.memory reads /proc: it runs on Linux only")
    highest = 0
    with tempfile.TemporaryDirectory() as where, Path(where, "output").open("w+", encoding="utf-8") as output:
        command = [sys.executable, str(ROOT / "train.py"), *overrides, f"hydra.run.dir={where}/run"]
        process = subprocess.Popen(command, cwd=where, stdout=output, stderr=subprocess.STDOUT)
        try:
            while process.poll() is None:
                highest = max(highest, _held(process.pid))
                time.sleep(every)
        finally:
            process.kill()
            process.wait()
        if process.returncode:
            output.seek(0)
            raise AgeGenderError(f"{' '.join(command)} ended with {process.returncode}: {output.read()[-1000:]}")
    return highest / 2**20


def _held(process: int) -> int:
    """Return the memory of a process and its children without the page cache, in KiB."""
    held = 0
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # the process ended between two samples
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith(("RssAnon:", "RssShmem:")):
                held += int(line.split()[1])
        for thread in os.listdir(f"/proc/{process}/task"):
            children = Path(f"/proc/{process}/task/{thread}/children").read_text().split()
            held += sum(_held(int(child)) for child in children)
    return held


def main() -> None:
    """Print the peaks."""
    made = argparse.ArgumentParser(description="Peak memory of a training.")
    made.add_argument("--data", type=Path, help="folder of UTKFace-named faces; synthetic faces without it")
    made.add_argument("--full", action="store_true", help="the default network, on all of the folder")
    made.add_argument("--epochs", type=int, nargs=2, default=(3, 10))
    made.add_argument("--images", type=int, help="the larger number of images; the smaller is a quarter of it")
    made.add_argument("overrides", nargs="*", help="settings of train.py")
    chosen = made.parse_args()
    data = (f"data.dir={chosen.data.resolve()}",) if chosen.data else ("data=synthetic",)
    images = chosen.images or (len(os.listdir(chosen.data)) if chosen.data and chosen.full else 2000)
    settings = [*data, *STEADY, *(() if chosen.full else SMALL), *chosen.overrides]
    few, many = (f"trainer.max_epochs={epochs}" for epochs in chosen.epochs)
    quarter, all_of_them = f"data.limit={images // 4}", f"data.limit={images}"
    peaks: dict[tuple[str, ...], float] = {}
    for run in (
        (all_of_them, "trainer.max_epochs=1", "++trainer.limit_train_batches=1"),  # may build the pixel cache
        (all_of_them, few),
        (all_of_them, many),
        (quarter, few),
    ):
        peaks[run] = peak([*settings, *run])
        print(f"{' '.join(run)}: {peaks[run]:.3f} GiB", flush=True)
    print(f"more epochs: {peaks[all_of_them, many] / peaks[all_of_them, few]:.3f}x")
    print(f"more images: {peaks[all_of_them, few] / peaks[quarter, few]:.3f}x")


if __name__ == "__main__":
    main()
