"""data=streaming: the batches of packed faces are those of their folder, whatever they are read from."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Outcome, metrics_of
from helpers.packs import BUCKET, bucket_with, pack_small

from agegender.data.datamodule import AgeGenderDataModule
from agegender.data.streaming.datamodule import StreamingDataModule
from agegender.data.streaming.litdata_loader import StreamingFaceLoader
from agegender.errors import AgeGenderError

# LitData leaves the last shard of an epoch open for the garbage collector
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in.*FileIO:pytest.PytestUnraisableExceptionWarning")

Run = Callable[..., Outcome]
NETWORK = (
    "model.trunk.channels=[8,16]",
    "model.head_units=[16]",
    "trainer=cpu",
    "trainer.log_every_n_steps=1",
    "report=false",
)
SMALL = ("data.image_size=32", "data.batch_size=16", *NETWORK)


@pytest.fixture(scope="module")
def shards(faces: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """86 training faces or so, in several shards: smaller ones than any that a user would make."""
    return pack_small(faces, tmp_path_factory.mktemp("packed") / "shards")


def module(shards: Path | str, workers: int = 0, seed: int = 0) -> StreamingDataModule:
    data = StreamingDataModule(str(shards), image_size=32, batch_size=16, num_workers=workers, seed=seed)
    data.setup()
    return data


def rows_of(batches: list[dict[str, torch.Tensor]]) -> list[list[int]]:
    return [batch["row"].tolist() for batch in batches]


def test_streamed_batches_hold_the_folders_pixels_and_labels(shards: Path, faces: Path) -> None:
    theirs = AgeGenderDataModule(str(faces), image_size=32, batch_size=16)
    theirs.setup()
    ours = module(shards)
    place = {name: row for row, name in enumerate(theirs.index.names)}
    assert len(list((shards / "train").glob("chunk-*"))) > 3
    for name, loader in (("train", ours.train_dataloader()), ("val", ours.val_dataloader())):
        faces_of = theirs.split(name)  # type: ignore[arg-type]
        seen: list[int] = []
        for batch in loader:
            rows = np.array([place[ours.index.names[row]] for row in batch["row"].tolist()])
            labels = faces_of.labels(rows)
            pixels = torch.from_numpy(faces_of.pixels.read(rows)).permute(0, 3, 1, 2)
            assert torch.equal(batch["image"], pixels) and batch["image"].dtype == torch.uint8
            assert list(batch["labels"]) == list(labels) == ["age", "gender", "group"]
            assert all(torch.equal(batch["labels"][name], column) for name, column in labels.items())
            seen += rows.tolist()
        assert sorted(seen) == faces_of.rows.tolist()  # each once
        assert (seen == faces_of.rows.tolist()) is (name != "train")


def test_epoch_order_is_decided_by_the_seed(shards: Path) -> None:
    loader, again = module(shards).train_dataloader(), module(shards).train_dataloader()
    first, second = rows_of(list(loader)), rows_of(list(loader))
    assert first != second and sorted(chain(*first)) == sorted(chain(*second))
    assert rows_of(list(again)) == first
    assert rows_of(list(module(shards, seed=1).train_dataloader())) != first


@pytest.mark.parametrize("workers", [0, 2])
def test_loader_resumed_within_an_epoch_gives_the_remaining_batches(shards: Path, workers: int) -> None:
    """Also in the epoch after; and from shards that lie elsewhere by now."""
    loader = module(shards, workers).train_dataloader()
    whole = [rows_of(list(loader)) for _ in range(3)]
    stopped = module(shards, workers)
    stopped_loader = stopped.train_dataloader()
    list(stopped_loader)
    epoch = iter(stopped_loader)
    seen = rows_of([next(epoch) for _ in range(2)])
    state = stopped.state_dict()
    moved = shards.with_name(f"moved{workers}")
    shutil.copytree(shards, moved)
    resumed = module(moved, workers)
    resumed.load_state_dict(state)
    later = resumed.train_dataloader()
    later.load_state_dict(state)  # type: ignore[attr-defined]  # Lightning does it a second time
    batches = iter(later)
    rest = rows_of([next(batches) for _ in range(len(whole[1]) - 2)])  # as Lightning: it asks for no batch too many
    assert seen + rest == whole[1]
    assert rows_of(list(later)) == whole[2]


def parts(shards: Path, loaded: str, processes: int, workers: int) -> list[StreamingFaceLoader]:
    """The loaders of several processes, whose epochs take as many batches."""
    made = []
    for rank in range(processes):
        loader = getattr(module(shards, workers), f"{loaded}_dataloader")()
        loader.dataset.distributed_env = type(loader.dataset.distributed_env)(processes, rank, 1)
        loader.dataset.set_drop_last(loaded == "train")
        loader.dataset.shuffler = None
        made.append(loader)
    return made


@pytest.mark.parametrize(("processes", "workers"), [(2, 2), (5, 0)])
def test_ranks_see_every_face_once_in_equally_many_steps(shards: Path, processes: int, workers: int) -> None:
    for loaded in ("val", "test"):
        dealt = [list(loader) for loader in parts(shards, loaded, processes, workers)]
        assert len({len(batches) for batches in dealt}) == 1
        assert [len(loader) for loader in parts(shards, loaded, processes, workers)] == [len(dealt[0])] * processes
        counted = [row for batch in chain(*dealt) if batch["weight"] for row in batch["row"].tolist()]
        start, size = module(shards).index.place(loaded)
        assert sorted(counted) == list(range(start, start + size))


@pytest.mark.parametrize(("processes", "workers"), [(2, 2), (3, 0)])
def test_ranks_train_on_whole_disjoint_batches(shards: Path, processes: int, workers: int) -> None:
    loaders = parts(shards, "train", processes, workers)
    epochs = [[rows_of(list(loader)) for loader in loaders] for _ in range(2)]
    for dealt in epochs:
        assert {len(batch) for batches in dealt for batch in batches} == {16}
        assert len({len(batches) for batches in dealt}) == 1
        seen = [row for batches in dealt for batch in batches for row in batch]
        size = module(shards).index.place("train")[1]
        assert len(set(seen)) == len(seen) > size - 16 * processes
    assert epochs[0] != epochs[1]


def test_metrics_and_predictions_are_equal_on_folder_and_shards(
    run_here: Run, trained_run: Path, shards: Path, faces: Path, tmp_path: Path
) -> None:
    judged = ("fit=false", f"weights={trained_run}", *NETWORK, "data.batch_size=16")
    for name, data in (("folder", (f"data.dir={faces}",)), ("shards", ("data=streaming", f"data.dir={shards}"))):
        outcome = run_here("train.py", *judged, *data, f"hydra.run.dir={name}")
        assert outcome.code == 0, outcome.err
    ours, theirs = metrics_of(tmp_path / "shards"), metrics_of(tmp_path / "folder")
    names = [name for name in theirs if name.startswith(("test/", "val/", "baseline/", "images/", "split"))]
    assert len(names) > 20
    for name in names:
        assert ours[name] == (
            pytest.approx(theirs[name], rel=1e-5) if isinstance(theirs[name], float) else theirs[name]
        )
    for name in ("predictions.csv", "index.csv", "quarantine.csv"):
        assert (tmp_path / "shards" / name).read_bytes() == (tmp_path / "folder" / name).read_bytes()


@pytest.mark.slow
def test_training_from_a_bucket_equals_training_from_local_shards(run_here: Run, shards: Path, tmp_path: Path) -> None:
    few = ("data=streaming", *SMALL, "data.num_workers=0", "trainer.max_epochs=2")
    assert run_here("train.py", *few, f"data.dir={shards}", "hydra.run.dir=folder").code == 0
    with bucket_with(shards, "some/faces") as address:
        outcome = run_here("train.py", *few, f"data.dir={address}", "hydra.run.dir=bucket")
    assert outcome.code == 0, outcome.err
    for name in ("predictions.csv", "index.csv"):
        assert (tmp_path / "bucket" / name).read_bytes() == (tmp_path / "folder" / name).read_bytes()
    timings = {"seconds_per_epoch", "images_per_second", "train_seconds", "overrides"}
    ours, theirs = metrics_of(tmp_path / "bucket"), metrics_of(tmp_path / "folder")
    assert {key for key in theirs if ours[key] != theirs[key]} <= timings


def test_unreachable_address_is_an_error_in_one_line(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with bucket_with(shards / "val", "elsewhere"), pytest.raises(AgeGenderError, match="has no packed faces"):
        module(f"s3://{BUCKET}/nothing")
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "DEFAULT_REGION"):
        monkeypatch.setenv(f"AWS_{name}", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(AgeGenderError, match="AWS_ENDPOINT_URL"):
        module(f"s3://{BUCKET}/nothing")
    with pytest.raises(AgeGenderError, match="s3://"):
        module("gs://bucket/faces")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("data=streaming",), "data.dir="),
        (("data=streaming", "+data.limit=5", "data.dir=x"), "data.limit"),
        (("data=streaming", "data.dir=nowhere"), "has no packed faces"),
        (("+data.source=tape",), "data.source is not known"),
    ],
)
def test_streaming_refuses_invalid_settings_in_one_line(
    run_here: Run, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    outcome = run_here("train.py", *SMALL[1:], *arguments)
    outcome.assert_one_line_error(said)
