"""LitData's shards as batches of faces: a stream of each split, shuffled and resumable, from a folder or a bucket."""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from litdata import StreamingDataLoader, StreamingDataset
from litdata.streaming import downloader
from numpy.typing import NDArray

from agegender.data import decode
from agegender.data.dataset import Batch
from agegender.data.names import MISSING
from agegender.errors import FaultError


def _allow_plain_http() -> None:
    """Lets LitData's downloads speak to a server of one's own without TLS, if that is what the address says.

    boto3 does so by itself; the client that LitData fetches shards with refuses it, and LitData has no setting for it.
    """
    named = (os.environ.get(name, "") for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"))
    if any(address.startswith("http://") for address in named):
        downloader._OBSTORE_CLIENT_OPTIONS["allow_http"] = True


_allow_plain_http()  # in a process that was not forked, too

Item = dict[str, Any]  # as `pack` writes it: image (the file's bytes), row, age, gender


class Decode:
    """Turns the bytes of an item's file into pixels; runs in the loader's processes."""

    def __init__(self, image_size: int, grayscale: bool):
        """Says what the network takes."""
        self.image_size, self.grayscale = image_size, grayscale

    def __call__(self, item: Item) -> Item:
        """Returns the item with uint8 `[size, size, channels]` as its image: THE eval transform's."""
        picture = decode.read_image(item["image"])
        return {**item, "image": decode.to_pixels(picture, self.image_size, self.grayscale)}


def collate(items: Sequence[Item]) -> Batch:
    """Makes a batch of decoded items."""
    age, gender = (
        torch.tensor([np.nan if item[name] == MISSING else item[name] for item in items], dtype=torch.float32)
        for name in ("age", "gender")
    )
    images = torch.from_numpy(np.stack([item["image"] for item in items])).permute(0, 3, 1, 2)  # channels last
    return Batch(image=images, age=age, gender=gender, row=torch.tensor([item["row"] for item in items]))


def open_stream(
    place: str, kept_in: Path | None, decoder: Decode, seed: int, shuffle: bool, max_cache: str | None, drop_last: bool
) -> StreamingDataset:
    """Opens a split's shards; of several processes that have joined, each reads its part of them.

    Args:
        place: Their folder, or their `s3://` address.
        kept_in: Where shards that come from an address are kept for a while.
        decoder: Makes pixels.
        seed: Chooses the orders.
        shuffle: Another order every epoch: of the shards, and of the faces in each.
        max_cache: Most that is kept, such as `100GB`; None for three quarters of the disk's free space.
        drop_last: Leave out of each epoch what is no whole batch in every process.
    """
    _allow_plain_http()
    stream = StreamingDataset(
        place,
        cache_dir=None if kept_in is None else str(kept_in),
        shuffle=shuffle,
        drop_last=True,  # for several processes LitData warns of anything else; `StreamLoader` takes care of it
        seed=seed,
        max_cache_size=max_cache,
        transform=decoder,
        item_shuffle_window="full",
    )
    stream.set_drop_last(drop_last)
    return stream


def undivided(stream: StreamingDataset) -> StreamingDataset:
    """Makes a stream hold all faces, whatever part of them this process is to read; returns it."""
    stream.distributed_env, stream.shuffler = type(stream.distributed_env)(1, 0, 1), None
    return stream


def item_at(stream: StreamingDataset, place: int) -> Item:
    """Returns a single item of an undivided stream, as it was packed."""
    # As a slice, which fetches the shard: for a single place, LitData 0.2.76 works out a wrong range of bytes in it.
    item: Item = stream[place : place + 1][0]
    return item


class StreamLoader(StreamingDataLoader):
    """LitData's loader, which a run that was moved, or whose epoch ended after a resume, continues with too.

    Several processes take the same number of steps: one that has fewer faces goes on with some that it had before, and
    says of every batch whether it counts (`share`; see `FaceLoader`, which deals out every batch).
    """

    restore: bool

    def __len__(self) -> int:
        """Returns the number of steps of an epoch: of the process that has most."""
        return self._steps() if self.processes > 1 else super().__len__()

    def __iter__(self) -> Iterator[Batch]:
        """Yields an epoch's batches, or those that a resumed epoch still lacks."""
        if self.processes == 1:
            yield from self._own()
            return
        last = None
        for done, last in enumerate(self._own(), 1):  # noqa: B007 - looked at below
            yield {**last, "share": 1.0}
        if self.dataset.drop_last:
            return
        if last is None:
            done, last = 0, self._first_face()
        for _ in range(done, self._steps()):
            yield {**last, "share": 0.0}

    def _first_face(self) -> Batch:
        stream = undivided(copy.copy(self.dataset))
        return collate([stream.transform[0](item_at(stream, 0))])

    @property
    def processes(self) -> int:
        """How many share the faces."""
        return int(self.dataset.distributed_env.world_size)

    def _steps(self) -> int:
        len(self.dataset)  # opens the shards' index
        stream, workers = self.dataset, self.dataset.num_workers
        dealt = stream.shuffler.get_chunks_and_intervals_per_workers(
            stream.distributed_env, workers, self.batch_size, stream.current_epoch
        )[1]
        faces = [sum(end - begin for _, begin, end, _ in intervals) for intervals in dealt]  # of each loader process
        batches = -(-np.array(faces) // self.batch_size).reshape(self.processes, workers)
        return int(batches.sum(1).max())

    def _own(self) -> Iterator[Batch]:
        # LitData notes the end of a resumed epoch when it is asked for one batch more, which Lightning never does.
        if self.restore and self._num_samples_yielded_streaming >= len(self.dataset):
            self.restore = False
        try:
            yield from super().__iter__()
        except RuntimeError as error:  # LitData's thread that fetches died of it; its own report is printed already
            reason = re.search(r"^(?:RuntimeError: )?Chunk prefetch thread .*Original error: (.*)$", str(error), re.M)
            if reason is None:
                raise
            place = self.dataset.input_dir.url or self.dataset.input_dir.path
            raise FaultError(
                f"no more shards come from {place} ({reason[1]}): see to the server, or the network"
            ) from error

    def state_dict(self) -> dict[str, Any]:
        """Returns how far the epoch is, as plain values."""
        return dict(super().state_dict())

    def load_state_dict(self, obj: Mapping[str, Any]) -> None:
        """Makes the next iteration go on from a state; the shards may lie elsewhere by now."""
        here, there = self.dataset.input_dir, self.dataset.cache_dir
        places = {
            "input_dir_url": here.url,
            "input_dir_path": None if here.url else here.path,  # LitData knows which folder it keeps an address in
            "cache_dir_path": there.path,
        }
        super().load_state_dict({**obj, "dataset": {**obj["dataset"], **places}})


class StreamedPixels:
    """Pixels of single faces, read from a split's shards."""

    def __init__(self, stream: StreamingDataset, decoder: Decode, start: int):
        """Keeps an unshuffled stream of all of the split's faces, whose first face is the row `start`."""
        self._stream, self._decoder, self._start = undivided(stream), decoder, start

    def read(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Returns uint8 `[len(indices), size, size, channels]` for faces given by their row."""
        items = [item_at(self._stream, int(row) - self._start) for row in indices]
        return np.stack([self._decoder(item)["image"] for item in items])
