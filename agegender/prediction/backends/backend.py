"""The interface of inference backends: PyTorch (`torch_backend.py`) and ONNX Runtime (`onnx_backend.py`)."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from agegender.tasks.info import TaskInfo

Tta = Literal["none", "flip"]


class Backend(Protocol):
    """An inference backend with a loaded network.

    Attributes:
        weights: Path of the weights file.
        image_size: Side of the input in pixels.
        grayscale: Whether the input has one channel instead of three.
        tasks: What the network predicts, in the order of the columns.
        trained_on_synthetic: Whether the training faces were drawn.
        prefers_large_batches: Whether one large batch is faster than small batches on all cores.
    """

    weights: Path
    image_size: int
    grayscale: bool
    tasks: tuple[TaskInfo, ...]
    trained_on_synthetic: bool
    prefers_large_batches: bool

    def __call__(self, pixels: NDArray[np.uint8]) -> dict[str, NDArray[np.float64]]:
        """Map uint8 `[batch, size, size, channels]` to the `columns` of all tasks by name, each `[batch]`.

        Columns that the model doesn't predict are NaN.
        """
        ...

    def worker_context(self) -> AbstractContextManager[None]:
        """Return a context in which several threads may call the network."""
        ...

    def init_worker(self) -> None:
        """Initialize a worker thread, before its first call of the network."""
        ...
