"""A checkpoint answers for any picture. Needs neither Lightning nor the config of the training run."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from agegender.checkpoint import DEFAULT, find_checkpoint, load_checkpoint, read_calibration
from agegender.data.decode import ImageSource, UnreadableImageError, read_image, to_pixels
from agegender.errors import AgeGenderError
from agegender.models.network import AgeGenderNet
from agegender.progress import available_cores

LARGEST_PART = 16  # pictures in one worker's hands: beyond, a pass of the default network outgrows the cores' caches

_Decoded = tuple[str, NDArray[np.uint8] | str]  # a picture's name with its pixels, or with why there are none


@dataclass(frozen=True)
class Prediction:
    """The answer for one picture: either the answers or the error are set.

    Attributes:
        path: The picture's path, as it was given.
        age: Years.
        age_std: Standard deviation of the age's error in years; None if the model states none.
        age_low: The youngest age that fits the picture, in whole years: from here to `age_high` lie 80 % of the true
            ages; None likewise.
        age_high: The oldest.
        p_female: Probability of the data set's label `female`.
        gender: `female` if `p_female` is above one half, else `male`, as the accuracy counts it.
        error: Why there is no answer.
    """

    path: str
    age: float | None = None
    age_std: float | None = None
    age_low: float | None = None
    age_high: float | None = None
    p_female: float | None = None
    gender: str | None = None
    error: str | None = None


class Predictor:
    """Answers for pictures with the network that a checkpoint describes.

    >>> predictor = Predictor("logs/default/2026-11-21_08-05-44")  # doctest: +SKIP
    >>> next(predictor.predict(["face.jpg"])).age  # doctest: +SKIP
    31.4
    """

    def __init__(self, weights: str | Path = DEFAULT, device: str = "auto", tta: Literal["none", "flip"] = "none"):
        """Loads the checkpoint.

        Args:
            weights: `default` for those that come with the package, a checkpoint, a run's folder, or a folder of runs
                for the newest one's.
            device: `auto` (a GPU if there is one), `cpu`, `cuda`, `cuda:1`, ...
            tta: `flip` to answer with the mean over a picture and its mirror image, in twice the time.

        Raises:
            AgeGenderError: There is no such checkpoint or device.
        """
        self.weights, self.tta = find_checkpoint(weights), tta
        checkpoint = load_checkpoint(self.weights)
        self.device = _device(device)
        # On a CPU each worker takes a few pictures from their files to their answers, on one thread: the cores are busy
        # throughout, and what a pass holds stays in their caches. Elsewhere a whole batch goes through at once.
        self._whole_batches = self.device.type != "cpu"
        network = AgeGenderNet(**checkpoint["agegender"]["network"])
        network.calibration = read_calibration(checkpoint)
        network.load_state_dict(checkpoint["network"])
        self.network = network.eval().to(self.device).to(memory_format=torch.channels_last)
        self.trained_on_drawings = (checkpoint["agegender"]["split"] or {}).get("pictures") == "drawn"
        self.labels: list[str] = checkpoint["agegender"]["labels"]["gender"]

    def predict(self, images: Iterable[ImageSource], batch_size: int = 64) -> Iterator[Prediction]:
        """Answers for pictures in order; one that can't be read gets an error and holds up no other.

        Args:
            images: Paths, bytes of files, open files, or Pillow pictures; may be endless: only two batches are held.
            batch_size: Pictures per pass through the network; on a CPU it goes through in smaller parts, on all cores.
        """
        stream = iter(images)
        threads = torch.get_num_threads()
        work: Callable[[list[ImageSource]], list[Any]]
        work = self._decode if self._whole_batches else self._from_file_to_answer
        pool = ThreadPoolExecutor(available_cores(), initializer=torch.set_num_threads, initargs=(1,))

        def start() -> list[Future[list[Any]]]:
            return [pool.submit(work, part) for part in _parts(list(islice(stream, batch_size)))]

        with warnings.catch_warnings():  # decoders in several threads silence them for a moment, and restore a mixture
            try:
                waiting = start()
                while waiting:
                    ahead = start()  # the next batch is under way while this one is handed out
                    if self._whole_batches:
                        yield from self._answer([item for task in waiting for item in task.result()])
                    else:
                        for task in waiting:
                            yield from task.result()
                    waiting = ahead
            finally:
                pool.shutdown(cancel_futures=True)
                torch.set_num_threads(threads)  # what a worker sets is also the default of threads still to come

    def _from_file_to_answer(self, images: list[ImageSource]) -> list[Prediction]:
        return self._answer(self._decode(images))

    def _decode(self, images: list[ImageSource]) -> list[_Decoded]:
        return [(_name(image), self._pixels(image)) for image in images]

    def _pixels(self, image: ImageSource) -> NDArray[np.uint8] | str:
        try:
            return to_pixels(read_image(image), self.network.image_size, grayscale=self.network.in_channels == 1)
        except UnreadableImageError as error:
            return str(error)

    def _answer(self, decoded: list[_Decoded]) -> list[Prediction]:
        readable = [pixels for _, pixels in decoded if not isinstance(pixels, str)]
        answers = iter(self._forward(np.stack(readable)) if readable else ())
        return [
            Prediction(name, error=pixels) if isinstance(pixels, str) else self._prediction(name, *next(answers))
            for name, pixels in decoded
        ]

    def _prediction(self, name: str, age: float, p_female: float, *spread: float) -> Prediction:
        std, low, high = (value if math.isfinite(value) else None for value in spread)
        return Prediction(name, age, std, low, high, p_female, self.labels[int(p_female > 0.5)])

    def _forward(self, pixels: NDArray[np.uint8]) -> list[list[float]]:
        network = self.network
        with torch.inference_mode():
            images = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(self.device)
            outputs = network.flip_averaged(images) if self.tta == "flip" else network(images)
            spread = network.age_std(outputs), *network.age_interval(outputs)
            columns = network.years(outputs), network.p_female(outputs), *spread
            answers: list[list[float]] = torch.stack(columns, 1).cpu().tolist()
        return answers


def _parts(batch: list[ImageSource]) -> Iterator[list[ImageSource]]:
    """Cuts a batch up so that every core gets some of it."""
    size = max(1, min(LARGEST_PART, math.ceil(len(batch) / available_cores())))
    for start in range(0, len(batch), size):
        yield batch[start : start + size]


def _device(name: str) -> torch.device:
    if name == "auto":
        apple = "mps" if torch.backends.mps.is_available() else "cpu"
        return torch.device("cuda" if torch.cuda.is_available() else apple)
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # there and back: `meta` takes data and never returns it
    except (RuntimeError, AssertionError, ImportError) as error:  # ImportError: hpu and such without their package
        reason = str(error).split("\n")[0][:120]
        raise AgeGenderError(f"device={name} can't be used here ({reason}); use device=auto or device=cpu") from None
    return device


def _name(image: ImageSource) -> str:
    return str(image) if isinstance(image, str | Path) else f"<{type(image).__name__}>"
