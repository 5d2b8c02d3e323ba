"""The interface of inference backends: PyTorch (`torch_network.py`) and ONNX Runtime (`onnx_network.py`)."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Tta = Literal["none", "flip"]


class Backend(Protocol):
    """An inference backend with a loaded network.

    Attributes:
        weights: Path of the weights file.
        image_size: Side of the input in pixels.
        grayscale: Whether the input has one channel instead of three.
        labels: Names of gender 0 and gender 1.
        min_confidence: Probability of the likelier gender below which the gender is `unsure`, chosen on validation.
        trained_on_synthetic: Whether the training faces were drawn.
        prefers_large_batches: Whether one large batch is faster than small batches on all cores.
    """

    weights: Path
    image_size: int
    grayscale: bool
    labels: list[str]
    min_confidence: float
    trained_on_synthetic: bool
    prefers_large_batches: bool

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Map uint8 `[batch, size, size, channels]` to `[batch, 5]`: age, age_std, age_low, age_high, p_female.

        Ages are in years. Columns that the model doesn't predict are NaN.
        """
        ...

    def worker_context(self) -> AbstractContextManager[None]:
        """Return a context in which several threads may call the network."""
        ...

    def init_worker(self) -> None:
        """Initialize a worker thread, before its first call of the network."""
        ...
