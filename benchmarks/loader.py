"""Speed of the training loader on cached pixels, as a ratio to a plain loader; the required ratio is 15.

The first is the datamodule's training loader: 128 x 128 in RGB, batches of 64, no augmentation. The baseline is a
straightforward implementation: a Dataset that opens each file with Pillow and converts it to RGB and to a float tensor
of that size, with the default collation and a DataLoader with two persistent workers. Both shuffle the same files and
read whole epochs; the cached loader reads several per round, because an epoch is too short to time. Rates are in images
per second.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from agegender.data.loading.dataset import FaceDataset
from benchmarks.faces import data_module, parser
from benchmarks.paired import Paired, in_turn

SIZE = 128
BATCH = 64
EPOCHS = 10  # epochs of the cached loader per round


class _PlainFaces(Dataset[tuple[Tensor, float, float]]):
    """The same faces, each opened, resized and converted to a tensor on access."""

    def __init__(self, faces: FaceDataset):
        index = faces.index
        self._paths = [index.folder / index.names[row] for row in faces.rows]
        self._ages, self._genders = (index.labels[name][faces.rows].tolist() for name in ("age", "gender"))

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, item: int) -> tuple[Tensor, float, float]:
        with Image.open(self._paths[item]) as opened:
            image = opened.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
        return pixels.float() / 255, self._ages[item], self._genders[item]


def measure(folder: Path | None, rounds: int = 5) -> Paired:
    """Time epochs of the cached and of the plain loader in turn."""
    data = data_module(folder, image_size=SIZE, grayscale=False, batch_size=BATCH)
    cached = data.train_dataloader()
    plain = DataLoader(
        _PlainFaces(data.split("train")), batch_size=BATCH, shuffle=True, num_workers=2, persistent_workers=True
    )
    return in_turn(
        "cached loader against a plain one",
        lambda: sum(len(batch["image"]) for _ in range(EPOCHS) for batch in cached),
        lambda: sum(len(images) for images, _, _ in plain),
        rounds,
    )


def main() -> None:
    """Print the ratio in one line."""
    arguments = parser("The loader on cached pixels against Dataset, Pillow and DataLoader.").parse_args()
    print(measure(arguments.data, arguments.rounds))


if __name__ == "__main__":
    main()
