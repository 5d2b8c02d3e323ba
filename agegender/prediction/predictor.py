"""A checkpoint answers for any picture. Needs neither Lightning nor the config of the training run."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from agegender.checkpoint import find_checkpoint, load_checkpoint
from agegender.data.decode import ImageSource, UnreadableImageError, read_image, to_pixels
from agegender.errors import AgeGenderError
from agegender.models.network import AgeGenderNet
from agegender.progress import available_cores


@dataclass(frozen=True)
class Prediction:
    """The answer for one picture: either the answers or the error are set.

    Attributes:
        path: The picture's path, as it was given.
        age: Years.
        age_std: Standard deviation of the age's error in years, as the model states it; None if it states none.
        p_female: Probability of the data set's label `female`.
        gender: `female` if `p_female` is above one half, else `male`, as the accuracy counts it.
        error: Why there is no answer.
    """

    path: str
    age: float | None = None
    age_std: float | None = None
    p_female: float | None = None
    gender: str | None = None
    error: str | None = None


class Predictor:
    """Answers for pictures with the network that a checkpoint describes.

    >>> predictor = Predictor("logs/default/2026-11-21_08-05-44")  # doctest: +SKIP
    >>> next(predictor.predict(["face.jpg"])).age  # doctest: +SKIP
    31.4
    """

    def __init__(self, weights: str | Path | None = None, device: str = "auto"):
        """Loads the checkpoint.

        Args:
            weights: A checkpoint or a run's folder; None for the newest best checkpoint below `logs/`.
            device: `auto` (a GPU if there is one), `cpu`, `cuda`, `cuda:1`, ...

        Raises:
            AgeGenderError: There is no such checkpoint or device.
        """
        self.weights = find_checkpoint(weights)
        checkpoint = load_checkpoint(self.weights)
        self.device = _device(device)
        network = AgeGenderNet(**checkpoint["agegender"]["network"])
        network.load_state_dict(checkpoint["network"])
        self.network = network.eval().to(self.device).to(memory_format=torch.channels_last)
        self.trained_on_drawings = (checkpoint["agegender"]["split"] or {}).get("pictures") == "drawn"
        self.labels: list[str] = checkpoint["agegender"]["labels"]["gender"]

    def predict(self, images: Iterable[ImageSource], batch_size: int = 64) -> Iterator[Prediction]:
        """Answers for pictures in order; one that can't be read gets an error and holds up no other.

        Args:
            images: Paths, bytes of files, open files, or Pillow pictures; may be endless: only two batches are held.
            batch_size: Pictures per pass through the network.
        """
        stream = iter(images)
        with ThreadPoolExecutor(available_cores()) as pool:
            # The next batch decodes while the network works on this one.
            waiting = [(image, pool.submit(self._decode, image)) for image in islice(stream, batch_size)]
            while waiting:
                ahead = [(image, pool.submit(self._decode, image)) for image in islice(stream, batch_size)]
                yield from self._answer([_name(image) for image, _ in waiting], [task.result() for _, task in waiting])
                waiting = ahead

    def _decode(self, image: ImageSource) -> NDArray[np.uint8] | str:
        try:
            return to_pixels(read_image(image), self.network.image_size, grayscale=self.network.in_channels == 1)
        except UnreadableImageError as error:
            return str(error)

    def _answer(self, names: list[str], decoded: list[NDArray[np.uint8] | str]) -> Iterator[Prediction]:
        readable = [pixels for pixels in decoded if not isinstance(pixels, str)]
        answers = iter(self._forward(np.stack(readable)) if readable else ())
        for name, result in zip(names, decoded, strict=True):
            if isinstance(result, str):
                yield Prediction(name, error=result)
            else:
                age, std, p_female = next(answers)
                known = std if math.isfinite(std) else None
                yield Prediction(name, age, known, p_female, self.labels[int(p_female > 0.5)])

    def _forward(self, pixels: NDArray[np.uint8]) -> list[list[float]]:
        network = self.network
        with torch.inference_mode():
            outputs = network(torch.from_numpy(pixels).permute(0, 3, 1, 2).to(self.device))
            columns = network.years(outputs), network.age_std(outputs), network.p_female(outputs)
            answers: list[list[float]] = torch.stack(columns, 1).cpu().tolist()
        return answers


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
