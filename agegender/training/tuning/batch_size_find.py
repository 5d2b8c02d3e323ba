"""Batch-size finder (`batch_size_find=true`): the largest power of two whose training steps fit the memory.

Lightning's Tuner saves and restores a checkpoint around its trials, on the Trainer of the training. Here each trial has
a Trainer of its own that writes nothing.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable

import lightning.pytorch as pl
import torch

from agegender.data.datamodule import AgeGenderDataModule
from agegender.errors import AgeGenderError
from agegender.training.fault_messages import is_out_of_memory
from agegender.training.module import AgeGenderModule

log = logging.getLogger(__name__)

TRIAL_STEPS = 2  # the optimizer allocates its state in the first one
LIMIT, CPU_LIMIT = 8192, 256  # a CPU raises no memory error: the system ends the process


def find_batch_size(
    make_trainer: Callable[[], pl.Trainer], module: AgeGenderModule, data: AgeGenderDataModule, command: str
) -> int:
    """Train on batches of 2, 4, 8, ... faces for two steps each, and log the largest batch size that fits.

    Args:
        make_trainer: Returns a new Trainer on one device that takes `TRIAL_STEPS` steps.
        module: The module, whose weights are trained by the trials.
        data: Data that is set up.
        command: The command of the training, which the batch size completes: `python train.py ... data.batch_size=`.

    Raises:
        AgeGenderError: Two faces don't fit the memory, or there are fewer.
    """
    faces, on_cpu = len(data.split("train")), data.device.type == "cpu"
    limit = CPU_LIMIT if on_cpu else LIMIT
    best, size = 0, 2
    reason = f"the limit on a {'CPU, which raises no memory error' if on_cpu else 'GPU'}"
    while size <= limit:
        if size > faces:
            reason = f"there are {faces:,} training faces"
            break
        if not _fits(make_trainer(), module, data, size):
            reason = f"{size:,} faces don't fit the memory"
            break
        best, size = size, 2 * size
    if not best:
        raise AgeGenderError(f"batch_size_find: {reason}: use a smaller model or data.image_size, or more images")
    log.info("suggested data.batch_size=%d (%s); now: %s%d", best, reason, command, best)
    return best


def _fits(trainer: pl.Trainer, module: AgeGenderModule, data: AgeGenderDataModule, size: int) -> bool:
    """Return whether two steps of this batch size fit the memory."""
    data.batch_size = size
    try:
        trainer.fit(module, data)
    except (RuntimeError, MemoryError) as error:  # torch.OutOfMemoryError is a RuntimeError
        if not is_out_of_memory(error):
            raise
        return False
    finally:
        module.zero_grad(set_to_none=True)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return True
