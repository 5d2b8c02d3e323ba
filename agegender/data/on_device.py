"""Faces kept where the network is: a batch is a gather on the device, and the training loop loads nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.utils.data import Dataset

from agegender.data.cache import CachedPixels
from agegender.data.dataset import Batch, FaceDataset


class FacesOnDevice(Dataset[Batch]):
    """One split's faces, as `FaceDataset`, with its pixels and labels on a device."""

    def __init__(self, faces: FaceDataset, pixels: Tensor, places: Tensor, device: torch.device):
        """Moves the labels; see `place` for the pixels.

        Args:
            faces: The split.
            pixels: uint8 `[pictures, size, size, channels]`, on the device.
            places: int64 `[len(faces)]`, each face's place among the pixels.
            device: Where to.
        """
        columns = (*faces.labels(faces.rows), torch.from_numpy(faces.rows), places)
        self._pixels = pixels
        self._age, self._gender, self._row, self._places = (column.to(device) for column in columns)

    def __len__(self) -> int:
        """Returns the number of faces."""
        return len(self._places)

    def __getitem__(self, item: int) -> Batch:
        """Returns a single face as a batch of one."""
        return self.__getitems__([item])

    def __getitems__(self, items: Sequence[int] | Tensor) -> Batch:
        """Returns the faces at these places of the split as one batch."""
        chosen = torch.as_tensor(items, device=self._places.device)
        images = self._pixels.index_select(0, self._places[chosen]).permute(0, 3, 1, 2)  # channels last in memory
        return Batch(image=images, age=self._age[chosen], gender=self._gender[chosen], row=self._row[chosen])

    @property
    def device(self) -> torch.device:
        """Where the batches are made."""
        return self._places.device


def place(splits: Mapping[str, FaceDataset], cached: CachedPixels, device: torch.device) -> dict[str, FacesOnDevice]:
    """Moves splits to a device, with one copy of the pixels that they share."""
    pixels = cached.as_tensor().to(device)
    places = {name: torch.from_numpy(cached.places(faces.rows)) for name, faces in splits.items()}
    return {name: FacesOnDevice(faces, pixels, places[name], device) for name, faces in splits.items()}
