"""The predictions of one pass over a split, over all ranks."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from agegender.distributed.collectives import all_gather_cat


class PredictionBuffer:
    """The predictions of one pass over a split, collected on the device and moved to the CPU once, at the end."""

    def __init__(self) -> None:
        """Initialize without predictions."""
        self._batches: list[dict[str, Tensor]] = []

    def append(self, outputs: Any) -> None:
        """Add one step's predictions, each `[batch, ...]`; `row` holds the rows of the index."""
        self._batches.append(outputs)

    def pop_all(self) -> dict[str, np.ndarray[Any, Any]]:
        """Return the predictions of all ranks as arrays, sorted by row, and reset."""
        columns = {
            name: all_gather_cat(torch.cat([batch[name] for batch in self._batches])).cpu().numpy()
            for name in self._batches[0]
        }
        self._batches.clear()
        # If a batch is smaller than the number of devices, a row occurs twice (see `DistributedBatchSlicer`): keep one.
        rows, first = np.unique(columns["row"], return_index=True)
        return {name: column[first] for name, column in columns.items()} | {"row": rows}
