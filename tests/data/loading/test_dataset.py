"""Batches hold what they say, wherever they are made, in an order that a resumed run continues exactly."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agegender.data import decode
from agegender.data.index.index import FaceIndex, build_index
from agegender.data.index.utkface import parse_name
from agegender.data.loading.dataset import FaceDataset, step_seed
from agegender.data.loading.device_dataset import DeviceDataset, to_device
from agegender.data.loading.loader import FaceDataLoader, Rank, ResumableDataLoader, ResumableShuffleSampler
from agegender.data.loading.pixel_cache import DecodeOnRead, MemmapPixels, open_pixel_cache

# Two workers are meant, however few cores there are; and forking beside PyTorch's threads is what its loader does.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*worker processes in total.*:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning"),
]

ROWS = np.array([3, 8, 11, 40, 41, 60, 77, 80, 99, 100, 119])


Faces = FaceDataset | DeviceDataset


@pytest.fixture(scope="module", params=["cached", "decoded", "on the device"])
def dataset(request: pytest.FixtureRequest, faces: Path, tmp_path_factory: pytest.TempPathFactory) -> Faces:
    cache_dir = tmp_path_factory.mktemp("cache")
    index = build_index(faces, cache_dir)
    if request.param == "decoded":
        return FaceDataset(index, ROWS, DecodeOnRead(faces, index.names, 16, False))
    pixels = open_pixel_cache(faces, index.names, index.digests, ROWS, 16, False, cache_dir)
    assert isinstance(pixels, MemmapPixels)
    cached = FaceDataset(index, ROWS, pixels)
    return (
        to_device({"train": cached}, pixels, torch.device("cpu"))["train"]
        if request.param == "on the device"
        else cached
    )


@pytest.fixture(scope="module")
def index(faces: Path, tmp_path_factory: pytest.TempPathFactory) -> FaceIndex:
    return build_index(faces, tmp_path_factory.mktemp("index"))


def _as_it_is(batch: Any) -> Any:
    return batch


def _loader(dataset: Faces, seed: int = 0, workers: int = 0, batch_size: int = 3) -> ResumableDataLoader:
    options: dict[str, Any] = {"batch_size": batch_size, "num_workers": workers, "persistent_workers": workers > 0}
    return ResumableDataLoader(
        dataset, sampler=ResumableShuffleSampler(len(dataset), seed), collate_fn=_as_it_is, **options
    )


def _epoch(loader: ResumableDataLoader, epoch: int) -> list[list[int]]:
    """Reads an epoch as Lightning does."""
    loader.sampler.set_epoch(epoch)
    return [batch["row"].tolist() for batch in loader]


def test_batch_holds_each_faces_own_pixels_and_labels(dataset: Faces, index: FaceIndex) -> None:
    batch = dataset.__getitems__([4, 0, 10])
    rows = [41, 3, 119]
    assert batch["row"].tolist() == rows
    assert batch["image"].shape == (3, 3, 16, 16) and batch["image"].dtype == torch.uint8
    for at, row in enumerate(rows):
        name = index.names[row]
        label = parse_name(name)
        assert {key: column[at].item() for key, column in batch["labels"].items()} == label._asdict()
        pixels = decode.eval_transform(decode.read_image(index.folder / name), 16, grayscale=False)
        assert (batch["image"][at].permute(1, 2, 0).numpy() == pixels).all()
    assert list(batch) == ["image", "labels", "row"] and batch["row"].dtype == torch.int64
    assert {column.dtype for column in batch["labels"].values()} == {torch.float32}


def test_batch_changed_in_place_leaves_the_dataset_unchanged(dataset: Faces) -> None:
    batch = dataset.__getitems__([0, 1])
    before, ages = batch["image"].clone(), batch["labels"]["age"].clone()
    batch["image"].zero_()
    batch["labels"]["age"].zero_()
    batch["row"].zero_()
    again = dataset.__getitems__([0, 1])
    assert torch.equal(again["image"], before) and again["row"].tolist() == [3, 8]
    assert torch.equal(again["labels"]["age"], ages) and ages.any()


def test_single_face_is_a_batch_of_one(dataset: Faces) -> None:
    assert len(dataset) == len(ROWS)
    single, many = dataset[5], dataset.__getitems__([5])
    assert single["image"].shape == (1, 3, 16, 16) and single["row"].tolist() == [60]
    assert torch.equal(single["image"], many["image"])


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_sampler_yields_every_face_once_in_index_order(dataset: Faces, workers: int) -> None:
    loader = FaceDataLoader(dataset, batch_size=4, num_workers=workers, collate_fn=_as_it_is)
    assert [row for batch in loader for row in batch["row"].tolist()] == ROWS.tolist()


@given(size=st.integers(1, 300), seed=st.integers(0, 2**40), epoch=st.integers(0, 1000))
@settings(max_examples=40)
def test_epoch_order_is_a_permutation_given_by_seed_and_epoch(size: int, seed: int, epoch: int) -> None:
    one, other = ResumableShuffleSampler(size, seed), ResumableShuffleSampler(size, seed)
    one.set_epoch(epoch)
    list(other)  # what was drawn before says nothing
    other.set_epoch(epoch)
    order = list(one)
    assert sorted(order) == list(range(size)) and list(other) == order and len(one) == size


@given(
    size=st.integers(1, 300),
    each=st.integers(1, 8),
    processes=st.integers(1, 5),
    epoch=st.integers(0, 9),
    seen=st.integers(0, 40),
)
@settings(max_examples=80)
def test_rank_batches_together_equal_those_of_one_process(
    size: int, each: int, processes: int, epoch: int, seen: int
) -> None:
    whole, start = each * processes, min(seen * each * processes, (size - 1) // (each * processes) * each * processes)
    parts = [Rank(rank, processes) for rank in range(processes)]
    samplers = [ResumableShuffleSampler(size, 1, whole, part) for part in parts]
    lengths = {len(sampler) for sampler in samplers}
    for sampler in samplers:
        sampler.set_epoch(epoch)
        sampler.start = start
    dealt = [list(sampler) for sampler in samplers]
    steps = {math.ceil(len(items) / each) for items in dealt}
    assert steps == {math.ceil((size - start) / whole)}  # each process takes as many
    assert {math.ceil(length / each) for length in lengths} == {math.ceil(size / whole)}
    order = samplers[0].order()[start:].tolist()
    for step in range(steps.pop()):
        batch = order[step * whole : (step + 1) * whole]
        own = [items[step * each : (step + 1) * each] for items in dealt]
        counted = [part.slice_of(len(batch)) for part in parts]
        assert [
            item for items, part in zip(own, counted, strict=True) for item in items if part.start < part.stop
        ] == batch
        assert all(
            len(items) == 1 and items[0] in batch
            for items, part in zip(own, counted, strict=True)
            if part.start == part.stop
        )


def test_epoch_order_differs_by_epoch_and_by_seed() -> None:
    orders = set()
    for seed in range(3):
        sampler = ResumableShuffleSampler(50, seed)
        for epoch in range(4):
            sampler.set_epoch(epoch)
            orders.add(tuple(sampler))
    assert len(orders) == 12 and tuple(range(50)) not in orders


@given(
    here=st.tuples(st.integers(0, 99), st.integers(0, 99), st.integers(0, 99), st.sampled_from(["order", "augment"])),
    there=st.tuples(st.integers(0, 99), st.integers(0, 99), st.integers(0, 99), st.sampled_from(["order", "augment"])),
)
@settings(max_examples=40)
def test_step_seed_is_distinct_for_every_step_and_purpose(
    here: tuple[int, int, int, str], there: tuple[int, int, int, str]
) -> None:
    assert (step_seed(*here) == step_seed(*there)) == (here == there)
    assert 0 <= step_seed(*here) < 2**63
    torch.Generator().manual_seed(step_seed(*here))


def test_step_seed_is_the_same_on_every_machine() -> None:
    assert step_seed(0, 3, 7, "augment") == 7_227_122_816_519_945_307  # a change breaks the resuming of old runs


@pytest.mark.parametrize(("seen", "workers"), [(0, 0), (1, 0), (3, 0), (1, 2)])
def test_resumed_epoch_yields_exactly_the_remaining_faces(dataset: Faces, seen: int, workers: int) -> None:
    whole = _epoch(_loader(dataset, seed=5), 2)
    interrupted = _loader(dataset, seed=5, workers=workers)
    interrupted.sampler.set_epoch(2)
    batches = iter(interrupted)
    for _ in range(seen):
        next(batches)
    state = interrupted.state_dict()  # workers have read ahead by now: that must not count

    resumed = _loader(dataset, seed=5, workers=workers)
    resumed.load_state_dict(state)
    assert resumed.state_dict() == state  # a checkpoint before the first batch forgets nothing
    assert _epoch(resumed, 2) == whole[seen:]
    assert _epoch(resumed, 3) == _epoch(_loader(dataset, seed=5), 3)  # the next epoch is whole again


def test_epoch_resumes_after_two_interruptions(dataset: Faces) -> None:
    whole = _epoch(_loader(dataset), 0)
    state = {"epoch": 0, "handed_out": 0}
    seen = []
    for _ in range(3):
        loader = _loader(dataset)
        loader.load_state_dict(state)
        loader.sampler.set_epoch(0)
        seen.append(next(iter(loader))["row"].tolist())
        state = loader.state_dict()
    assert seen == whole[:3] and state == {"epoch": 0, "handed_out": 9}


@pytest.mark.parametrize("workers", [0, 2])
def test_resume_after_a_finished_epoch_starts_the_next(dataset: Faces, workers: int) -> None:
    loader = _loader(dataset, workers=workers)
    first = _epoch(loader, 0)
    assert [len(rows) for rows in first] == [3, 3, 3, 2]  # the last batch is smaller, none is lost
    state = loader.state_dict()
    assert state == {"epoch": 0, "handed_out": 11}

    resumed = _loader(dataset, workers=workers)
    resumed.load_state_dict(state)
    assert resumed.sampler.epoch == 1 and resumed.state_dict() == {"epoch": 1, "handed_out": 0}
    assert [batch["row"].tolist() for batch in resumed] == _epoch(loader, 1) != first


def test_worker_count_does_not_change_the_batches(dataset: Faces) -> None:
    alone, helped = _loader(dataset), _loader(dataset, workers=2)
    for epoch in (0, 1):
        assert _epoch(helped, epoch) == _epoch(alone, epoch)


def test_loader_length_is_that_of_a_whole_epoch_when_resumed(dataset: Faces) -> None:
    loader = _loader(dataset)
    loader.load_state_dict({"epoch": 0, "handed_out": 6})
    assert len(loader) == 4


def test_device_dataset_does_not_synchronize_with_the_device(dataset: Faces) -> None:
    """PyTorch's meta device has no values: whoever asks for one, and so waits for a device, gets an error."""
    if not isinstance(dataset, DeviceDataset):
        return
    loader = _loader(_on_meta(dataset), batch_size=4)
    assert [batch["image"].shape[0] for batch in loader] == [4, 4, 3]
    assert all(batch["image"].device.type == "meta" for batch in loader)


def _on_meta(faces: DeviceDataset) -> DeviceDataset:
    moved = copy.copy(faces)
    for name in ("_pixels", "_places", "_row"):
        setattr(moved, name, getattr(faces, name).to("meta"))
    moved._labels = {name: column.to("meta") for name, column in faces._labels.items()}
    return moved
