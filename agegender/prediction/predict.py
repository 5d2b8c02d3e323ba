"""The prediction command: from the settings of `predict.py` to output files."""

from __future__ import annotations

import hashlib
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from agegender.distributed.launcher import script
from agegender.errors import AgeGenderError, require
from agegender.prediction.backends.backend import Tta
from agegender.prediction.images.listing import LiveSource, expand_stdin, list_images, open_images
from agegender.prediction.images.partition import list_digest, parse_shard
from agegender.prediction.images.sources import NamedImage
from agegender.prediction.prediction import Prediction
from agegender.prediction.predictor import BackendName, Detect, ImageResult, Predictor
from agegender.prediction.writers.annotate import AnnotatedImageFolder
from agegender.prediction.writers.partial_results import PartialResults
from agegender.prediction.writers.writers import PIPE, Row, check_output, print_jsonl, print_table, write_rows
from agegender.system.malloc import disable_malloc_trim
from agegender.system.progress import track
from agegender.system.terminal import printable


def predict(
    img: str | list[str] | None,
    weights: str = "default",
    detect: Detect = "auto",
    out: str | None = None,
    annotate: str | None = None,
    resume: bool = False,
    frame_interval: float = 1.0,
    batch_size: int = 64,
    device: str = "auto",
    tta: Tta = "none",
    backend: BackendName = "torch",
    shard: str | None = None,
    min_confidence: float | None = None,
    thresholds: list[int] | None = None,
) -> bool:
    """Predict for images, and print the predictions or write them to a file.

    Args:
        img: File, folder, glob, URL, video, `webcam`, or `-` for names on standard input; or a list of them.
        weights: See `Predictor`.
        detect: See `Predictor`.
        out: A file ending in .csv, .json, .jsonl or .parquet, or `-` for JSON lines on standard output; None for a
            table.
        annotate: Output folder for images with boxes and labels.
        resume: Continue a stopped run from the file beside `out`: its images are skipped and their predictions kept,
            even if `img` doesn't include them any more; from the first one whose file has changed, they are predicted
            again. A finished `out` is an error.
        frame_interval: Seconds between frames of a video.
        batch_size: Images per forward pass.
        device: `auto`, `cpu`, `cuda`, ...
        tta: See `Predictor`.
        backend: See `Predictor`.
        shard: `i/n` for the i-th of n parts of the list, for n machines with the same list. Their outputs, concatenated
            in order, are the output of a single machine, but for the last bits of sums over other batches.
        min_confidence: See `Predictor`.
        thresholds: See `Predictor`; None or an empty list for none.

    Returns:
        Whether every image has a prediction.

    Raises:
        AgeGenderError: An error that concerns all images; the error of a single image is in its row.
    """
    if not img:
        raise AgeGenderError(f"which picture? {script('predict')} img=face.jpg (or a folder, a glob, a video, ...)")
    require(batch_size >= 1, f"batch_size={batch_size} must be at least 1")
    require(frame_interval > 0, f"frame_interval={frame_interval} must be above 0 seconds")
    into_file = out is not None and out != PIPE
    require(into_file or not resume, "resume=true continues the run of an output file: add out=answers.csv")
    if out is not None:
        check_output(out)
    part = parse_shard(shard) if shard is not None else None
    names = list_images([img] if isinstance(img, str) else img)
    shared: dict[str, Any] = {}  # what the shards of a list have in common
    if part:
        whole = expand_stdin(names)
        names = list(part.select(whole))
        shared = {"shard": str(part), "list": list_digest(whole), "batch_size": batch_size}
        detail = f"list {shared['list']}, batch_size={batch_size}"
        print(f"shard {part}: {len(names)} of {len(whole)} images and videos ({detail})", file=sys.stderr)
    disable_malloc_trim()  # a 12-megapixel photo takes 100 MB, whose allocation is a third of its time
    predictor = Predictor(weights, device, tta, detect, backend, min_confidence, thresholds=thresholds or ())
    print(f"weights: {predictor.weights}", file=sys.stderr)
    if predictor.network.trained_on_synthetic:
        print("warning: trained on drawn faces: the predictions say nothing about real people", file=sys.stderr)
    tasks = predictor.tasks
    album = AnnotatedImageFolder(Path(annotate), tasks) if annotate else None
    progress = None
    if out is not None and into_file:
        origin = {"weights": str(predictor.weights), "sha256": _digest(predictor.weights)}
        settings: dict[str, Any] = {"detect": detect, "tta": tta, "backend": backend, "frame_interval": frame_interval}
        settings["min_confidence"] = min_confidence  # as given: that of the weights follows from their digest
        settings["thresholds"] = thresholds or None
        if annotate:
            settings["annotate"] = annotate  # images that are done are not annotated any more
        progress = PartialResults(Path(out), origin | settings | shared, tasks, resume, shared.get("batch_size", 1))
    done = progress.done if progress else Counter[str]()
    if progress and progress.changed is not None:
        changed = printable(progress.changed)
        print(f"{changed} has changed since: it and the images after it are predicted again", file=sys.stderr)
    if done:
        print(f"{done.total()} images are done already", file=sys.stderr)
    pictures = _left(open_images(names, frame_interval), done)
    count = None if any(isinstance(name, LiveSource) for name in names) else max(0, len(names) - done.total())
    tally = _Tally()
    answers = tally.count(predictor.predict_images(pictures, batch_size, keep_pictures=album is not None), album)
    with progress or nullcontext():
        if progress and out is not None:
            for answered in track(answers, "predicting", count):
                progress.add(answered)
            tally.pictures += done.total()
            write_rows(Path(out), tally.count_rows(progress.rows()), tasks)
        elif out == PIPE:
            print_jsonl(_each(answers), tasks)
        else:
            print_table(_each(track(answers, "predicting", count)), tasks)
    if into_file:
        print(f"{tally.pictures} images in {out}", file=sys.stderr)
    if tally.failed:
        print(f"{tally.failed} of {tally.pictures} images have no prediction; see their errors", file=sys.stderr)
    return not tally.failed


class _Tally:
    """A counter of images, and of those without a prediction."""

    def __init__(self) -> None:
        self.pictures = self.failed = 0

    def count(self, answers: Iterator[ImageResult], album: AnnotatedImageFolder | None) -> Iterator[ImageResult]:
        for answered in answers:
            self.pictures += 1
            self.failed += any(prediction.error is not None for prediction in answered.predictions)
            if album:
                album.add(answered)
            yield answered

    def count_rows(self, rows: Iterable[Row]) -> Iterator[Row]:
        """Count failed images from their rows, including those of a resumed run; a failed image has one row."""
        self.failed = 0
        for row in rows:
            self.failed += row["error"] is not None
            yield row


def _digest(weights: Path) -> str:
    """Return a digest of the weights file, which distinguishes files of the same name."""
    with weights.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _left(pictures: Iterable[NamedImage], done: Counter[str]) -> Iterator[NamedImage]:
    """Yield the images that are not done; one that is listed twice must be done twice."""
    skip = Counter(done)
    for picture in pictures:
        if skip[picture.path]:
            skip[picture.path] -= 1
        else:
            yield picture


def _each(answers: Iterator[ImageResult]) -> Iterator[Prediction]:
    for answered in answers:
        yield from answered.predictions
