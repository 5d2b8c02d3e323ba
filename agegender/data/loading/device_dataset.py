"""Dataset on the training device: a batch is a gather, without loading in the training loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.utils.data import Dataset

from agegender.data.loading.dataset import Batch, FaceDataset
from agegender.data.loading.pixel_cache import MemmapPixels


class DeviceDataset(Dataset[Batch]):
    """Faces of one split, as `FaceDataset`, with pixels and labels on a device."""

    def __init__(self, faces: FaceDataset, pixels: Tensor, places: Tensor, device: torch.device):
        """Move the labels to the device; see `place` for the pixels.

        Args:
            faces: The split.
            pixels: uint8 `[images, size, size, channels]`, on the device.
            places: int64 `[len(faces)]`, each face's row of `pixels`.
            device: The target device.
        """
        self._pixels = pixels
        self._labels = {name: column.to(device) for name, column in faces.labels(faces.rows).items()}
        self._row, self._places = torch.from_numpy(faces.rows).to(device), places.to(device)

    def __len__(self) -> int:
        """Return the number of faces."""
        return len(self._places)

    def __getitem__(self, item: int) -> Batch:
        """Return a single face as a batch of one."""
        return self.__getitems__([item])

    def __getitems__(self, items: Sequence[int] | Tensor) -> Batch:
        """Return the faces at these positions of the split as one batch."""
        chosen = torch.as_tensor(items, device=self._places.device)
        images = self._pixels.index_select(0, self._places[chosen]).permute(0, 3, 1, 2)  # channels last in memory
        labels = {name: column[chosen] for name, column in self._labels.items()}
        return Batch(image=images, labels=labels, row=self._row[chosen])

    @property
    def device(self) -> torch.device:
        """Device of the batches."""
        return self._places.device


def to_device(
    splits: Mapping[str, FaceDataset], cached: MemmapPixels, device: torch.device
) -> dict[str, DeviceDataset]:
    """Move splits to a device, with one shared copy of the pixels."""
    pixels = cached.as_tensor().to(device)
    places = {name: torch.from_numpy(cached.cache_rows(faces.rows)) for name, faces in splits.items()}
    return {name: DeviceDataset(faces, pixels, places[name], device) for name, faces in splits.items()}
