"""Streams of LitData's shards as batches: shuffled, resumable, from a folder or an object store."""

from __future__ import annotations

import copy
import os
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from litdata import StreamingDataLoader, StreamingDataset
from litdata.streaming import downloader
from numpy.typing import NDArray

from agegender.data import decode
from agegender.data.loading.dataset import Batch
from agegender.data.streaming.shard_format import item_crc32
from agegender.errors import SystemFaultError
from agegender.system.signals import blocked


def _allow_plain_http() -> None:
    """Allow LitData's downloads from a server without TLS if AWS_ENDPOINT_URL is an http:// address.

    boto3 allows it by default; LitData's download client refuses it, and LitData has no setting for it.
    """
    named = (os.environ.get(name, "") for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"))
    if any(address.startswith("http://") for address in named):
        downloader._OBSTORE_CLIENT_OPTIONS["allow_http"] = True


_allow_plain_http()  # also runs in spawned processes

Item = dict[str, Any]  # `FIELDS`: image (the file's bytes), row, labels (the bytes of float32 numbers), crc32


class DecodeTransform:
    """Decode the image of an item; runs in the loader processes."""

    def __init__(self, image_size: int, grayscale: bool):
        """Set the network's input format."""
        self.image_size, self.grayscale = image_size, grayscale

    def __call__(self, item: Item) -> Item:
        """Return the item with its image as uint8 `[size, size, channels]`, after the evaluation transform.

        Raises:
            ValueError: The item doesn't have its checksum.
        """
        image, labels = bytes(item["image"]), bytes(item["labels"])  # LitData may return views of a mapped file
        if item_crc32(image, item["row"], labels) != item["crc32"]:
            raise ValueError("the checksum of a face doesn't match")
        pixels = decode.eval_transform(decode.read_image(image), self.image_size, self.grayscale)
        return {"image": pixels, "row": item["row"], "labels": labels}


def collate(names: Sequence[str], items: Sequence[Item]) -> Batch:
    """Collate decoded items to a batch.

    Args:
        names: Names of the packed labels, in their order.
        items: The items.
    """
    images = torch.from_numpy(np.stack([item["image"] for item in items])).permute(0, 3, 1, 2)  # channels last
    columns = np.stack([np.frombuffer(item["labels"], np.float32) for item in items], axis=1)  # [labels, batch]
    labels = dict(zip(names, torch.from_numpy(columns), strict=True))
    return Batch(image=images, labels=labels, row=torch.tensor([item["row"] for item in items]))


def streaming_dataset(
    place: str,
    kept_in: Path | None,
    decoder: DecodeTransform,
    seed: int,
    shuffle: bool,
    max_cache: str | None,
    drop_last: bool,
    index: Path | None = None,
) -> StreamingDataset:
    """Open a split's shards; with several ranks, each reads its part of them.

    Args:
        place: Folder or `s3://` address of the shards.
        kept_in: Cache folder for downloaded shards; None for a local folder.
        decoder: Decodes the items.
        seed: Seed of the order.
        shuffle: Shuffle the shards, and the faces in each, anew every epoch.
        max_cache: Size limit of the cache, such as `100GB`; None for three quarters of the disk's free space.
        drop_last: Drop the faces of an epoch that fill no whole batch on every rank.
        index: Folder of the shards' index, which was checked; None for a local folder.
    """
    _allow_plain_http()
    stream = StreamingDataset(
        place,
        cache_dir=None if kept_in is None else str(kept_in),
        shuffle=shuffle,
        drop_last=True,  # LitData warns of anything else with several ranks; set below
        seed=seed,
        max_cache_size=max_cache,
        transform=decoder,
        item_shuffle_window="full",
        index_path=None if index is None else str(index),  # LitData would download another
    )
    stream.set_drop_last(drop_last)
    return stream


def unsharded(stream: StreamingDataset) -> StreamingDataset:
    """Make a stream hold all faces instead of this rank's part, and return it."""
    stream.distributed_env, stream.shuffler = type(stream.distributed_env)(1, 0, 1), None
    return stream


def item_at(stream: StreamingDataset, place: int) -> Item:
    """Return a single item of an undivided stream, as it was packed."""
    # A slice fetches the whole shard: for a single index, LitData 0.2.76 requests a wrong byte range.
    item: Item = stream[place : place + 1][0]
    return item


_NO_SHARD = re.compile(r"^(?:RuntimeError: )?Chunk prefetch thread .*Original error: (.*)$", re.M)
_DAMAGED = re.compile(r"does not match index\.json|^Caught \w+ in DataLoader worker")


@contextmanager
def _explain_read_errors(stream: StreamingDataset) -> Iterator[None]:
    """Re-raise the errors of missing and damaged shards as one line.

    Raises:
        SystemFaultError: The download failed, or a shard is damaged.
    """
    try:
        yield
    except (RuntimeError, ValueError, LookupError, struct.error) as error:
        place, text = stream.input_dir.url or stream.input_dir.path, str(error).strip()
        if reason := _NO_SHARD.search(text):  # LitData's download thread died and has printed its own report
            message = f"no more shards come from {place} ({reason[1]}): check the server and the network"
        elif not isinstance(error, RuntimeError) or _DAMAGED.search(text):
            reason_line = text.rpartition("\n")[2].rpartition("Error: ")[2]  # from a worker, the text is a traceback
            kept = f", and remove {stream.input_dir.path}" if stream.input_dir.url else ""
            message = f"a shard of {place} is damaged ({reason_line}): copy or pack the faces again{kept}"
        else:
            raise
        raise SystemFaultError(message) from error


class StreamingFaceLoader(StreamingDataLoader):
    """LitData's loader, made resumable after the shards were moved and after a resumed epoch has ended.

    All ranks take the same number of steps: a rank with fewer batches repeats its last one with the weight zero
    (`share`; compare `FaceDataLoader`, which divides every batch).
    """

    restore: bool

    def __len__(self) -> int:
        """Return the number of steps of an epoch: the largest of all ranks."""
        return self._steps() if self.processes > 1 else super().__len__()

    def __iter__(self) -> Iterator[Batch]:
        """Yield an epoch's batches, or the remaining ones of a resumed epoch."""
        if self.processes == 1:
            yield from self._own()
            return
        last = None
        for done, last in enumerate(self._own(), 1):  # noqa: B007 - used below
            yield {**last, "weight": 1.0}
        if self.dataset.drop_last:
            return
        if last is None:
            done, last = 0, self._first_face()
        for _ in range(done, self._steps()):
            yield {**last, "weight": 0.0}

    def _first_face(self) -> Batch:
        stream = unsharded(copy.copy(self.dataset))
        first: Batch = self.collate_fn([stream.transform[0](item_at(stream, 0))])
        return first

    @property
    def processes(self) -> int:
        """Number of ranks."""
        return int(self.dataset.distributed_env.world_size)

    def _steps(self) -> int:
        len(self.dataset)  # opens the shards' index
        stream, workers = self.dataset, self.dataset.num_workers
        dealt = stream.shuffler.get_chunks_and_intervals_per_workers(
            stream.distributed_env, workers, self.batch_size, stream.current_epoch
        )[1]
        faces = [sum(end - begin for _, begin, end, _ in intervals) for intervals in dealt]  # per loader process
        batches = -(-np.array(faces) // self.batch_size).reshape(self.processes, workers)
        return int(batches.sum(1).max())

    def _own(self) -> Iterator[Batch]:
        # LitData ends a resumed epoch at the request of one more batch, which Lightning never makes.
        if self.restore and self._num_samples_yielded_streaming >= len(self.dataset):
            self.restore = False
        with _explain_read_errors(self.dataset):
            with blocked():  # see `FaceDataLoader`
                batches = super().__iter__()
            yield from batches

    def state_dict(self) -> dict[str, Any]:
        """Return the position in the epoch, as plain values."""
        return dict(super().state_dict())

    def load_state_dict(self, obj: Mapping[str, Any]) -> None:
        """Make the next iteration continue from a state; the shards may have been moved."""
        here, there = self.dataset.input_dir, self.dataset.cache_dir
        places = {
            "input_dir_url": here.url,
            "input_dir_path": None if here.url else here.path,  # LitData derives the folder of an address
            "cache_dir_path": there.path,
        }
        super().load_state_dict({**obj, "dataset": {**obj["dataset"], **places}})


class StreamingPixels:
    """Images of single faces, read from a split's shards."""

    def __init__(self, stream: StreamingDataset, decoder: DecodeTransform, start: int):
        """Store an unshuffled stream of all faces of the split, whose first face is the row `start`."""
        self._stream, self._decoder, self._start = unsharded(stream), decoder, start

    def read(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the images of rows of the index, uint8 `[len(indices), size, size, channels]`."""
        with _explain_read_errors(self._stream):
            items = [item_at(self._stream, int(row) - self._start) for row in indices]
            return np.stack([self._decoder(item)["image"] for item in items])
