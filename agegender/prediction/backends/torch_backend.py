"""Inference backend for checkpoints: PyTorch on any device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from agegender.errors import AgeGenderError, require
from agegender.models.network import MultiTaskNet
from agegender.prediction.backends.backend import Tta
from agegender.runs.checkpoint import find_checkpoint, load_checkpoint
from agegender.tasks.number import set_thresholds


class TorchBackend:
    """The network of a checkpoint, run by PyTorch; see `backend.Backend`.

    Attributes:
        network: The module.
        split: Description of the training, validation and test split; empty if unknown.
    """

    def __init__(self, weights: str | Path, device: str = "auto", tta: Tta = "none", thresholds: Sequence[int] = ()):
        """Load a checkpoint; see `Predictor`."""
        self.weights, self.tta = find_checkpoint(weights), tta
        checkpoint = load_checkpoint(self.weights)
        self.device = _device(device)
        network = MultiTaskNet.from_checkpoint(checkpoint, self.weights)
        set_thresholds([task for _, task in network.each_task()], thresholds)
        self.network = network.eval().to(self.device).to(memory_format=torch.channels_last)
        self.split: dict[str, Any] = checkpoint["agegender"].get("split") or {}
        require(isinstance(self.split, dict), f"{self.weights} is damaged: its split is no mapping; use another")
        self.trained_on_synthetic = self.split.get("pictures") == "drawn"
        self.origin: str | None = checkpoint["agegender"].get("origin")
        self.tasks = network.infos
        self.image_size, self.grayscale = network.image_size, network.in_channels == 1
        self.prefers_large_batches = self.device.type != "cpu"

    def __call__(self, pixels: NDArray[np.uint8]) -> dict[str, NDArray[np.float64]]:
        """Run the network; see `backend.Backend`."""
        network = self.network
        with torch.inference_mode():
            images = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(self.device)
            columns = network.predict(network.forward_tta(images) if self.tta == "flip" else network(images))
            names = [name for info in self.tasks for name in info.columns]
            stacked = torch.stack([columns[name] for name in names]).cpu().numpy().astype(np.float64)
            return dict(zip(names, stacked, strict=True))

    @contextmanager
    def worker_context(self) -> Iterator[None]:
        """Restore the number of threads on exit; the workers' setting would apply to later threads."""
        threads = torch.get_num_threads()
        try:
            yield
        finally:
            torch.set_num_threads(threads)

    def init_worker(self) -> None:
        """Limit PyTorch to one thread in this worker: the other workers use the other cores."""
        torch.set_num_threads(1)


def _device(name: str) -> torch.device:
    if name == "auto":
        apple = "mps" if torch.backends.mps.is_available() else "cpu"
        return torch.device("cuda" if torch.cuda.is_available() else apple)
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # copy there and back: `meta` accepts data but can't return it
    except (
        RuntimeError,
        AssertionError,
        ImportError,
    ) as error:  # ImportError: devices such as hpu without their package
        reason = str(error).split("\n")[0][:120]
        raise AgeGenderError(f"device={name} can't be used here ({reason}); use device=auto or device=cpu") from None
    return device
