"""What the predictor needs of whatever runs the network: PyTorch (`torch_network.py`) or ONNX (`onnx_network.py`)."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Tta = Literal["none", "flip"]


class Network(Protocol):
    """What the predictor needs of whatever runs the network.

    Attributes:
        weights: The file.
        image_size: Side of the pictures that it takes, in pixels.
        grayscale: Whether it takes grey ones.
        labels: Of gender 0 and 1.
        min_confidence: The probability of the likelier gender below which it is no answer, from validation.
        trained_on_drawings: Whether its faces were drawn ones.
        takes_whole_batches: Whether a large batch goes through faster than its parts on all cores.
    """

    weights: Path
    image_size: int
    grayscale: bool
    labels: list[str]
    min_confidence: float
    trained_on_drawings: bool
    takes_whole_batches: bool

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Maps `[batch, size, size, channels]` to `[batch, 5]`: age, age_std, age_low, age_high, p_female.

        What the model doesn't state is NaN.
        """
        ...

    def shared_by_workers(self) -> AbstractContextManager[None]:
        """Surrounds the time in which several threads call it."""
        ...

    def start_worker(self) -> None:
        """Is called in each of these threads first."""
        ...
