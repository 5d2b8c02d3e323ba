"""Streaming datamodule (`data=streaming`): packed faces, read from a folder or an object store on demand."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from agegender.data.datamodule import AgeGenderDataModule
from agegender.data.index.index import check_labels, drop_missing
from agegender.data.index.protocol import protocol_of
from agegender.data.index.split import SPLITS, Split
from agegender.data.loading.dataset import Batch
from agegender.data.streaming.packed_index import BUCKET, PackedIndex, fetch_dir, open_pack
from agegender.errors import missing_extra, require

if TYPE_CHECKING:
    from agegender.data.streaming.litdata_loader import StreamingFaceLoader, StreamingPixels

log = logging.getLogger(__name__)


class StreamingSplit:
    """Faces of one split in a pack; `pixels` reads single ones."""

    def __init__(self, data: StreamingDataModule, name: Split):
        """Store the datamodule and the name of the split."""
        self._data, self._name = data, name
        self.index = data.index
        self.start, self._size = data.index.place(name)

    def __len__(self) -> int:
        """Return the number of faces."""
        return self._size

    def known(self, label: str) -> NDArray[np.float32]:
        """Return the split's labels of one kind, without missing ones."""
        column = self.index.labels.get(label)
        return np.zeros(0, np.float32) if column is None else drop_missing(column[self.start : self.start + self._size])

    @cached_property
    def pixels(self) -> StreamingPixels:
        """Reader of single images by their row of the index."""
        from agegender.data.streaming.litdata_loader import DecodeTransform, StreamingPixels

        decoder = DecodeTransform(self._data.image_size, self._data.grayscale)
        # A separate folder, since loaders add and remove whole shards in theirs.
        return StreamingPixels(self._data.stream(self._name, apart=True), decoder, self.start)


class StreamingDataModule(AgeGenderDataModule):
    """Datamodule of faces packed by `agegender.data.streaming.pack`.

    Split, fingerprint and labels are those of the packed folder. The training order differs: LitData shuffles the
    shards, and the faces in each, as a function of seed, epoch and the number of loader processes.
    """

    streamed = True
    _train_loader: StreamingFaceLoader | None

    def __init__(
        self,
        dir: str | None = None,
        cache_dir: str | None = None,
        max_cache: str | None = None,
        image_size: int = 128,
        grayscale: bool = True,
        batch_size: int = 32,
        num_workers: int | None = None,
        augment: Mapping[str, Any] | None = None,
        seed: int = 0,
        labels: Mapping[str, Sequence[str] | None] | None = None,
    ):
        """Store the settings; nothing is read before `prepare_data` or `setup`.

        Args:
            dir: Folder written by `agegender pack`, or `s3://bucket/...` with a copy of it. boto3 reads the server and
                the credentials from AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, ...
            cache_dir: Folder for downloaded shards; None for the user's cache folder.
            max_cache: Maximum size of the downloaded shards, such as `100GB`; None for three quarters of the free disk
                space.
            image_size: Side of the network's input in pixels.
            grayscale: One channel instead of three.
            batch_size: Faces per step.
            num_workers: Number of loader processes, which decode; None for one per core, at most 8.
            augment: See `AgeGenderDataModule`.
            seed: Seed of order and augmentation.
            labels: See `AgeGenderDataModule`; the pack must have them.
        """
        require(dir is not None, "data=streaming needs data.dir=, the folder or s3:// address of packed faces")
        self.place, self.max_cache = str(dir).rstrip("/"), max_cache
        remote = "://" in self.place
        require(not remote or self.place.startswith(BUCKET), f"data.dir={dir} must be a folder or begin with {BUCKET}")
        super().__init__(
            dir=dir,
            cache_dir=cache_dir,
            cache="none",
            on_device=False,
            image_size=image_size,
            grayscale=grayscale,
            batch_size=batch_size,
            num_workers=num_workers,
            augment=augment,
            seed=seed,
        )
        self._labels = labels or {}

    @property
    def index(self) -> PackedIndex:
        """Index of the pack; `setup` must have run."""
        assert isinstance(super().index, PackedIndex)
        return super().index  # type: ignore[return-value]

    @property
    def split_settings(self) -> dict[str, Any]:
        """Settings of the split when the faces were packed."""
        return dict(self.index.described("split"))

    def prepare_data(self) -> None:
        """Download the index from an object store (Lightning calls this on one rank only)."""
        self.find_index()

    def find_index(self) -> PackedIndex:
        """Open the index of the pack."""
        return open_pack(self.place, self.cache_dir)

    def setup(self, stage: str | None = None) -> None:
        """Open the index; a second call does nothing."""
        if self._index is not None:
            return
        try:
            import litdata  # noqa: F401  # fails before the network is built
        except ImportError as error:
            raise missing_extra("data=streaming", error, "stream") from None
        self._index = index = self.find_index()
        held = {name: index.classes.get(name) for name in index.labels}
        check_labels(self._labels, held, f"data.dir={self.place}", "pack the faces for the same tasks")
        if index.described("split")["pictures"] == "drawn":
            self.synthetic = {}
        sizes = ", ".join(f"{index.place(name)[1]:,} {name}" for name in SPLITS)
        log.info("%s: %s images in shards, split %s", self.place, sizes, index.fingerprint)
        protocol_of(self.split_settings, index.split_source, index.leak).log()

    def split(self, name: Split) -> StreamingSplit:  # type: ignore[override]
        """Return one split's faces; `setup` must have run."""
        return StreamingSplit(self, name)

    def stream(self, name: Split, shuffle: bool = False, apart: bool = False) -> Any:
        """Return LitData's stream of one split; `apart` gives it a cache folder of its own."""
        from agegender.data.streaming.litdata_loader import DecodeTransform, streaming_dataset

        fetched = fetch_dir(self.place, self.cache_dir) if self.place.startswith(BUCKET) else None
        cache_folder = fetched and fetched / f"{name}{'-single' if apart else ''}"
        if cache_folder is not None:
            cache_folder.mkdir(parents=True, exist_ok=True)
        decoder = DecodeTransform(self.image_size, self.grayscale)
        drop_last = shuffle and self._part().world_size > 1
        return streaming_dataset(
            f"{self.place}/{name}",
            cache_folder,
            decoder,
            self.seed,
            shuffle,
            self.max_cache,
            drop_last,
            index=fetched and fetched / name,
        )

    def _loader(self, name: Split, shuffle: bool = False) -> StreamingFaceLoader:
        from agegender.data.streaming.litdata_loader import StreamingFaceLoader, collate

        workers = self._default_num_workers() if self.num_workers is None else self.num_workers
        return StreamingFaceLoader(
            self.stream(name, shuffle),
            batch_size=self.batch_size // self._part().world_size,
            num_workers=workers,
            collate_fn=partial(collate, list(self.index.labels)),
            pin_memory=self.device.type == "cuda",
        )

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return shuffled, resumable batches. A smaller last batch is dropped with several ranks."""
        self._train_loader = self._loader("train", shuffle=True)
        require(
            len(self._train_loader) > 0,
            f"data.batch_size={self.batch_size} exceeds the number of packed training faces: set a smaller one",
        )
        if self._position is not None:
            self._train_loader.load_state_dict(self._position)
        return self._train_loader

    def val_dataloader(self) -> DataLoader[Batch]:
        """Return the validation batches in the order of the file names."""
        return self._loader("val")

    def test_dataloader(self) -> DataLoader[Batch]:
        """Return the test batches in the order of the file names."""
        return self._loader("test")
