"""Feature cache of a frozen trunk: a few views of each face, computed once and read by row."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agegender.data.loading.dataset import FaceDataset, step_seed
from agegender.models.network import MultiTaskNet
from agegender.system.checksums import is_intact
from agegender.system.files import atomic_write, exclusive_lock, raise_cache_errors
from agegender.system.progress import track

log = logging.getLogger(__name__)

VERSION = 2  # of the cached files; increment it when their contents change
_AGAIN = "the features are computed again"  # what is done about a damaged file
_BATCH = 64  # faces augmented together; the views depend on it
_PASS = 16  # faces per forward pass on a CPU: larger batches exceed the cores' caches

Change = Callable[[Tensor, Tensor, torch.Generator], Tensor]  # (images, rows of the index, generator) -> images


class FeatureViews:
    """Cached features of one split, in one or more views; the first view is the unchanged face."""

    def __init__(self, rows: NDArray[np.int64], views: Sequence[Tensor]):
        """Store the features.

        Args:
            rows: `[faces]`, the faces' rows of the index.
            views: Each float32 `[faces, features]`.
        """
        self.views = list(views)
        self._places = torch.full((int(rows.max(initial=-1)) + 1,), len(rows))  # any other row is an error
        self._places[torch.from_numpy(rows)] = torch.arange(len(rows))

    def draw(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Return the features of a random view of each face, drawn by a CPU generator; see `read`."""
        drawn = torch.randint(len(self.views), (len(rows),), generator=generator).to(rows.device, non_blocking=True)
        each = torch.stack([self.read(rows, view) for view in range(len(self.views))])
        return each[drawn, torch.arange(len(rows), device=rows.device)]

    def read(self, rows: Tensor, view: int = 0) -> Tensor:
        """Return the float32 features `[batch, features]` of rows of the index `[batch]`.

        Args:
            rows: On any device; the features are moved there once.
            view: Number of the view.
        """
        if self._places.device != rows.device:
            self.views = [view.to(rows.device) for view in self.views]
            self._places = self._places.to(rows.device)
        return self.views[view][self._places[rows]]


class FeatureCache:
    """Files of the features of a frozen trunk, computed where they are missing or damaged.

    They are keyed on the trunk's weights, the contents of the images, their size and the change. So all splits of the
    same images share the features of the unchanged faces.
    """

    def __init__(
        self,
        network: MultiTaskNet,
        cache_dir: Path,
        seed: int,
        precision: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ):
        """Store the settings.

        Args:
            network: A network with a frozen trunk; the features are computed on its device.
            cache_dir: Folder of the files.
            seed: Seed of the changes.
            precision: Factory of the training's precision context (mixed precision).
        """
        self._network, self._folder, self._seed, self._precision = network, cache_dir / "features", seed, precision
        with precision():
            computed = str(torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda"))
        self._recipe = f"{VERSION}:{_digest(network)}:{computed}"

    def features(self, faces: FaceDataset, change: Change | None = None, name: str = "as it is") -> Tensor:
        """Return the float32 features `[faces, features]` of changed faces.

        Args:
            faces: Faces, in the order of the result.
            change: Change of the images, such as an augmentation; None for none.
            name: Description that identifies the change.

        Raises:
            FaultError: The file can't be written.
        """
        pictures = hashlib.sha256("".join(faces.index.digests[row] for row in faces.rows.tolist()).encode()).hexdigest()
        seed = self._seed if change else 0
        recipe = f"{self._recipe}:{pictures}:{self._network.image_size}:{name}:{seed}"
        path = self._folder / f"{hashlib.sha256(recipe.encode()).hexdigest()[:16]}.npy"
        if not is_intact(path, _AGAIN):
            size = 4 * len(faces) * self._network.trunk.num_features
            with (
                raise_cache_errors("the cache of features", path, size),
                exclusive_lock(path, f"another run is computing the same features: waiting for {path}"),
            ):
                if not is_intact(path, _AGAIN):
                    self._build(path, faces, change, name)
        return torch.from_numpy(np.load(path, allow_pickle=False))

    def _build(self, path: Path, faces: FaceDataset, change: Change | None, name: str) -> None:
        log.info("computing the trunk's features of %d faces once into %s", len(faces), path)
        features = np.empty((len(faces), self._network.trunk.num_features), np.float32)
        done = 0
        batches = _batches(faces, self._network.mean.device, change, self._seed, name)
        for images in track(batches, "features", -(-len(faces) // _BATCH)):
            for part in torch.split(images, _PASS if images.device.type == "cpu" else _BATCH):
                with torch.inference_mode(), self._precision():
                    computed = self._network.features(part)
                features[done : done + len(part)] = computed.float().cpu().numpy()
                done += len(part)
        with atomic_write(path, checksum=True) as file:
            np.save(file, features)


def _batches(faces: FaceDataset, device: torch.device, change: Change | None, seed: int, view: str) -> Iterator[Tensor]:
    for number, start in enumerate(range(0, len(faces), _BATCH)):
        places = torch.arange(start, min(start + _BATCH, len(faces)))
        batch = faces.__getitems__(places)
        images = batch["image"].to(device).contiguous(memory_format=torch.channels_last)
        if change is not None:
            images = change(images, batch["row"], torch.Generator().manual_seed(step_seed(seed, 0, number, view)))
        yield images


def _digest(network: MultiTaskNet) -> str:
    """Return a SHA-256 over the trunk's class, its weights and the normalization of its input."""
    digest = hashlib.sha256(type(network.trunk).__name__.encode())
    for name, value in [*network.trunk.state_dict().items(), ("mean", network.mean), ("std", network.std)]:
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def describe_view(augment: Mapping[str, Any], number: int) -> str:
    """Return the description that identifies an augmented view."""
    return f"view {number} {json.dumps(dict(augment), sort_keys=True)}"
