"""Atomic writing of checkpoints, safe against a killed process and a full disk."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.fabric.utilities.types import _PATH

from agegender.system.files import atomic_write, raise_write_errors


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write checkpoints to a temporary file in the same folder, flush it to the disk, and rename it.

    Lightning writes to the system's temporary folder and moves the file from there. If that is on another disk, the
    move is a copy, and a process killed during it leaves half a checkpoint in place of the previous one.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: _PATH, storage_options: Any = None) -> None:
        """Write a checkpoint; the previous file stays until the new one is complete.

        Raises:
            FaultError: The file can't be written; the message names path and reason.
        """
        buffer = io.BytesIO()  # PyTorch's file writer hides the reason of a failure
        torch.save(checkpoint, buffer)
        target = Path(path)
        with raise_write_errors("the checkpoint", target), atomic_write(target, durable=True) as file:
            file.write(buffer.getbuffer())
