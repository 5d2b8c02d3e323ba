"""How a checkpoint gets onto the disk: whole or not at all, whatever kills the process or fills the disk."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.fabric.utilities.types import _PATH

from agegender.files import write_whole, writing


class WholeCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint under a temporary name in its own folder, waits for the disk, and renames it.

    Lightning's own way writes into the system's temporary folder first and moves the file from there. Where that is
    another disk, the move is a copy: a kill in its middle leaves half a checkpoint in place of the one before.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: _PATH, storage_options: Any = None) -> None:
        """Writes a checkpoint; until all of it is on the disk, the file keeps what it held.

        Raises:
            FaultError: It can't be written; says where and why.
        """
        buffer = io.BytesIO()  # PyTorch's writer hides the reason when a file takes no more
        torch.save(checkpoint, buffer)
        target = Path(path)
        with writing("the checkpoint", target), write_whole(target, durable=True) as file:
            file.write(buffer.getbuffer())
