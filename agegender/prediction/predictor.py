"""Pictures in, answers for their faces out. Needs neither Lightning nor the config of the training run."""

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
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from agegender.data.decode import UnreadableImageError, read_image, to_pixels
from agegender.errors import AgeGenderError, require
from agegender.prediction.alignment import cut, is_crop
from agegender.prediction.answers import NO_FACE, UNSURE, Prediction
from agegender.prediction.faces import Face, FaceFinder
from agegender.prediction.network import Network, Tta
from agegender.prediction.sources import PAUSE, Picture, PictureSource, named
from agegender.progress import available_cores

LARGEST_PART = 16  # pictures in one worker's hands: beyond, a pass of the default network outgrows the cores' caches

Detect = Literal["auto", "always", "never"]
Backend = Literal["torch", "onnx"]


@dataclass(frozen=True)
class Answered:
    """A picture and what was answered for it.

    Attributes:
        path: Its name.
        predictions: One for each face, or one with an error.
        picture: The upright picture itself, if it was asked for and could be read.
    """

    path: str
    predictions: list[Prediction]
    picture: Image.Image | None = None


@dataclass(frozen=True)
class _Seen:
    """A picture after decoding: its faces, each cut out as pixels, or why there are none."""

    path: str
    faces: Sequence[Face | None] = ()
    pixels: Sequence[NDArray[np.uint8]] = ()
    error: str | None = None
    picture: Image.Image | None = None


class Predictor:
    """Answers for the faces in pictures.

    >>> from agegender import Predictor
    >>> predictor = Predictor()  # doctest: +SKIP
    >>> for face in predictor("photo.jpg"):  # doctest: +SKIP
    ...     print(face.age, face.age_low, face.age_high, face.p_female)
    31.4 25.0 38.0 0.97
    """

    def __init__(
        self,
        weights: str | Path = "default",
        device: str = "auto",
        tta: Tta = "none",
        detect: Detect = "auto",
        backend: Backend = "torch",
        min_confidence: float | None = None,
    ):
        """Loads the model.

        Args:
            weights: `default` for those that come with the package, a checkpoint, a run's folder, or a folder of runs
                for the newest one's; with `backend="onnx"` a file of `agegender.prediction.export`.
            device: `auto` (a GPU if there is one), `cpu`, `cuda`, `cuda:1`, ...
            tta: `flip` to answer with the mean over a face and its mirror image, in twice the time.
            detect: `always` finds the faces in a picture and cuts them out the way UTKFace's were. `auto` does so too,
                but takes a picture that is such a crop already as it is (see `alignment.is_crop`). `never` takes every
                picture for one.
            backend: What runs the network: PyTorch, or ONNX Runtime, which starts faster and needs no PyTorch.

            min_confidence: The probability of the likelier gender below which `gender` is `unsure`, from 0.5 (always an
                answer) to 1; None for what the weights say, which is so chosen that 97 % of the answers were right on
                their validation faces.

        Raises:
            AgeGenderError: There are no such weights or device, a package is missing, or a value is out of range.
        """
        fits = min_confidence is None or 0.5 <= min_confidence <= 1
        require(fits, f"min_confidence={min_confidence} must lie between 0.5 (always an answer) and 1, or be null")
        self.detect = detect
        self._finder = None if detect == "never" else FaceFinder()
        self.network: Network
        if backend == "onnx":
            from agegender.prediction.onnx_network import OnnxNetwork

            if tta != "none" or device not in ("auto", "cpu"):
                raise AgeGenderError("backend=onnx runs on the CPU (device=cpu) and knows no tta: leave them out")
            self.network = OnnxNetwork(weights)
        else:
            from agegender.prediction.torch_network import TorchNetwork

            self.network = TorchNetwork(weights, device, tta)
        self.weights = self.network.weights
        self.min_confidence = self.network.min_confidence if min_confidence is None else min_confidence

    @overload
    def __call__(self, images: list[PictureSource] | tuple[PictureSource, ...]) -> list[list[Prediction]]: ...
    @overload
    def __call__(self, images: PictureSource) -> list[Prediction]: ...

    def __call__(
        self, images: PictureSource | list[PictureSource] | tuple[PictureSource, ...]
    ) -> list[Prediction] | list[list[Prediction]]:
        """Answers for one picture, or for several.

        Args:
            images: A path, an address, the bytes of a file, an open file, a Pillow picture, an array
                `[height, width(, 3)]` of uint8 in RGB, or a tensor `[3, height, width]` of uint8, or of floats from 0
                to 1; or a list of them.

        Returns:
            For one picture a list with a `Prediction` for each face, the largest first; a picture without an answer
            gets one whose `error` says why. For a list, a list of such lists.
        """
        if isinstance(images, list | tuple):
            return [answered.predictions for answered in self.answer(images)]
        (answered,) = self.answer([images])
        return answered.predictions

    def detecting(self, detect: Detect) -> Predictor:
        """Returns a predictor that looks for faces in another way, and shares this one's network.

        Raises:
            AgeGenderError: The packages that find faces are missing.
        """
        other = copy.copy(self)
        other.detect = detect
        other._finder = None if detect == "never" else self._finder or FaceFinder()
        return other

    def predict(self, images: Iterable[PictureSource | Picture], batch_size: int = 64) -> Iterator[Prediction]:
        """Answers for the faces in pictures, in order; see `answer`."""
        for answered in self.answer(images, batch_size):
            yield from answered.predictions

    def answer(
        self, images: Iterable[PictureSource | Picture], batch_size: int = 64, keep_pictures: bool = False
    ) -> Iterator[Answered]:
        """Answers for pictures in order; one that can't be read gets an error and holds up no other.

        Args:
            images: As for a call, or `Picture`s, which have a name; may be endless: only two batches are held. At a
                `sources.PAUSE` all that came before is answered before the next one is asked for.
            batch_size: Pictures per pass through the network; on a CPU it goes through in smaller parts, on all cores.
                With 1, each is answered before the next one is asked for.
            keep_pictures: Hand out the decoded pictures with their answers; batches are small then.
        """
        if keep_pictures:
            batch_size = min(batch_size, LARGEST_PART)  # a photograph takes up to 100 MB
        work: Callable[[list[Any]], list[Any]]
        whole = self.network.takes_whole_batches
        # On a CPU each worker takes a few pictures from their files to their answers, on one thread: the cores are busy
        # throughout, and what a pass holds stays in their caches. Elsewhere a whole batch goes through at once.
        see = partial(self._see, keep=keep_pictures)
        work = see if whole else lambda part: self._answer(see(part))
        pool = ThreadPoolExecutor(available_cores(), initializer=self.network.start_worker)
        under_way: deque[deque[Future[list[Any]]]] = deque()
        with warnings.catch_warnings(), self.network.shared_by_workers():
            # decoders in several threads silence warnings for a moment, and restore a mixture
            try:
                for batch, goes_on in _batches(images, batch_size):
                    under_way.append(deque(pool.submit(work, part) for part in _parts(batch)))
                    while len(under_way) > goes_on:  # the next batch is under way while one is handed out
                        waiting = under_way.popleft()
                        parts = (waiting.popleft().result() for _ in range(len(waiting)))
                        for done in [self._answer([seen for part in parts for seen in part])] if whole else parts:
                            yield from done
            finally:
                pool.shutdown(cancel_futures=True)

    def _see(self, images: list[PictureSource | Picture], keep: bool) -> list[_Seen]:
        seen = (self._see_one(named(image)) for image in images)
        return [one if keep else replace(one, picture=None) for one in seen]

    def _see_one(self, image: Picture) -> _Seen:
        try:
            picture = read_image(image.read())
        except UnreadableImageError as error:
            return _Seen(image.path, error=str(error))
        if self._finder is None:
            return _Seen(image.path, [None], [self._pixels(picture)], picture=picture)
        try:
            faces = self._finder.find(picture)
        except Exception as error:  # OpenCV has limits of its own, such as 32,766 pixels a side
            reason = " ".join(str(error).split())
            return _Seen(image.path, error=f"faces can't be looked for: {reason[:120]}", picture=picture)
        if not faces:
            return _Seen(image.path, error=NO_FACE, picture=picture)
        if self.detect == "auto" and is_crop(faces[0].landmarks, *picture.size):
            return _Seen(image.path, faces[:1], [self._pixels(picture)], picture=picture)
        crops = [self._pixels(cut(picture, face.landmarks, self.network.image_size)) for face in faces]
        return _Seen(image.path, faces, crops, picture=picture)

    def _pixels(self, picture: Image.Image) -> NDArray[np.uint8]:
        return to_pixels(picture, self.network.image_size, self.network.grayscale)

    def _answer(self, pictures: list[_Seen]) -> list[Answered]:
        crops = [pixels for seen in pictures for pixels in seen.pixels]
        parts = (crops[start : start + 4 * LARGEST_PART] for start in range(0, len(crops), 4 * LARGEST_PART))
        answers = (row for part in parts for row in self.network(np.stack(part)).tolist())
        return [
            Answered(
                seen.path,
                [self._prediction(seen.path, number, face, *next(answers)) for number, face in enumerate(seen.faces, 1)]
                if seen.error is None
                else [Prediction(seen.path, error=seen.error)],
                seen.picture,
            )
            for seen in pictures
        ]

    def _prediction(
        self, path: str, number: int, face: Face | None, age: float, std: float, low: float, high: float, female: float
    ) -> Prediction:
        left, top, right, bottom = face.box if face else (None, None, None, None)
        score = face.score if face else None
        gender = self.network.labels[int(female > 0.5)]
        if max(female, 1 - female) < self.min_confidence:
            gender = UNSURE
        ages = age, _stated(std), _stated(low), _stated(high)
        return Prediction(path, number, left, top, right, bottom, score, *ages, female, gender)


def _stated(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _batches(images: Iterable[PictureSource | Picture], size: int) -> Iterator[tuple[list[Any], bool]]:
    """Yields batches, the last one possibly empty, and whether to ask for the next before this one is handed out."""
    batch: list[Any] = []
    for image in images:
        if image is PAUSE:
            yield batch, False
            batch = []
            continue
        batch.append(image)
        if len(batch) >= (min(size, LARGEST_PART) if isinstance(image, Picture) and image.decoded else size):
            yield batch, size > 1
            batch = []
    yield batch, False


def _parts(batch: list[Any]) -> Iterator[list[Any]]:
    """Cuts a batch up so that every core gets some of it."""
    size = max(1, min(LARGEST_PART, math.ceil(len(batch) / available_cores())))
    for start in range(0, len(batch), size):
        yield batch[start : start + size]
