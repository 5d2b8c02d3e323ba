"""Speed of LitData's loader on shards, as a ratio to the folder's loader without a cache.

Both yield batches of 64 of the same faces, 128 x 128 in RGB, in the main process, timed in turn. Also printed: the size
of a face in a shard and as pixels, and with `--memory` the peak memory of `train.py data=streaming` for some faces and
for four times as many. `python -m benchmarks.streaming [--data folder] [--memory]`.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from agegender.data.streaming.datamodule import StreamingDataModule
from agegender.data.streaming.pack import pack
from benchmarks.faces import data_module, parser
from benchmarks.memory import SMALL, STEADY, peak
from benchmarks.paired import Paired, in_turn

SIZE = 128
BATCH = 64


def measure(folder: Path | None, rounds: int = 5, count: int = 2000) -> tuple[Paired, float]:
    """Return both rates in images per second, and the mean size of a face in a shard in bytes."""
    decoded = data_module(
        folder, count, image_size=SIZE, grayscale=False, batch_size=BATCH, cache="none", num_workers=0
    )
    with tempfile.TemporaryDirectory() as made:
        shards = pack({"dir": str(decoded.index.folder)}, f"{made}/shards")
        streamed = StreamingDataModule(str(shards), None, None, SIZE, False, BATCH, 0)
        streamed.setup()
        ours, theirs = streamed.train_dataloader(), decoded.train_dataloader()
        found = in_turn(
            "data=streaming against data.cache=none",
            lambda: sum(len(batch["row"]) for batch in ours),
            lambda: sum(len(batch["row"]) for batch in theirs),
            rounds,
        )
        size = sum(file.stat().st_size for file in shards.glob("train/*.bin")) / len(streamed.split("train"))
    return found, size


def peaks(count: int) -> tuple[float, float]:
    """Return the peak memory of a training on `count` synthetic faces and on four times as many, in GiB."""
    found = []
    with tempfile.TemporaryDirectory() as made:
        for number in (count, 4 * count):
            shards = pack({"synthetic": {"count": number, "size": 64}}, f"{made}/{number}")
            streamed = ("data=streaming", f"data.dir={shards}", "data.num_workers=0", "trainer.max_epochs=2")
            found.append(peak([*streamed, *SMALL, *STEADY, "report=false"]))
    return found[0], found[1]


def main() -> None:
    """Print the measurements."""
    made = parser("Streaming against decoding from a folder.")
    made.add_argument("--memory", action="store_true", help="also measure the peak memory of two trainings")
    chosen = made.parse_args()
    found, size = measure(chosen.data, chosen.rounds)
    print(found)
    print(f"a face: {size:,.0f} B in a shard, {SIZE * SIZE * 3:,} B as pixels of {SIZE} x {SIZE} in RGB")
    if chosen.memory:
        few, many = peaks(500)
        print(f"500 faces: {few:.3f} GiB; 2,000: {many:.3f} GiB, {many / few:.3f}x")


if __name__ == "__main__":
    main()
