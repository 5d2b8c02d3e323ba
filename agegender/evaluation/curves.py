"""Training and validation curves, read from a run's logger files."""

from __future__ import annotations

import csv
import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

# Metrics logged at the end of each epoch: `stage/name` -> epoch (from 1, ascending) -> value.
Curves = Mapping[str, Mapping[int, float]]

STAGES = ("train", "val")
_FIRST = ("loss", "age_loss", "gender_loss", "age_mae", "age_cs5", "gender_acc")
_LARGEST_SCALAR = 1 << 16  # bytes; what is larger is a picture


def curve_names(curves: Sequence[Curves]) -> list[str]:
    """Return the metrics that at least one run logged in both training and validation; the common ones come first."""
    names = {
        tag.split("/", 1)[1]
        for run in curves
        for tag in run
        if all(f"{stage}/{tag.split('/', 1)[1]}" in run for stage in STAGES)
    }
    return sorted(names, key=lambda name: (_FIRST.index(name) if name in _FIRST else len(_FIRST), name))


def read_curves(folder: Path) -> Curves:
    """Read the curves from a run's folder: TensorBoard's event files, the CSV logger's table, or both.

    A resumed run may hold a step twice; the value written last counts. Unreadable entries are skipped.
    """
    points = [*_from_table(folder / "csv" / "metrics.csv"), *_from_events(folder / "tensorboard")]
    curves: dict[str, dict[int, float]] = {}
    for tag, epoch, value in points:
        if tag.startswith(tuple(f"{stage}/" for stage in STAGES)):
            curves.setdefault(tag, {})[epoch] = value
    return {tag: dict(sorted(curves[tag].items())) for tag in sorted(curves)}


def _from_table(path: Path) -> Iterator[tuple[str, int, float]]:
    if not path.is_file():
        return
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        for row in csv.DictReader(file):
            epoch = _number(row.get("epoch"))
            if math.isfinite(epoch):
                numbers = {tag: _number(text) for tag, text in row.items() if tag and text}
                yield from ((tag, int(epoch) + 1, value) for tag, value in numbers.items())


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except (TypeError, ValueError):
        return math.nan


def _from_events(folder: Path) -> Iterator[tuple[str, int, float]]:
    scalars = [scalar for path in folder.glob("events*") for scalar in _scalars(path)] if folder.is_dir() else []
    scalars.sort(key=lambda scalar: scalar[0])
    epochs = {step: int(value) + 1 for _, step, tag, value in scalars if tag == "epoch"}  # logged beside everything
    yield from ((tag, epochs[step], value) for _, step, tag, value in scalars if step in epochs)


def _scalars(path: Path) -> Iterator[tuple[float, int, str, float]]:
    """Yields time, step, tag and value of each scalar in an event file."""
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[import-untyped]

    for record in _records(path):
        try:
            event = Event.FromString(record)
        except DecodeError:  # damaged: what follows can't be trusted
            return
        for value in event.summary.value:
            if value.WhichOneof("value") == "simple_value":
                yield event.wall_time, event.step, value.tag, value.simple_value


def _records(path: Path) -> Iterator[bytes]:
    """Yields the small records of a TFRecord file: length (8 bytes), its checksum (4), content, its checksum (4).

    TensorBoard's own reader sums up every byte in Python, seconds for a training's pictures, to find damage.
    """
    with path.open("rb") as file:
        size = path.stat().st_size
        while len(header := file.read(12)) == 12:
            (length,) = struct.unpack("<Q", header[:8])
            if file.tell() + length + 4 > size:  # the last record of a run that was killed
                return
            if length > _LARGEST_SCALAR:
                file.seek(length + 4, 1)
            else:
                yield file.read(length)
                file.seek(4, 1)
