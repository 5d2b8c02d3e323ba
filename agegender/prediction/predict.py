"""The prediction command: from the settings of `predict.py` to output files."""

from __future__ import annotations

import hashlib
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Set
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

from agegender.distributed.launcher import script
from agegender.errors import AgeGenderError, require
from agegender.prediction.backends.backend import Tta
from agegender.prediction.faces.boxes import BoxTable
from agegender.prediction.faces.detector import MIN_SCORE
from agegender.prediction.images.listing import are_endless, are_live, expand_stdin, list_images, open_images
from agegender.prediction.images.partition import Shard, list_digest, parse_shard
from agegender.prediction.images.sources import NamedImage
from agegender.prediction.prediction import NO_FACE, Prediction, columns_of
from agegender.prediction.predictor import BackendName, Detect, ImageResult, Predictor
from agegender.prediction.tracking.people import LOW_SCORE, People
from agegender.prediction.writers.annotate import AnnotatedImageFolder
from agegender.prediction.writers.annotated_video import check_video_output, is_video_output, write_annotated_video
from agegender.prediction.writers.partial_results import PartialResults
from agegender.prediction.writers.table import print_people, print_table
from agegender.prediction.writers.window import LiveWindow
from agegender.prediction.writers.writers import PIPE, Row, check_output, print_jsonl, write_rows
from agegender.runs.hub_model import files_of
from agegender.system.malloc import disable_malloc_trim
from agegender.system.progress import track as progressed
from agegender.system.terminal import printable


def predict(
    img: str | list[str] | None,
    weights: str = "default",
    detect: Detect = "auto",
    out: str | None = None,
    annotate: str | None = None,
    resume: bool = False,
    frame_interval: float | None = None,
    batch_size: int = 64,
    device: str = "auto",
    tta: Tta = "none",
    backend: BackendName = "torch",
    shard: str | None = None,
    min_confidence: float | None = None,
    thresholds: list[int] | None = None,
    min_score: float = MIN_SCORE,
    boxes: str | None = None,
    track: bool = False,
    tracks: str | None = None,
    track_gap: float = 1.0,
    show: bool = False,
) -> bool:
    """Predict for images, and print the predictions or write them to a file.

    Args:
        img: File, folder, glob, URL, video, `webcam` or a camera's number, the address of a stream (`rtsp://...`), or
            `-` for names on standard input; or a list of them.
        weights: See `Predictor`.
        detect: See `Predictor`.
        out: A file ending in .csv, .json, .jsonl or .parquet, or `-` for JSON lines on standard output; None for a
            table.
        annotate: Output folder for images with boxes and labels; or for a video file a copy of it, such as `out.mp4`,
            with the box and the estimate of each person (see `tracks`).
        resume: Continue a stopped run from the file beside `out`: its images are skipped and their predictions kept,
            even if `img` doesn't include them any more; from the first one whose file has changed, they are predicted
            again. A finished `out` is an error.
        frame_interval: Seconds between frames of a video; None for 1, or for 0.1 if faces are followed.
        batch_size: Images per forward pass.
        device: `auto`, `cpu`, `cuda`, ...
        tta: See `Predictor`.
        backend: See `Predictor`.
        shard: `i/n` for the i-th of n parts of the list, for n machines with the same list. Their outputs, concatenated
            in order, are the output of a single machine, but for the last bits of sums over other batches.
        min_confidence: See `Predictor`.
        thresholds: See `Predictor`; None or an empty list for none.
        min_score: See `Predictor`.
        boxes: A CSV file with the faces of the images, instead of detecting them; see `faces.boxes.BoxTable`.
        track: Follow the faces of videos from frame to frame, and add the column `track`.
        tracks: A file ending as for `out`, with a row for each person in a video; implies `track`.
        track_gap: Seconds without a face after which its track has ended.
        show: Show the images in a window, as they are predicted.

    Returns:
        Whether every image could be read and answered; one without a face is, with the error `NO_FACE` in its row.

    Raises:
        AgeGenderError: An error that concerns all images; the error of a single image is in its row.
    """
    if not img:
        raise AgeGenderError(f"which picture? {script('predict')} img=face.jpg (or a folder, a glob, a video, ...)")
    require(batch_size >= 1, f"batch_size={batch_size} must be at least 1")
    into_file = out is not None and out != PIPE
    require(into_file or not resume, "resume=true continues the run of an output file: add out=answers.csv")
    film = annotate if annotate is not None and is_video_output(annotate) else None
    tracked = track or tracks is not None or film is not None
    frame_interval = _checked_interval(frame_interval, tracked, track_gap)
    _check_outputs(out, tracks)
    require(not tracked or detect != "never" or boxes is not None, "track=true needs boxes: leave out detect=never")
    _check_score(min_score, detect, boxes)
    part = parse_shard(shard) if shard is not None else None
    names = list_images([img] if isinstance(img, str) else img)
    if film is not None:
        check_video_output(film, names)
    window = LiveWindow() if show else None
    table = BoxTable(Path(boxes)) if boxes is not None else None
    shared: dict[str, Any] = {}  # what the shards of a list have in common
    if part:
        names, shared = _names_of_part(names, part, table, batch_size)
    elif table and not are_endless(names):
        table.check(names)
    disable_malloc_trim()  # a 12-megapixel photo takes 100 MB, whose allocation is a third of its time
    least = min_score * LOW_SCORE if tracked and table is None else min_score
    predictor = Predictor(
        weights, device, tta, detect, backend, min_confidence, thresholds=thresholds or (), min_score=least
    )
    _print_weights(predictor)
    tasks = predictor.tasks
    album = AnnotatedImageFolder(Path(annotate), tasks) if annotate and film is None else None
    begins = 0.0 if table else min_score  # a person vouches for each box of a table
    people = People(tasks, begins, track_gap, keep_boxes=film is not None) if tracked else None
    progress, done = None, Counter[str]()
    if out is not None and into_file:
        # As given: what `weights` sets by default follows from their digest. None stands for the default.
        settings: dict[str, Any] = {"detect": detect, "tta": tta, "backend": backend, "frame_interval": frame_interval}
        settings |= {"min_confidence": min_confidence, "thresholds": thresholds or None}
        optional = {
            "annotate": annotate if album else None,  # images that are done are not annotated any more
            "track_gap": track_gap if tracked else None,
            "min_score": min_score if min_score != MIN_SCORE else None,
            "boxes": table.digest if table else None,
        }
        origin = {"weights": str(predictor.weights), "sha256": _digest(predictor.weights)} | settings
        origin |= {name: value for name, value in optional.items() if value is not None} | shared
        progress = PartialResults(Path(out), origin, tasks, resume, shared.get("batch_size", 1), tracked)
        done = progress.done
        _print_resumption(progress)
    pictures = _left(open_images(names, frame_interval), done)
    if table:
        pictures = table.attach(pictures)
    count = None if are_endless(names) else max(0, len(names) - done.total())
    tally = _Tally()
    answers = predictor.predict_images(pictures, batch_size, keep_pictures=album is not None or show)
    if people and progress:
        people.replay(progress.rows())
    if people:
        answers = people.follow(answers)
    answers = tally.count(answers, album)
    if window:
        answers = window.show(answers, tasks, people)
    if are_live(names):
        answers = _until_ctrl_c(answers)
    with progress or nullcontext():
        if progress and out is not None:
            for answered in progressed(answers, "predicting", count):
                progress.add(answered)
            tally.pictures += done.total()
            write_rows(Path(out), tally.count_rows(progress.rows()), tasks, columns_of(tasks, tracked))
        elif out == PIPE:
            print_jsonl(_each(answers), tasks, tracked)
        else:
            print_table(_each(progressed(answers, "predicting", count)), tasks, tracked)
            if people:
                print_people(people.rows(), tasks)
        if people and tracks is not None:
            write_rows(Path(tracks), people.rows(), tasks, people.columns, "tracks")
        if people and film is not None:
            write_annotated_video(names[0], Path(film), people.of_video(names[0]), tasks, frame_interval)
    if into_file:
        print(f"{tally.pictures} images in {out}", file=sys.stderr)
    tally.print_failures()
    return not tally.failed


def _names_of_part(
    names: list[str], part: Shard, table: BoxTable | None, batch_size: int
) -> tuple[list[str], dict[str, Any]]:
    """Return the names of a part of the list, and what its output shares with those of the other parts."""
    whole = expand_stdin(names)
    if table:
        table.check(whole)
    chosen, digest = list(part.select(whole)), list_digest(whole)
    detail = f"list {digest}, batch_size={batch_size}"
    print(f"shard {part}: {len(chosen)} of {len(whole)} images and videos ({detail})", file=sys.stderr)
    return chosen, {"shard": str(part), "list": digest, "batch_size": batch_size}


def _print_weights(predictor: Predictor) -> None:
    print(f"weights: {predictor.weights}", file=sys.stderr)
    if predictor.network.trained_on_synthetic:
        print("warning: trained on drawn faces: the predictions say nothing about real people", file=sys.stderr)


def _print_resumption(progress: PartialResults) -> None:
    if progress.changed is not None:
        changed = printable(progress.changed)
        print(f"{changed} has changed since: it and the images after it are predicted again", file=sys.stderr)
    if progress.done:
        print(f"{progress.done.total()} images are done already", file=sys.stderr)


class _Tally:
    """A counter of images, of those without a face, and of those that could not be answered."""

    def __init__(self) -> None:
        self.pictures = self.faceless = self.failed = 0

    def count(self, answers: Iterator[ImageResult], album: AnnotatedImageFolder | None) -> Iterator[ImageResult]:
        for answered in answers:
            self.pictures += 1
            self._add({prediction.error for prediction in answered.predictions} - {None})
            if album:
                album.add(answered)
            yield answered

    def count_rows(self, rows: Iterable[Row]) -> Iterator[Row]:
        """Count images without an answer from their rows, including those of a resumed run; each has one row."""
        self.faceless = self.failed = 0
        for row in rows:
            self._add({row["error"]} - {None})
            yield row

    def print_failures(self) -> None:
        if self.faceless:
            print(f"{self.faceless} of {self.pictures} images have no face", file=sys.stderr)
        if self.failed:
            print(f"{self.failed} of {self.pictures} images could not be answered; see their errors", file=sys.stderr)

    def _add(self, errors: Set[str | None]) -> None:
        self.faceless += errors == {NO_FACE}
        self.failed += bool(errors - {NO_FACE})


def _checked_interval(given: float | None, tracked: bool, gap: float) -> float:
    """Return the seconds between frames of a video, by default fewer if faces are followed.

    Raises:
        AgeGenderError: They are not above 0, or a track would end between two frames.
    """
    seconds = given if given is not None else 0.1 if tracked else 1.0
    require(seconds > 0, f"frame_interval={seconds} must be above 0 seconds")
    ends = f"frame_interval={seconds} is above track_gap={gap}: each track would end after one frame; set another"
    require(not tracked or seconds <= gap, ends)
    return seconds


def _check_score(min_score: float, detect: Detect, boxes: str | None) -> None:
    require(0 < min_score <= 1, f"min_score={min_score} must be above 0, and at most 1")
    idle = "boxes" if boxes is not None else "detect=never" if detect == "never" else ""
    require(not idle or min_score == MIN_SCORE, f"min_score={min_score} has no effect with {idle}: leave it out")


def _check_outputs(out: str | None, tracks: str | None) -> None:
    for key, file in (("out", out), ("tracks", tracks)):
        if file is not None:
            check_output(file, key)
    is_file = tracks is None or (tracks != PIPE and (out is None or Path(tracks).resolve() != Path(out).resolve()))
    require(is_file, f"tracks={tracks} must be a file, and another one than out")


def _until_ctrl_c(answers: Iterator[ImageResult]) -> Iterator[ImageResult]:
    """Yield what comes until Ctrl-C, which is how a camera or stream ends."""
    with suppress(KeyboardInterrupt):
        yield from answers


def _digest(weights: Path) -> str:
    """Return a digest of the weights, which distinguishes files of the same name."""
    digest = hashlib.sha256()
    for path in files_of(weights):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


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
