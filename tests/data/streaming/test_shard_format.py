"""Shards are read in the format that `pack` writes, undamaged, or refused in one line; nothing in them is run."""

from __future__ import annotations

import json
import logging
import shutil
import timeit
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
from helpers.packs import BUCKET, bucket_with, pack_small

from agegender.data import decode
from agegender.data.streaming.datamodule import StreamingDataModule
from agegender.data.streaming.packed_index import CHECKED, open_pack, write_manifest
from agegender.data.streaming.shard_format import item_crc32
from agegender.errors import AgeGenderError, SystemFaultError

# LitData leaves the last shard of an epoch open for the garbage collector
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in.*FileIO:pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module")
def packed(faces: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack_small(faces, tmp_path_factory.mktemp("packed") / "shards")


@pytest.fixture
def copied(packed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(packed, tmp_path / "copied"))


def read(place: Path | str, workers: int = 0, cache_dir: Path | None = None) -> list[list[int]]:
    """An epoch's rows."""
    data = StreamingDataModule(
        str(place), str(cache_dir) if cache_dir else None, image_size=32, batch_size=16, num_workers=workers
    )
    data.setup()
    return [batch["row"].tolist() for batch in data.train_dataloader()]


def flip(path: Path, place: float = 0.5, bit: int = 2) -> None:
    content = bytearray(path.read_bytes())
    content[int(place * (len(content) - 1))] ^= 1 << bit
    path.write_bytes(content)


def config(**entries: Any) -> Callable[[dict[str, Any]], None]:
    return lambda index: index["config"].update(entries)


def defaultdict_of(module: str, name: str) -> str:
    leaf: dict[str, Any] = {"type": None, "context": None, "children_spec": []}
    context = {"default_factory_module": module, "default_factory_name": name, "dict_context": ["image"]}
    return json.dumps([1, {"type": "collections.defaultdict", "context": json.dumps(context), "children_spec": [leaf]}])


HOSTILE: dict[str, Callable[[dict[str, Any]], None]] = {
    "a pickle": config(data_format=["pickle", "int", "bytes", "int"]),
    "a graph with a pickle": config(data_format=["graph:pickle", "int", "bytes", "int"]),
    "another known format": config(data_format=["jpeg", "int", "bytes", "int"]),
    "a module to import": config(data_spec=defaultdict_of("antigravity", "geohash")),
    "another loader": config(item_loader="ParquetLoader"),
    "a compression": config(compression="zstd"),
    "an encryption": config(encryption="fernet"),
    "no config": lambda index: index.pop("config"),
    "another path": lambda index: index["chunks"][0].update(filename="../../chunk-0-0.bin"),
    "an absolute path": lambda index: index["chunks"][0].update(filename="/etc/hostname"),
    "another cache folder": lambda index: index.update(updated_at="../../.."),
    "more faces": lambda index: index["chunks"][0].update(chunk_size=999_999),
    "MosaicML's format": lambda index: index.update(shards=index.pop("chunks")),
    "nested lists": lambda index: index.update(config=[[[]]]),
}


@pytest.mark.parametrize("change", HOSTILE)
def test_shard_index_in_any_other_format_is_refused_and_nothing_runs(copied: Path, change: str, tmp_path: Path) -> None:
    """The checksums are right: who changed the shards knows them too."""
    path = copied / "train" / "index.json"
    index = json.loads(path.read_text())
    HOSTILE[change](index)
    path.write_text(json.dumps(index))
    manifest = json.loads((copied / "pack.json").read_text())
    write_manifest(copied, manifest)
    with pytest.raises(AgeGenderError, match=r"^[^\n]*index\.json (is not in the format|can't be read)[^\n]*$"):
        open_pack(str(copied), tmp_path)


@pytest.mark.parametrize("name", [*CHECKED, "pack.json"])
def test_flipped_bit_in_a_file_of_a_pack_is_refused_with_its_name(copied: Path, name: str, tmp_path: Path) -> None:
    if not (copied / name).stat().st_size:  # no file was quarantined
        (copied / name).write_bytes(b"\0")
    for place in (0.1, 0.5, 0.9):
        flip(copied / name, place)
        with pytest.raises(AgeGenderError, match=rf"^[^\n]*{name}[^\n]*(damaged|can't be read)[^\n]*$"):
            open_pack(str(copied), tmp_path)
        flip(copied / name, place)


# With workers it is slow: PyTorch waits 5 s for each when a loader is garbage-collected with the traceback.
@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_flipped_bit_in_a_shard_ends_in_one_line(copied: Path, workers: int) -> None:
    flip(max((copied / "train").glob("*.bin")))
    with pytest.raises(SystemFaultError, match=r"^a shard of [^\n]*train is damaged \([^\n]*\): copy or pack [^\n]*$"):
        read(copied, workers)


def test_single_face_of_a_damaged_shard_is_refused_in_one_line(copied: Path) -> None:
    for shard in (copied / "test").glob("*.bin"):
        flip(shard)
    data = StreamingDataModule(str(copied), image_size=32)
    data.setup()
    with pytest.raises(SystemFaultError, match="test is damaged"):
        data.split("test").pixels.read(data.index.rows("test"))


@pytest.mark.parametrize("damage", ["cut", "emptied", "missing"])
def test_missing_or_truncated_shard_is_named_before_the_training(copied: Path, damage: str, tmp_path: Path) -> None:
    shard = max((copied / "train").glob("*.bin"))
    shard.write_bytes({"cut": shard.read_bytes()[:-1]}.get(damage, b""))
    if damage == "missing":
        shard.unlink()
    with pytest.raises(AgeGenderError, match=rf"{shard.name} is missing or damaged"):
        open_pack(str(copied), tmp_path)


def test_damaged_copy_of_a_buckets_index_is_fetched_again(
    packed: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with bucket_with(packed, "faces") as address:
        first = open_pack(address, tmp_path)
        flip(first.kept_in / "labels.npy")
        with caplog.at_level(logging.WARNING, logger="agegender"):
            again = open_pack(address, tmp_path)
    assert (again.kept_in / "labels.npy").read_bytes() == (packed / "labels.npy").read_bytes()
    lines = [record.getMessage() for record in caplog.records]
    assert lines == [f"labels.npy in {first.kept_in} is damaged: the index of {address} is fetched again"]


def test_shard_index_that_changes_after_its_check_is_not_read(packed: Path, tmp_path: Path) -> None:
    """A bucket may answer LitData's own request otherwise than the first."""
    wanted = read(packed)
    with bucket_with(packed, "faces") as address:
        data = StreamingDataModule(address, str(tmp_path), image_size=32, batch_size=16, num_workers=0)
        data.setup()
        index = json.loads((packed / "train" / "index.json").read_text())
        config(data_format=["pickle", "int", "bytes", "int"])(index)
        client = boto3.client("s3")
        client.put_object(Bucket=BUCKET, Key="faces/train/index.json", Body=json.dumps(index).encode())
        found = [batch["row"].tolist() for batch in data.train_dataloader()]
    assert found == wanted


@pytest.mark.benchmark
def test_checksum_of_an_item_takes_at_most_3_percent_of_decoding_it(faces: Path) -> None:
    images = [path.read_bytes() for path in sorted(faces.glob("*.jpg"))[:50]]
    labels = np.zeros(3, np.float32).tobytes()

    def checked() -> None:
        for row, image in enumerate(images):
            item_crc32(image, row, labels)

    def decoded() -> None:
        for image in images:
            decode.eval_transform(decode.read_image(image), 128, True)

    check, decoding = (min(timeit.repeat(work, number=1, repeat=5)) for work in (checked, decoded))
    assert check < 0.03 * decoding, (check, decoding)
