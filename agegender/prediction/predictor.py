"""The predictor: from images to predictions for their faces, without Lightning or the training config."""

from __future__ import annotations

import copy
import math
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from agegender.errors import AgeGenderError, require
from agegender.prediction.backends.backend import Backend, Tta
from agegender.prediction.faces.crops import DecodedImage, FaceCropper
from agegender.prediction.faces.detector import MIN_SCORE, Face, FaceDetector
from agegender.prediction.images.sources import (
    FLUSH,
    Color,
    ImageInput,
    NamedImage,
    attach_faces,
    is_one_image,
    wrong_type,
)
from agegender.prediction.prediction import Prediction
from agegender.system.progress import available_cores
from agegender.tasks.info import TaskInfo

MAX_CHUNK = 16  # images per worker: beyond, the activations of the default network exceed the cores' caches

Detect = Literal["auto", "always", "never"]
BackendName = Literal["torch", "onnx"]


@dataclass(frozen=True)
class ImageResult:
    """An image and its predictions.

    Attributes:
        path: Name of the image.
        predictions: One for each face, or one with an error.
        picture: The upright image, if `keep_pictures` is set and it could be read.
        stamp: State of its file before it was read, see `file_stamp`; None if it has none.
    """

    path: str
    predictions: list[Prediction]
    picture: Image.Image | None = None
    stamp: str | None = None


class Predictor:
    """Predict the tasks of a network, such as the age, for the faces in images.

    >>> from agegender import Predictor
    >>> predictor = Predictor()  # doctest: +SKIP
    >>> for face in predictor("photo.jpg"):  # doctest: +SKIP
    ...     print(face.age, face.age_low, face.age_high, face.values)

    It can be copied and pickled, with its weights: for `multiprocessing`, joblib, and the workers of a `DataLoader`.

    Attributes:
        tasks: The tasks, in the order of the columns; their `min_confidence` is the one in use.
        weights: Path of the weights file.
        network: The backend.
    """

    def __init__(
        self,
        weights: str | Path = "default",
        device: str = "auto",
        tta: Tta = "none",
        detect: Detect = "auto",
        backend: BackendName = "torch",
        min_confidence: float | None = None,
        color: Color = "rgb",
        thresholds: Sequence[int] = (),
        min_score: float = MIN_SCORE,
    ):
        """Load the model.

        Args:
            weights: `default` for the bundled weights, a checkpoint, a run's folder, or a folder of runs for the newest
                of them; with `backend="onnx"` a file written by `agegender.prediction.export`, or `default` or `small`
                for the bundled one.
            device: `auto` (a GPU if there is one), `cpu`, `cuda`, `cuda:1`, ...
            tta: Test-time augmentation: `flip` averages over a face and its mirror image, in twice the time.
            detect: `always` detects the faces and aligns them like UTKFace's. `auto` does the same, except for an image
                that is such a crop already (see `alignment.is_aligned_crop`). `never` takes every image for one.
            backend: `torch`, or `onnx` for ONNX Runtime, which starts faster and needs no PyTorch.
            min_confidence: Probability of the likeliest class below which a class is `unsure`, from chance (never: 0.5
                for two classes) to 1, for all tasks with classes; None for the thresholds stored with the weights, at
                which 97 % of the classes were right on their validation faces.
            color: Order of the channels of arrays and tensors: `rgb`, or `bgr` for those of OpenCV. Files and Pillow
                images have their own.
            thresholds: Ages T in whole years; each gives the probability P(age >= T) in `values`, by the name
                `p_age_from_<T>`. An ONNX file must have been exported with them.
            min_score: Score from which a detection is a face, above 0 and up to 1. A lower one finds more that are
                blurred or half hidden, and more that are none.

        Raises:
            AgeGenderError: The weights or the device don't exist, a package is missing, or a value is out of range.
        """
        require(color in get_args(Color), f"color={color} must be rgb, or bgr for the arrays of OpenCV")
        self.detect, self.color = detect, color
        detector = None if detect == "never" else FaceDetector(min_score=min_score)
        self.network: Backend
        if backend == "onnx":
            from agegender.prediction.backends.onnx_backend import OnnxBackend

            if tta != "none" or device not in ("auto", "cpu"):
                raise AgeGenderError("backend=onnx runs on the CPU and has no tta: leave device and tta out")
            self.network = OnnxBackend(weights, thresholds)
        else:
            try:
                from agegender.prediction.backends.torch_backend import TorchBackend
            except ModuleNotFoundError as error:
                if error.name != "torch":
                    raise
                raise AgeGenderError("PyTorch is not installed: use backend=onnx, or install torch") from None

            self.network = TorchBackend(weights, device, tta, thresholds)
        self._cropper = FaceCropper(detector, detect == "auto", self.network.image_size, self.network.grayscale, color)
        self._min_score = min_score
        self.weights = self.network.weights
        self.tasks = _with_confidence(self.network.tasks, min_confidence)

    @overload
    def __call__(
        self, images: list[ImageInput] | tuple[ImageInput, ...], boxes: Any = None, landmarks: Any = None
    ) -> list[list[Prediction]]: ...
    @overload
    def __call__(self, images: ImageInput, boxes: Any = None, landmarks: Any = None) -> list[Prediction]: ...

    def __call__(
        self, images: ImageInput | list[ImageInput] | tuple[ImageInput, ...], boxes: Any = None, landmarks: Any = None
    ) -> list[Prediction] | list[list[Prediction]]:
        """Predict for one image or for several.

        Args:
            images: A path, a URL, the bytes of a file, an open file, a Pillow image, an array `[height, width(, 3)]` of
                uint8, or a tensor `[3, height, width]` of uint8, or of floats from 0 to 1; or a list of them.
            boxes: The faces that another detector found, as `[faces, 4]`: left, top, right and bottom in pixels of the
                upright image, from the hairline to the chin; for a list of images, a list of such boxes. Their
                predictions are in the same order. None to detect faces.
            landmarks: The landmarks of these faces as `[faces, 5, 2]`, with or without boxes, in the order of
                `faces.alignment.TEMPLATE`. None to detect them in the boxes, or, with `detect="never"`, to place them
                by the boxes alone.

        Returns:
            For one image a list with a `Prediction` for each face, the largest first; an image that fails gets one with
            `error` set. For a list of images, a list of such lists.

        Raises:
            AgeGenderError: The boxes or landmarks are no finite numbers, or not of these shapes.
            TypeError: The argument is neither an image nor a list; inside a list it is an image that fails.
        """
        if isinstance(images, list | tuple):
            named = attach_faces(images, boxes, landmarks, self.color)
            return [answered.predictions for answered in self.predict_images(named)]
        if reason := wrong_type(images):
            raise TypeError(reason)
        one_boxes, one_landmarks = (None if each is None else [each] for each in (boxes, landmarks))
        (answered,) = self.predict_images(attach_faces([images], one_boxes, one_landmarks, self.color))
        return answered.predictions

    def with_detection(self, detect: Detect, seconds: float = math.inf) -> Predictor:
        """Return a predictor with another `detect` setting that shares this one's network.

        Args:
            detect: See `__init__`.
            seconds: Time limit of the face detection in an image; beyond it, the image gets an error.

        Raises:
            AgeGenderError: The packages for face detection are missing.
        """
        other = copy.copy(self)
        other.detect = detect
        detector = None if detect == "never" else FaceDetector(seconds, self._min_score)
        other._cropper = replace(self._cropper, detector=detector, keeps_crops=detect == "auto")
        return other

    def predict(
        self, images: ImageInput | Iterable[ImageInput | NamedImage], batch_size: int = 64
    ) -> Iterator[Prediction]:
        """Yield the predictions of images in order; see `predict_images`."""
        for answered in self.predict_images(images, batch_size):
            yield from answered.predictions

    def predict_images(
        self,
        images: ImageInput | Iterable[ImageInput | NamedImage],
        batch_size: int = 64,
        keep_pictures: bool = False,
    ) -> Iterator[ImageResult]:
        """Yield images with their predictions, in order; one that can't be read gets an error.

        Args:
            images: One image or an iterable of images as for `__call__`, or named `NamedImage`s. The iterable may be
                infinite: at most two batches are held. A `sources.FLUSH` flushes the images before it.
            batch_size: Images per forward pass; on a CPU the batch is split over all cores. With 1, each image is
                yielded before the next one is read.
            keep_pictures: Yield the decoded images too; this limits the batch size to `MAX_CHUNK`.
        """
        several: Iterable[Any] = [images] if is_one_image(images) else images  # type: ignore[assignment]
        if keep_pictures:
            batch_size = min(batch_size, MAX_CHUNK)  # a decoded photo takes up to 100 MB
        work: Callable[[list[Any]], list[Any]]
        whole = self.network.prefers_large_batches
        # On a CPU each worker decodes, detects and predicts for a few images on one thread: all cores are busy, and the
        # activations fit their caches. On other devices the workers only prepare the crops of one large batch.
        see = partial(self._cropper.crop, keep_pictures=keep_pictures)
        work = see if whole else lambda part: self._answer(see(part))
        pool = ThreadPoolExecutor(available_cores(), initializer=self.network.init_worker)
        under_way: deque[deque[Future[list[Any]]]] = deque()
        with warnings.catch_warnings(), self.network.worker_context():
            # decoders change the warning filters in several threads and may not restore them
            try:
                for batch, goes_on in _batches(several, batch_size):
                    under_way.append(deque(pool.submit(work, part) for part in _parts(batch)))
                    while len(under_way) > goes_on:  # the next batch is computed while this one is yielded
                        waiting = under_way.popleft()
                        parts = (waiting.popleft().result() for _ in range(len(waiting)))
                        for done in [self._answer([seen for part in parts for seen in part])] if whole else parts:
                            yield from done
            finally:
                pool.shutdown(cancel_futures=True)

    def _answer(self, pictures: list[DecodedImage]) -> list[ImageResult]:
        crops = [pixels for seen in pictures for pixels in seen.pixels]
        parts = (crops[start : start + 4 * MAX_CHUNK] for start in range(0, len(crops), 4 * MAX_CHUNK))
        answers = (columns for part in parts for columns in _by_face(self.network(np.stack(part))))
        return [
            ImageResult(
                seen.path,
                [self._prediction(seen.path, number, face, next(answers)) for number, face in enumerate(seen.faces, 1)]
                if seen.error is None
                else [Prediction(seen.path, error=seen.error)],
                seen.picture,
                seen.stamp,
            )
            for seen in pictures
        ]

    def _prediction(self, path: str, number: int, face: Face | None, columns: dict[str, float]) -> Prediction:
        left, top, right, bottom = face.box if face else (None, None, None, None)
        required = [name for info in self.tasks for name in info.columns[: 1 if info.kind == "number" else None]]
        if not all(math.isfinite(columns[name]) for name in required):  # an overflow in the network
            return Prediction(path, error="the network's output is not a number")
        values = {name: value for info in self.tasks for name, value in info.values(columns).items()}
        return Prediction(path, number, left, top, right, bottom, face.score if face else None, values)


def _with_confidence(tasks: tuple[TaskInfo, ...], least: float | None) -> tuple[TaskInfo, ...]:
    """Return the tasks with `least` as the `min_confidence` of those with classes; None changes none.

    Raises:
        AgeGenderError: It is out of range, or no task has classes.
    """
    if least is None:
        return tasks
    counts = [len(info.classes) for info in tasks if info.classes]
    require(bool(counts), f"min_confidence={least} needs a task with classes, which these weights lack; leave it out")
    chance = float(f"{1 / max(counts):.3g}")
    fits = chance <= least <= 1
    require(fits, f"min_confidence={least} must lie between {chance} (never unsure) and 1, or be null")
    return tuple(replace(info, min_confidence=least) if info.classes else info for info in tasks)


def _by_face(columns: dict[str, NDArray[np.float64]]) -> Iterator[dict[str, float]]:
    """Yield the columns of each face of a batch."""
    for row in zip(*(values.tolist() for values in columns.values()), strict=True):
        yield dict(zip(columns, row, strict=True))


def _batches(images: Iterable[ImageInput | NamedImage], size: int) -> Iterator[tuple[list[Any], bool]]:
    """Yield batches, the last possibly empty, and whether to start the next one before this one is yielded."""
    batch: list[Any] = []
    for image in images:
        if image is FLUSH:
            yield batch, False
            batch = []
            continue
        batch.append(image)
        if len(batch) >= (min(size, MAX_CHUNK) if isinstance(image, NamedImage) and image.decoded else size):
            yield batch, size > 1
            batch = []
    yield batch, False


def _parts(batch: list[Any]) -> Iterator[list[Any]]:
    """Split a batch into parts for the cores, of at most `MAX_CHUNK` images."""
    size = max(1, min(MAX_CHUNK, math.ceil(len(batch) / available_cores())))
    for start in range(0, len(batch), size):
        yield batch[start : start + size]
